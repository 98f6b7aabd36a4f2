"Table metrics against slow and obvious second implementations, and what they do with awkward tables."
import itertools
import math
import sys
import types
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from pe_nb.metrics import closeness, tabular_models
from pe_nb.metrics.associations import association_distance, associations, cramers_v, correlation_ratio, sdmetrics_quality
from pe_nb.metrics.closeness import closest, precision_recall, row_ids
from pe_nb.metrics.downstream import train_on_synthetic
from pe_nb.metrics.tables import (Axis, axis, entropic, growing, label_axes, one_way, projected, quantile_distance, sampled, squared, subsets, table_columns,
                                  transport, tvd, wsd)
from pe_nb.metrics.tabular_models import auc, features_of, probabilities, propensity, table_scores, train_on_synthetic_table, unordered
from pe_nb.records import Column, Records, Schema

rng = lambda s=0: np.random.default_rng(s)

SCHEMA = Schema((Column('c', 'categorical', ('x', 'y', 'z')), Column('cn', 'categorical', ('u', 'v'), nullable=True),
                 Column('o', 'ordinal', ('lo', 'mid', 'hi'), nullable=True), Column('b', 'boolean', nullable=True),
                 Column('i', 'integer', low=-3, high=40), Column('in', 'integer', low=0, high=5, nullable=True), Column('f', 'float', low=-1., high=3.),
                 Column('fn', 'float', low=0., high=1., nullable=True), Column('d', 'date', low='2001-01-01', high='2001-02-01')),
                labels=(Column('y', 'categorical', ('no', 'yes')), Column('w', 'ordinal', ('1', '2', '10'))))
WHOLE = Schema(tuple(replace(c, nullable=False) for c in SCHEMA.columns), SCHEMA.labels)

def table(n, seed, schema=SCHEMA, missing=.2, labels=None):
    "Random rows of a schema."
    g, cols = rng(seed), {}
    for c in schema.both:
        gone = g.random(n) < missing*c.nullable
        if c.kind == 'boolean': v = pd.array(g.integers(0, 2, n).astype(bool), dtype='boolean')
        elif c.coded: v = pd.array(np.array(c.categories, object)[g.integers(0, len(c.categories), n)], dtype=object)
        elif c.kind == 'integer': v = pd.array(g.integers(c.low, c.high, n, endpoint=True), dtype='Int64')
        elif c.kind == 'date': v = pd.array(np.datetime64(c.low, 's') + g.integers(0, c.bounds[1] - c.bounds[0] + 1, n)*np.timedelta64(1, 'D'))
        else: v = pd.array(g.uniform(c.low, c.high, n), dtype='Float64')
        v[gone] = pd.NA if c.kind != 'date' else pd.NaT
        plain = 'float64' if c.kind == 'float' else {'integer': 'int64', 'boolean': 'bool'}.get(c.kind) if not c.nullable else None
        cols[c.name] = v.astype(plain) if plain else v
    if labels is None: return Records.table(pd.DataFrame(cols), schema)
    return Records.table(pd.DataFrame(cols), schema, g.integers(0, len(labels), n), labels)

def cell(c, v, gone, bins):
    "The cell of one value."
    if gone: return 'missing'
    if c.coded: return c.categories[v]
    low, high = c.bounds
    return min(int((v - low)/(high - low)*bins), bins - 1) if high > low else 0

def slow_tvd(synthetic, real, k, bins):
    "Total variation by dictionaries of cells."
    sides = [[[cell(c, x, g, bins) for x, g in zip(v.tolist(), gone)] for c, v, gone in table_columns(r)] for r in (synthetic, real)]
    out = []
    for s in itertools.combinations(range(len(sides[0])), k):
        shares = []
        for cols in sides:
            rows, share = list(zip(*(cols[j] for j in s))), {}
            for r in rows: share[r] = share.get(r, 0) + 1/len(rows)
            shares.append(share)
        out.append(sum(abs(shares[0].get(r, 0) - shares[1].get(r, 0)) for r in set(shares[0]) | set(shares[1]))/2)
    return np.mean(out)

def row_distance(parts_a, i, parts_b, j):
    "Distance of two rows, value by value."
    total = 0.
    for (c, v, gone), (_, w, lost) in zip(parts_a, parts_b):
        if c.kind in ('categorical', 'boolean'):
            total += (gone[i], None if gone[i] else v[i]) != (lost[j], None if lost[j] else w[j])
            continue
        low, high = c.bounds
        p, q = (.5 if g else (float(x) - low)/(high - low) if high > low else 0. for x, g in ((v[i], gone[i]), (w[j], lost[j])))
        total += (p - q)**2 + .75*(gone[i] != lost[j])
    return math.sqrt(total)

def all_distances(a, b, columns=None):
    x, y = table_columns(a, columns), table_columns(b, columns)
    return np.array([[row_distance(x, i, y, j) for j in range(len(b))] for i in range(len(a))])

def linear_program(cost):
    "The transport problem as scipy solves linear programs."
    from scipy.optimize import linprog
    n, m = cost.shape
    rows, cols = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    return linprog(cost.ravel(), A_eq=np.vstack([rows, cols]), b_eq=np.concatenate([np.full(n, 1/n), np.full(m, 1/m)]), method='highs').fun

# ---- total variation ----

@pytest.mark.parametrize('k', [1, 2, 4, 11])
@pytest.mark.parametrize('n, m, bins', [(12, 12, 20), (7, 31, 3), (1, 5, 1)])
def test_tvd_is_the_count_of_cells(k, n, m, bins):
    a, b = table(n, 1), table(m, 2)
    assert np.isclose(float(tvd(a, b, k, bins=bins)), slow_tvd(a, b, k, bins))

