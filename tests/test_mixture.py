"A mixture: weights from the parents alone, shares met in every label, extra arrays of all parts, nothing kept between calls."
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from pe_nb.evolution import Settings, evolve
from pe_nb.generators.fonts import Fonts
from pe_nb.generators.mixture import Mixture, assigned, split_calls, weights_of
from pe_nb.generators.pool import Pool
from pe_nb.generators.tables import Tables
from pe_nb.records import Column, Records, Schema
from pe_nb.release import Budget, SeededNoise

rng = lambda s=0: np.random.default_rng(s)
NAMES = ('a', 'b')


class Toy:
    "Writes its name, a number, and the degree; counts its calls."
    def __init__(self, name, label_names=NAMES, extra=(), low=0):
        self.name, self.label_names, self.extra, self.fingerprint, self.low, self.calls = name, tuple(label_names), extra, f'Toy {name}', low, []
    def records(self, texts, labels): return Records.texts(texts, labels, self.label_names, {k: make(len(labels)) for k, make in self.extra})
    def random(self, labels, rng):
        self.calls.append(('random', len(labels)))
        return self.records([f'{self.name}{rng.integers(1000)}' for _ in labels], labels)
    def vary(self, parents, degree, rng):
        self.calls.append(('vary', len(parents)))
        assert sorted(parents.extra) == sorted(k for k, _ in self.extra)
        return self.records([f'{p}>{self.name}{rng.integers(1000)}@{degree}' for p in parents.data.tolist()], parents.labels)
    def check(self, degree):
        if not (isinstance(degree, (int, float)) and degree >= self.low): raise ValueError(f'degree ({degree!r}) must be at least {self.low}')


WORD = ('word', lambda n: np.array(['w']*n, np.dtypes.StringDType()))
ROW = ('row', lambda n: np.arange(n, dtype=np.int64))
POSE = ('pose', lambda n: np.ones((n, 2), np.float32))
FLAGS = [('flag', lambda n: np.ones(n, bool)), ('size', lambda n: np.ones(n, np.uint8))]
def mix(*extras, **kw): return Mixture([Toy(f'g{i}', extra=e) for i, e in enumerate(extras)], **kw)
def with_sources(m, labels, source): return m.random(np.asarray(labels), rng()).with_extra(source=np.asarray(source, np.int64))


# ---- weights and shares

@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=6), st.floats(0, 100), st.floats(0, .16))
def test_weights_keep_their_floor_and_order(counts, prior, floor):
    w = weights_of(counts, prior, floor)
    assert np.isclose(w.sum(), 1) and w.min() >= floor - 1e-12
    if sum(counts): assert (np.diff(w[np.argsort(counts, kind='stable')]) >= -1e-12).all()
    if sum(counts) and not prior and not floor: assert np.allclose(w, np.array(counts)/sum(counts))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60), st.integers(1, 4), st.integers(1, 4))
def test_shares_are_met_in_every_label_up_to_rounding(seed, n, L, K):
    r = rng(seed)
    labels, w = r.integers(0, L, n), r.dirichlet(np.ones(K), L)
    source = assigned(labels, w, r)
    for l in range(L):
        want = (labels == l).sum()*w[l]
        assert (np.abs(np.bincount(source[labels == l], minlength=K) - want) < 1 + 1e-9).all()


def test_a_source_of_weight_zero_makes_nothing_and_parents_are_shuffled():
    w = np.array([[.5, 0., .5]])
    got = np.array([assigned(np.zeros(10, int), w, rng(s)) for s in range(2000)])
    assert not (got == 1).any()
    assert np.abs((got == 0).mean(0) - .5).max() < .06                       # every place, sd .011
    together = (got[:, 0] == got[:, 1]).mean()
    assert .36 < together < .53                                              # 4/9: neighbours are not kept together


def test_weights_are_the_shares_among_the_parents():
    m = mix((), (), floor=0., prior=0.)
    p = with_sources(m, [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1])
    assert np.allclose(m.weights(p), [[1/3, 2/3]]*2)
    assert np.allclose(mix((), (), floor=0., prior=0., by_label=True).weights(p), [[2/3, 1/3], [0, 1]])
    assert np.allclose(mix((), (), floor=.1, prior=1.).weights(p), .1 + .8*np.array([[3/8, 5/8]]))
    assert m.used(p) == pytest.approx(dict(zip('01', (1/3, 2/3))))
    assert np.allclose(m.weights(p[:0]), .5) and m.used(p[:0]) == {'0': 0, '1': 0}


