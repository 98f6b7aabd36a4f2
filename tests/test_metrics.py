"Fréchet distance against scipy's square root of a matrix, and downstream accuracy."
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from pe_nb.metrics.downstream import scores, train_on_synthetic
from pe_nb.metrics.frechet import Metric, factor_of_cov, factor_of_features, frechet, frechet_moments, frechet_records, pivoted, sum_singular
from pe_nb.records import Records

rng = lambda s=0: np.random.default_rng(s)

def by_sqrtm(x, y):
    "The usual way, for well-conditioned samples."
    from scipy.linalg import sqrtm
    s, t = np.cov(x.T), np.cov(y.T)
    return ((x.mean(0) - y.mean(0))**2).sum() + np.trace(s) + np.trace(t) - 2*np.trace(sqrtm(s @ t)).real

@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(2, 12))
def test_agrees_with_sqrtm(seed, d):
    g = rng(seed); mix = g.normal(size=(d, d))
    x, y = g.normal(size=(5*d + 5, d)) @ mix, g.normal(1, 2, size=(7*d + 5, d))
    want = by_sqrtm(x, y)
    assert np.isclose(frechet(x, y), want, rtol=1e-6)
    assert np.isclose(frechet(x, y), frechet(y, x))
    assert np.isclose(frechet_moments(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T)), want, rtol=1e-6)

def test_known_value():
    "Gaussians with diagonal covariances: the squared difference of means and of standard deviations."
    a, b = np.array([1., 4., 0.]), np.array([4., 1., 9.])
    assert np.isclose(frechet_moments([0, 0, 0], np.diag(a), [1, 2, 3], np.diag(b)), 14 + ((np.sqrt(a) - np.sqrt(b))**2).sum())

@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(2, 9), st.integers(2, 9), st.integers(1, 20), st.integers(0, 3), st.sampled_from([1e-6, 1., 1e6]))
def test_small_and_singular_samples(seed, n, m, d, kind, size):
    "Fewer records than dimensions, constant and repeated columns: finite, not negative, zero on itself, and the two ways agree."
    g = rng(seed); x, y = g.normal(size=(n, d))*size, g.normal(size=(m, d))*size
    if kind == 1: x[:, 0] = y[:, 0] = 3*size
    if kind == 2: x[:] = x[0]
    if kind == 3: x[:, -1], y[:, -1] = x[:, 0], y[:, 0]
    v = frechet(x, y)
    assert np.isfinite(v) and v >= 0 and np.isclose(v, frechet(y, x), rtol=1e-6, atol=1e-9*size**2)
    assert frechet(x, x) == 0 and frechet(x, x[::-1]) <= 1e-9*size**2
    cov = lambda z: np.atleast_2d(np.cov(z.T))
    w = frechet_moments(x.mean(0), cov(x), y.mean(0), cov(y))
    assert np.isclose(v, w, rtol=1e-4, atol=1e-5*size**2)
    if n == m: assert v <= ((x - y)**2).sum()/(n - 1) + ((x.mean(0) - y.mean(0))**2).sum() + 1e-9*size**2   # no worse than pairing them up

def test_quick_and_exact_sum_agree():
    from scipy.linalg import svdvals
    m = rng().normal(size=(300, 400))
    assert np.isclose(sum_singular(m), svdvals(m).sum(), rtol=1e-9)
    low = rng().normal(size=(300, 5)) @ rng(1).normal(size=(5, 300))
    assert np.isclose(sum_singular(low), svdvals(low).sum(), rtol=1e-9)
    w = np.linalg.eigvalsh(low @ low.T)                        # what the quick way alone would give on a singular matrix
    assert abs(np.sqrt(np.maximum(w, 0)).sum() - svdvals(low).sum()) > 1e-7

def test_factors():
    x = rng().normal(size=(50, 6))
    for f in (factor_of_features(x)[1], factor_of_cov(np.cov(x.T))): assert np.allclose(f.T @ f, np.cov(x.T))
    z = np.zeros((4, 4)); z[0, 0] = 2
    assert np.allclose(factor_of_cov(z).T @ factor_of_cov(z), z) and frechet_moments(np.zeros(4), z, np.zeros(4), z) == 0

@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(0, 30), st.sampled_from([1e-9, 1., 1e9]), st.floats(0, 5))
def test_pivots(seed, d, rank, size, decades):
    "As many rows as the rank, and exact to rounding; nothing for a matrix with a negative eigenvalue."
    g, rank = rng(seed), min(rank, d)
    x = g.normal(size=(rank, d))*size*10.**-g.uniform(0, decades, d)
    cov = x.T @ x
    f = pivoted(cov)
    assert f.shape[1] == d and len(f) <= rank and np.abs(f.T @ f - cov).max() <= 4*d*np.finfo(float).eps*max(cov.diagonal(), default=0)
    assert np.linalg.matrix_rank(cov) <= len(f) or decades > 3
    turned = np.linalg.qr(g.normal(size=(d, d)))[0]
    assert pivoted(turned @ np.diag(np.r_[-.01, np.ones(d - 1)]) @ turned.T) is None
    assert pivoted(-np.eye(d)) is None and pivoted(np.zeros((d, d))).shape == (0, d)

@pytest.mark.parametrize('x', [np.zeros((1, 3)), np.zeros(3), np.zeros((3, 0)), np.full((3, 2), np.nan), np.full((3, 2), np.inf)])
def test_bad_features(x):
    with pytest.raises(ValueError, match='features'): frechet(x, np.zeros((4, 2)))
    with pytest.raises(ValueError, match='features'): frechet(np.zeros((4, 2)), x)

