"Kernel distance against its definition over all pairs, and against clean-fid's formula written out."
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from pe_nb.metrics import kernel as module
from pe_nb.metrics.frechet import Metric
from pe_nb.metrics.kernel import cross_sums, kernel, kernel_distance, kernel_records, over_subsets, own_sums, unbiased

rng = lambda s=0: np.random.default_rng(s)

def by_pairs(x, y):
    "Equation 4 of Bińkowski and others, pair by pair."
    k = lambda u, v: (sum(float(a)*float(b) for a, b in zip(u, v))/len(u) + 1)**3
    within = lambda z: np.mean([k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j])
    return within(x) + within(y) - 2*np.mean([k(u, v) for u in x for v in y])

def clean_fid(reference, generated, subsets, size):
    "The sum that clean-fid takes, after its own draws from the global state: first of the generated side."
    m, d, total = min(len(reference), len(generated), size), reference.shape[1], 0.
    for _ in range(subsets):
        g = generated[np.random.choice(len(generated), m, replace=False)]
        r = reference[np.random.choice(len(reference), m, replace=False)]
        same = (g @ g.T/d + 1)**3 + (r @ r.T/d + 1)**3
        total += (same.sum() - np.diag(same).sum())/(m - 1) - ((g @ r.T/d + 1)**3).sum()*2/m
    return total/subsets/m

@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(2, 12), st.integers(1, 6), st.sampled_from([1e-3, 1., 30.]), st.integers(1, 40))
def test_is_the_definition_in_blocks_of_any_size(seed, n, m, d, size, block):
    g = rng(seed); x, y = g.normal(size=(n, d))*size, g.normal(.3, 1, size=(m, d))*size
    with pytest.MonkeyPatch.context() as mp:
        mp.setattr(module, 'BLOCK', block)
        value, error = unbiased(x, y)
    want, scale = by_pairs(x, y), 1 + np.abs(kernel(np.concatenate([x, y]), np.concatenate([x, y]))).max()
    assert abs(value - want) < 1e-12*scale and abs(unbiased(y, x)[0] - want) < 1e-12*scale
    assert (error is None) == (min(n, m) < 3)
    assert float(kernel_distance(x, y)) == unbiased(x, y)[0]

def test_jackknife_leaves_one_out():
    x, y = rng().normal(size=(9, 3)), rng(1).normal(.5, 2, size=(7, 3))
    a = np.array([by_pairs(np.delete(x, i, 0), y) for i in range(9)])
    b = np.array([by_pairs(x, np.delete(y, i, 0)) for i in range(7)])
    want = 8/9*((a - a.mean())**2).sum() + 6/7*((b - b.mean())**2).sum()
    assert np.isclose(unbiased(x, y)[1], want**.5) and np.isclose(unbiased(y, x)[1], want**.5)

@pytest.mark.parametrize('shift', [0., .5])
def test_no_bias_and_an_error_that_holds(shift):
    "300 draws: the mean is that of samples forty times as large, zero for one distribution, and the stated error is no smaller than the scatter."
    g = rng(7); draw = lambda n: (g.normal(size=(n, 4)), g.normal(shift, 1, size=(n + 3, 4)))
    found = np.array([unbiased(*draw(20)) for _ in range(300)])
    mean, scatter = found[:, 0].mean(), found[:, 0].std()
    large, error = unbiased(*draw(800)) if shift else (0., 0.)
    assert abs(mean - large) < 4*(scatter/300**.5 + error) and (found[:, 0] < 0).any()
    assert .9*scatter < (found[:, 1]**2).mean()**.5 < 2.5*scatter
    if not shift: assert float(np.quantile(np.abs(found[:, 0])/found[:, 1], .9)) < 2.5

def test_sums_of_rows():
    x, y = rng().normal(size=(11, 4)), rng(1).normal(size=(8, 4))
    k = kernel(x, x); np.fill_diagonal(k, 0)
    assert np.allclose(own_sums(x), k.sum(1))
    a, b = cross_sums(x, y)
    assert np.allclose(a, kernel(x, y).sum(1)) and np.allclose(b, kernel(y, x).sum(1)) and a.shape == (11,) and b.shape == (8,)

