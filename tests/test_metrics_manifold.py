"Precision, recall, density and coverage against the definitions, written out over all pairs in 64 bits."
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from pe_nb.metrics import manifold as module
from pe_nb.metrics.frechet import Metric
from pe_nb.metrics.manifold import Pairs, inside, manifold, radii

rng = lambda s=0: np.random.default_rng(s)
values = lambda found: {k: m.value for k, m in found.items()}

def distances(x, y):
    return np.array([[((a - b)**2).sum() for b in np.asarray(y, float)] for a in np.asarray(x, float)])

def slow(x, y, k=3, strict=False, density_k=5):
    "The definitions."
    kp, kr = k if isinstance(k, tuple) else (k, k)
    within = (lambda d, r: d < r) if strict else (lambda d, r: d <= r)
    near = lambda z, k: [sorted(distances(np.delete(z, i, 0), z[i:i + 1])[:, 0])[k - 1] for i in range(len(z))]
    d, ry, rx, wide = distances(x, y), near(y, kp), near(x, kr), near(y, density_k)
    p = np.mean([any(within(d[i, j], ry[j]) for j in range(len(y))) for i in range(len(x))])
    r = np.mean([any(within(d[i, j], rx[i]) for i in range(len(x))) for j in range(len(y))])
    dense = np.mean([sum(d[i, j] < wide[j] for j in range(len(y))) for i in range(len(x))])/density_k
    return dict(precision=p, recall=r, f1=2*p*r/(p + r) if p + r else 0, density=dense, coverage=np.mean([any(d[i, j] < wide[j] for i in range(len(x))) for j in range(len(y))]))

def same(a, b): assert a.keys() == b.keys() and np.allclose(list(a.values()), list(b.values()), atol=1e-12), (a, b)

@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(6, 16), st.integers(6, 16), st.integers(1, 4), st.booleans(), st.sampled_from([1, 3, (2, 4), 5]), st.sampled_from(['grid', 'plain', 'far', 'tiny', 'huge', 'copies', 'float32']))
def test_is_the_definition(seed, n, m, d, strict, k, kind):
    "Ties, copies, far from the origin, tiny and huge: the quick distances never decide."
    g = rng(seed)
    x, y = (g.integers(0, 3, (a, d)).astype(float) if kind in ('grid', 'copies') else g.normal(size=(a, d)) for a in (n, m))
    if kind == 'copies': x[:n//2] = y[:n//2] if m >= n//2 else x[:n//2]
    if kind == 'far': x, y = x + 2**20, y + 2**20
    if kind in ('tiny', 'huge'): x, y = (v*{'tiny': 1e-80, 'huge': 1e80}[kind] for v in (x, y))
    if kind == 'float32': x, y = x.astype(np.float32), y.astype(np.float32)
    same(values(manifold(x, y, k=k, strict=strict)), slow(x, y, k, strict))

def test_exact_where_32_bits_are_not(monkeypatch):
    "A tight cluster in many dimensions: with the quick distances alone the answer is another."
    g = rng(3)
    x, y = (g.normal(size=(60, 768))*1e-4 for _ in range(2))
    x[0] += 1; y[0] -= 1                              # and two strays that keep the mean, and the unit, far away
    want = slow(x, y)
    same(values(manifold(x, y)), want)
    monkeypatch.setattr(Pairs, 'exact', lambda self, i, j: ((self.a[i][:, None] @ self.b[j][:, :, None])[:, 0, 0]*-2. + self.a2[i] + self.b2[j]).astype(np.float32).astype(float))
    assert any(abs(values(manifold(x, y))[k] - want[k]) > .01 for k in want)

@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 300), st.sampled_from([0., 1., 1e3]))
def test_bound_on_the_quick_distances(seed, d, shift):
    g = rng(seed)
    x, y = g.normal(size=(20, d)) + shift, g.normal(size=(30, d)) + 2*shift
    p = Pairs(x, y)
    for part, quick in p.blocks():
        i, j = np.mgrid[part, :30]
        exact = p.exact(i.ravel(), j.ravel()).reshape(quick.shape)
        assert (np.abs(quick - exact) <= p.error[part, None]).all()
        assert np.allclose(exact*p.back, distances(x[part], y), rtol=1e-9)

