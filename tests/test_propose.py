"Proposed schemas: the threshold keeps its promise, votes have the stated sensitivity, nothing leaves but through the ledger, and bounds hold."
import copy, json, math, os, pickle, warnings
from datetime import date
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from pe_nb.accounting import Event, delta, epsilon
from pe_nb.discovery import (Ask, ProposalLedger, Search, Seen, ballots, category_threshold, day, grid, largest, log_tail, margin, names_seen, packed, split,
                           threshold_delta, unpacked, values, walk)
from pe_nb.propose import Proposal, ProposalFailed, combined_epsilon, outwards, plan, propose_schema, propose_schema_not_private
from pe_nb.release import Budget, BudgetExceeded, Ledger, SeededNoise, plan_events, reveal
from pe_nb.schema import Column, check_table

BUDGET = Budget(epsilon=1, delta=1e-6)
CLEAR = Budget(epsilon=1e4, delta=1e-6)       # hardly any noise: what is found is what is there


def law(s, width=80):
    z = np.arange(-width, width + 1)
    p = np.exp(-z.astype(float)**2/(2*s*s))
    return z, p/p.sum()


def seeded(df, columns, budget=CLEAR, seed=0, **kw): return propose_schema(df, columns, budget, noise=SeededNoise(seed), **kw)


def bounds(x, kind, dtype=None, **kw):
    c = seeded(pd.DataFrame({'x': pd.Series(x, dtype=dtype)}), {'x': dict(kind=kind, **kw)}).schema['x']
    return c.low, c.high


# ------------------------------------------------------------------ the threshold

@pytest.mark.parametrize('s', [.3, .7, 1.9, 2.1, 20., 300.])
def test_tail_is_the_exact_sum(s):
    "Against a sum over the whole line, in another order and with another cut."
    far = int(45*s) + 60
    for m in sorted({1, 2, max(1, int(s)), int(4*s) + 1, int(9*s) + 1}):
        top = math.fsum(math.exp(-x*x/(2*s*s)) for x in range(far, m - 1, -1))
        below = math.fsum(math.exp(-x*x/(2*s*s)) for x in range(-far, far + 1))
        if top < 1e-290: continue
        assert 0 <= log_tail(m, s) - math.log(top/below) < 1e-8


def test_tail_of_huge_noise_is_an_upper_bound():
    s = 1.3e5
    x = np.arange(0, int(12*s), dtype=float)
    p = np.exp(-x*x/(2*s*s))
    for m in (1, 10**5, 10**6):
        exact = math.log(p[m:].sum()/(2*p.sum() - 1))
        assert 0 <= log_tail(m, s) - exact < 1e-4
    assert math.isfinite(log_tail(2**52, 2.**50))


@settings(max_examples=60, deadline=None)
@given(st.floats(.05, 1e6), st.integers(1, 300), st.floats(1e-14, .3))
def test_threshold_is_the_smallest(s, k, d):
    t = category_threshold(s, k, d)
    assert t >= 2 and threshold_delta(t, s, k) <= d
    assert t == 2 or threshold_delta(t - 1, s, k) > d
    p = math.exp(log_tail(t - 1, s))
    assert threshold_delta(t, s, k) >= max(k*p, -math.expm1(k*math.log1p(-p)))         # at least the union bound


def shown(counts, count, s, t):
    "Law of what a reader sees of one name: entry 0 nothing, then each noisy count from t on."
    z, p = law(s)
    return np.concatenate([[p[z + count < t].sum()], [p[z + count == v].sum() for v in counts]])


CASES = [  # (names that both tables count: (with r, without r), names of r alone, names of r' alone)
    ([], 1, 0), ([], 2, 0), ([(4, 3)], 1, 0), ([(4, 3)], 0, 0), ([(1, 0)], 1, 0), ([], 1, 1), ([(3, 2), (2, 3)], 0, 0), ([(3, 4)], 1, 0), ([], 0, 2)]

@pytest.mark.parametrize('s', [.5, 1.2])
@pytest.mark.parametrize('both, mine, theirs', CASES)
def test_claim_by_enumeration(both, mine, theirs, s):
    """All outcomes of tiny tables: delta at every epsilon, both directions, is at most that of the events plus that of the threshold.
    A pair with a name of r' or a shared name that loses a vote differs by a replacement, the others by an addition."""
    replace = theirs > 0 or any(a < b for a, b in both)
    k, t = max(len(both) + mine, len(both) + theirs), 3
    seen = np.arange(t, 40)
    nothing = np.eye(1, len(seen) + 1)[0]
    P = Q = np.ones(1)
    for a, b in both: P, Q = np.outer(P, shown(seen, a, s, t)).ravel(), np.outer(Q, shown(seen, b, s, t)).ravel()
    for _ in range(mine): P, Q = np.outer(P, shown(seen, 1, s, t)).ravel(), np.outer(Q, nothing).ravel()
    for _ in range(theirs): P, Q = np.outer(P, nothing).ravel(), np.outer(Q, shown(seen, 1, s, t)).ravel()
    event = Event(noise_multiplier=s/math.sqrt(k), k=k, adjacency='replace_one' if replace else 'add_remove')
    assert math.isclose(event.scale, s)
    for e in (0, .01, .3, 1, 2, 4, 8):
        exact = max(np.maximum(P - math.exp(e)*Q, 0).sum(), np.maximum(Q - math.exp(e)*P, 0).sum())
        assert exact <= delta([event], e) + threshold_delta(t, s, k) + 1e-12
    if mine + theirs and s == .5: assert max(1 - P[Q > 0].sum(), 1 - Q[P > 0].sum()) > delta([event], 30)  # the part of the threshold is needed