def test_bad_moments():
    i = np.eye(2)
    with pytest.raises(ValueError, match='equally many'): frechet(np.zeros((3, 2)), np.zeros((3, 4)))
    with pytest.raises(ValueError, match='negative eigenvalue'): frechet_moments([0, 0], -i, [0, 0], i)
    with pytest.raises(ValueError, match='symmetric'): frechet_moments([0, 0], [[1, 2], [0, 1]], [0, 0], i)
    with pytest.raises(ValueError, match='square'): frechet_moments([0, 0, 0], i, [0, 0], i)

def test_metric_says_what_it_touched():
    m = Metric(name='frechet', value=2., private=True)
    assert float(m) == 2. and 'not for release' in str(m) and 'not for release' not in str(Metric(name='a', value=1., private=False))
    with pytest.raises(AttributeError): m.value = 3
    with pytest.raises(TypeError): Metric(name='a', value=1.)   # private has no default
    assert '2 seeds' in str(Metric(name='a', value=1., private=False, spread=.1, seeds=2))

def renders(n=200, seed=0, **kw):
    from pe_nb.generators.fonts import Fonts
    return Fonts(height=8, width=8, supersample=4, size_of='height', size=(8., 8.), rotation=(-5., 5.), stroke=(0., .3), **kw).random(np.arange(n) % 10, rng(seed))

def test_frechet_of_records():
    from pe_nb.embeddings.images import Pixels
    a, b = renders(200, 0), renders(200, 1)
    far = Records.images(255 - b.data, b.labels, label_names=b.label_names)
    near, away = frechet_records(a, b, Pixels()), frechet_records(far, b, Pixels())
    assert near.private and near.name == 'frechet' and 0 < float(near) < float(away)/5
    assert not frechet_records(a, b, Pixels(), private=False).private

# ---- downstream

def test_scores_by_hand():
    s = scores(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0]), ['a', 'b', 'c', 'd'])
    assert s['accuracy'] == .6 and s['accuracy/a'] == .5 and s['accuracy/b'] == 1 and s['accuracy/c'] == 0 and 'accuracy/d' not in s
    assert np.isclose(s['macro_f1'], np.mean([2*1/(2 + 2), 2*2/(2 + 3), 0]))

@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(2, 6))
def test_scores_agree_with_sklearn(seed, k):
    from sklearn.metrics import accuracy_score, f1_score
    g = rng(seed); t, p = g.integers(0, k, 30), g.integers(0, k, 30)
    s = scores(t, p, [str(i) for i in range(k)])
    assert np.isclose(s['accuracy'], accuracy_score(t, p)) and np.isclose(s['macro_f1'], f1_score(t, p, average='macro'))

def test_logistic_on_renders_is_deterministic():
    a, b = renders(400, 0), renders(300, 1)
    first, second = train_on_synthetic(a, b), train_on_synthetic(a, b)
    assert first == second and float(first['accuracy']) > .8 and all(m.private for m in first.values())
    assert set(first) == {'accuracy', 'macro_f1'} | {f'accuracy/{i}' for i in range(10)}
    wrong = Records.images(a.data, (a.labels + 1) % 10, label_names=a.label_names)
    assert float(train_on_synthetic(wrong, b)['accuracy']) < .1

def test_seeds():
    a, b = renders(100, 0), renders(100, 1)
    m = train_on_synthetic(a, b, model='forest', seeds=(0, 1, 2))
    assert m['accuracy'].seeds == 3 and m == train_on_synthetic(a, b, model='forest', seeds=(0, 1, 2))
    assert m['accuracy'].spread > 0 or m['accuracy'].value == 1
    from sklearn.tree import DecisionTreeClassifier
    assert 'accuracy' in train_on_synthetic(a, b, model=lambda s: DecisionTreeClassifier(random_state=s))

def test_absent_classes():
    a, b = renders(200, 0), renders(100, 1)
    m = train_on_synthetic(a[a.labels < 3], b)
    assert float(m['accuracy/7']) == 0 and float(m['accuracy/1']) > .5
    single = train_on_synthetic(a[a.labels == 4], b)
    assert float(single['accuracy/4']) == 1 and np.isclose(float(single['accuracy']), .1)
    few = train_on_synthetic(a, b[b.labels == 2])
    assert 'accuracy/3' not in few and 'accuracy/2' in few

def test_refusals():
    a, b = renders(50, 0), renders(50, 1)
    other = Records.images(a.data, a.labels, label_names=[f'd{i}' for i in range(10)])
    swapped = Records.images(a.data, a.labels, label_names=a.label_names[::-1])
    for r in (other, swapped):
        with pytest.raises(ValueError, match='label_names of synthetic'): train_on_synthetic(r, b)
    with pytest.raises(ValueError, match='at least one record'): train_on_synthetic(a[:0], b)
    with pytest.raises(ValueError, match='at least one record'): train_on_synthetic(a, b[:0])
    with pytest.raises(ValueError, match='model'): train_on_synthetic(a, b, model='svm')
    with pytest.raises(ValueError, match='seeds'): train_on_synthetic(a, b, seeds=())
    with pytest.raises(ValueError, match='must be images'): train_on_synthetic(Records.texts(['a'] * 50, a.labels, a.label_names), b)

def test_no_convergence_is_an_error():
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    a, b = renders(100, 0), renders(50, 1)
    with pytest.raises(ConvergenceWarning): train_on_synthetic(a, b, model=lambda s: LogisticRegression(max_iter=2))