def test_tvd_properties():
    a, b = table(40, 1), table(60, 2)
    values = [tvd(a, b, k) for k in (1, 2, 3)]
    assert [v.name for v in values] == ['tvd/1', 'tvd/2', 'tvd/3'] and all(v.private for v in values) and not tvd(a, b, 1, private=False).private
    assert values[0].value < values[1].value < values[2].value <= 1
    assert tvd(a, a, 3).value == tvd(a, a[np.tile(np.arange(40), 2)], 3).value == 0
    assert tvd(a, b, 2).value == tvd(b, a, 2).value
    assert tvd(a, b, 1, columns=['y']).value == abs((a.labels//3).mean() - (b.labels//3).mean())

def test_unseen_values_count_fully():
    "What the released code of paper 4 drops."
    s = Schema((Column('x', 'categorical', ('a', 'b', 'z')), Column('v', 'float', low=0, high=100)))
    real = Records.table(pd.DataFrame(dict(x=['a', 'b']*50, v=np.linspace(0, 10, 100))), s)
    odd = Records.table(pd.DataFrame(dict(x=['z']*98 + ['a', 'b'], v=np.linspace(50, 100, 100))), s)
    assert np.isclose(tvd(odd, real, 1, columns=['x']).value, .98) and tvd(odd, real, 1, columns=['v']).value == 1 and tvd(odd, real, 2).value == 1

def test_twenty_bins():
    s = Schema((Column('v', 'float', low=0, high=1),))
    at = lambda v: Records.table(pd.DataFrame(dict(v=np.asarray(v, float))), s)
    middles = (np.arange(20) + .5)/20
    for i, j in itertools.combinations(range(20), 2): assert tvd(at(middles[[i]]), at(middles[[j]]), 1).value == 1
    assert tvd(at([0]), at([.049]), 1).value == 0 and tvd(at([1]), at([.951]), 1).value == 0

# ---- subsets ----

@given(st.integers(1, 9), st.data())
@settings(deadline=None, max_examples=60)
def test_subsets(d, data):
    k, most = data.draw(st.integers(1, d)), data.draw(st.integers(1, 30))
    chosen, total = subsets(d, k, most, 7)
    assert total == math.comb(d, k) and len(chosen) == min(most, total) == len(set(chosen)) and chosen == sorted(chosen)
    assert all(len(set(s)) == k and list(s) == sorted(s) and 0 <= s[0] and s[-1] < d for s in chosen)
    assert subsets(d, k, most, 7) == (chosen, total) and subsets(d, k, None, 0)[0] == list(itertools.combinations(range(d), k))
    assert list(growing(chosen, (), lambda s, j: s + (j,))) == chosen

def test_subsets_are_a_fair_choice():
    "Each subset is taken equally often, whether all are listed or some are drawn."
    for d, k, most in ((6, 2, 5), (12, 3, 5)):
        count = {}
        for seed in range(600):
            for s in subsets(d, k, most, seed)[0]: count[s] = count.get(s, 0) + 1
        want = 600*most/math.comb(d, k)
        seen = np.array([count.get(s, 0) for s in itertools.combinations(range(d), k)])
        assert ((seen - want)**2/want).sum() < 1.5*len(seen)

def test_a_choice_is_said():
    a, b = table(30, 1), table(30, 2)
    m = tvd(a, b, 3, most=20)
    assert m.name == 'tvd/3 (20 of 165 subsets)' and m == tvd(a, b, 3, most=20) and m.value != tvd(a, b, 3, most=20, seed=1).value
    assert wsd(a, b, 3, most=4).name == 'wsd/3 (4 of 165 subsets)' and wsd(a, b, 2, most=None).name == 'wsd/2'
    assert abs(tvd(a, b, 3, most=100).value - tvd(a, b, 3, most=None).value) < .02

# ---- Wasserstein ----

def test_distances_of_rows():
    a, b = table(9, 1), table(11, 2)
    cost = np.sqrt(sum(squared(axis(*x), axis(*y)) for x, y in zip(table_columns(a), table_columns(b))))
    assert np.allclose(cost, all_distances(a, b)) and cost.max() <= math.sqrt(11)
    triangle = all_distances(a, a)
    assert (triangle[:, None] + triangle[None] + 1e-12 >= triangle[..., None].transpose(0, 2, 1)).all() and (np.diag(triangle) == 0).all()

@pytest.mark.parametrize('k', [1, 2, 3])
def test_wsd_is_the_linear_program(k):
    a, b = table(6, 1), table(6, 2)
    cols = ['c', 'cn', 'o', 'b', 'fn', 'd', 'y', 'w']
    want = np.mean([linear_program(all_distances(a, b, s)) for s in itertools.combinations(cols, k)])
    assert np.isclose(wsd(a, b, k, columns=cols).value, want)

def test_wsd_of_different_sizes():
    pytest.importorskip('ot', reason='POT is not installed: pip install pe_nb[tables]')
    a, b = table(4, 1), table(9, 2)
    cols = ['c', 'fn', 'y']
    want = np.mean([linear_program(all_distances(a, b, s)) for s in itertools.combinations(cols, 2)])
    assert np.isclose(wsd(a, b, 2, columns=cols).value, want)

@given(st.integers(0, 2**32), st.integers(1, 25))
@settings(deadline=None, max_examples=25)
def test_transport_with_and_without_pot(seed, n):
    ot, cost = pytest.importorskip('ot'), rng(seed).integers(0, 4, (n, n)).astype(float)**.5
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, 'ot', None)
        alone = transport(cost)
    assert np.isclose(transport(cost), alone) and np.isclose(alone, linear_program(cost)) and ot

def test_without_pot_sizes_must_agree(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ot', None)
    a, b = table(6, 1), table(7, 2)
    with pytest.raises(ImportError, match=r'pe_nb\[tables\]'): wsd(a, b, 2)
    assert wsd(a, b[:6], 2).value > 0 and wsd(a, b, 2, method='sliced').value > 0 and wsd(a, b, 1, columns=['f', 'c']).value > 0

def test_one_way_needs_no_program():
    a, b = table(8, 1), table(8, 2)
    for x, y in zip(table_columns(a), table_columns(b)):
        assert np.isclose(one_way(axis(*x), axis(*y)), linear_program(np.sqrt(squared(axis(*x), axis(*y))))), x[0].name

@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 12))
@settings(deadline=None, max_examples=50)
def test_quantiles_are_scipys(seed, n, m):
    from scipy.stats import wasserstein_distance
    g = rng(seed); x, y = g.integers(0, 5, (n, 3))/4, g.normal(size=(m, 3))
    assert np.allclose(quantile_distance(x, y), [wasserstein_distance(u, v) for u, v in zip(x.T, y.T)])

def test_rows_are_sampled_with_a_seed():
    a, b = table(300, 1), table(300, 2)
    few = [wsd(a, b, 2, samples=50, seed=s, columns=['f', 'c', 'y']) for s in (0, 0, 1)]
    assert few[0] == few[1] != few[2] and wsd(a, b, 2, samples=300, columns=['f', 'c']) == wsd(a, b, 2, samples=None, columns=['f', 'c'])
    assert len(np.unique(sampled(a.with_extra(id=np.arange(300)), 50, rng()).extra['id'])) == 50