def test_enumeration_can_fail():
    "A threshold that is one too low, with the delta of the higher one, is caught."
    s, t = .5, 4
    kept = shown(np.arange(t - 1, 40), 1, s, t - 1)
    assert 1 - kept[0] > threshold_delta(t, s, 1) + delta([Event(noise_multiplier=s)], 8)


def test_lone_names_pass_as_often_as_stated():
    "The worst neighbour: a record with a name of its own in each of k columns. How often is any of them released?"
    k, s, t, runs = 3, 2., 5, 4000
    budget = Budget(noise_multiplier=s/math.sqrt(k), delta=1e-6)
    events = plan_events(budget, [1], [k])
    others = {'a': 30}
    passed = 0
    for seed in range(runs):
        ledger = ProposalLedger(budget, events, noise=SeededNoise(seed), threshold=t)
        r = ledger.release(1, lambda: Seen([{**others, f'only {i}': 1} for i in range(k)]), 'categories')
        passed += any(f'only {i}' in kept for i, kept in enumerate(unpacked(r.values, k)))
    p = 1 - (1 - math.exp(log_tail(t - 1, s)))**k
    assert abs(passed/runs - p) < 5*math.sqrt(p*(1 - p)/runs) and p <= threshold_delta(t, s, k)


# ------------------------------------------------------------------ names through the ledger

def test_seen_tells_nothing():
    v = Seen([{'secret': 3}, {}])
    assert repr(v) == 'Seen(private)' and v._votes.k == 2 and reveal(v._votes, public_data=True).tolist() == [3]
    for leak in (pickle.dumps, np.asarray, list, copy.copy, copy.deepcopy, len):
        with pytest.raises(TypeError): leak(v)
    with pytest.raises(AttributeError): v._names = ()
    with pytest.raises(TypeError, match='must be Votes'): Ledger(BUDGET, plan_events(BUDGET, [1])).release(1, lambda: v)


def test_packed_names_come_back():
    odd = [(0, '', 5), (0, 'a"b\n', 7), (2, '🙂 مرحبا', 9), (2, 'nul\0', 2**40)]
    assert unpacked(packed(odd), 3) == [{'': 5, 'a"b\n': 7}, {}, {'🙂 مرحبا': 9, 'nul\0': 2**40}]
    assert packed(odd).dtype == np.int64 and not packed(odd).flags.writeable


def names_ledger(folder, **kw):
    b = Budget(noise_multiplier=3., delta=1e-6)
    return ProposalLedger(b, plan_events(b, [1]), folder, noise=SeededNoise(0), **{'threshold': 40, **kw})


def test_a_killed_release_of_names_is_finished_or_forgotten(tmp_path, monkeypatch):
    counts = [{'often': 900, 'rare and secret': 1, **{f'also rare {i}': 2 for i in range(30)}}]
    real = os.replace
    monkeypatch.setattr(os, 'replace', lambda *a: 1/0)
    with pytest.raises(ZeroDivisionError): names_ledger(tmp_path).release(1, lambda: Seen(counts), 'categories')
    monkeypatch.setattr(os, 'replace', real)
    assert not any(b'rare' in p.read_bytes() for p in tmp_path.iterdir())
    r = names_ledger(tmp_path).release(1, lambda: 1/0, 'categories')
    assert list(unpacked(r.values, 1)[0]) == ['often']


def test_plain_votes_for_names_are_refused_the_same_way(tmp_path):
    with pytest.raises(ValueError, match='k=2'): names_ledger(tmp_path).release(1, lambda: Seen([{'a': 3}, {'b': 3}]), 'categories')
    assert [p.name for p in tmp_path.glob('*.npz')] == []
    ledger = names_ledger(tmp_path)
    ledger.release(1, lambda: Seen([{}]), 'categories')
    assert ledger.statement()['delta'] == ledger.budget.delta + threshold_delta(40, 3., 1) and ledger.statement()['threshold_delta'] > 0
    with pytest.raises(ValueError, match='last of the plan'): ledger.release(2, lambda: Seen([{'a': 3}]), 'categories')
    with pytest.raises(ValueError, match='with a threshold'): names_ledger(None, threshold=None).release(1, lambda: Seen([{'a': 3}]), 'categories')


@pytest.mark.parametrize('s', [pd.Series(['a', 'b', 'a', None]), pd.Series(['a', 'b', 'a', None], dtype=object), pd.Series(['a', 'b', 'a', None]).astype('category'),
                               pd.Series(pd.Categorical(['a', 'b', 'a', None], categories=['a', 'b', 'never seen']))])
