"The pool: neighbour lists against an exact second implementation, draws without replacement, labels kept, bad input refused."
from collections import Counter
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from pe_nb.embeddings.images import Pixels
from pe_nb.evolution import Settings, evolve
from pe_nb.generators import pool as P
from pe_nb.generators.pool import METRICS, Lists, Pool
from pe_nb.records import Column, Records, Schema
from pe_nb.release import Budget, SeededNoise

rng = lambda s=0: np.random.default_rng(s)
zeros = lambda n: np.zeros(n, np.int64)
texts = lambda n: Records.texts([f't{i}' for i in range(n)])


def vector_pool(x, **kw): return Pool(texts(len(x)), embeddings=np.asarray(x, np.float32), **kw)
def all_lists(x, metric, k, **kw):
    x = np.asarray(x, np.float32)
    return Lists(x, np.arange(len(x)), metric, **kw).learn(np.arange(len(x)), k)[np.arange(len(x))].tolist()


def exact(x, metric, k):
    "Order by exact fractions, lowest row first among equals. For 'cosine' the sign and square of the cosine are compared."
    rows = [[Fraction(float(v)) for v in r] for r in np.asarray(x, np.float32)]
    def score(a, b):
        if metric == 'l2': return sum((p - q)**2 for p, q in zip(a, b))
        dot, size = sum(p*q for p, q in zip(a, b)), sum(q*q for q in b)
        if metric == 'ip': return -dot
        return Fraction(0) if size == 0 else -(1 if dot > 0 else -1)*dot*dot/size
    return [[j for _, j in sorted((score(a, b), j) for j, b in enumerate(rows))][:k] for a in rows]


# ---- lists

@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(['l2', 'ip']), st.integers(1, 25), st.integers(1, 4))
def test_lists_are_exact_with_ties_and_copies(seed, metric, k, d):
    x = rng(seed).integers(-2, 3, (25, d))
    assert all_lists(x, metric, k) == exact(x, metric, k)


@pytest.mark.parametrize('metric', METRICS)
@pytest.mark.parametrize('make', [
    lambda r: r.standard_normal((60, 7)),
    lambda r: r.standard_normal((60, 7))*1e-3 + 1000,           # float32 distances would be mostly rounding
    lambda r: r.standard_normal((60, 7))*1e37,                   # squares overflow float32
    lambda r: r.standard_normal((60, 7))*1e-40,                  # subnormal
    lambda r: r.standard_normal((60, 7))*10.**r.integers(-20, 20, (60, 1)),
    lambda r: np.ones((60, 7)) + r.integers(0, 2, (60, 7))*2**-23,
], ids=['plain', 'offset', 'huge', 'tiny', 'wide', 'last bit'])
def test_lists_are_exact_on_hard_numbers(metric, make):
    x = make(rng(1)).astype(np.float32)
    got = all_lists(x, metric, 20)
    assert got == [np.argsort(P.exact_scores(v, x, metric), kind='stable')[:20].tolist() for v in x]
    spread = np.ptp(np.log10(np.abs(x).max(1)))
    if metric != 'cosine' and spread < 10: assert got == exact(x, metric, 20)      # where float64 can tell them apart


@pytest.mark.parametrize('metric', METRICS)
def test_fast_path_is_the_rule(metric):
    x = np.concatenate([rng(2).standard_normal((200, 33)), rng(3).integers(0, 2, (200, 33))]).astype(np.float32)
    for i, row in zip(range(0, 400, 7), np.asarray(all_lists(x, metric, 50))[::7]):
        assert row.tolist() == np.argsort(P.exact_scores(x[i], x, metric), kind='stable')[:50].tolist()


def test_a_margin_of_nothing_would_be_wrong(monkeypatch):
    "The test above can fail: without the margins, order and candidates are those of rounded products."
    x = (rng(1).standard_normal((300, 7))*1e-3 + 1000).astype(np.float32)
    want = all_lists(x, 'l2', 20)
    monkeypatch.setattr(P, 'ranks', lambda a, y, square, metric: (np.arange(len(y)), np.zeros(len(y))))
    assert all_lists(x, 'l2', 20) != want


@pytest.mark.parametrize('metric', METRICS)
def test_a_list_depends_on_nothing_else(metric):
    x = rng(4).integers(0, 3, (90, 6)).astype(np.float32)
    whole = Lists(x, np.arange(90), metric).learn(np.arange(90), 30)
    small = Lists(x, np.arange(90), metric, memory_mb=1e-6)
    for r in rng(5).permutation(90):
        one = np.array([r])
        assert small.learn(one, 12)[one].tolist() == whole[one][:, :12].tolist()
    assert small.learn(np.array([3]), 25)[np.array([3])].tolist() == whole[np.array([3])][:, :25].tolist()