def test_children_follow_the_weights():
    m = mix((), (), (), floor=.05, prior=0.)
    p = with_sources(m, np.repeat([0, 1], 100), [0]*150 + [1]*50)
    out = m.vary(p, 1, rng(3))
    for l in (0, 1):
        n = np.bincount(out.extra['source'][out.labels == l], minlength=3)
        assert np.abs(n - 100*weights_of([150, 50, 0], 0, .05)).max() < 1


# ---- order, labels, streams, no state

def test_one_record_per_parent_in_order():
    m = mix((), (), ())
    labels = rng().integers(0, 2, 50)
    start = m.random(labels, rng(1))
    assert start.labels.tolist() == labels.tolist()
    assert all(t.startswith(f'g{s}') for t, s in zip(start.data.tolist(), start.extra['source']))
    out = m.vary(start, 1, rng(2))
    for a, b, s in zip(start.data.tolist(), out.data.tolist(), out.extra['source']): assert b.startswith(f'{a}>g{s}')
    assert out.labels.tolist() == labels.tolist() and set(out.extra) == set(start.extra)
    for g in m.generators: assert [c for c, n in g.calls if n] == ['random', 'vary']        # once each


def test_a_fresh_mixture_goes_on_the_same_way():
    a, b = mix((), [WORD, ROW]), mix((), [WORD, ROW])
    start = a.random(np.zeros(30, int), rng(1))
    first = a.vary(start, 2, rng(2))
    assert b.vary(start, 2, rng(2)) == first and a.vary(start, 2, rng(2)) == first
    assert b.vary(start, 2, rng(3)) != first


def test_one_generators_draws_do_not_move_anothers():
    class Greedy(Toy):
        def random(self, labels, rng): rng.random(1000); return super().random(labels, rng)
    a, b = Mixture([Toy('x'), Toy('y')]), Mixture([Greedy('x'), Toy('y')])
    p, q = (m.random(np.zeros(20, int), rng(5)) for m in (a, b))
    mine = p.extra['source'] == 1
    assert p.extra['source'].tolist() == q.extra['source'].tolist() and p.data[mine].tolist() == q.data[mine].tolist()


def test_random_by_given_shares():
    m = mix((), (), (), shares=[3, 1, 0])
    assert np.bincount(m.random(np.zeros(40, int), rng()).extra['source'], minlength=3).tolist() == [30, 10, 0]
    assert np.bincount(mix((), ()).random(np.zeros(40, int), rng()).extra['source']).tolist() == [20, 20]
    none = m.random(np.zeros(0, int), rng())
    assert len(none) == 0 and 'source' in none.extra and len(m.vary(none, 1, rng())) == 0


# ---- extra arrays

def test_extra_arrays_are_the_union_and_each_generator_sees_its_own():
    m = mix([WORD, ROW], [WORD, POSE], FLAGS)
    out = m.random(np.zeros(30, int), rng())
    for _ in range(3):
        s = out.extra['source']
        assert set(out.extra) == {'word', 'row', 'pose', 'flag', 'size', 'source'}
        assert set(out.extra['word'][s == 2].tolist()) == {''} and set(out.extra['word'][s < 2].tolist()) == {'w'}
        assert (out.extra['row'][s > 0] == -1).all() and (out.extra['row'][s == 0] >= 0).all()
        assert np.isnan(out.extra['pose'][s != 1]).all() and (out.extra['pose'][s == 1] == 1).all()
        assert (out.extra['flag'] == (s == 2)).all() and (out.extra['size'] == (s == 2)).all()
        out = m.vary(out, 1, rng(1))
    small = m.random(np.zeros(1, int), rng())                                   # two generators made nothing, the arrays are all there
    assert set(small.extra) == set(out.extra) and {k: v.dtype for k, v in small.extra.items()} == {k: v.dtype for k, v in out.extra.items()}


