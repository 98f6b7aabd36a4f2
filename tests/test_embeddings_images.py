"Image embeddings: bit for bit a function of each record, with a fingerprint per setting."
import tracemalloc
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from pe_nb.embeddings.images import Edges, Pixels, blurred, cell_means, scaled, shifted, slopes
from pe_nb.records import Records

ALL = [Pixels(), Pixels(3.), Pixels(blur=.7), Edges(), Edges(cell=3), Edges(directions=5, cell=1, pixels=0), Edges(floor=1.)]

def images(seed, n, h, w, c): return Records.images(np.random.default_rng(seed).integers(0, 256, (n, h, w, c)).astype(np.uint8))

@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 40), st.sampled_from([(8, 8, 1), (28, 28, 1), (1, 1, 1), (5, 9, 3), (2, 3, 1)]), st.integers(0, len(ALL) - 1))
def test_a_function_of_the_record_alone(seed, n, shape, which):
    e, r = ALL[which], images(seed, n, *shape)
    x = e(r)
    assert x.dtype == np.float32 and x.ndim == 2 and len(x) == n and np.isfinite(x).all() and x.flags.c_contiguous
    for i in range(min(n, 6)): assert x[i].tobytes() == e(r[i:i+1])[0].tobytes()
    order = np.random.default_rng(seed).permutation(n)
    assert e(r[order]).tobytes() == x[order].tobytes()
    assert e(r[:n//2 + 1]).tobytes() == x[:n//2 + 1].tobytes()

def test_that_test_can_fail():
    "A matrix product, or a statistic of the batch, is caught by the same comparison."
    r = images(0, 300, 8, 8, 1)
    centred = lambda r: scaled(r).reshape(len(r), -1) - scaled(r).reshape(len(r), -1).mean(0)
    assert any(centred(r)[i].tobytes() != centred(r[i:i+1])[0].tobytes() for i in range(300))

@pytest.mark.parametrize('e', ALL)
def test_empty_and_blank(e):
    assert e(images(0, 0, 8, 8, 1)).shape == (0, e(images(0, 1, 8, 8, 1)).shape[1])
    assert np.isfinite(e(Records.images(np.zeros((2, 8, 8, 1), np.uint8)))).all()
    with pytest.raises(ValueError, match='must be images'): e(Records.texts(['a']))

def test_fingerprints_are_distinct_and_stable():
    assert len({e.fingerprint for e in ALL}) == len(ALL)
    assert Pixels().fingerprint == Pixels(1).fingerprint == 'Pixels {"scale": 1.0, "blur": 0.0}' and Edges().fingerprint == Edges(8, 2, .5, .01).fingerprint
    r = images(1, 3, 8, 8, 1)
    for a in ALL:
        for b in ALL:                                          # another setting, another embedding: nothing is shared
            if a is not b: assert a(r).shape != b(r).shape or not np.array_equal(a(r), b(r))

@pytest.mark.parametrize('bad', [lambda: Pixels(0), lambda: Pixels(-1), lambda: Pixels(float('nan')), lambda: Pixels('1'), lambda: Pixels(True), lambda: Pixels(blur=-1), lambda: Edges(directions=0),
    lambda: Edges(cell=1.5), lambda: Edges(cell=True), lambda: Edges(pixels=-1), lambda: Edges(floor=0), lambda: Edges(floor=float('inf'))])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match='must be'): bad()

def test_pixels_are_the_pixels():
    r = images(2, 4, 5, 6, 3)
    assert np.allclose(Pixels(2.)(r), r.data.reshape(4, -1)/255*2)

def test_blur_agrees_with_scipy():
    from scipy.ndimage import gaussian_filter
    x = scaled(images(3, 2, 12, 12, 1))
    for s in (.4, 1., 2.):
        peer = np.stack([gaussian_filter(i[..., 0].astype(float), s, mode='constant', radius=max(1, int(np.ceil(2.5*s)))) for i in x])
        assert np.allclose(blurred(x, s)[..., 0], peer, atol=1e-5)

def test_shifts_and_cells():
    x = scaled(images(4, 2, 6, 6, 1))
    assert np.array_equal(shifted(x, 0, 0), x) and not shifted(x, 6, 0).any() and not shifted(x, 0, -9).any()
    assert np.array_equal(shifted(x, 1, -2)[:, :-1, 2:], x[:, 1:, :-2])
    assert np.allclose(cell_means(x, 3), x.reshape(2, 2, 3, 2, 3, 1).mean((2, 4))) and cell_means(x, 4).shape == (2, 2, 2, 1)

def test_slopes_see_the_direction():
    ramp = np.broadcast_to(np.arange(9, dtype=np.float32)[None, None, :, None], (1, 9, 9, 1))
    right, down, left, up = (s[0, 4, 4, 0] for s in slopes(ramp, 4))
    assert right == 2 and left == 0 and abs(down) < 1e-6 and abs(up) < 1e-6

def test_brightness_counts_for_little():
    from pe_nb.generators.fonts import Fonts
    r = Fonts(stroke=(0, 0), size=(22, 26)).random(np.arange(20) % 10, np.random.default_rng(0))
    dim = Records.images((r.data*.6).astype(np.uint8))
    e = Edges(pixels=0, cell=4)
    d = np.linalg.norm(e(dim)[:, None] - e(r)[None], axis=2)
    assert (d.argmin(1) == np.arange(20)).all()


def test_a_thousand_at_a_time():
    "Edges of many images in pieces, bit for bit what all at once gives, and in the memory of a piece."
    r = Records.images(np.random.default_rng(0).integers(0, 256, (2300, 28, 28, 1)).astype(np.uint8))
    for e in (Edges(cell=4, pixels=0), Edges()): assert np.array_equal(e(r), e.some(scaled(r)))
    assert Edges()(r[:0]).shape == (0, Edges()(r[:1]).shape[1])
    tracemalloc.start()
    Edges(cell=4, pixels=0)(r)
    few = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    Edges(cell=4, pixels=0).some(scaled(r))
    assert few < .7*tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