def test_names_seen(s): assert names_seen(s, Ask(name='x', kind='categorical')) == {'a': 2, 'b': 1}


@pytest.mark.parametrize('x', [[1, 2], ['a', 1], [b'a'], [['a']], [True], ['\ud800']])
def test_names_must_be_text(x):
    with pytest.raises(ValueError, match="column 'x' must"): names_seen(pd.Series(x, dtype=object), Ask(name='x', kind='categorical'))


# ------------------------------------------------------------------ the grid

ASKS = [Ask(name='x', kind='integer'), Ask(name='x', kind='integer', resolution=25), Ask(name='x', kind='integer', low=-3), Ask(name='x', kind='integer', high=10**18 + 1),
        Ask(name='x', kind='float'), Ask(name='x', kind='float', resolution=.25), Ask(name='x', kind='float', low=0), Ask(name='x', kind='float', high=-1.5),
        Ask(name='x', kind='date'), Ask(name='x', kind='date', low='2001-02-03'), Ask(name='x', kind='date', high='1066-10-14')]

def cell_of(x, edges):
    "The slow and obvious way, in exact arithmetic; an edge of floats is the float that is written like it."
    v, f = Fraction(x), lambda e: Fraction(float(e) if isinstance(e, Decimal) else e)
    at = [i for i, (a, b) in enumerate(zip(edges, edges[1:])) if (a == -Decimal('Infinity') or v >= f(a)) and (b == Decimal('Infinity') or v < f(b))]
    assert len(at) == 1
    return at[0]


@pytest.mark.parametrize('a', ASKS, ids=str)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_value_has_one_cell(a, data):
    "Whatever the value and the digit: one vote, in the cell that exact arithmetic names."
    small, big = {'integer': (-2**63, 2**63 - 1), 'float': (-1.7e308, 1.7e308), 'date': (day(1), day(9999, 12, 31))}[a.kind]
    one = st.integers(small, big) | st.integers(-10**6, 10**6) if a.kind != 'float' else st.floats(allow_nan=False, allow_infinity=False)
    edges, dtype = grid(a), np.float64 if a.kind == 'float' else np.int64
    assert edges == sorted(set(edges)) and len(edges) <= 65
    x = data.draw(one)
    if a.kind == 'date': x = min(max(x, small), big)
    s = pd.Series([x], dtype=dtype) if a.kind != 'date' else pd.Series([date.fromordinal(x + date(1970, 1, 1).toordinal())], dtype=object)
    v = values(s, a)
    assert len(v) == 1
    for _ in range(4):
        i = cell_of(v[0].item(), edges)
        assert ballots(v, a, edges).tolist() == [int(j == i) for j in range(len(edges) - 1)]
        cell = edges[i], edges[i + 1]
        edges = split(a, *cell)
        assert edges[0] == cell[0] and edges[-1] == cell[1] and edges == sorted(set(edges)) and len(edges) <= 32


@pytest.mark.parametrize('a, b', [(10, 20), (-2**63, -10**18), (10**18, 2**63), (0, 1), (17, 100), (-100, -10)])
def test_votes_outside_the_cells_are_not_cast(a, b):
    i = Ask(name='x', kind='integer')
    near = np.array([v for v in (a - 1, a, b - 1, b, 0, -2**63, 2**63 - 1) if -2**63 <= v < 2**63], np.int64)
    assert ballots(near, i, split(i, a, b)).sum() == sum(a <= int(v) < b for v in near)


def test_numbers_stay_exact():
    a = Ask(name='x', kind='integer')
    v = values(pd.Series([2**64 - 1, 2**63, 2**53 + 1], dtype='uint64'), a)
    assert v.dtype == np.int64 and v.tolist() == [2**63 - 1, 2**63 - 1, 2**53 + 1]
    assert values(pd.Series([5, 200, -7], dtype='int64'), Ask(name='x', kind='integer', low=0)).tolist() == [5, 200, 0]
    f = Ask(name='x', kind='float')
    assert values(pd.Series([np.inf, -np.inf, np.nan, 1.]), f).tolist() == [1.]
    assert largest(f, Decimal('Infinity')) == np.finfo(float).max


# ------------------------------------------------------------------ sensitivity

@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(-5000, 5000), st.floats(-1e9, 1e9), st.sampled_from('abcdef')), min_size=2, max_size=30), st.integers(0, 29), st.integers(0, 5))
def test_one_record_moves_one_bin_per_column(rows, who, seed):
    "In every release of numbers, and among names, with the segments that a real search went through."
    df = pd.DataFrame(rows, columns=['i', 'f', 'c'])
    who %= len(df)
    asks = [Ask(name='i', kind='integer'), Ask(name='f', kind='float')]
    searches = [Search(a) for a in asks]
    rng = np.random.default_rng(seed)
    for _ in range(4):
        moved = 0
        for s in searches:
            for edges, _ in s.segments():
                change = ballots(values(df[s.ask.name], s.ask), s.ask, edges) - ballots(values(df[s.ask.name].drop(who), s.ask), s.ask, edges)
                assert ((change == 0) | (change == 1)).all()
                moved += change.sum()
            assert moved <= 1 + (s is searches[1])
            s.update([ballots(values(df[s.ask.name], s.ask), s.ask, e) + rng.integers(0, 2, len(e) - 1) for e, _ in s.segments()], .2, 4., .0)
    full, less = (names_seen(d.c, Ask(name='c', kind='categorical')) for d in (df, df.drop(who)))
    assert sum(full[x] - less.get(x, 0) for x in full) == 1 and set(less) <= set(full)