def reference(synthetic, real, k):
    "The released code's recipe, column by column: LabelEncoder over both sides, the range of the real side, exact transport."
    from sklearn.preprocessing import LabelEncoder
    x, y = [], []
    for (c, v, _), (_, w, _) in zip(table_columns(synthetic), table_columns(real)):
        if c.coded:
            names = [[c.categories[i] for i in z] for z in (v, w)]
            if c.name == 'w': names = [[int(i) for i in z] for z in names]    # a CSV reader reads these as numbers
            codes = LabelEncoder().fit(names[0] + names[1])
            v, w = (codes.transform(z) for z in names)
        low, high = float(min(w)), float(max(w))
        x.append((v - low)/((high - low) or 1)); y.append((w - low)/((high - low) or 1))
    x, y = np.array(x), np.array(y)
    pairs = [np.sqrt(((x[list(s)][:, :, None] - y[list(s)][:, None])**2).sum(0)) for s in itertools.combinations(range(len(x)), k)]
    return np.mean([linear_program(p) for p in pairs])

@pytest.mark.parametrize('k', [1, 2, 10])
def test_label_coding_is_the_released_code(k):
    a, b = table(6, 1, WHOLE), table(6, 2, WHOLE)
    assert np.isclose(wsd(a, b, k, coding='label').value, reference(a, b, k))
    assert not np.isclose(wsd(a, b, k).value, reference(a, b, k))

def test_label_coding_of_words_and_of_constants():
    c, none = Column('c', 'categorical', ('z', 'a', 'm')), np.zeros(3, bool)
    x, y = label_axes(c, (np.array([0, 0, 0]), none), (np.array([1, 0, 1]), none))
    assert x.place.tolist() == [1, 1, 1] and y.place.tolist() == [0, 1, 0]    # m occurs on neither side
    x, y = label_axes(Column('i', 'integer', low=0, high=9), (np.array([5, 7, 9]), none), (np.array([5, 5, 5]), none))
    assert x.place.tolist() == [0, 2, 4] and y.place.tolist() == [0, 0, 0]    # a constant real column has the range 1
    with pytest.raises(ValueError, match="must be 'mismatch' where values are missing, as in column 'cn'"): wsd(table(20, 1), table(20, 2), 2, coding='label')

# ---- sliced and Sinkhorn ----

def test_sliced_is_exact_between_points_and_below_the_exact_distance():
    s = Schema(tuple(Column(x, 'float', low=0, high=1) for x in 'pqrst') + (Column('c', 'categorical', ('u', 'v')),))
    point = lambda v, c: Records.table(pd.DataFrame([dict(zip('pqrst', v)) | dict(c=c)]*3), s)
    x, y = point([0., .2, .9, 1, .5], 'u'), point([.1, .8, .4, 0, .5], 'v')
    exact = wsd(x, y, 6).value
    assert np.isclose(exact, math.sqrt(.01 + .36 + .25 + 1 + 1))
    assert abs(wsd(x, y, 6, method='sliced', directions=20_000).value/exact - 1) < .02
    a, b = table(50, 1), table(50, 2)
    for k in (1, 3, 6): assert wsd(a, b, k, method='sliced', most=20).value < wsd(a, b, k, most=20).value
    assert wsd(a, a, 3, method='sliced').value == 0 and wsd(a, b, 3, method='sliced', most=5) == wsd(a, b, 3, method='sliced', most=5)

def test_projection_of_one_column():
    "The mean length of a projected step is the length of the step, for numbers and for categories."
    none = np.zeros(2, np.int64)
    for a, far in ((Axis(np.array([0., .3]), none, 0.), .3), (Axis(np.zeros(2), np.array([0, 1]), 1.), 1.),
                   (Axis(np.array([.5, .9]), np.array([1, 0]), .75), math.sqrt(.16 + .75))):
        x, y = projected((a, a), rng(), 200_000)
        assert abs(np.abs(x[0] - x[1]).mean()/far - 1) < .01 and (x == y).all()

@pytest.mark.parametrize('n, m, same', [(7, 7, True), (7, 5, False), (1, 4, False), (30, 30, False)])
@pytest.mark.parametrize('reg', [.1, 1.])
def test_entropic_value(n, m, same, reg):
    "Against the iteration on logarithms, run to the end; and between the exact value and that of the independent plan."
    def soft(x, axis):
        top = x.max(axis, keepdims=True)
        return (top + np.log(np.exp(x - top).sum(axis, keepdims=True))).squeeze(axis)
    g = rng(n); x = g.random((n, 3)); y = x if same else g.random((m, 3))
    cost, f, h = np.sqrt(((x[:, None] - y[None])**2).sum(-1)), np.zeros(n), np.zeros(m)
    for _ in range(1000):
        h = -reg*soft((f[:, None] - cost)/reg - math.log(n), 0)
        f = -reg*soft((h[None] - cost)/reg - math.log(m), 1)
    value = entropic(cost, reg, same)
    assert np.isclose(value, f.mean() + h.mean(), rtol=1e-5) and linear_program(cost) - 1e-9 <= value <= cost.mean() + 1e-9

def test_entropic_value_is_pots():
    ot = pytest.importorskip('ot')
    cost = rng().random((20, 30))
    log = ot.sinkhorn(np.full(20, 1/20), np.full(30, 1/30), cost, .1, log=True)[1]
    assert np.isclose(entropic(cost, .1, False), .1*(np.log(log['u']*20).mean() + np.log(log['v']*30).mean()), rtol=1e-5)

def test_sinkhorn_divergence():
    a, b = table(40, 1), table(50, 2)
    assert wsd(a, a, 3, method='sinkhorn', most=5).value < 1e-6 < wsd(a, b, 3, method='sinkhorn', most=5).value
    assert np.isclose(wsd(a, b, 3, method='sinkhorn', most=5).value, wsd(b, a, 3, method='sinkhorn', most=5).value, rtol=1e-4)
    with pytest.raises(ValueError, match='reg .* must be larger: the iteration'): wsd(a, b, 11, method='sinkhorn', reg=1e-4)

# ---- associations ----

