"""Selection and apportionment are defined for everything that noise and public shares can be."""
import numpy as np
import pytest
from fractions import Fraction
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from pe_nb.accounting import Event
from pe_nb.release import Release, Votes
from pe_nb.selection import apportion, rank, sample, select, threshold

def release(values, grid=0):
    return Release(index=1, purpose='votes', values=np.asarray(values, np.int64), event=Event(noise_multiplier=1., grid=grid), noise='', secure=False, run='', previous='')

histograms = arrays(np.int64, st.integers(1, 40), elements=st.one_of(st.integers(-50, 50), st.integers(-2**60, 2**60)))

@given(histograms, st.integers(0, 60), st.sampled_from(['sample', 'rank']), st.floats(0, 1e6), st.integers(1, 4), st.integers(0, 5))
@settings(deadline=None, max_examples=200)
def test_select_always_answers(values, n, how, H, labels, seed):
    "Any histogram, threshold and count: the right number of parents, of the right label, no NaN, no exception."
    lab = np.arange(len(values)) % labels
    counts = np.where(np.bincount(lab, minlength=labels) > 0, n, 0)
    chosen = select(release(values), lab, counts, np.random.default_rng(seed), how, H)
    assert chosen.dtype == np.int64 and np.array_equal(lab[chosen], np.repeat(np.arange(labels), counts))

@given(histograms, st.integers(1, 60), st.floats(0, 1e6))
@settings(deadline=None, max_examples=100)
def test_sample_draws_only_above_the_threshold(values, n, H):
    w = threshold(values, H)
    assert (w >= 0).all()
    drawn = sample(w, n, np.random.default_rng(0))
    assert len(drawn) == n and ((w[drawn] > 0).all() or w.sum() == 0)

def test_sample_is_proportional():
    w = np.array([1., 0, 3, 6])
    f = np.bincount(sample(w, 100_000, np.random.default_rng(0)), minlength=4)/100_000
    assert np.abs(f - w/10).max() < .01
    assert np.abs(np.bincount(sample(np.zeros(4), 100_000, np.random.default_rng(0)))/100_000 - .25).max() < .01

@given(histograms, st.integers(1, 100))
@settings(deadline=None, max_examples=100)
def test_rank_takes_the_best(values, n):
    got, m = rank(values, n), len(values)
    first = got[:min(n, m)]
    assert len(got) == n and len(set(first.tolist())) == len(first)
    left = np.setdiff1d(np.arange(m), first)
    if len(left): assert values[first].astype(float).min() >= values[left].astype(float).max()
    assert np.array_equal(got, np.resize(got[:m], n))

def test_rank_breaks_ties_by_index(): assert rank(np.array([5, 9, 9, 5]), 4).tolist() == [1, 2, 0, 3]

def test_rank_uses_noisy_order_below_zero():
    "Without a threshold negative votes are still ordered; with one they tie."
    r, lab = release([-9, -1, -5]), np.zeros(3, int)
    assert select(r, lab, [2], np.random.default_rng(0), 'rank').tolist() == [1, 2]
    assert select(r, lab, [2], np.random.default_rng(0), 'rank', 3.).tolist() == [0, 1]

def test_client_votes_are_scaled_before_the_threshold():
    "Votes in units of 1/grid: a threshold of 1 vote is 1 vote."
    drawn = select(release([2**20 + 5, 2**19, 3*2**20], grid=2**20), np.zeros(3, int), [200], np.random.default_rng(0), 'sample', 1.)
    assert set(drawn.tolist()) <= {0, 2} and np.bincount(drawn, minlength=3)[2] > 190

@pytest.mark.parametrize('kw, message', [(dict(how='top'), "selection ('top') must"), (dict(H=-1), 'threshold (-1) must'), (dict(H=float('nan')), 'threshold (nan) must'), (dict(H=None), 'threshold (None) must')])
def test_select_refuses_settings(kw, message):
    with pytest.raises(ValueError) as e: select(release([1, 2]), np.zeros(2, int), [1], np.random.default_rng(0), **kw)
    assert message in str(e.value)

def test_select_sees_releases_only():
    for bad in (Votes(np.array([1, 2])), np.array([1, 2]), [1, 2]):
        with pytest.raises(TypeError, match='must be a Release'): select(bad, np.zeros(2, int), [1], np.random.default_rng(0))
    with pytest.raises(ValueError, match='as many as the bins'): select(release([1, 2]), np.zeros(3, int), [1], np.random.default_rng(0))
    with pytest.raises(ValueError, match='must be 0'): select(release([1, 2]), np.zeros(2, int), [1, 1], np.random.default_rng(0))

shares = st.lists(st.one_of(st.just(0.), st.floats(1e-3, 1e3), st.integers(0, 10**6).map(float)), min_size=1, max_size=30).filter(lambda s: max(s) > 0)

@given(shares, st.integers(0, 5000))
@settings(deadline=None, max_examples=300)
def test_apportion(s, n):
    "Sums to n, nobody negative, nobody off its exact quota by one or more, zero shares get nothing."
    out = apportion(s, n, allow_loss=True)
    quota = [Fraction(x)*n/sum(map(Fraction, s)) for x in s]
    assert out.sum() == n and out.min() >= 0 and out.dtype == np.int64
    assert all(abs(int(o) - q) < 1 + Fraction(1, 10**6) for o, q in zip(out, quota))
    assert all(o == 0 for o, x in zip(out, s) if x == 0)

@given(shares, st.integers(0, 200))
@settings(deadline=None, max_examples=200)
def test_apportion_never_loses_a_label_silently(s, n):
    lost = any(o == 0 and x > 0 for o, x in zip(apportion(s, n, True), s))
    if not lost: assert np.array_equal(apportion(s, n), apportion(s, n, True))
    else:
        with pytest.raises(ValueError, match='would get none'): apportion(s, n)

@pytest.mark.parametrize('bad', [[], [0, 0], [-1, 2], [np.nan, 1], [np.inf, 1], [[1, 2]]])
def test_apportion_refuses(bad):
    with pytest.raises(ValueError, match='shares'): apportion(bad, 5)