def test_the_votes_are_paid_for():
    "What the releases cost is what the columns are: k is the number of columns read in each."
    df = pd.DataFrame(dict(a=np.arange(500) % 50, b=np.arange(500.), c=['x']*500, d=['y']*500, e=['z']*500, g=[True]*500))
    p = seeded(df, dict(a='integer', b='float', c='categorical', d='categorical', e='categorical', g='boolean'), Budget(epsilon=5, delta=1e-5), digits=1)
    assert [e.k for e in p.events] == [2, 2, 3] and len({round(e.scale, 9) for e in p.events}) == 1
    s = p.statement
    assert s['mechanism_delta'] + s['threshold_delta'] <= s['delta'] == 1e-5
    assert s['epsilon'] == pytest.approx(epsilon(p.events, s['mechanism_delta'])) and s['epsilon'] <= 5
    assert s['threshold_delta'] == threshold_delta(category_threshold(p.events[0].scale, 3, 5e-6*(1 - 1e-9)), p.events[0].scale, 3)
    none = seeded(df, dict(a=Column('a', 'integer', low=0, high=49), g='boolean'))
    assert none.releases == () and none.statement['epsilon'] == 0 and none.notes == {}
    numbers = seeded(df, dict(a='integer', g='boolean'))
    assert numbers.statement['threshold_delta'] == 0 and numbers.statement['mechanism_delta'] == CLEAR.delta


def test_votes_that_a_plan_does_not_pay_for_are_refused(monkeypatch):
    "A plan for fewer columns than are read: the ledger sees it in the votes."
    import pe_nb.propose as module
    df, real = pd.DataFrame(dict(a=[1]*500, b=[2]*500, c=['x']*500, d=['y']*500)), plan
    for short, what in ((lambda b, n, c, *a: real(b, n - 1, c, *a), dict(a='integer', b='integer')), (lambda b, n, c, *a: real(b, n, c - 1, *a), dict(c='categorical', d='categorical'))):
        monkeypatch.setattr(module, 'plan', short)
        with pytest.raises(BudgetExceeded, match='k=2'): seeded(df, what)


@pytest.mark.parametrize('adjacency', ['add_remove', 'replace_one'])
@pytest.mark.parametrize('kind', [dict(epsilon=.7), dict(noise_multiplier=6.)])
def test_plan_stays_within_the_budget(adjacency, kind):
    b = Budget(delta=1e-7, adjacency=adjacency, **kind)
    inner, events, t = plan(b, 5, 3, 2, .25)
    d = threshold_delta(t, events[-1].scale, 3)
    assert inner.delta + d <= b.delta and [e.k for e in events] == [5, 5, 5, 3] and len({round(e.scale, 9) for e in events}) == 1
    if b.epsilon: assert epsilon(events, inner.delta) <= b.epsilon
    else: assert events[0].noise_multiplier == 6.


# ------------------------------------------------------------------ the walk

def slow_walk(y, s, L, allowed):
    for i in range(len(y)):
        passed = sum(y[:i + 1]) + s*math.sqrt(2*(i + 1)*L)
        if passed <= allowed: continue
        w = 1
        while w <= i + 1:
            if sum(y[i + 1 - w:i + 1]) > s*math.sqrt(2*w*L): return i + 1 - w
            w *= 2
    return None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-40, 120), max_size=30), st.floats(.5, 30), st.floats(1, 12), st.floats(-50, 200))
def test_walk_is_the_slow_walk(y, s, L, allowed):
    got = walk(np.array(y, np.int64), s, L, allowed)
    assert (got and got[0]) == slow_walk(y, s, L, allowed)


@pytest.mark.parametrize('s', [.4, 3.])
@pytest.mark.parametrize('cells', [1, 2, 8])
def test_margin_bounds_the_noise(s, cells):
    "P(sum of the noises >= margin) <= exp(-L), by exact convolution."
    p = one = law(s, 60)[1]
    for _ in range(cells - 1): p = np.convolve(p, one)
    z = np.arange(len(p)) - len(p)//2
    for L in (.5, 2, 5, 9): assert p[z >= margin(cells, s, L)].sum() <= math.exp(-L)