@given(st.integers(0, 2**32), st.integers(2, 40), st.integers(1, 5), st.integers(1, 5))
@settings(deadline=None, max_examples=60)
def test_cramers_v_and_eta(seed, n, r, c):
    from scipy.stats.contingency import association
    g = rng(seed); a, b, x = g.integers(0, r, n), g.integers(0, c, n), g.normal(size=n)
    counts = pd.crosstab(a, b).to_numpy()
    want = association(counts, method='cramer') if min(counts.shape) > 1 else 0.
    assert np.isclose(cramers_v(a, b), want) and np.isclose(cramers_v(7*a, b), cramers_v(b, a))
    within = sum(((x[a == i] - x[a == i].mean())**2).sum() for i in np.unique(a))
    assert np.isclose(correlation_ratio(a, x), math.sqrt(max(1 - within/((x - x.mean())**2).sum(), 0)), atol=1e-7)
    assert correlation_ratio(a, np.ones(n)) == 0

def test_associations_column_by_column():
    r = table(60, 3)
    names, m = associations(r)
    parts = {c.name: (c, v, gone) for c, v, gone in table_columns(r)}
    assert names == list(parts) and (m == m.T).all() and (np.diag(m) == 1).all() and (np.abs(m) <= 1).all()
    here = ~parts['fn'][2] & ~parts['in'][2]
    assert np.isclose(m[names.index('fn'), names.index('in')], np.corrcoef(parts['fn'][1][here], parts['in'][1][here])[0, 1])
    assert np.isclose(m[names.index('cn'), names.index('y')], cramers_v(parts['cn'][1], parts['y'][1]))
    assert (parts['cn'][1] < 0).any()    # missing is a category
    assert np.isclose(m[names.index('cn'), names.index('f')], correlation_ratio(parts['cn'][1], parts['f'][1]))
    here = ~parts['o'][2]
    assert np.isclose(m[names.index('c'), names.index('o')], correlation_ratio(parts['c'][1][here], parts['o'][1][here].astype(float)))

def test_association_distance():
    a, b = table(60, 1), table(50, 2)
    ma, mb = associations(a)[1], associations(b)[1]
    want = np.mean([abs(ma[i, j] - mb[i, j]) for i, j in itertools.combinations(range(11), 2)])
    m = association_distance(a, b)
    assert np.isclose(m.value, want) and m.private and m.name == 'association' and association_distance(a, a).value == 0
    assert association_distance(a, b, columns=['i', 'f']).value == abs(ma[4, 6] - mb[4, 6])
    with pytest.raises(ValueError, match='at least two'): association_distance(a, b, columns=['i'])

def test_sdmetrics_report():
    pytest.importorskip('sdmetrics', reason='sdmetrics is not installed: the comparison with its quality report is not tested')
    a, b = table(200, 1), table(200, 2)
    grades = sdmetrics_quality(a, b)
    assert 'sdmetrics' in grades and 0 < grades['sdmetrics'].value < 1 and grades['sdmetrics'].private
    assert sdmetrics_quality(a, a)['sdmetrics'].value == 1

def fake_sdmetrics(monkeypatch, seen):
    "Stands in for the package: keeps what it is given."
    class QualityReport:
        def generate(self, real, synthetic, metadata, verbose): seen.update(real=real, synthetic=synthetic, metadata=metadata, verbose=verbose)
        def get_score(self): return .75
        def get_properties(self): return pd.DataFrame({'Property': ['Column Shapes'], 'Score': [.5]})
    monkeypatch.setitem(sys.modules, 'sdmetrics', types.SimpleNamespace(reports=types.SimpleNamespace(QualityReport=QualityReport)))

def test_sdmetrics_gets_tables_and_types(monkeypatch):
    seen, a, b = {}, table(8, 1), table(9, 2)
    fake_sdmetrics(monkeypatch, seen)
    grades = sdmetrics_quality(a, b, private=False)
    assert {k: v.value for k, v in grades.items()} == {'sdmetrics': .75, 'sdmetrics/Column Shapes': .5} and not grades['sdmetrics'].private
    types_ = {k: v['sdtype'] for k, v in seen['metadata']['tables']['table']['columns'].items()}
    assert types_ == dict.fromkeys(('c', 'cn', 'o', 'y', 'w'), 'categorical') | dict.fromkeys(('i', 'in', 'f', 'fn'), 'numerical') | dict(b='boolean', d='datetime')
    assert len(seen['real']['table']) == 9 and list(seen['synthetic']['table'].columns) == list(types_)
    assert seen['synthetic']['table']['y'].tolist() == a.frame()['y'].tolist()
    yes_no = Records.table(a.data, Schema(SCHEMA.columns, (Column('ok', 'boolean'),)), a.labels % 2)
    sdmetrics_quality(yes_no, yes_no)
    assert seen['real']['table']['ok'].tolist() == (a.labels % 2 == 1).tolist() and seen['real']['table']['ok'].dtype == bool

def test_sdmetrics_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'sdmetrics', None)
    with pytest.raises(ImportError, match=r'sdmetrics, 0.32 or newer, is not installed: pip install'): sdmetrics_quality(table(3, 1), table(3, 2))

# ---- features ----

def test_features_come_from_the_schema_alone():
    "A row gives the same numbers alone, in other company, and in another order."
    r = table(30, 1)
    for form in ('one_hot', 'codes'):
        x = features_of(r, form)
        assert x.dtype == np.float64
        for i in (0, 7, 29): assert np.array_equal(features_of(r[[i]], form), x[[i]], equal_nan=True)
        assert np.array_equal(features_of(r[::-1], form), x[::-1], equal_nan=True)
        assert np.array_equal(features_of(Records.concat([r, table(5, 2)]), form)[:30], x, equal_nan=True)

def test_features_value_by_value():
    r = table(40, 1)
    one, codes = features_of(r), features_of(r, 'codes')
    assert codes.shape == (40, 9) and one.shape == (40, 3 + 3 + 2 + 3 + 1 + 2 + 1 + 2 + 1) and np.isfinite(one).all()
    assert unordered(r).tolist() == [True, True, False, True] + [False]*5 and unordered(r, labels=True).tolist() == unordered(r).tolist() + [True, False]
    at = 0
    for j, (c, v, gone) in enumerate(table_columns(r)[:9]):
        assert (np.isnan(codes[:, j]) == gone).all()
        if c.bounds is None:
            assert (codes[~gone, j] == v[~gone]).all()
            want = np.eye(len(c.categories) + c.nullable)[np.where(gone, len(c.categories), v)]
        else:
            low, high = c.bounds
            p = np.where(gone, .5, (v - low)/(high - low))
            assert np.allclose(codes[~gone, j], p[~gone])
            want = np.column_stack([p, gone]) if c.nullable else p[:, None]
        assert np.allclose(one[:, at:at + want.shape[1]], want)
        at += want.shape[1]
    assert features_of(r, labels=True).shape[1] == one.shape[1] + 2 + 1