def test_nearest_is_first_for_similarities():
    x = [[1, 0], [.9, .1], [.5, .5], [0, 1]]
    for m in METRICS: assert all_lists(x, m, 4)[0] == [0, 1, 2, 3]


def test_a_pool_of_copies_is_quick():
    p = vector_pool(np.ones((20_000, 64)))
    out = p.vary(p.random(zeros(2000), rng()), 20_000, rng(1))
    assert len(set(out.extra['pool_row'].tolist())) > 1500
    assert (p.vary(p.random(zeros(2000), rng()), 3, rng(1)).extra['pool_row'][:, None] < 3).mean() > .6     # the lowest rows, beside itself


# ---- random

def test_random_draws_without_replacement_then_again():
    p = vector_pool(rng().standard_normal((10, 3)))
    rows = p.random(zeros(25), rng(1)).extra['pool_row']
    assert sorted(rows[:10]) == sorted(rows[10:20]) == list(range(10)) and len(set(rows[20:].tolist())) == 5
    assert rows[:10].tolist() != rows[10:20].tolist()
    assert len(p.random(zeros(0), rng())) == 0


def test_random_respects_labels():
    r = Records.texts(['a', 'b', 'c', 'd', 'e'], [0, 1, 0, 1, 1], ['x', 'y'])
    p = Pool(r, embeddings=np.eye(5))
    labels = np.array([1, 0, 1, 0, 1, 0, 1])
    out = p.random(labels, rng())
    assert out.labels.tolist() == labels.tolist() and (r.labels[out.extra['pool_row']] == labels).all()
    assert sorted(out.extra['pool_row'][[0, 2, 4]]) == [1, 3, 4]
    swapped = Pool(r, label_names=['y', 'x'], embeddings=np.eye(5)).random(labels, rng())
    assert (r.labels[swapped.extra['pool_row']] == 1 - labels).all() and swapped.label_names == ('y', 'x')
    one = Pool(r, label_names=['y'], embeddings=np.eye(5))
    assert set(one.random(zeros(9), rng()).data.tolist()) == {'b', 'd', 'e'}


def test_labels_can_be_ignored():
    r = Records.texts(list('abcdef'), [0, 1]*3, ['x', 'y'])
    p = Pool(r, label_names=['p', 'q', 'r'], by_label=False, embeddings=np.arange(6.)[:, None])
    out = p.random(np.array([2, 0, 1, 1, 1, 0]), rng())
    assert sorted(out.data.tolist()) == list('abcdef') and out.labels.tolist() == [2, 0, 1, 1, 1, 0]
    assert p.max_degree == 6
    plain = Pool(texts(4), label_names=['p', 'q'], embeddings=np.eye(4))
    assert plain.random(np.array([1, 0]), rng()).labels.tolist() == [1, 0] and not plain.by_label


# ---- vary

def test_degree_one_is_the_parent():
    x = rng().standard_normal((30, 4))*np.arange(1, 31)[:, None]
    x[7] = x[3]
    for m in METRICS:
        p = vector_pool(x, metric=m)
        start = p.random(zeros(30), rng(1))
        assert p.vary(start, 1, rng(2)) == start


@pytest.mark.parametrize('include_self', [True, False])
@pytest.mark.parametrize('metric', METRICS)
def test_vary_is_uniform_over_the_degree_nearest(metric, include_self):
    x = rng(6).integers(-2, 3, (40, 3)).astype(float)
    p, want = vector_pool(x, metric=metric, include_self=include_self), exact(x, metric, 40)
    rows = np.repeat(np.arange(40), 300)
    start = p.taken(rows, zeros(len(rows)))
    out = p.vary(start, 5, rng(7)).extra['pool_row']
    for i in range(40):
        others = [j for j in want[i] if j != i]
        got = Counter(out[rows == i].tolist())
        if metric != 'cosine': assert set(got) == set(([i] + others[:4]) if include_self else others[:5])
        assert len(got) == 5 and (i in got) == include_self and min(got.values()) > 25      # 60 expected, sd 7