def test_the_notes_hold():
    "Over tables, sizes and noise: what is clipped stays below what the notes say, all columns at once, in at least 95 % of the runs."
    held, tight = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n = int(10**rng.uniform(2.5, 4.5))
        df = pd.DataFrame(dict(age=rng.normal(40, 15, n).astype(int), money=rng.lognormal(8, 2, n), lost=rng.standard_cauchy(n)*100, two=rng.integers(0, 2, n)))
        df['d'] = (pd.Timestamp('2010-01-01') + pd.to_timedelta(rng.exponential(700, n).astype(int), 'D')).astype('datetime64[s]')
        try: p = seeded(df, dict(age='integer', money='float', lost='float', two='integer', d='date'), Budget(epsilon=.5, delta=1e-6), seed)
        except ProposalFailed as e: p = e.proposal
        shares = {}
        for name, c in p.found.items():
            if c is None: continue
            x = df[name].dt.strftime('%Y-%m-%d') if name == 'd' else df[name]
            shares[name] = (float((x < c.low).mean()), float((x > c.high).mean()))
        held.append(all(a <= p.notes[k]['below'] and b <= p.notes[k]['above'] for k, (a, b) in shares.items()))
        tight += [max(v) for v in shares.values()] if n > 10_000 else []
    assert np.mean(held) >= .95 and tight and np.median(tight) < .02 and max(tight) < .15


def test_nothing_to_see_gives_no_bounds():
    "Pure noise passes for data with a chance of at most beta."
    found = 0
    for seed in range(100):
        try: seeded(pd.DataFrame(dict(a=np.zeros(0, int), b=np.zeros(0))), dict(a='integer', b='float'), BUDGET, seed)
        except ProposalFailed as e: assert e.proposal.missing == ('a', 'b')
        else: found += 1
    assert found <= 5


def test_outliers_do_not_stretch_the_range():
    "One in ten thousand, below alpha: cut off although it is seen. Above alpha: kept."
    x = np.r_[np.random.default_rng(0).integers(10, 90, 1_000_000), np.full(100, 10**9)]
    assert seeded(pd.DataFrame(dict(x=x)), dict(x='integer'), Budget(epsilon=1, delta=1e-6)).schema['x'].high < 100
    assert seeded(pd.DataFrame(dict(x=x)), dict(x='integer'), Budget(epsilon=1, delta=1e-6), alpha=0.).schema['x'].high >= 10**9


# ------------------------------------------------------------------ what is found when there is hardly any noise

@pytest.mark.parametrize('x, kind, dtype, expected', [
    ([0, 1]*50, 'integer', None, (0, 1)), ([7]*100, 'integer', None, (7, 7)), ([17, 90]*50, 'integer', None, (17, 90)), ([-5]*100, 'integer', None, (-5, -5)),
    ([-123, 456]*50, 'integer', None, (-130, 459)), ([2**63 - 1]*100, 'integer', None, (92 * 10**17, 2**63 - 1)), ([-2**63]*100, 'integer', None, (-2**63, -92*10**17 - 1)),
    ([2**64 - 1]*100, 'integer', 'uint64', (92 * 10**17, 2**63 - 1)), ([1990, 2020]*50, 'integer', None, (1900, 2099)),
    ([0.]*100, 'float', None, (0., 0.)), ([.137, .982]*50, 'float', None, (.13, .99)), ([-1e300, 1e300]*50, 'float', None, None), ([1, 5]*50, 'float', None, (1., 5.1)),
    ([np.inf, -np.inf, 3.]*50, 'float', None, (3., 3.1)), ([5, None]*50, 'integer', 'Int64', (5, 5)), ([1e-9, 2e-9]*50, 'float', None, (0., 1e-6)),
    ([date(2019, 5, 7)]*100, 'date', object, ('2019-05-01', '2019-05-31')), (['2019-05-07', '2020-02-29']*50, 'date', None, ('2019-05-01', '2020-02-29')),
    ([date(1, 1, 1), date(9999, 12, 31)]*50, 'date', object, ('0001-01-01', '9999-12-31'))])
def test_bounds_found(x, kind, dtype, expected):
    low, high = bounds(x, kind, dtype)
    if expected: assert (low, high) == expected
    v = pd.Series(x, dtype=dtype).dropna()
    if kind == 'date': v = v.map(str)
    v = [a for a in v if not isinstance(a, float) or math.isfinite(a)]
    if dtype != 'uint64': assert low <= min(v) and max(v) <= high


def test_known_bounds_are_kept_and_help():
    x = pd.DataFrame(dict(x=[3, 40]*100))
    assert seeded(x, dict(x=dict(kind='integer', low=0))).schema['x'] == Column('x', 'integer', low=0, high=40)
    assert seeded(x, dict(x=dict(kind='integer', high=99, nullable=True))).schema['x'] == Column('x', 'integer', low=3, high=99, nullable=True)
    assert seeded(x.astype(float), dict(x=dict(kind='float', low=5))).schema['x'].low == 5.
    assert seeded(x, dict(x=dict(kind='integer', low=0, high=9))).releases == ()
    assert seeded(x, dict(x=dict(kind='integer', resolution=5))).schema['x'] == Column('x', 'integer', low=1, high=44)
    assert 'below' not in seeded(x, dict(x=dict(kind='integer', low=0))).notes['x']


def test_digits_refine():
    x = pd.DataFrame(dict(x=[1234]*200))
    assert [(c.low, c.high) for c in (seeded(x, dict(x='integer'), digits=d).schema['x'] for d in range(5))] == [(1000, 9999), (1000, 1999), (1200, 1299), (1230, 1239), (1234, 1234)]