def test_blocks_do_not_matter(monkeypatch):
    x, y = rng().normal(size=(80, 5)), rng(1).normal(size=(90, 5)) + .3
    want = values(manifold(x, y))
    monkeypatch.setattr(module, 'BLOCK', 200)
    same(values(manifold(x, y)), want)
    assert len(list(Pairs(x, y).blocks())) == 40

def test_radii_of_copies_and_lines():
    assert radii(np.array([[0.], [0], [0], [5]]), (1, 2, 3)).tolist() == [[0, 0, 0, 25], [0, 0, 0, 25], [25, 25, 25, 25]]

def test_surface():
    x, y = np.array([[4.], [9]]), np.arange(4.)[:, None]
    p = Pairs(x, y)
    (part, d), = p.blocks()
    limit = np.array([[1., 1, 1, 1]])
    assert inside(p, part, d.copy(), limit, False).tolist() == [[False, False, False, True], [False]*4]
    assert not inside(p, part, d.copy(), limit, True).any()

def test_conventions_of_the_codes():
    "k that counts the row itself is one less here; on sets without ties `strict` is all that is left of the difference."
    x, y = rng().normal(size=(60, 3)), rng(1).normal(size=(70, 3)) + .5
    nn = lambda z, k: np.sort(np.sqrt(distances(z, z)), axis=1)[:, k]                          # entry 0 is the row itself
    d = np.sqrt(distances(y, x))                                                             # rows are real
    prdc = dict(precision=(d < nn(y, 5)[:, None]).any(0).mean(), recall=(d < nn(x, 5)[None]).any(1).mean(), density=(d < nn(y, 5)[:, None]).sum(0).mean()/5, coverage=(d.min(1) < nn(y, 5)).mean())
    ours = values(manifold(x, y, k=5, strict=True))
    assert all(np.isclose(ours[k], v) for k, v in prdc.items())
    fld = dict(precision=(d < nn(y, 4 - 1)[:, None]).any(0).mean(), recall=(d < nn(x, 5 - 1)[None]).any(1).mean())
    ours = values(manifold(x, y, k=(3, 4), strict=True))
    assert all(np.isclose(ours[k], v) for k, v in fld.items())
    aug = dict(precision=(d <= nn(y, 3)[:, None]).any(0).mean(), recall=(d <= nn(x, 3)[None]).any(1).mean())
    ours = values(manifold(x, y))
    assert all(np.isclose(ours[k], v) for k, v in aug.items())

def test_sides_and_marks():
    x, y = rng().normal(size=(40, 2)), rng(1).normal(size=(50, 2))*3
    a, b = values(manifold(x, y)), values(manifold(y, x))
    assert a['precision'] == b['recall'] and a['recall'] == b['precision'] and a['precision'] > a['recall']
    assert all(isinstance(m, Metric) and m.private and m.name == k for k, m in manifold(x, y).items()) and not manifold(x, y, private=False)['f1'].private
    assert values(manifold(x, x))['precision'] == 1 and values(manifold(x, x + 1e6)) == dict(precision=0, recall=0, f1=0, density=0, coverage=0)
    moved = values(manifold(x*7 - 5, y*7 - 5))
    same(moved, a)

BAD = [
    (dict(k=0), r'k \(0\)'), (dict(k=True), 'k'), (dict(k=2.), r'k \(2.0\)'), (dict(k=9), r'k \(9\)'), (dict(k=(3, 9)), r'k \(9\)'), (dict(density_k=9), r'density_k \(9\)'),
    (dict(synthetic=np.zeros((9, 3))), 'equally many'), (dict(synthetic=np.full((9, 2), np.nan)), 'finite'), (dict(synthetic=np.zeros(9)), r'must be \(n, d\)'), (dict(synthetic=np.zeros((1, 2))), 'at least 2'),
    (dict(synthetic=np.full((9, 2), 1e200)), 'squares'), (dict(synthetic=np.full((9, 2), 1e-200), real=np.full((9, 2), -1e-200)), 'squares'),
]
@pytest.mark.parametrize('change, message', BAD)
def test_bad_input(change, message):
    arguments = dict(synthetic=rng().normal(size=(9, 2)), real=rng(1).normal(size=(9, 2))) | change
    with pytest.raises(ValueError, match=message): manifold(**arguments)
