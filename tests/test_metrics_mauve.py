"MAUVE against mauve-text and a slow second version; Sinkhorn against its formula in 64 bits and exact transport."
import sys, warnings
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from pe_nb.metrics import mauve as module
from pe_nb.metrics.frechet import Metric, frechet
from pe_nb.metrics.manifold import manifold
from pe_nb.metrics.mauve import check_pair, distribution_metrics, divergences, drawn, halves, mauve, sinkhorn, temperatures

rng = lambda s=0: np.random.default_rng(s)
unit = lambda v: (v/np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32)
cloud = lambda seed, n, shift=0., d=12: unit(rng(seed).normal(size=(n, d)) + shift)

@pytest.fixture(scope='module')
def library():
    "mauve-text; importing torch may warn about its own past."
    pytest.importorskip('faiss')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        pytest.importorskip('mauve')
        return module.library()


# ---- histograms ----

def test_divergences_are_those_of_the_formulas():
    g = rng(1)
    for _ in range(20):
        p, q = (v/v.sum() for v in g.integers(0, 3, (2, 30)).astype(float) + np.eye(2, 30))
        a, b = np.where(p == 0, 1e-8, p), np.where(q == 0, 1e-8, q)
        d = divergences(p, q)
        assert np.isclose(d['kl'], sum(x*np.log(x/y) - x + y for x, y in zip(a, b)))
        assert np.isclose(d['tv'], sum(abs(x - y) for x, y in zip(a, b))/2)
        assert np.isclose(d['wasserstein'], np.abs(np.sort(a) - np.sort(b)).mean(), atol=1e-12)   # heights as two samples of equal size
        assert not np.isclose(d['kl'], divergences(q, p)['kl'])
    assert (p == 0).any() and (q == 0).any()                     # and the arguments were not written into

def test_divergences_leave_their_arguments_alone():
    p, q = np.array([0., 1]), np.array([1., 0])
    divergences(p, q)
    assert p[0] == 0 == q[1]


# ---- MAUVE ----

def kl(p, q): return sum(x*np.log(x/y) for x, y in zip(p, q) if x)

def area_by_hand(p, q, points=25, scaling=5):
    "The area under the curve, point by point."
    curve = [(1., 0.)] + [(np.exp(-scaling*kl(q, w*p + (1 - w)*q)), np.exp(-scaling*kl(p, w*p + (1 - w)*q))) for w in np.linspace(1e-6, 1 - 1e-6, points)] + [(0., 1.)]
    both = []
    for s in (sorted(curve), sorted((y, x) for x, y in curve)):
        both.append(sum((b[0] - a[0])*(a[1] + b[1])/2 for a, b in zip(s, s[1:])))
    return np.mean(both)

def test_same_as_the_library_and_by_hand(library):
    import mauve as mt
    p, q = cloud(0, 200), cloud(1, 250, .3)
    ref = mt.compute_mauve(p_features=p, q_features=q, seed=31, verbose=False)
    ours = mauve(p, q, seeds=(31,))
    for k in ('mauve', 'frontier_integral', 'mauve_star', 'frontier_integral_star'): assert ours[k].value == float(getattr(ref, k)), k
    assert ours['tv'].value == divergences(ref.p_hist, ref.q_hist)['tv'] and ref.num_buckets == 20
    assert np.isclose(ours['mauve'].value, area_by_hand(ref.p_hist, ref.q_hist))
    assert 0 < ours['mauve'].value < .9 and ours['mauve'].seeds == 1 and ours['mauve'].private
    swapped = mauve(q, p, seeds=(31,))
    assert not np.isclose(swapped['kl'].value, ours['kl'].value)

def test_all_settings_reach_the_library(library, monkeypatch):
    seen = {}
    def fake(**kw):
        seen.update(kw)
        return library(**{**kw, 'verbose': False})
    monkeypatch.setattr(module, 'library', lambda: fake)
    p, q = cloud(0, 60), cloud(1, 60)
    mauve(p, q, seeds=(3,), buckets=7, variance=.8, redo=2, iterations=9, points=11, scaling=2)
    want = dict(num_buckets=7, kmeans_explained_var=.8, kmeans_num_redo=2, kmeans_max_iter=9, divergence_curve_discretization_size=11, mauve_scaling_factor=2, seed=3, verbose=False)
    assert {k: seen[k] for k in want} == want and seen['p_features'] is not q and np.array_equal(seen['p_features'], p)
    mauve(p, q, seeds=(25,))
    paper = dict(num_buckets='auto', kmeans_explained_var=.9, kmeans_num_redo=5, kmeans_max_iter=500, divergence_curve_discretization_size=25, mauve_scaling_factor=5, seed=25)
    assert {k: seen[k] for k in paper} == paper