def test_a_schema_that_a_table_fits():
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(i=rng.integers(-9, 9, 300), f=rng.random(300), c=rng.choice(['b', 'a'], 300), d=['2020-01-01', '2021-12-31']*150, t=[True, False]*150, y=['n', 'p', 'q']*100))
    df.loc[0, 'c'] = None
    p = seeded(df, dict(i='integer', f=dict(kind='float', low=0, high=1), c=dict(kind='categorical', nullable=True), d='date', t='boolean', y='categorical'), labels=['y'])
    assert p.schema.names == ('i', 'f', 'c', 'd', 't') and p.schema.label_names == ('n', 'p', 'q') and p.schema['c'].categories == ('a', 'b')
    assert len(check_table(df, p.schema)) == 300 and set(p.notes['y']['counts']) == {'n', 'p', 'q'}
    assert seeded(df.assign(w=df.y), dict(i='integer', y='categorical', w=Column('w', 'categorical', ('n', 'p', 'q'))), labels=['w', 'y']).schema.label_columns == ('w', 'y')
    assert 'private' not in repr(p).lower().replace('differential privacy', '') and p.frame().shape[0] == 6


# ------------------------------------------------------------------ ledger, noise, privacy of the rest

def test_default_noise_is_secure():
    p = propose_schema(pd.DataFrame(dict(x=[5]*400, c=['a']*400)), dict(x='integer', c='categorical'), Budget(epsilon=5, delta=1e-5))
    assert p.statement['for_release'] and 'cryptographic' in p.text and p.schema['c'].categories == ('a',)
    assert all(r.secure for r in p.releases)


def test_releases_are_on_disk_before_they_are_used(tmp_path, monkeypatch):
    df = pd.DataFrame(dict(x=np.arange(1000) % 90, c=['a', 'b']*500))
    what = dict(x='integer', c='categorical')
    on_disk, real = [], Search.update
    monkeypatch.setattr(Search, 'update', lambda self, *a: (on_disk.append(len(list(tmp_path.glob('*.npz')))), real(self, *a)) and None)
    first = seeded(df, what, BUDGET, folder=tmp_path)
    assert on_disk == [1, 2, 3] and len(list(tmp_path.glob('*.npz'))) == 4
    monkeypatch.setattr(Search, 'update', real)
    other = pd.DataFrame(dict(x=[-7], c=['zzz']))                                   # the ledger answers, not the data
    assert seeded(other, what, BUDGET, folder=tmp_path).schema == first.schema
    for change in (dict(digits=1), dict(beta=.01), dict(alpha=.01), dict(labels='c'), dict(budget=Budget(epsilon=2, delta=1e-6))):
        with pytest.raises(ValueError, match='settings differ'): seeded(df, what, **{'budget': BUDGET, **change}, folder=tmp_path)
    with pytest.raises(ValueError, match='settings differ'): seeded(df, {**what, 'x': dict(kind='integer', nullable=True)}, BUDGET, folder=tmp_path)


def test_a_broken_proposal_goes_on(tmp_path, monkeypatch):
    df, what = pd.DataFrame(dict(x=np.arange(1000) % 90, c=['a', 'b']*500)), dict(x='integer', c='categorical')
    whole = seeded(df, what, BUDGET)
    calls, real = [], Search.update
    monkeypatch.setattr(Search, 'update', lambda self, *a: 1/0 if len(calls) == 1 else calls.append(real(self, *a)))
    with pytest.raises(ZeroDivisionError): seeded(df, what, BUDGET, folder=tmp_path)
    monkeypatch.setattr(Search, 'update', real)
    assert [r.values.tolist() for r in seeded(df, what, BUDGET, folder=tmp_path).releases] == [r.values.tolist() for r in whole.releases]


def test_other_columns_are_not_read():
    df = pd.DataFrame(dict(x=[5]*300, secret=[[object()]]*300))
    assert seeded(df, dict(x='integer')).schema.names == ('x',)


def test_rare_names_are_not_found():
    df = pd.DataFrame(dict(c=['often']*3000 + [f'secret {i}' for i in range(500)]))
    for seed in range(5): assert seeded(df, dict(c='categorical'), BUDGET, seed).schema['c'].categories == ('often',)


# ------------------------------------------------------------------ bad input

GOOD = pd.DataFrame(dict(x=[5]*300, c=['a']*300))