def test_features_do_not_hold_the_label():
    r = table(40, 1)
    swapped = Records.table(r.data, r.schema, (r.labels + 1) % 6)
    assert (features_of(r) == features_of(swapped)).all() and (features_of(r, labels=True) != features_of(swapped, labels=True)).any()
    plain = Records.table(table(5, 1, Schema(WHOLE.columns)).data, Schema(WHOLE.columns), [0, 1, 2, 1, 0], ('a', 'b', 'c'))
    assert features_of(plain, labels=True).shape[1] == features_of(plain).shape[1] + 3

# ---- scores ----

@given(st.integers(0, 2**32), st.integers(2, 30), st.integers(2, 5))
@settings(deadline=None, max_examples=60)
def test_auc_is_the_share_of_pairs(seed, n, levels):
    from sklearn.metrics import roc_auc_score
    g = rng(seed); truth, score = g.random(n) < .5, g.integers(0, levels, n)/levels
    if truth.all() or not truth.any():
        assert math.isnan(auc(truth, score))
        return
    pairs = [(score[i] > score[j]) + .5*(score[i] == score[j]) for i in np.flatnonzero(truth) for j in np.flatnonzero(~truth)]
    assert np.isclose(auc(truth, score), np.mean(pairs)) and np.isclose(auc(truth, score), roc_auc_score(truth, score))

def test_scores_are_sklearns():
    from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
    g = rng(); truth, p = g.integers(0, 4, 80), g.dirichlet(np.ones(4), 80)
    s = table_scores(truth, p, 'abcd')
    assert np.isclose(s['auc'], roc_auc_score(truth, p, multi_class='ovr')) and s['accuracy'] == accuracy_score(truth, p.argmax(1))
    assert np.isclose(s['macro_f1'], f1_score(truth, p.argmax(1), average='macro'))
    two = p[:, :2]/p[:, :2].sum(1, keepdims=True)
    assert np.isclose(table_scores(truth % 2, two, 'ab')['auc'], roc_auc_score(truth % 2, two[:, 1]))
    few = truth < 2                                                           # labels without test rows are left out of the mean
    assert np.isclose(table_scores(truth[few], p[few], 'abcd')['auc'], np.mean([roc_auc_score(truth[few] == i, p[few, i]) for i in (0, 1)]))
    assert math.isnan(table_scores(np.zeros(5, int), p[:5], 'abcd')['auc'])

# ---- train on synthetic, test on real ----

PETS = Schema((Column('weight', 'float', low=0, high=30), Column('noise', 'categorical', ('meow', 'woof', 'none'))), labels=(Column('pet', 'categorical', ('cat', 'dog', 'fish')),))
MODELS = ['logistic', 'hist_gradient', 'xgboost']

def pets(names, seed=0):
    g, kind = rng(seed), dict(cat=(4., 'meow'), dog=(20., 'woof'), fish=(.5, 'none'))
    return Records.table(pd.DataFrame([dict(weight=kind[x][0]*g.uniform(.8, 1.2), noise=kind[x][1], pet=x) for x in names]), PETS)

@pytest.mark.parametrize('model', MODELS)
def test_a_label_that_the_test_rows_lack_shifts_nothing(model):
    if model == 'xgboost': pytest.importorskip('xgboost', reason='xgboost is not installed: pip install pe_nb[tables]')
    train, all_three = pets(['cat', 'dog', 'fish']*40), pets(['cat', 'dog', 'fish']*10, 1)
    assert train_on_synthetic_table(train, all_three, model, n_jobs=1)['accuracy'].value > .9
    for part in (['dog', 'fish'], ['cat', 'fish'], ['cat', 'dog'], ['fish']):
        out = train_on_synthetic_table(train, pets(part*10, 1), model, n_jobs=1)
        assert out['accuracy'].value > .9 and {k for k in out if '/' in k} == {f'accuracy/{x}' for x in part}
        assert math.isnan(out['auc'].value) if len(part) == 1 else out['auc'].value > .9

@pytest.mark.parametrize('model', MODELS)
def test_labels_that_the_training_rows_lack(model):
    if model == 'xgboost': pytest.importorskip('xgboost')
    test = pets(['cat', 'dog', 'fish']*20, 1)
    out = train_on_synthetic_table(pets(['dog', 'fish']*40), test, model, n_jobs=1)           # ids 1 and 2, which some models refuse
    assert out['accuracy/cat'].value == 0 and out['accuracy/dog'].value == out['accuracy/fish'].value == 1
    out = train_on_synthetic_table(pets(['fish']*5), test, model, n_jobs=1)
    assert out['accuracy'].value == 1/3 and out['auc'].value == .5 and np.isclose(out['macro_f1'].value, .5/3)