def test_seeds_are_averaged_and_repeat(library):
    p, q = cloud(0, 150), cloud(1, 150, .2)
    each = [mauve(p, q, seeds=(s,))['mauve'].value for s in (1, 2, 3)]
    m = mauve(p, q, seeds=(1, 2, 3), private=False)['mauve']
    assert np.isclose(m.value, np.mean(each)) and np.isclose(m.spread, np.std(each)) and m.seeds == 3 and m.spread > 0 and not m.private
    assert m == mauve(p, q, seeds=(1, 2, 3), private=False)['mauve']

def test_nothing_is_printed(library, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        mauve(cloud(0, 40), cloud(1, 45), seeds=(25,))
        mauve(cloud(0, 3), cloud(1, 4), seeds=(25,))
    out = capfd.readouterr()
    assert out.out == out.err == ''
    import faiss
    faiss.Kmeans(12, 9).train(cloud(0, 40))                   # what would be seen without it
    assert 'WARNING clustering' in capfd.readouterr().err

def test_near_and_far(library):
    x = cloud(0, 600)
    a, b = halves(x, 3)
    near, far = mauve(a, b), mauve(a, cloud(1, 300, 2.))
    assert near['mauve'].value > .9 > .1 > far['mauve'].value and near['frontier_integral'].value < .1 < .5 < far['frontier_integral'].value

def test_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mauve', None)
    with pytest.raises(ImportError, match=r"pip install 'pe_nb\[text\]'"): mauve(cloud(0, 30), cloud(1, 30))


# ---- Sinkhorn ----

def by_formula(x, y, p, blur, scaling, debias=True):
    "The symmetric loop with whole matrices in 64 bits, written as in the documentation of geomloss."
    from scipy.special import logsumexp
    cost = lambda a, b: np.sqrt(((a[:, None] - b)**2).sum(2))**p/p
    soft = lambda e, c, h: -e*logsumexp(h - c/e, axis=1)
    both = np.concatenate([x, y])
    width = np.linalg.norm(both.max(0) - both.min(0))
    eps, e = [width**p], width
    while e > blur*(1 + 1e-12): eps.append(e**p); e *= scaling
    eps.append(blur**p)
    la, lb, xy, yx, xx, yy = -np.log(len(x)), -np.log(len(y)), cost(x, y), cost(y, x), cost(x, x), cost(y, y)
    f, g, a, b = soft(eps[0], xy, lb), soft(eps[0], yx, la), soft(eps[0], xx, la), soft(eps[0], yy, lb)
    for e in eps: f, g, a, b = (f + soft(e, xy, lb + g/e))/2, (g + soft(e, yx, la + f/e))/2, (a + soft(e, xx, la + a/e))/2, (b + soft(e, yy, lb + b/e))/2
    f, g, a, b = soft(e, xy, lb + g/e), soft(e, yx, la + f/e), soft(e, xx, la + a/e), soft(e, yy, lb + b/e)
    return (f - a).mean() + (g - b).mean() if debias else f.mean() + g.mean()

@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(2, 40), st.integers(2, 40), st.integers(1, 6), st.sampled_from([1, 2]), st.sampled_from([.02, 1., 30.]), st.sampled_from([.5, .8]), st.booleans())
def test_sinkhorn_is_the_formula(seed, n, m, d, p, size, scaling, debias):
    g = rng(seed); x, y = g.normal(size=(n, d))*size + 5, g.normal(size=(m, d))*size + 5 + size/2
    want = by_formula(x, y, p, .05, scaling, debias)
    assert np.isclose(sinkhorn(x, y, p=p, scaling=scaling, debias=debias), want, rtol=2e-5*(3 - p)**4, atol=2e-6*max(size, .05)**p*(3 - p)**4)

def test_sinkhorn_tends_to_exact_transport():
    ot = pytest.importorskip('ot')
    for seed in range(3):
        x, y = rng(seed).normal(size=(40, 3)), rng(seed + 9).normal(size=(55, 3)) + .7
        exact = ot.emd2(np.full(40, 1/40), np.full(55, 1/55), ((x[:, None] - y)**2).sum(2)/2)
        slow, paper = sinkhorn(x, y, blur=.02, scaling=.97, debias=False), sinkhorn(x, y)
        assert abs(slow - exact) < .01*exact and abs(paper - exact) < .15*exact

def test_sinkhorn_of_moved_and_same_points():
    x = rng().normal(size=(200, 4))
    assert abs(sinkhorn(x, x)) < 1e-6 and abs(sinkhorn(x, x[::-1])) < 1e-6
    assert np.isclose(sinkhorn(x, x + [0, 2, 0, 0]), 2, rtol=.02)
    assert sinkhorn(x, x, debias=False) > 1e-3
    assert abs(sinkhorn(np.ones((5, 2)), np.ones((7, 2)))) < 1e-9              # all in one point: the diameter is 0
    assert np.isclose(sinkhorn(np.zeros((5, 2)), np.full((7, 2), 3.)), 9, rtol=1e-5)