def test_extra_arrays_that_clash_are_refused():
    clash = [('row', lambda n: np.zeros(n, np.float32))]
    with pytest.raises(ValueError, match="extra 'row' must be of one dtype"): mix([ROW], clash).random(np.zeros(4, int), rng())
    with pytest.raises(ValueError, match='must not use the extra name'): mix([], [('source', lambda n: np.zeros(n, int))]).random(np.zeros(4, int), rng())
    moody = [('row', lambda n: np.zeros(n, np.int64 if n else np.float64))]
    with pytest.raises(ValueError, match='must always give the same extra arrays'): mix([], moody).random(np.zeros(4, int), rng())
    with pytest.raises(ValueError, match='must hold'): m = mix([ROW], []); m.vary(m.random(np.zeros(4, int), rng()).without_extra('row'), 1, rng())
    class Short(Toy):
        def random(self, labels, rng): return super().random(labels[:len(labels)//2], rng)
    with pytest.raises(ValueError, match='one for each label'): Mixture([Toy('x'), Short('y')]).random(np.zeros(8, int), rng())
    class No(Toy):
        def random(self, labels, rng): return None
    with pytest.raises(TypeError, match='must return Records'): Mixture([Toy('x'), No('y')]).random(np.zeros(8, int), rng())


# ---- degrees, fingerprint, costs

def test_degrees_are_shared_or_by_name():
    m = Mixture(dict(x=Toy('x', low=5), y=Toy('y')))
    m.check(5); m.check(dict(x=5, y=0))
    for bad, said in [(4, "generator 'x': degree (4)"), (dict(x=5, y=-1), "generator 'y': degree (-1)"), (dict(x=5), "generator 'x'"), (None, "generator 'x'")]:
        with pytest.raises(ValueError) as e: m.check(bad)
        assert said in str(e.value)
    out = m.vary(m.random(np.zeros(10, int), rng()), dict(x=7, y=3), rng())
    assert all(t.endswith('@7' if s == 0 else '@3') for t, s in zip(out.data.tolist(), out.extra['source']))
    class Free: random = vary = lambda *a: None; label_names = NAMES; fingerprint = 'Free'
    Mixture([Free()]).check('anything')


def test_fingerprint_says_what_matters():
    made = [mix((), ()), mix((), (), floor=.1), mix((), (), prior=2), mix((), (), shares=[1, 2]), mix((), (), by_label=True), mix((), (), names=['p', 'q']), mix((), (), ()), Mixture([Toy('z'), Toy('g1')])]
    assert len({m.fingerprint for m in made}) == len(made)
    assert mix((), (), shares=[2, 2]).fingerprint == made[0].fingerprint


class Bill:
    def __init__(self, calls, price): self.requests, self.money = sum(int(n.sum()) for _, _, n in calls), price and price*sum(int(n.sum()) for _, _, n in calls)
    def __repr__(self): return f'{self.requests} requests'
class Paid(Toy):
    price = 1.
    record_bytes = 10
    def costs(self, calls): self.seen = calls; return Bill(calls, self.price)


def test_costs_are_those_of_the_parts():
    m = Mixture(dict(x=Paid('x'), y=Paid('y')), shares=[3, 1])
    calls = [('random', None, np.array([40, 8])), ('vary', dict(x=1, y=2), np.array([20, 0]))]
    bill = m.costs(calls)
    assert (bill.requests, bill.money, bill.prompt_tokens) == (68, 68, None)
    assert [b.requests for b in bill.parts.values()] == [51, 17] and 'x\n51 requests\ny\n17 requests\nall: requests 68' in repr(bill)
    assert [d for _, d, _ in m.generators[1].seen] == [None, 2]
    assert m.costs(calls, shares=[0, 2]).parts['y'].requests == 68
    m.generators[0].price = None
    assert m.costs(calls).money is None
    assert not hasattr(Mixture([Paid('x'), Toy('y')]), 'costs') and not hasattr(Mixture([Paid('x'), Toy('y')]), 'record_bytes')
    assert m.record_bytes == 18


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=20), st.integers(1, 4), st.integers(0, 10**6))
def test_calls_are_split_without_loss(counts, K, seed):
    shares = rng(seed).dirichlet(np.ones(K))
    parts = split_calls([('vary', 1, np.array(counts))], shares, lambda d: [d]*K)
    assert sum(p[0][2] for p in parts).tolist() == counts and all(p[0][2].min() >= 0 for p in parts)


# ---- bad settings

@pytest.mark.parametrize('args, kw, said', [
    ([[]], {}, 'at least one'), ([[Toy('x'), Toy('y')], ['p']], {}, 'names (1)'), ([[Toy('x'), Toy('y')], ['p', 'p']], {}, 'unique'), ([[Toy('x'), 3]], {}, 'methods'),
    ([[Toy('x'), Toy('y', ('b', 'a'))]], {}, "label_names of generator '1'"), ([[Toy('x'), Toy('y')]], dict(floor=.5), 'floor'), ([[Toy('x')]], dict(floor=-.1), 'floor'),
    ([[Toy('x')]], dict(prior=-1), 'prior'), ([[Toy('x')]], dict(prior=float('nan')), 'prior'), ([[Toy('x')]], dict(prior=True), 'prior'), ([[Toy('x'), Toy('y')]], dict(shares=[1]), 'shares'),
    ([[Toy('x')]], dict(shares=[0]), 'shares'), ([[Toy('x')]], dict(shares=[float('inf')]), 'shares'), ([[Toy('x')]], dict(by_label=1), 'by_label')])
def test_bad_settings_are_refused(args, kw, said):
    with pytest.raises(ValueError) as e: Mixture(*args, **kw)
    assert said in str(e.value)