def test_xgboost_is_the_package_with_its_defaults():
    xgboost = pytest.importorskip('xgboost')
    a, b = table(300, 1), table(200, 2)
    out = train_on_synthetic_table(a, b, 'xgboost', label='y', n_jobs=1)
    y = [r.labels//3 for r in (a, b)]
    clf = xgboost.XGBClassifier(objective='binary:logistic', n_jobs=1).fit(features_of(a, 'codes'), y[0])
    p = clf.predict_proba(features_of(b, 'codes'))
    assert out['accuracy'].value == (clf.predict(features_of(b, 'codes')) == y[1]).mean() and np.isclose(out['auc'].value, auc(y[1], p[:, 1]))
    out = train_on_synthetic_table(a, b, 'xgboost', n_jobs=1)
    clf = xgboost.XGBClassifier(objective='multi:softmax', n_jobs=1).fit(features_of(a, 'codes'), a.labels)
    assert out['accuracy'].value == (clf.predict(features_of(b, 'codes')) == b.labels).mean()

def test_logistic_is_downstreams():
    a, b = table(200, 1), table(150, 2)
    one, two = train_on_synthetic_table(a, b, 'logistic'), train_on_synthetic(a, b, 'logistic', features=features_of)
    assert all(one[k] == two[k] for k in two) and set(one) == set(two) | {'auc'}

def test_validation_label_seeds_and_marks():
    from sklearn.tree import ExtraTreeClassifier
    a, b, c, tree = table(200, 1), table(100, 2), table(80, 3), lambda seed: ExtraTreeClassifier(random_state=seed)
    out = train_on_synthetic_table(a, b, tree, seeds=(0, 1, 2), validation=c, label='y')
    alone = train_on_synthetic_table(a, c, tree, seeds=(0, 1, 2), label='y')
    assert train_on_synthetic_table(a[:20], b[:20], 'forest', label='y', n_jobs=1)['accuracy'].value > .2
    assert {k for k in out if 'validation/' in k} == {'validation/' + k for k in alone} == {'validation/' + k for k in out if 'validation/' not in k}
    for k, m in alone.items(): assert out['validation/' + k].value == m.value and out['validation/' + k].private
    assert out['accuracy'].seeds == 3 and out['accuracy'].spread > 0 and {'accuracy/no', 'accuracy/yes'} < set(out)
    assert not any(m.private for m in train_on_synthetic_table(a, b, 'logistic', private=False).values())

def test_weights_of_rows():
    "Weight 0 is a row that is not there; weight 2 is a row that is there twice (where the fit is a function of the weighted rows)."
    a, b = table(120, 1), table(100, 2)
    keep = np.arange(120) % 3 > 0
    p = [probabilities(tabular_models.table_classifier('logistic', 0, None), features_of(x), x.labels, [features_of(b)], 6, w)[0]
         for x, w in ((a, keep*1.), (a[keep], None), (a[keep], np.full(80, 2.)), (a[np.repeat(np.flatnonzero(keep), 2)], None))]
    assert np.allclose(p[0], p[1], atol=1e-3) and np.allclose(p[2], p[3], atol=1e-3) and not np.allclose(p[0], p[2], atol=1e-3)
    assert train_on_synthetic_table(a, b, 'logistic', weights=keep*1.)['accuracy'].value == train_on_synthetic_table(a[keep], b, 'logistic')['accuracy'].value
    for bad in ([1.], np.full(120, -1.), np.zeros(120), np.full(120, np.nan)):
        with pytest.raises(ValueError, match='weights .* must be 120 finite numbers'): train_on_synthetic_table(a, b, weights=bad)
    with pytest.raises(ValueError, match='weights must be left out for tabicl'): train_on_synthetic_table(a, b, 'tabicl', weights=np.ones(120))

def test_a_classifier_of_ones_own():
    from sklearn.svm import LinearSVC
    from sklearn.neighbors import KNeighborsClassifier
    train, test = pets(['cat', 'dog', 'fish']*40), pets(['cat', 'dog', 'fish']*10, 1)
    assert train_on_synthetic_table(train, test, lambda seed: KNeighborsClassifier(3))['auc'].value == 1
    assert train_on_synthetic_table(train, test, lambda seed: LinearSVC(random_state=seed))['auc'].value == 1         # it has no probabilities
    weight = lambda r: features_of(r, 'codes')[:, :1]
    assert train_on_synthetic_table(train, test, 'hist_gradient', features=weight, n_jobs=1)['accuracy'].value == 1

class Network:
    "Stands in for a pretrained network: nearest neighbour, and keeps its arguments."
    made = []
    def __init__(self, **arguments): self.made.append(arguments)
    def fit(self, x, y):
        self.x, self.y, self.classes_ = np.nan_to_num(x), y, np.unique(y)
        return self
    def predict_proba(self, z): return np.eye(len(self.classes_))[self.y[((np.nan_to_num(z)[:, None] - self.x[None])**2).sum(-1).argmin(1)]]

@pytest.mark.parametrize('model, name', [('tabicl', 'TabICLClassifier'), ('tabpfn', 'TabPFNClassifier')])
def test_pretrained_networks(model, name, monkeypatch, tmp_path):
    train, test = pets(['cat', 'dog', 'fish']*5), pets(['dog', 'fish']*5, 1)
    for nowhere in (None, tmp_path, tmp_path/'absent.ckpt'):
        with pytest.raises(ValueError, match=f'weights of {model}: download .*ckpt from https://huggingface.co/'): train_on_synthetic_table(train, test, model, checkpoint=nowhere)
    file = tmp_path/'w.ckpt'; file.write_bytes(b'')
    monkeypatch.setitem(sys.modules, model, None)
    with pytest.raises(ImportError, match=f'{model} is not installed: pip install'): train_on_synthetic_table(train, test, model, checkpoint=file)
    monkeypatch.setitem(sys.modules, model, types.SimpleNamespace(**{name: Network}))
    Network.made.clear()
    assert train_on_synthetic_table(train, test, model, seeds=(3,), checkpoint=file)['accuracy'].value == 1
    want = dict(model_path=str(file), random_state=3) | (dict(allow_auto_download=False, n_jobs=None) if model == 'tabicl' else dict(categorical_features_indices=[1]))
    assert Network.made == [want]

def test_xgboost_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'xgboost', None)
    with pytest.raises(ImportError, match=r'xgboost is not installed: pip install .pe_nb\[tables\]'): train_on_synthetic_table(pets(['cat', 'dog']), pets(['cat']), 'xgboost')

# ---- propensity ----

def test_propensity_is_cross_validation():
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    a, b = table(30, 1), table(20, 2)
    out = propensity(a, b, 'logistic', folds=4, seed=5)
    x, y = np.concatenate([features_of(r, labels=True) for r in (a, b)]), np.repeat([1, 0], [30, 20])
    p = cross_val_predict(LogisticRegression(max_iter=10_000), x, y, cv=StratifiedKFold(4, shuffle=True, random_state=5), method='predict_proba')[:, 1]
    assert np.isclose(out['pmse'].value, ((p - .6)**2).mean()) and np.isclose(out['propensity_auc'].value, auc(y, p)) and out['pmse'].private
    far = Records.table(b.data.assign(f=3.), b.schema, b.labels)
    assert propensity(a, far, 'logistic')['propensity_auc'].value > .8
    assert out == propensity(a, b, 'logistic', folds=4, seed=5) != propensity(a, b, 'logistic', folds=4, seed=6)