def test_sinkhorn_without_kept_distances(monkeypatch):
    from pe_nb.metrics import manifold as pairs
    x, y = cloud(0, 70), cloud(1, 90, .3)
    want = sinkhorn(x, y)
    monkeypatch.setattr(module, 'KEEP', 0); monkeypatch.setattr(pairs, 'BLOCK', 200)
    assert np.isclose(sinkhorn(x, y), want, rtol=1e-6)

def test_temperatures():
    t = temperatures(np.array([[0., 0]]), np.array([[3., 4]]), 2, .05, .5)
    assert np.allclose(t[:2], 25) and t[-1] == .05**2 and np.allclose(np.divide(t[1:-2], t[2:-1]), 4) and t[-2] > .05**2


# ---- the table ----

def test_table(library):
    x, y = cloud(0, 90), cloud(1, 120, .3)
    t = distribution_metrics(x, y, seeds=(0, 1), size=60, private=False)
    assert list(t) == ['frechet', 'precision', 'recall', 'f1', 'sinkhorn', 'mauve', 'frontier_integral', 'kl', 'tv', 'wasserstein']
    assert all(isinstance(m, Metric) and m.name == k and not m.private for k, m in t.items())
    assert t['frechet'].value == frechet(x, y) and t['frechet'].seeds == 1 and t['sinkhorn'].spread > 0 and t['mauve'].seeds == 2
    a, b = (drawn(v, 60, rng([0, 6, i])) for i, v in enumerate((x, y)))
    first = distribution_metrics(x, y, seeds=(0,), size=60)
    assert first['recall'].value == manifold(a, b)['recall'].value and first['mauve'].value == mauve(a, b, seeds=(25,))['mauve'].value and first['mauve'].private
    assert first['sinkhorn'].value == sinkhorn(a, b)

def test_table_of_small_sets_draws_nothing(library):
    x, y = cloud(0, 90), cloud(1, 70, .3)
    t = distribution_metrics(x, y, seeds=(0, 1, 2))
    for k in ('precision', 'recall', 'f1', 'sinkhorn'): assert t[k].spread == 0 and t[k].seeds == 1, k
    assert t['mauve'].spread > 0 and np.isclose(t['mauve'].value, mauve(x, y, seeds=(25, 26, 27))['mauve'].value)
    assert np.isclose(t['sinkhorn'].value, sinkhorn(x, y)) and np.isclose(t['precision'].value, manifold(x, y)['precision'].value)

def test_halves_and_draws():
    x = np.arange(11)[:, None]
    a, b = halves(x, 0)
    assert len(a) == len(b) == 5 and not set(a.ravel()) & set(b.ravel()) and len(halves(x, 0, 2)[0]) == 2
    assert drawn(x, None, rng()) is x and drawn(x, 11, rng()) is x and len(set(drawn(x, 4, rng()).ravel())) == 4

def test_check_pair_keeps_float32():
    a, b = check_pair(cloud(0, 5), [[0.]*12, [1.]*12])
    assert a.dtype == np.float32 and b.dtype == np.float64

BAD = [
    (lambda: mauve(cloud(0, 9), cloud(1, 9, d=5)), 'equally many'),
    (lambda: mauve(cloud(0, 1), cloud(1, 9)), 'at least 2'),
    (lambda: mauve(np.full((9, 3), np.inf), cloud(1, 9)), 'finite'),
    (lambda: mauve(cloud(0, 9)[0], cloud(1, 9)), r'must be \(n, d\)'),
    (lambda: mauve(np.zeros((9, 3)), cloud(1, 9, d=3)), 'synthetic must have a row that is not zero'),
    (lambda: mauve(np.ones((9, 3)), np.ones((9, 3))), 'all the same'),
    (lambda: mauve(cloud(0, 9), cloud(1, 9), seeds=()), 'seeds'),
    (lambda: mauve(cloud(0, 9), cloud(1, 9), buckets=1), r'buckets \(1\)'),
    (lambda: mauve(cloud(0, 9), cloud(1, 9), buckets=19), r'buckets \(19\)'),
    (lambda: mauve(cloud(0, 9), cloud(1, 9), buckets=2.5), 'buckets'),
    (lambda: sinkhorn(cloud(0, 9), cloud(1, 9), p=3), r'p \(3\)'),
    (lambda: sinkhorn(cloud(0, 9), cloud(1, 9), blur=0), 'blur'),
    (lambda: sinkhorn(cloud(0, 9), cloud(1, 9), blur=float('nan')), 'blur'),
    (lambda: sinkhorn(cloud(0, 9), cloud(1, 9), scaling=1), 'scaling'),
    (lambda: sinkhorn(cloud(0, 9), cloud(1, 9, d=5)), 'equally many'),
    (lambda: distribution_metrics(cloud(0, 9), cloud(1, 9), seeds=()), 'seeds'),
    (lambda: distribution_metrics(cloud(0, 3), cloud(1, 9)), r'k \(3\)'),
]
@pytest.mark.parametrize('call, message', BAD)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message): call()