def test_small_labels_use_all_they_have():
    r = Records.texts([str(i) for i in range(12)], [0]*2 + [1]*10, ['few', 'many'])
    p = Pool(r, embeddings=rng().standard_normal((12, 3)))
    assert p.max_degree == 10
    start = p.random(np.repeat([0, 1], 400), rng())
    out = p.vary(start, 10, rng(1))
    assert out.labels.tolist() == start.labels.tolist() and (r.labels[out.extra['pool_row']] == start.labels).all()
    assert set(out.extra['pool_row'].tolist()) == set(range(12))
    alone = Pool(r, embeddings=rng().standard_normal((12, 3)), include_self=False)
    flip = alone.vary(start, 9, rng(1)).extra['pool_row'][:400]
    assert (flip == 1 - start.extra['pool_row'][:400]).all()


def test_same_seed_same_records_and_a_late_start_changes_nothing():
    x = rng().integers(0, 3, (80, 4))
    a, b = vector_pool(x), vector_pool(x, memory_mb=1)
    start = a.random(zeros(50), rng(1))
    first = a.vary(start, 40, rng(2))
    assert a.vary(first, 10, rng(3)) == b.vary(first, 10, rng(3))     # b never computed the longer lists
    assert b.vary(start, 40, rng(2)) == first and a.vary(start, 40, rng(9)) != first


class Squares:
    fingerprint = 'Squares'
    def __init__(self): self.calls = 0
    def __call__(self, r):
        self.calls += 1
        return np.array([[float(t), 1] for t in r.data.tolist()], np.float32).reshape(len(r), 2)


def test_parents_from_elsewhere_are_embedded():
    e = Squares()
    p = Pool(Records.texts([str(i) for i in range(20)]), e)
    odd = Records.texts(['4.2', '7', '18.9', '1e9'], extra=dict(pool_row=np.array([-1, 7, -1, -1])))
    out = p.vary(odd, 1, rng())
    assert out.extra['pool_row'].tolist() == [4, 7, 19, 19]
    got = {tuple(p.vary(odd, 2, rng(s)).extra['pool_row'].tolist()) for s in range(40)}
    assert {g[0] for g in got} == {4, 5} and {g[1] for g in got} == {7, 6} and {g[2] for g in got} == {19, 18}
    before = e.calls
    p.vary(p.random(zeros(5), rng()), 5, rng())
    assert e.calls == before                                           # the pool itself is embedded once


# ---- any modality, extras

def test_images_tables_and_extras_travel():
    img = Records.images(rng().integers(0, 255, (9, 4, 4, 1)).astype(np.uint8), extra=dict(who=np.array(list('abcdefghi')), pose=np.arange(18.).reshape(9, 2)))
    p = Pool(img, Pixels())
    out = p.vary(p.random(zeros(6), rng()), 4, rng(1))
    rows = out.extra['pool_row']
    assert np.array_equal(out.data, img.data[rows]) and np.array_equal(out.extra['pose'], img.extra['pose'][rows]) and out.extra['who'].tolist() == [*img.extra['who'][rows]]
    schema = Schema((Column('age', 'integer', low=0, high=99), Column('c', 'categorical', ('u', 'v'))))
    t = Records.table(pd.DataFrame(dict(age=[1, 2, 50], c=['u', 'v', 'u'])), schema)
    q = Pool(t, embeddings=np.array([[1.], [2.], [50.]]))
    out = q.vary(q.random(zeros(5), rng()), 2, rng(1))
    assert Records.table(out.data, schema, extra=dict(out.extra)) == out
    sold = Schema((Column('age', 'integer', low=0, high=99),), labels=(Column('sold', 'boolean'),))
    s = Pool(Records.table(pd.DataFrame(dict(age=[1, 2, 3, 4], sold=[True, False, True, False])), sold), embeddings=np.eye(4))
    assert s.random(np.array([0, 1, 1]), rng()).frame().shape == (3, 2)
    assert min(x.record_bytes for x in (p, q, s, vector_pool(np.eye(3)))) > 0


def test_fingerprint_says_what_matters():
    r, e = texts(6), np.eye(6)
    kinds = [Pool(r, embeddings=e), Pool(r, embeddings=e, metric='ip'), Pool(r, embeddings=e, include_self=False), Pool(r, embeddings=2*e), Pool(r[:5], embeddings=e[:5]),
             Pool(r, Pixels()), Pool(r, label_names=['x'], embeddings=e), Pool(r, Pixels(blur=1.)), Pool(r, Pixels(), embeddings=e)]
    assert len({p.fingerprint for p in kinds}) == len(kinds)
    assert Pool(r, embeddings=e, max_degree=3, memory_mb=1).fingerprint == kinds[0].fingerprint


# ---- bad input