def test_propensity_sees_labels():
    x = pets(['cat', 'dog', 'fish']*20)
    turned = Records.table(x.data, PETS, (x.labels + 1) % 3)
    like = pets(['cat', 'dog', 'fish']*20, 1)
    assert propensity(turned, x, n_jobs=1)['propensity_auc'].value > .9 > .6 > propensity(like, x, n_jobs=1)['propensity_auc'].value

def test_propensity_of_few_rows():
    a = table(10, 1)
    for n in (1, 4):
        with pytest.raises(ValueError, match=f'smaller side .{n}.'): propensity(a[:n], a)
    assert 0 <= propensity(a[:2], a, 'logistic', folds=2)['pmse'].value <= 1

# ---- closeness ----

@pytest.mark.parametrize('n, m, k', [(30, 25, 5), (6, 40, 5), (2, 2, 1), (30, 30, 29)])
def test_precision_and_recall_row_by_row(n, m, k, monkeypatch):
    a, b = table(n, 1), table(m, 2)
    ab, aa, bb = all_distances(a, b), all_distances(a, a), all_distances(b, b)
    radius = lambda d: np.array([np.sort(np.delete(row, i))[k - 1] for i, row in enumerate(d)])
    precision, recall = (ab <= radius(bb)).any(1).mean(), (ab.T <= radius(aa)).any(1).mean()
    for block in (2**23, 7, 1):                                              # one row at a time, and all at once
        monkeypatch.setattr(closeness, 'BLOCK', block)
        out, x = precision_recall(a, b, k), closeness.points(a, b)[0]
        assert np.allclose(closeness.radii(x, k), radius(aa)**2)
        assert np.isclose(out['precision'].value, precision) and np.isclose(out['recall'].value, recall)
    assert out['precision'].private and not precision_recall(a, b, k, private=False)['recall'].private

def test_precision_and_recall_of_embeddings_and_grids():
    "In vectors; and where many rows coincide, which a ball of radius 0 must still hold."
    a, b = table(40, 1), table(50, 2)
    vectors = lambda r: features_of(r).astype(np.float32)
    out, x, y = precision_recall(a, b, 3, embedding=vectors), *(vectors(r).astype(float) for r in (a, b))
    d = lambda x, y: ((x[:, None] - y[None])**2).sum(-1)
    assert out['precision'].value == (d(x, y) <= np.sort(d(y, y), 1)[:, 3]).any(1).mean() and out['recall'].value == (d(y, x) <= np.sort(d(x, x), 1)[:, 3]).any(1).mean()
    s = Schema((Column('c', 'categorical', ('u', 'v')), Column('i', 'integer', low=0, high=3)))
    grid = Records.table(pd.DataFrame(dict(c=['u', 'v']*40, i=np.tile([0, 1, 2, 3], 20))), s)
    assert [m.value for m in precision_recall(grid, grid, 5).values()] == [1, 1]
    assert [m.value for m in precision_recall(grid[:8], grid, 5).values()] == [1, 1]
    with pytest.raises(ValueError, match='columns must be left out'): precision_recall(a, b, embedding=vectors, columns=['c'])
    for bad in (lambda r: np.zeros(len(r)), lambda r: np.full((len(r), 2), np.nan), lambda r: np.zeros((3, 2))):
        with pytest.raises(ValueError, match='one finite vector for each'): precision_recall(a, b, embedding=bad)

def test_closest_row_by_row():
    real, synthetic, held = table(40, 1), Records.concat([table(20, 2), table(40, 1)[:10], table(20, 2)[:5]]), table(30, 3)
    out = closest(synthetic, real)
    d = all_distances(synthetic, real).min(1)
    assert np.isclose(out['closest/median'].value, np.median(d)) and np.isclose(out['closest/5%'].value, np.quantile(d, .05)) and np.isclose(out['copies'].value, 10/35)
    assert np.isclose(out['repeats'].value, 5/35) and all(m.private for m in out.values()) and 'nearer_to_real' not in out
    more = closest(synthetic, real, held)
    assert np.isclose(more['closest/median/holdout'].value, np.median(all_distances(held, real).min(1))) and more['copies/holdout'].value == 0
    same = closest(synthetic, real, real)
    assert same['nearer_to_real'].value == .5 and same['copies/holdout'].value == 1
    d, e = all_distances(synthetic, real[:30]).min(1), all_distances(synthetic, held).min(1)
    assert np.isclose(closest(synthetic, real[:30], held)['nearer_to_real'].value, ((d < e) + .5*(d == e)).mean()) and closest(real, real, held)['copies'].value == 1

def test_copies_are_compared_exactly():
    s = Schema((Column('i', 'integer', low=0, high=2**60), Column('f', 'float', low=-1, high=1, nullable=True), Column('n', 'integer', low=0, high=9, nullable=True)))
    make = lambda i, f, n: Records.table(pd.DataFrame(dict(i=np.array(i, np.int64), f=np.array(f, float), n=pd.array(n, dtype='Int64'))), s)
    a = make([2**53 + 1, 2**53, 0, 0, 0], [0., 0., -0., np.nan, 0.], [0, 0, 0, None, None])
    assert row_ids([a])[0].size == 5 and len(set(row_ids([a])[0])) == 5
    assert closest(make([2**53, 0, 0], [-0., np.nan, 0.], [0, None, 0]), a)['copies'].value == 1
    assert closest(make([2**53 + 2, 0, 0], [0., np.nan, np.nan], [0, 0, 9]), a)['copies'].value == 0

# ---- awkward tables ----

MEASURES = {'tvd': lambda a, b: tvd(a, b, 1), 'tvd/2': lambda a, b: tvd(a, b, 2, most=10), 'wsd': lambda a, b: wsd(a, b, 1),
            'wsd/2': lambda a, b: wsd(a, b, 2, most=10), 'sliced': lambda a, b: wsd(a, b, 2, method='sliced', most=10),
            'sinkhorn': lambda a, b: wsd(a, b, 2, method='sinkhorn', reg=.3, most=10), 'association': association_distance, 'closest': closest,
            'precision_recall': lambda a, b: precision_recall(a, b, 1), 'logistic': lambda a, b: train_on_synthetic_table(a, b, 'logistic'),
            'hist_gradient': lambda a, b: train_on_synthetic_table(a, b, n_jobs=1), 'propensity': lambda a, b: propensity(a, b, folds=2, n_jobs=1)}

def values(m): return [x.value for x in (m.values() if isinstance(m, dict) else [m])]