@pytest.mark.parametrize('change, rule', [
    (dict(df=None), 'must be a pandas DataFrame'), (dict(df=pd.DataFrame([[1, 2]], columns=['x', 'x'])), 'different names'), (dict(df=GOOD[['x']]), r"must have the columns \['c'\]"),
    (dict(columns=['x']), 'must be a dict'), (dict(columns={}), 'must be a dict'), (dict(columns=dict(x='number')), "kind \\('number'\\)"), (dict(columns=dict(c='ordinal')), 'does not show their order'),
    (dict(columns=dict(x=5)), 'must be a kind, a Column'), (dict(columns=dict(x=dict(kind='integer', lo=3))), 'no other key'), (dict(columns=dict(x=Column('y', 'boolean'))), 'by its own name'),
    (dict(columns=dict(x=dict(kind='integer', nullable=1))), 'nullable'), (dict(columns=dict(x=dict(kind='integer', low='a'))), 'low'), (dict(columns=dict(c=dict(kind='categorical', low=1))), 'left out'),
    (dict(columns=dict(x=dict(kind='integer', resolution=0))), 'resolution'), (dict(columns=dict(x=dict(kind='integer', resolution=.5))), 'resolution'), (dict(columns=dict(x=dict(kind='float', resolution=np.nan))), 'resolution'),
    (dict(columns=dict(c=dict(kind='date', resolution=1))), 'resolution'), (dict(columns=dict(x=dict(kind='integer', low=5, high=2))), 'low'),
    (dict(labels='q'), 'labels'), (dict(labels='x'), 'labels'), (dict(columns=dict(x='integer', c=dict(kind='categorical', nullable=True)), labels='c'), 'labels'), (dict(columns=dict(c='categorical'), labels='c'), 'no label'),
    (dict(budget=1.), 'budget'), (dict(budget=Budget(epsilon=1, delta=1e-6, unit='client')), "unit 'record'"), (dict(budget=Budget(epsilon=math.inf, delta=1e-6, non_private=True)), 'not_private'),
    (dict(digits=-1), 'digits'), (dict(digits=True), 'digits'), (dict(alpha=.5), 'alpha'), (dict(alpha=-.1), 'alpha'), (dict(beta=0), 'beta'), (dict(threshold_share=1), 'threshold_share'),
    (dict(columns=dict(c='integer')), 'integer dtype'), (dict(df=GOOD.astype(dict(x=float))), 'integer dtype'), (dict(columns=dict(x='categorical')), 'must hold str'), (dict(columns=dict(x='date')), 'whole days')])
def test_bad_input_is_refused_before_anything_is_read(change, rule, tmp_path):
    args = {**dict(df=GOOD, columns=dict(x='integer', c='categorical'), budget=BUDGET, folder=tmp_path), **change}
    df, columns, budget = (args.pop(k) for k in ('df', 'columns', 'budget'))
    with pytest.raises(ValueError, match=rule): propose_schema(df, columns, budget, noise=SeededNoise(0), **args)
    assert list(tmp_path.glob('*.npz')) == []


@pytest.mark.parametrize('df', [GOOD.head(0), GOOD.head(1), pd.DataFrame(dict(x=pd.array([None]*50, 'Int64'), c=pd.Series([None]*50, dtype=object)))], ids=['empty', 'one row', 'all missing'])
def test_too_little_data_is_a_clear_error(df, tmp_path):
    known = dict(x='integer', c='categorical', b=Column('b', 'boolean'))
    with pytest.raises(ProposalFailed, match=r"columns \('x', 'c'\) must be given.*Spent: \(1, 1e-06\)") as e: seeded(df.assign(b=True), known, BUDGET, folder=tmp_path)
    p = e.value.proposal
    assert p.missing == ('x', 'c') and p.found['b'].kind == 'boolean' and len(p.releases) == len(list(tmp_path.glob('*.npz'))) == 4 and p.statement['epsilon'] <= 1
    assert p.complete(Column('x', 'integer', low=0, high=9), drop=['c']).names == ('x', 'b')
    assert p.frame().shape[0] == 3 and 'without a domain' in repr(p)
    with pytest.raises(ProposalFailed, match="'c'"): p.complete(Column('x', 'integer', low=0, high=9))


def test_part_of_a_proposal_is_kept():
    "Enough rows for the number, too few for any name."
    df = pd.DataFrame(dict(x=[5]*3000, c=[f'name {i}' for i in range(3000)]))
    with pytest.raises(ProposalFailed) as e: seeded(df, dict(x='integer', c='categorical'), BUDGET)
    assert e.value.proposal.found['x'] == Column('x', 'integer', low=5, high=5) and e.value.proposal.found['c'] is None and e.value.proposal.notes['c'] == dict(counts={})


def test_a_hundred_thousand_categories():
    names = [f'{i:06d}' for i in range(100_000)]
    p = seeded(pd.DataFrame(dict(c=names*3 + names[:5]*1000, x=1)), dict(c='categorical', x='integer'), Budget(epsilon=1, delta=1e-6))
    assert p.schema['c'].categories == tuple(names[:5])
    assert len(seeded(pd.DataFrame(dict(c=names*30)), dict(c='categorical')).schema['c'].categories) == 100_000


def test_two_hundred_columns():
    rng = np.random.default_rng(0)
    df = pd.DataFrame({**{f'n{i}': rng.integers(0, 100, 2000) for i in range(100)}, **{f'c{i}': rng.choice(['a', 'b'], 2000) for i in range(100)}})
    p = seeded(df, {name: 'integer' if name[0] == 'n' else 'categorical' for name in df}, Budget(epsilon=20, delta=1e-6))
    assert len(p.schema.columns) == 200 and [e.k for e in p.events] == [100]*4 and p.statement['epsilon'] <= 20