two = Records.texts(list('abc'), [0, 1, 1], ['x', 'y'])
@pytest.mark.parametrize('kw, said', [
    (dict(records=np.zeros(3)), 'records'), (dict(records=two[:0]), 'at least one'), (dict(embeddings=None), 'embedding (None) must be given'),
    (dict(embeddings=np.eye(2)), 'must have the shape (3, d)'), (dict(embeddings=np.eye(3, dtype=int)), 'must be float32'), (dict(embeddings=np.eye(3)*np.nan), 'finite'),
    (dict(embeddings=np.eye(3)*1e200), 'finite'), (dict(embeddings=np.zeros((3, 0))), 'shape'), (dict(metric='l1'), 'metric'), (dict(label_names=['x', 'z']), 'must be labels of the pool'),
    (dict(label_names=['x', 'x']), 'unique'), (dict(records=two[1:], embeddings=np.eye(2)), 'there is none of'), (dict(include_self=False), 'at least two of each label'),
    (dict(max_degree=3), 'max_degree (3) must be an integer from 1 to 2'), (dict(max_degree=0), 'max_degree'), (dict(memory_mb=0), 'memory_mb'), (dict(by_label='yes'), 'by_label'),
    (dict(include_self=None), 'include_self'), (dict(embedding=lambda r: r), 'fingerprint'), (dict(records=two.with_extra(pool_row=np.arange(3))), 'pool_row'),
    (dict(records=two.with_extra(pe_x=np.arange(3))), 'begins with pe_')])
def test_bad_settings_are_refused(kw, said):
    with pytest.raises(ValueError) as e: Pool(**(dict(records=two, embeddings=np.eye(3)) | kw))
    assert said in str(e.value)


@pytest.mark.parametrize('degree', [0, -1, 4, 2.0, True, None, 'all', [1], float('nan')])
def test_bad_degrees_are_refused(degree):
    p = vector_pool(np.eye(3))
    with pytest.raises(ValueError, match='degree'): p.check(degree)
    with pytest.raises(ValueError, match='degree'): p.vary(p.random(zeros(2), rng()), degree, rng())


def test_bad_parents_and_labels_are_refused():
    p = Pool(two, embeddings=np.eye(3))
    good = p.random(np.array([0, 1]), rng())
    for bad, said in [(good.with_extra(pool_row=np.array([1, 0])), 'of that label'), (good.with_extra(pool_row=np.array([0, 3])), 'of that label'), (good.with_extra(pool_row=np.array([0, -2])), 'of that label'),
                      (good.with_extra(pool_row=np.array([0., 1.])), 'int64'), (good.without_extra(), 'must be'), (good.with_extra(more=np.zeros(2)), 'must be'),
                      (good.with_extra(pool_row=np.array([0, -1])), 'embedding (None)'), (Records.texts(['a'], extra=dict(pool_row=[0])), 'label_names'),
                      (Records.images(np.zeros((1, 2, 2, 1), np.uint8)), 'kind'), (None, 'kind')]:
        with pytest.raises(ValueError) as e: p.vary(bad, 1, rng())
        assert said in str(e.value)
    for labels in ([2], [-1], [0.]):
        with pytest.raises(ValueError): p.random(np.array(labels), rng())
    wrong = Pool(texts(3), type('E', (), dict(fingerprint='E', __call__=lambda s, r: np.zeros((2, 2))))())
    with pytest.raises(ValueError, match='its result'): wrong.vary(wrong.random(zeros(2), rng()), 2, rng())


# ---- in a run

class Points:
    fingerprint = 'Points'
    def __call__(self, r): return np.array([[float(v) for v in t.split()] for t in r.data.tolist()], np.float32)


def test_votes_find_the_part_of_the_pool_that_matters():
    def points(x): return Records.texts([f'{a:.4f} {b:.4f}' for a, b in x])
    world = np.concatenate([rng(1).normal(0, 1, (900, 2)), rng(2).normal(6, 1, (100, 2))])     # a tenth of the pool looks like the private data
    private = points(rng(3).normal(6, 1, (400, 2)))
    p = Pool(points(world), Points())
    runs = [list(evolve(private, p, Points(), Settings(generations=3, samples=150, degree=[100, 100, 30, 5], folds=1), Budget(epsilon=8., delta=1e-5), noise=SeededNoise(0))) for _ in range(2)]
    share = [float((g.records.extra['pool_row'] >= 900).mean()) for g in runs[0]]
    assert share[0] < .2 and share[-1] > .9
    assert runs[0][-1].records == runs[1][-1].records
