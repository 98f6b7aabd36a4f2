"Baselines: bins from the schema alone, there and back, the budget handed on as it is, and real runs where the package is installed."
import importlib.util, json, math, sys
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from pe_nb.data import baselines as B
from pe_nb.data.baselines import attributes, bin_bounds, decode, drawn, encode, marginals, rho_of
from pe_nb.generators.tables import Tables
from pe_nb.records import Column, Records, Schema
from pe_nb.schema import KINDS, column_arrays

rng = lambda s=0: np.random.default_rng(s)
I64 = st.integers(-2**63, 2**63 - 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
BINS = st.integers(1, 40)


@st.composite
def numbers(draw, name='x', nullable=st.just(False)):
    "A column with bounds, from one value to all that 64 bits hold."
    kind = draw(st.sampled_from(('integer', 'float', 'date')))
    one = st.dates() if kind == 'date' else st.integers(-20, 20) | I64 if kind == 'integer' else st.floats(-3, 3) | FINITE
    low, high = sorted((draw(one), draw(one)))
    if kind == 'float' and abs(low) < 1e300 and draw(st.booleans()): high = float(np.nextafter(low, np.inf))  # a range of two floats
    return Column(name, kind, low=low, high=high, nullable=draw(nullable))


@st.composite
def columns(draw, name):
    if draw(st.booleans()): return draw(numbers(name, st.booleans()))
    kind, nullable = draw(st.sampled_from(KINDS[:3])), draw(st.booleans())
    return Column(name, kind, () if kind == 'boolean' else tuple(draw(st.lists(st.sampled_from(['a', 'nan', '', 'ä', '1']), min_size=1, unique=True))), nullable=nullable)


@st.composite
def schemas(draw):
    features = [draw(columns(f'c{i}')) for i in range(draw(st.integers(1, 5)))]
    labels = [Column('l0', 'categorical', ('u', 'v', 'w')), Column('l1', 'boolean')][:draw(st.integers(0, 2))]
    return Schema(tuple(features), tuple(labels))


def random_rows(schema, n, seed):
    names = schema.label_names or ('a', 'b', 'c')
    return Tables(schema, names).random(rng(seed).integers(0, len(names), n), rng(seed))


# ---- bins ----

@given(numbers(), BINS)
@settings(deadline=None, max_examples=150)
def test_bins_cover_the_range_once(c, bins):
    first, last = bin_bounds(c, bins)
    low, high = c.bounds
    assert first[0] == low and last[-1] == high and 1 <= len(first) == len(last) <= bins
    assert (first <= last).all() and (last[:-1] < first[1:]).all()
    if c.kind == 'float': assert np.array_equal(np.nextafter(last[:-1], np.inf), first[1:])
    else:
        a, b = [int(v) for v in first], [int(v) for v in last]
        width = [y - x + 1 for x, y in zip(a, b)]
        assert all(y + 1 == x for x, y in zip(a[1:], b)) and sum(width) == high - low + 1
        assert len(width) == min(bins, high - low + 1) and max(width) - min(width) <= 1


@given(numbers(), BINS, st.integers(0, 99))
@settings(deadline=None, max_examples=100)
def test_what_is_drawn_lies_in_its_bin(c, bins, seed):
    first, last = bin_bounds(c, bins)
    k = rng(seed).integers(0, len(first), 50)
    v = drawn(k, c, bins, rng(seed))
    inside = (first[None] <= v[:, None]) & (v[:, None] <= last[None])
    assert np.array_equal(inside.argmax(1), k) and (inside.sum(1) == 1).all()


def test_draws_are_uniform_within_a_bin():
    c, k = Column('i', 'integer', low=0, high=11), np.ones(30_000, np.int64)
    counts = np.bincount(drawn(k, c, 3, rng()), minlength=12)
    assert counts[:4].sum() == counts[8:].sum() == 0
    assert ((counts[4:8] - 7500)**2/7500).sum() < 21  # chi-square with 3 degrees of freedom, p below .0001
    x = drawn(k, Column('f', 'float', low=-1., high=3.), 4, rng())
    assert abs(x.mean() - .5) < 5*math.sqrt(1/12/30_000) and abs(x.var() - 1/12) < .002


def test_equal_width_in_plain_numbers():
    assert bin_bounds(Column('f', 'float', low=0., high=10.), 4)[0].tolist() == [0, 2.5, 5, 7.5]
    assert [x.tolist() for x in bin_bounds(Column('i', 'integer', low=1, high=3), 32)] == [[1, 2, 3]]*2
    day = Column('d', 'date', low=date(1970, 1, 1), high=date(1970, 1, 10))
    assert [x.tolist() for x in bin_bounds(day, 2)] == [[0, 5], [4, 9]]


def test_bins_that_start_where_they_are_told_to():
    bins = dict(i=[1, 5], f=(0., .5), d=['1970-01-03', date(1970, 1, 5)])
    cols = Column('i', 'integer', low=0, high=9), Column('f', 'float', low=-1., high=1.), Column('d', 'date', low='1970-01-01', high='1970-01-06')
    first, last = zip(*(bin_bounds(c, B.bins_for(c, bins)) for c in cols))
    assert [x.tolist() for x in first] == [[0, 1, 5], [-1, 0, .5], [0, 2, 4]]
    assert [x.tolist() for x in last] == [[0, 4, 9], [-5e-324, math.nextafter(.5, 0), 1], [1, 3, 5]]
    schema = Schema(cols)
    r = Records.table(pd.DataFrame(dict(i=[0, 1, 4, 5], f=[-1., 0., .5, .49], d=['1970-01-02', '1970-01-03', '1970-01-04', '1970-01-06'])), schema)
    assert encode(r, bins).tolist() == [[0, 0, 0, 0], [1, 1, 1, 0], [1, 2, 1, 0], [2, 1, 2, 0]]
    back = decode(encode(r, bins), schema, bins=bins, rng=rng())
    assert encode(back, bins).tolist() == encode(r, bins).tolist() and back.data['i'][0] == 0  # alone in its bin: exact


# ---- there and back ----

@given(schemas(), BINS, st.integers(0, 30), st.integers(0, 99))
@settings(deadline=None, max_examples=100)
def test_round_trip(schema, bins, n, seed):
    r = random_rows(schema, n, seed)
    codes, domain = encode(r, bins), attributes(schema, r.label_names, bins)
    assert codes.shape == (n, len(domain)) and codes.dtype == np.int64 and len(domain) == len(schema.columns) + max(1, len(schema.labels))
    assert ((codes >= 0) & (codes < [k for _, k in domain])).all()
    back = decode(codes, schema, r.label_names, bins, rng(seed))
    assert np.array_equal(encode(back, bins), codes) and np.array_equal(back.labels, r.labels) and back.label_names == r.label_names
    assert back == decode(codes, schema, r.label_names, bins, rng(seed))
    for c, (_, v, gone), (_, w, away) in zip(schema.columns, column_arrays(r.data, schema), column_arrays(back.data, schema)):
        assert np.array_equal(gone, away)
        if c.coded: assert np.array_equal(v, w)
        elif c.bounds[1] - c.bounds[0] < bins and c.kind != 'float': assert np.array_equal(v, w)  # a bin for each value


@given(schemas(), BINS, st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_encode_one_value_at_a_time(schema, bins, seed):
    r = random_rows(schema, 8, seed)
    codes = encode(r, bins)
    for j, (c, (_, v, gone)) in enumerate(zip(schema.columns, column_arrays(r.data, schema))):
        for i in range(8):
            if c.coded: slow = len(c.categories) if gone[i] else v[i]
            else:
                first, last = bin_bounds(c, bins)
                slow = len(first) if gone[i] else [k for k in range(len(first)) if first[k] <= v[i] <= last[k]][0]
            assert codes[i, j] == slow
    for i, label in enumerate(r.labels):
        left = codes[i, len(schema.columns):].tolist()
        assert (r.label_names[label] == r.label_names[left[0]] if len(schema.labels) < 2 else
                r.label_names[label] == ' | '.join(f'{c.name}: {c.categories[k]}' for c, k in zip(schema.labels, left)))


def test_bins_by_column():
    schema = Schema((Column('a', 'float', low=0., high=1.), Column('b', 'float', low=0., high=1., nullable=True)))
    assert attributes(schema, bins=dict(a=5)) == (('a', 5), ('b', 33), ('label', 1))
    r = Records.table(pd.DataFrame(dict(a=[.999, .1], b=[None, .5])), schema)
    assert encode(r, dict(a=5)).tolist() == [[4, 32, 0], [0, 16, 0]]


# ---- what the package gets ----

SCHEMA = Schema((Column('x', 'float', low=0., high=100., nullable=True), Column('job', 'categorical', ('a', 'b', 'rare')), Column('one', 'categorical', ('only',)), Column('k', 'integer', low=0, high=9)),
                labels=(Column('y', 'boolean'),))


def rows_of(*rows): return Records.table(pd.DataFrame(list(rows), columns=['x', 'job', 'one', 'k', 'y']), SCHEMA)


COMMON = [(x, 'ab'[int(x) % 2], 'only', int(x) % 3, x > 20) for x in np.linspace(10, 30, 40)]


@pytest.fixture
def asked(monkeypatch):
    "Stands in for the package: notes what it was asked, and gives back rows of zeros."
    calls = []
    def released(codes, sizes, method, rho, n, iters, options):
        calls.append(dict(codes=codes, sizes=sizes, method=method, rho=rho, n=n, iters=iters, options=options))
        return np.zeros((n or 7, len(sizes)), np.int64), [(0,), (0, len(sizes) - 1)], rho/2
    monkeypatch.setattr(B, 'released', released)
    monkeypatch.setattr(B, 'backend', lambda: None)
    monkeypatch.setattr('importlib.metadata.version', lambda p: f'version of {p}')
    return calls


@pytest.mark.parametrize('method', ['aim', 'mst'])
@pytest.mark.parametrize('epsilon, delta', [(1., 1e-5), (.25, 1e-9), (8., .01)])
def test_budget_is_handed_on_as_it_is(asked, method, epsilon, delta):
    out, said = marginals(rows_of(*COMMON), method, epsilon=epsilon, delta=delta, bins=8, n=5, rng=rng(), iters=20, rounds=3)
    assert [c['rho'] for c in asked] == [rho_of(epsilon, delta)] and asked[0]['method'] == method
    assert (said['epsilon'], said['delta'], said['method'], said['rho'], said['rho_spent']) == (epsilon, delta, method, asked[0]['rho'], asked[0]['rho']/2)
    assert said['adjacency'] == 'add_remove' and said['unit'] == 'record' and said['packages']['opendp'] == 'version of opendp'
    assert asked[0]['options'] == dict(rounds=3) and asked[0]['iters'] == 20 and said['options'] == dict(rounds=3, iters=20) and said['measured'] == [['x'], ['x', 'y']]
    assert json.loads(json.dumps(said)) == said
    assert len(out) == 5 and out.schema == SCHEMA and out.label_names == ('False', 'True')
    assert (out.data['one'] == 'only').all() and out.data['x'].between(0, 12.5).all()


@pytest.mark.parametrize('rare', [(100., 'rare', 'only', 9, True), (0., 'a', 'only', 0, False), (None, 'b', 'only', 5, True)])
def test_domain_is_never_read_off_the_data(asked, rare):
    "A neighbour with a value that nobody else has gives the same domain: columns, sizes and the bins of all others."
    for data in (rows_of(*COMMON), rows_of(*COMMON, rare), rows_of(*COMMON, *[rare]*9)): marginals(data, epsilon=1., delta=1e-5, bins=16)
    a, b, c = asked
    assert a['sizes'] == b['sizes'] == c['sizes'] == [17, 3, 10, 2]  # 'one', which is always the same, stays outside
    assert np.array_equal(a['codes'], b['codes'][:-1]) and np.array_equal(a['codes'], c['codes'][:-9])
    assert (a['rho'], a['n']) == (b['rho'], b['n'])


def test_number_of_rows_is_asked_for_or_left_to_the_noise(asked):
    assert len(marginals(rows_of(*COMMON), epsilon=1., delta=1e-5)[0]) == 7 and asked[-1]['n'] is None
    assert len(marginals(rows_of(*COMMON), epsilon=1., delta=1e-5, n=np.int64(3))[0]) == 3


# ---- epsilon to rho ----

def cks(rho, epsilon):
    "Delta of rho-zCDP at epsilon, by a fine grid (Canonne, Kamath and Steinke 2020, Proposition 7)."
    a = 1 + np.geomspace(1e-4, 1e5, 100_001)
    return math.exp(((a - 1)*(a*rho - epsilon) - np.log(a - 1) + a*np.log1p(-1/a)).min())


@pytest.mark.parametrize('epsilon', [.1, 1., 4.])
@pytest.mark.parametrize('delta', [1e-9, 1e-5, .01])
def test_rho_is_the_largest_that_implies_epsilon(epsilon, delta):
    rho = rho_of(epsilon, delta)
    assert cks(rho, epsilon) <= delta*(1 + 1e-6) and cks(rho*1.001, epsilon) > delta


# ---- what cannot be ----

@pytest.mark.parametrize('change, says', [
    (dict(method='gem'), "method ('gem') must be"), (dict(epsilon=0.), 'epsilon (0.0) must be'), (dict(epsilon=math.nan), 'epsilon (nan) must be'), (dict(epsilon=math.inf), 'epsilon (inf) must be'),
    (dict(delta=0.), 'delta (0.0) must lie'), (dict(delta=1.), 'delta (1.0) must lie'), (dict(bins=0), 'bins (0,'), (dict(bins=True), 'bins (True,'), (dict(bins=2.5), 'bins (2.5,'),
    (dict(bins=10_001), 'bins (10001,'), (dict(bins=dict(x='8')), "bins ('8', column 'x')"), (dict(bins=[5]), 'bins ([5],'), (dict(bins=dict(k=[])), "bins ([], column 'k')"),
    (dict(bins=dict(k=[3, 3])), 'rising'), (dict(bins=dict(k=[0, 3])), 'rising'), (dict(bins=dict(k=[10])), 'rising'), (dict(bins=dict(k=[2.5])), 'rising'), (dict(bins=dict(x=[math.nan])), 'rising'), (dict(bins=dict(x='123')), 'rising'),
    (dict(bins=dict(z=8)), "bins (keys ['z']) must name columns"),
    (dict(n=0), 'n (0) must be'), (dict(n=True), 'n (True) must be'), (dict(n=1.5), 'n (1.5) must be')])
def test_bad_arguments(asked, change, says):
    with pytest.raises(ValueError) as e: marginals(rows_of(*COMMON), **dict(epsilon=1., delta=1e-5) | change)
    assert says in str(e.value) and not asked


def test_bad_records_and_codes(asked):
    with pytest.raises(ValueError, match='must be of a table'): marginals(Records.texts(['a']), epsilon=1., delta=1e-5)
    one = Schema((Column('x', 'float', low=0., high=1.),))
    with pytest.raises(ValueError, match='must have at least 2'): marginals(Records.table(pd.DataFrame(dict(x=[.5])), one), epsilon=1., delta=1e-5)
    for codes, says in ((np.zeros((2, 3), np.int64), 'of the shape'), (np.zeros((2, 5)), 'of the shape'), (np.zeros(5, np.int64), 'of the shape'), (np.full((1, 5), -1), 'must lie'), (np.full((1, 5), 3), 'must lie')):
        with pytest.raises(ValueError, match=says): decode(codes, SCHEMA)
    assert not asked


@pytest.mark.parametrize('gone', ['mbi', 'polars', 'opendp.extras.mbi'])
def test_absent_package_is_named(monkeypatch, gone):
    for name in (gone, *(m for m in list(sys.modules) if m.startswith(f'{gone}.'))): monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'pe_nb\[baselines\]'"): marginals(rows_of(*COMMON), epsilon=1., delta=1e-5)


# ---- real runs ----

def real(f):
    "A run of the package itself, whose warnings are not ours."
    gone = [p for p in ('mbi', 'polars') if importlib.util.find_spec(p) is None]
    return pytest.mark.skipif(bool(gone), reason=f"{' and '.join(gone)} not installed: pip install 'pe_nb[baselines]'")(pytest.mark.filterwarnings('ignore')(f))


def toy(n):
    "Three columns that know the label and, given it, nothing of each other."
    y = rng(1).random(n) < .8
    df = pd.DataFrame({k: rng(2 + i).normal(30 + 40*y, 12) for i, k in enumerate('uvw')})
    schema = Schema((*(Column(k, 'float', low=-50., high=150.) for k in 'uvw'), Column('c', 'categorical', ('only',))), labels=(Column('y', 'boolean'),))
    return Records.table(df.clip(-50, 150).assign(c='only', y=y), schema)


@real
@pytest.mark.parametrize('method, options', [('mst', {}), ('aim', dict(rounds=4, queries=2))])
def test_real_run(method, options):
    private = toy(4000)
    out, said = marginals(private, method, epsilon=2., delta=1e-5, bins=10, iters=200, **options)
    assert said['rho_spent'] <= said['rho'] == rho_of(2., 1e-5)
    assert abs(len(out) - 4000) < 200 and abs((out.labels == 1).mean() - .8) < .05
    assert {*'uvwy'} == {a for m in said['measured'] for a in m}
    assert abs(np.corrcoef(out.data['u'], out.labels)[0, 1] - np.corrcoef(private.data['u'], private.labels)[0, 1]) < .15


@real
def test_rows_are_as_independent_as_the_model():
    "AIM may count each column with y alone, so its model holds them independent given y. mbi's way to draw rows called 'round' makes those drawn after y rise together."
    from opendp.prelude import mbi
    queries = [mbi.Count((a, 'a3')) for a in ('a0', 'a1', 'a2')]
    out, said = marginals(toy(4000), 'aim', epsilon=8., delta=1e-5, bins=10, iters=200, queries=queries, rounds=6)
    pairs = {tuple(m) for m in said['measured'] if len(m) > 1}
    assert pairs == {(a, 'y') for a in 'uvw'}
    yes = out.data.loc[out.labels == 1, list('uvw')].corr().to_numpy()
    assert abs(yes[np.triu_indices(3, 1)]).max() < .2


@real
def test_real_mst_with_nine_columns():
    "opendp 0.16 alone refuses this at every rho: its parts add up to more than it divides."
    schema = Schema(tuple(Column(f'c{i}', 'boolean') for i in range(8)), labels=(Column('y', 'boolean'),))
    r = random_rows(schema, 300, 0)
    out, said = marginals(r, 'mst', epsilon=1., delta=1e-5, n=50, iters=5)
    assert len(out) == 50 and len(said['measured']) == 9 + 8 and .99*said['rho'] < said['rho_spent'] <= said['rho']