@pytest.mark.parametrize('name', MEASURES)
def test_other_schemas_and_empty_tables_are_refused(name):
    a, plain = table(6, 1), table(6, 1, Schema(SCHEMA.columns[:3]), labels=('a', 'b'))
    more = Records.table(a.data, Schema(SCHEMA.columns), a.labels, SCHEMA.label_names)
    for b, match in ((table(6, 1, WHOLE), r"columns that differ: \['b', 'cn', 'fn', 'in', 'o'\]"), (more, r"columns that differ: \['w', 'y'\]"), (a[:0], 'real .0 rows. must hold'),
                     (Records.texts(['a']), 'must be Records of a table')):
        with pytest.raises(ValueError, match=match): MEASURES[name](a, b)
    with pytest.raises(ValueError, match='label_names of synthetic'): MEASURES[name](plain, Records.table(plain.data, plain.schema, plain.labels, ('b', 'a')))
    with pytest.raises(ValueError, match='synthetic .0 rows. must hold'): MEASURES[name](a[:0], a)

@pytest.mark.parametrize('name', MEASURES)
def test_constant_columns_missing_columns_and_few_rows(name):
    s = Schema((Column('one', 'categorical', ('x',)), Column('still', 'float', low=2, high=2), Column('same', 'integer', low=0, high=9),
                Column('gone', 'float', low=0, high=1, nullable=True), Column('lost', 'categorical', ('p', 'q'), nullable=True)),
               labels=(Column('y', 'categorical', ('a', 'b')),))
    def dull(n): return Records.table(pd.DataFrame(dict(one=['x']*n, still=[2.]*n, same=[4]*n, gone=[np.nan]*n, lost=[None]*n, y=(['a', 'b']*n)[:n])), s)
    for n, m in ((30, 30), (2, 2)): assert np.isfinite(values(MEASURES[name](dull(n), dull(m)))).all()
    if name in ('propensity', 'precision_recall'):
        with pytest.raises(ValueError, match='smaller side .1.'): MEASURES[name](dull(1), dull(1))
    else:
        found = values(MEASURES[name](dull(1), dull(1)))
        assert np.isfinite(found).all() or name in ('logistic', 'hist_gradient') and math.isnan(found[-1])   # one label: no pairs, so no AUC
        if name[:3] in ('tvd', 'wsd'): assert found == [0]

@pytest.mark.parametrize('name', [x for x in MEASURES if x != 'logistic'])
def test_huge_ranges_and_many_categories(name):
    many = tuple(str(i) for i in range(100_000))
    s = Schema((Column('id', 'categorical', many), Column('w', 'integer', low=-2**63, high=2**63 - 1), Column('f', 'float', low=-1.7e308, high=1.7e308)),
               labels=(Column('y', 'categorical', ('a', 'b')),))
    g = rng()
    def make(n):
        cols = dict(id=np.array(many, object)[g.integers(0, 100_000, n)], w=g.integers(-2**63, 2**63 - 1, n, endpoint=True), f=g.uniform(-1, 1, n)*1.7e308)
        return Records.table(pd.DataFrame(cols | dict(y=np.array(['a', 'b'], object)[g.integers(0, 2, n)])), s)
    assert np.isfinite(values(MEASURES[name](make(40), make(40)))).all()

def test_one_hot_features_too_wide_for_memory(monkeypatch):
    s = Schema((Column('id', 'categorical', tuple(str(i) for i in range(100_000))),))
    wide = Records.table(pd.DataFrame(dict(id=['7']*3000)), s)
    with pytest.raises(ValueError, match="form .'one_hot'. must be 'codes'"): features_of(wide)
    assert features_of(wide, 'codes').shape == (3000, 1)

def test_two_hundred_columns():
    s = Schema(tuple(Column(f'x{i}', 'float', low=0, high=1) for i in range(200)))
    a, b = (Records.table(pd.DataFrame({f'x{i}': rng(seed).random(20) for i in range(200)}), s) for seed in (1, 2))
    assert tvd(a, b, 3).name == 'tvd/3 (1000 of 1313400 subsets)' and wsd(a, b, 150, most=2, samples=10).value > 0
    assert wsd(a, b, 200, method='sliced').name == 'sliced_wsd/200'

def test_bad_arguments():
    a = table(6, 1)
    for k in (0, 12, 2., True, '2'):
        with pytest.raises(ValueError, match=r'k \(.*\) must be an integer of at least 1 and at most 11'): tvd(a, a, k)
    for f, key, bad in ((tvd, 'bins', 0), (tvd, 'most', 0), (wsd, 'samples', 0), (wsd, 'samples', 1.5), (wsd, 'directions', 0), (wsd, 'method', 'best'), (wsd, 'coding', 'x'), (wsd, 'reg', 0),
                        (tvd, 'columns', []), (tvd, 'columns', ['c', 'c']), (wsd, 'columns', ['nope'])):
        with pytest.raises(ValueError, match=key): f(a, a, 1, **{key: bad})
    with pytest.raises(ValueError, match="must be a label column: ..y', 'w'"): train_on_synthetic_table(a, a, label='c')
    with pytest.raises(ValueError, match='seeds'): train_on_synthetic_table(a, a, seeds=())
    with pytest.raises(ValueError, match='nothing to predict'): train_on_synthetic_table(*[table(5, 1, Schema(WHOLE.columns))]*2)
    with pytest.raises(ValueError, match='model .*must be'): train_on_synthetic_table(a, a, 'oracle')
    with pytest.raises(ValueError, match='form'): features_of(a, 'two_hot')
    with pytest.raises(ValueError, match='folds'): propensity(a, a, folds=1)
    with pytest.raises(ValueError, match='k .6. must be less than'): precision_recall(a, a, 6)

def test_labels_without_label_columns():
    "They are one more column, named so that it stands apart."
    s = Schema((Column('label', 'float', low=0, high=1), Column('x', 'float', low=0, high=1)))
    r = Records.table(pd.DataFrame(dict(label=[.1, .2], x=[.3, .4])), s, [0, 1], ('a', 'b'))
    assert [c.name for c, _, _ in table_columns(r)] == ['label', 'x', '(label)'] and tvd(r, r[::-1], 3).value == 0
    assert [c.name for c, _, _ in table_columns(Records.table(r.data, s))] == ['label', 'x']
    other = Records.table(r.data, s, [1, 0], ('a', 'b'))
    assert tvd(r, other, 1).value == 0 and tvd(r, other, 2, columns=['x', '(label)']).value == 1