# ------------------------------------------------------------------ together with a run

def test_combined_epsilon():
    df = pd.DataFrame(dict(x=np.arange(2000) % 90, c=['a', 'b']*1000))
    p = seeded(df, dict(x='integer', c='categorical'), Budget(epsilon=.5, delta=1e-6))
    run = plan_events(Budget(epsilon=.5, delta=1e-6), [1]*5)
    both = combined_epsilon(p, run, delta=2e-6)
    assert .5 < both <= 1 and both == combined_epsilon(Ledger(Budget(epsilon=.5, delta=1e-6), run), p, delta=2e-6)
    assert both == pytest.approx(epsilon((*p.events, *run), 2e-6 - p.statement['threshold_delta']), rel=1e-9)
    assert combined_epsilon(p, delta=1e-6) <= p.statement['epsilon'] <= .5             # the threshold costs a hair less than it may
    assert combined_epsilon(run, delta=1e-6) == pytest.approx(epsilon(run, 1e-6)) and combined_epsilon(delta=1e-6) == 0
    assert combined_epsilon(p, p, run, delta=4e-6) > combined_epsilon(p, run, delta=4e-6)
    with pytest.raises(ValueError, match='above what the thresholds cost'): combined_epsilon(p, run, delta=p.statement['threshold_delta'])
    with pytest.raises(ValueError, match='one adjacency'): combined_epsilon(p, [Event(noise_multiplier=3, adjacency='replace_one')], delta=1e-6)
    with pytest.raises(ValueError, match="unit 'record'"): combined_epsilon(p, [Event(noise_multiplier=3, grid=256)], delta=1e-6)
    with pytest.raises(ValueError, match='sequences of Event'): combined_epsilon(p, ['x'], delta=1e-6)


# ------------------------------------------------------------------ not private

def loud(df, **kw):
    with pytest.warns(UserWarning, match='outside the differential privacy guarantee'): return propose_schema_not_private(df, **kw)


def test_not_private_says_so_and_fits():
    df = pd.DataFrame(dict(i=[17, 90, 33], f=[.137, np.nan, .982], d=pd.to_datetime(['2015-03-01', '2020-08-20', None]), c=['b', 'a', None], t=[True, False, True], y=['q', 'p', 'q']))
    df['o'] = pd.Categorical(['low', 'high', 'low'], categories=['low', 'mid', 'high'], ordered=True)
    p = loud(df, labels='y')
    assert p.private and 'NOT PRIVATE' in repr(p) and p.statement is None and combined_epsilon(p, delta=1e-6) == math.inf
    s = p.schema
    assert s['i'] == Column('i', 'integer', low=10, high=90) and s['f'] == Column('f', 'float', low=.1, high=1., nullable=True)
    assert s['d'] == Column('d', 'date', low='2015-01-01', high='2020-12-31', nullable=True) and s['c'] == Column('c', 'categorical', ('a', 'b'), nullable=True)
    assert s['o'].categories == ('low', 'mid', 'high') and s['o'].kind == 'ordinal' and s['t'].kind == 'boolean' and s.label_names == ('p', 'q')
    assert len(check_table(df, s)) == 3
    assert loud(df[['c', 'i']], columns=dict(c=Column('c', 'categorical', ('z',)))).schema['c'].categories == ('z',)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5), st.lists(st.integers(-2**63, 2**63 - 1), min_size=1, max_size=5))
def test_outwards_holds_everything(f, i):
    for x, kind in ((f, 'float'), (i, 'integer')):
        low, high = outwards(min(x), max(x), kind)
        assert low <= min(x) and max(x) <= high
        Column('x', kind, low=low, high=high)


@pytest.mark.parametrize('df, rule', [(pd.DataFrame(), 'different names'), (None, 'DataFrame'), (pd.DataFrame(dict(x=[1, 2])).head(0), "column 'x' must have a finite value"), (pd.DataFrame(dict(x=[np.inf])), 'finite value'),
                                      (pd.DataFrame(dict(x=[None])), 'not missing'), (pd.DataFrame(dict(x=[1, 'a'])), 'must hold str'), (pd.DataFrame(dict(x=pd.to_datetime(['2020-01-01 12:00']))), 'whole days')])
def test_not_private_bad_input(df, rule):
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=rule): propose_schema_not_private(df)


def test_not_private_labels():
    df = pd.DataFrame(dict(x=[1, 2], y=['a', None]))
    for labels, rule in (('y', 'without missing values'), ('x', 'with categories'), ('z', 'must have the columns'), (['x', 'y'], 'no label')):
        with pytest.warns(UserWarning), pytest.raises(ValueError, match=rule): propose_schema_not_private(df, labels=labels)


def test_the_two_ways_cannot_be_mixed_up():
    with warnings.catch_warnings():
        warnings.simplefilter('error')                                              # the charged way is silent
        p = seeded(GOOD, dict(x='integer', c='categorical'))
    assert not p.private and isinstance(p, Proposal) and 'NOT PRIVATE' not in repr(p)
    json.dumps(p.schema.to_dict())