@pytest.mark.parametrize('size', [15, 40, 1000])
@pytest.mark.parametrize('dtype', ['f8', 'f4'])
def test_clean_fids_figure(size, dtype):
    "The same rows after the same seed, and the same number: for float32 features theirs is summed in 32 bits."
    x, y = rng().normal(size=(60, 12)).astype(dtype), rng(1).normal(.2, 1, size=(45, 12)).astype(dtype)
    state = np.random.get_state()
    try:
        np.random.seed(5)
        want = clean_fid(y, x, 30, size)
    finally: np.random.set_state(state)
    m = kernel_distance(x, y, subsets=30, size=size, seed=np.random.RandomState(5))
    assert np.isclose(float(m), want, rtol=1e-12 if dtype == 'f8' else 1e-3, atol=1e-12 if dtype == 'f8' else 1e-5)
    assert m.seeds == 30 and m.over == 'subsets' and (m.spread > 0) and m.error is None and '± ' in str(m) and '30 subsets' in str(m)

def test_subsets():
    x, y = rng().normal(size=(300, 5)), rng(1).normal(.3, 1, size=(250, 5))
    exact, usual = kernel_distance(x, y), kernel_distance(x, y, subsets=100, size=60)
    assert abs(float(exact) - float(usual)) < usual.spread/2 and exact.error < usual.spread
    assert np.allclose(over_subsets(x, x, 3, 300, rng()), unbiased(x, x)[0], atol=1e-12)    # all rows, reordered
    each = over_subsets(x, y, 10, 60, rng(1))
    assert (each == over_subsets(x, y, 10, 60, rng(1))).all() and not (each == over_subsets(x, y, 10, 60, rng(2))).any() and (each[:4] == over_subsets(x, y, 4, 60, rng(1))).all()
    assert kernel_distance(x, y, subsets=10, size=60, seed=1).value == each.mean()
    before = np.random.get_state()[1].copy()
    kernel_distance(x, y, subsets=2, size=10)
    assert (np.random.get_state()[1] == before).all()      # the global state is not touched

def test_what_it_touched():
    x, y = rng().normal(size=(10, 2)), rng(1).normal(size=(10, 2))
    for how in ({}, dict(subsets=3, size=5)):
        m = kernel_distance(x, y, **how)
        assert isinstance(m, Metric) and m.private and m.name == 'kernel' and 'not for release' in str(m) and not kernel_distance(x, y, private=False, **how).private
    assert 'standard error' in str(kernel_distance(x, y)) and 'standard error' not in str(kernel_distance(x[:2], y))
    assert kernel_distance(x.astype('f4'), y.astype('f4')).value == kernel_distance(x.astype('f4').astype(float), y.astype('f4').astype(float)).value

def test_copies_are_below_zero():
    "Two identical sets: the estimate is below zero by what the diagonal adds to the last term, as the definition has it."
    x = rng().normal(size=(50, 4)); k = kernel(x, x)
    gap = 2*(k.sum() - np.trace(k))/(50*49) - 2*k.sum()/2500
    assert gap < 0 and np.isclose(float(kernel_distance(x, x)), gap)

def test_on_records():
    from pe_nb.embeddings.images import Pixels
    from pe_nb.records import Records
    a, b = (Records.images(rng(s).integers(0, 256, (40, 4, 4, 1)).astype(np.uint8)) for s in (0, 1))
    dark = Records.images(b.data//3)
    near, far = kernel_records(a, b, Pixels()), kernel_records(a, dark, Pixels(), private=False)
    assert near.private and not far.private and abs(float(near)) < 4*near.error and float(far) > 4*far.error
    assert near == kernel_distance(Pixels()(a), Pixels()(b))
    assert kernel_records(a, b, Pixels(), subsets=4, size=10).seeds == 4

BAD = [
    (dict(synthetic=np.zeros((1, 3))), 'at least 2'), (dict(real=np.zeros(3)), r'must be \(n, d\)'), (dict(real=np.full((4, 3), np.nan)), 'finite'), (dict(real=np.zeros((4, 2))), 'equally many'),
    (dict(subsets=0), r'subsets \(0\)'), (dict(subsets=True), r'subsets \(True\)'), (dict(subsets=2.), r'subsets \(2.0\)'), (dict(size=1), r'size \(1\)'), (dict(size=None), r'size \(None\)'),
    (dict(seed=-1), r'seed \(-1\)'), (dict(seed=None, subsets=2), r'seed \(None\)'), (dict(synthetic=np.full((4, 3), 1e60)), 'a kernel that is a number'), (dict(synthetic=np.full((4, 3), 1e60), subsets=2), 'a kernel that is a number'),
]
@pytest.mark.parametrize('change, message', BAD)
def test_bad_input(change, message):
    arguments = dict(synthetic=rng().normal(size=(9, 3)), real=rng(1).normal(size=(9, 3))) | change
    with pytest.raises(ValueError, match=message): kernel_distance(**arguments)