def test_bad_parents_are_refused():
    m = mix((), ())
    good = m.random(np.array([0, 1]), rng())
    for bad in (good.without_extra('source'), good.with_extra(source=np.array([0, 2])), good.with_extra(source=np.array([0, -1])), good.with_extra(source=np.zeros(2)), good.with_extra(source=np.zeros((2, 1), int))):
        with pytest.raises(ValueError, match="'source'"): m.vary(bad, 1, rng())
    for bad in (None, Records.texts(['a'])):
        with pytest.raises(ValueError, match='label names'): m.vary(bad, 1, rng())
    with pytest.raises(ValueError): m.random(np.array([2]), rng())
    nameless = Toy('x'); nameless.fingerprint = None
    with pytest.raises(ValueError, match='fingerprint'): Mixture([nameless])


# ---- real generators, real runs

class Points:
    fingerprint = 'Points'
    def __call__(self, r): return np.array([t.split() for t in r.data.tolist()], np.float32).reshape(len(r), 2)


class Habit:
    label_names = ('',)
    def __init__(self, x): self.home, self.fingerprint = np.array([x, 0.]), f'Habit {x}'
    def write(self, xy, labels): return Records.texts([f'{a:.3f} {b:.3f}' for a, b in xy], labels, [''])
    def random(self, labels, rng): return self.write(self.home + rng.normal(0, 3, (len(labels), 2)), labels)
    def vary(self, parents, degree, rng):
        xy = Points()(parents)
        return self.write(xy + .5*(self.home - xy) + rng.normal(0, degree, xy.shape), parents.labels)


def run(m, private, **kw):
    s = dict(generations=4, samples=150, degree=.7) | kw
    return list(evolve(private, m, Points(), Settings(**s), Budget(epsilon=4., delta=1e-5), noise=SeededNoise(1)))


@pytest.mark.parametrize('kw', [{}, dict(selection='rank', folds=2, keep_parents=True, initial_folds=1), dict(lookahead=1)])
def test_the_better_source_wins_the_votes(kw):
    private = Records.texts([f'{a:.3f} {b:.3f}' for a, b in rng(1).normal(0, 1, (2000, 2))])
    m = Mixture([Habit(8), Habit(0)], ['far', 'near'], floor=.05)
    shares = [m.used(g.records)['near'] for g in run(m, private, **kw)]
    assert shares[0] == pytest.approx(.5, abs=.02) and shares[-1] > .8, shares
    fixed = [m.used(g.records)['near'] for g in run(Mixture([Habit(8), Habit(0)], ['far', 'near'], prior=1e9), private)]
    assert max(fixed) < .52


def test_a_pool_in_a_mixture_embeds_strangers():
    public = Records.texts([f'{i} 0' for i in range(50)])
    m = Mixture(dict(pool=Pool(public, Points()), toy=Habit(0)))
    start = m.random(np.zeros(40, int), rng())
    assert ((start.extra['pool_row'] >= 0) == (start.extra['source'] == 0)).all()
    out = m.vary(start, dict(pool=1, toy=.1), rng(1))
    from_toy = (start.extra['source'] == 1) & (out.extra['source'] == 0)
    assert from_toy.any()
    for a, b in zip(Points()(start)[from_toy], Points()(out)[from_toy]): assert abs(np.clip(np.rint(a[0]), 0, 49) - b[0]) <= 1
    m.check(dict(pool=50, toy=1)); run(m, public, degree=dict(pool=5, toy=.5), generations=2)


def test_images_and_tables():
    f = Fonts(texts=['1'], label_names=('one',), height=10, width=10, size=(8, 9))
    m = Mixture([f, Fonts(texts=['7'], label_names=('one',), height=10, width=10, size=(8, 9))])
    out = m.vary(m.random(np.zeros(6, int), rng()), dict(rotation=3), rng(1))
    assert out.data.shape == (6, 10, 10, 1) and set(out.extra['source'].tolist()) == {0, 1}
    schema = Schema((Column('age', 'integer', low=0, high=99), Column('c', 'categorical', ('u', 'v'))))
    t = Records.table(pd.DataFrame(dict(age=[1, 2, 50], c=['u', 'v', 'u'])), schema)
    m = Mixture(dict(pool=Pool(t, embeddings=np.eye(3)), walk=Tables(schema)))
    start = m.random(np.zeros(6, int), rng())
    walk = start[start.extra['source'] == 1]
    assert len(Records.table(start.data, schema)) == 6 and (walk.extra['pool_row'] == -1).all()
    with pytest.raises(ValueError, match='embedding'): [m.vary(start, dict(pool=1, walk=.1), rng(s)) for s in range(5)]
