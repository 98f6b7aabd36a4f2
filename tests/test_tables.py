"Tables: rows inside their public domain, variations that move as far as they should, and an embedding whose distance is the paper's."
import json, math
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import example as case, given, settings, strategies as st

from pe_nb.embeddings.tables import TableEmbedding, places
from pe_nb.evolution import Settings, evolve, steps
from pe_nb.generators import tables as G
from pe_nb.generators.tables import EXAMPLES, VARIANTS, Tables, example, mutation_rates, tab_pe
from pe_nb.records import Column, Records, Schema
from pe_nb.release import Budget, SeededNoise
from pe_nb.schema import KINDS, column_arrays

rng = lambda s=0: np.random.default_rng(s)
I64 = st.integers(-2**63, 2**63 - 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def columns(draw, name):
    "A column of any kind, with bounds from a single value to everything that 64 bits hold."
    kind, nullable = draw(st.sampled_from(KINDS)), draw(st.booleans())
    if kind == 'boolean': return Column(name, kind, nullable=nullable)
    if kind in ('categorical', 'ordinal'):
        cats = draw(st.lists(st.sampled_from(['a', 'nan', '1', '1.0', '', 'None', 'ä', ' a']), min_size=1, max_size=5, unique=True))
        return Column(name, kind, tuple(cats), nullable=nullable)
    if kind == 'date':
        low, high = sorted(draw(st.tuples(*[st.dates() | st.dates(date(2020, 2, 27), date(2020, 3, 1))]*2)))
        return Column(name, kind, low=low, high=high, nullable=nullable)
    small = st.integers(-3, 3) if kind == 'integer' else st.floats(-3, 3)
    low, high = sorted(draw(st.tuples(*[draw(st.sampled_from([small, I64 if kind == 'integer' else FINITE]))]*2)))
    return Column(name, kind, low=low, high=high, nullable=nullable)


schemas = st.integers(1, 5).flatmap(lambda n: st.tuples(*[columns(f'c{i}') for i in range(n)])).map(Schema)
rate = st.floats(0, 1) | st.fixed_dictionaries(dict(categorical=st.floats(0, 1), numeric=st.floats(0, 1)))
makers = st.fixed_dictionaries(dict(step=st.sampled_from(['normal', 'uniform']), edge=st.sampled_from(['clip', 'reflect']),
                                    rounding=st.sampled_from(['stochastic', 'nearest']), missing=st.floats(0, 1)))
checked = lambda r: Records.table(r.data, r.schema, r.labels, r.label_names)


# ---- generator ----

@given(schemas, makers, rate, st.integers(0, 12), st.integers(0, 99))
@settings(deadline=None, max_examples=150)
def test_rows_are_what_a_check_would_have_built(schema, made, degree, n, seed):
    g, labels = Tables(schema, ('x', 'y'), **made), np.arange(n) % 2
    r = g.random(labels, rng(seed))
    v = g.vary(r, degree, rng(seed))
    for a in (r, v):
        assert a == checked(a) and a.fingerprint == checked(a).fingerprint and list(a.data.dtypes) == list(checked(a).data.dtypes)
        plain = a.data.astype({c.name: object for c in schema.columns if c.kind not in ('integer', 'float')})
        assert a == Records.table(plain, schema, labels, ('x', 'y'))  # from Python values
        assert np.array_equal(a.labels, labels) and a.label_names == ('x', 'y') and not a.extra
    assert r == g.random(labels, rng(seed)) and v == g.vary(r, degree, rng(seed))
    assert g.vary(r, 0, rng(seed)) == r
    assert len(Records.concat([r, v, r[:0]])) == 2*n


def test_labels_of_the_schema_are_those_of_the_generator():
    own = (Column('sold', 'boolean'), Column('size', 'ordinal', ('S', 'M')))
    schema = Schema((Column('x', 'float', low=0, high=1),), own)
    g = Tables(schema)
    r = g.vary(g.random(np.arange(8) % 4, rng()), .3, rng(1))
    assert g.label_names == r.label_names == schema.label_names and r == Records.table(r.frame(), schema) and list(r.data) == ['x']
    assert TableEmbedding(schema)(r).shape == (8, 1)  # labels are no part of the distance
    assert g.fingerprint == Tables(schema, schema.label_names).fingerprint != Tables(Schema(schema.columns), schema.label_names).fingerprint
    with pytest.raises(ValueError, match='label_names must be left out'): Tables(schema, ('a', 'b', 'c', 'd'))
    assert Tables(Schema(schema.columns)).label_names == ('',)


@given(I64, I64, I64, st.floats(-2.**65, 2.**65), st.sampled_from(['clip', 'reflect']))
@case(-2**63, -2**63, 2**63 - 1, 2.**64, 'clip')
@case(-2**63, 2**63 - 1, 2**63 - 1, -2.**65, 'reflect')
@settings(deadline=None, max_examples=300)
def test_integer_steps_are_exact(a, b, c, step, edge):
    low, v, high = sorted((a, b, c))
    col, step = Column('i', 'integer', low=low, high=high), float(np.rint(step))
    size = min(abs(int(step)), high - low)
    if abs(step) >= min(float(high - low), np.nextafter(2.**64, 0)): size = high - low  # further than the range is as far as the range
    to = v + size if step > 0 else v - size
    if edge == 'reflect': to = 2*high + 1 - to if to > high else 2*low - 1 - to if to < low else to
    got = G.move_integers(np.array([v]), np.array([step]), col, edge)
    assert got.dtype == np.int64 and got.tolist() == [min(max(to, low), high)]


def test_large_integers_survive():
    schema = Schema((Column('id', 'integer', low=2**53 + 1, high=2**53 + 1), Column('n', 'integer', low=0, high=2**62, nullable=True)))
    g = Tables(schema)
    r = g.vary(g.random(np.zeros(50, int), rng()), .5, rng(1))
    assert set(r.data['id'].tolist()) == {2**53 + 1} and r.data['id'].dtype == np.int64 and str(r.data['n'].dtype) == 'Int64'
    assert any(int(x) % 2 for x in r.data['n'].dropna() if x > 2**53)


@pytest.mark.parametrize('high', [1, 2, 9])
@pytest.mark.parametrize('step', ['normal', 'uniform'])
@pytest.mark.parametrize('share', [.02, .2])
def test_small_integers_move_as_real_numbers_do(high, step, share):
    n, col = 200_000, Column('i', 'integer', low=-10**6, high=10**6)  # room on both sides: no bound interferes
    x = G.random_steps(n, share, step, rng(1))*high
    moved = G.move_integers(np.zeros(n, np.int64), G.rounded(x, 'stochastic', rng(2)), col, 'clip')
    assert abs((moved - x).mean()) < 5*.5/math.sqrt(n)
    up = x > .5*share*high
    assert abs((moved - x)[up].mean()) < 5*.5/math.sqrt(up.sum())  # in every direction, not only on average
    small = Schema((Column('i', 'integer', low=0, high=high),))
    was = Tables(small).random(np.zeros(20_000, int), rng(3))
    freq = lambda r: (r.data['i'] != was.data['i']).mean()
    assert freq(Tables(small, step=step).vary(was, share, rng(4))) > share*high*.1
    if share*high < .5 and step == 'uniform': assert freq(Tables(small, step=step, rounding='nearest').vary(was, share, rng(4))) == 0  # the defect that is mended


@pytest.mark.parametrize('col', [Column('i', 'integer', low=0, high=3), Column('i', 'integer', low=-4, high=5), Column('f', 'float', low=0, high=1)])
@pytest.mark.parametrize('step', ['normal', 'uniform'])
def test_reflection_keeps_uniform_and_clipping_does_not(col, step):
    bins = 10 if col.kind == 'float' else col.high - col.low + 1
    def chi2(edge, n=60_000):
        g = Tables(Schema((col,)), step=step, edge=edge)
        x = g.vary(g.random(np.zeros(n, int), rng(5)), .6, rng(6)).data.iloc[:, 0]
        k = np.histogram(x, bins, (col.low - .5, col.high + .5) if col.kind == 'integer' else (0, 1))[0]
        return ((k - n/bins)**2).sum()/(n/bins)
    assert chi2('reflect') < bins + 6*math.sqrt(2*bins) < chi2('clip')


@pytest.mark.parametrize('kind', ['ordinal', 'date'])
def test_ordinals_and_dates_move_as_integers_do(kind):
    plain = Column('x', 'integer', low=0, high=6, nullable=True)
    col = Column('x', kind, tuple('abcdefg'), nullable=True) if kind == 'ordinal' else Column('x', kind, low='2024-02-26', high='2024-03-03', nullable=True)
    numbers, same = Schema((plain,)), Schema((col,))
    a, b = Tables(numbers, missing=.2), Tables(same, missing=.2)
    for x, y in ((a.random(np.zeros(999, int), rng()), b.random(np.zeros(999, int), rng())),):
        for degree in (0, .1, .5):
            i, j = (column_arrays(g.vary(r, degree, rng(1)).data, r.schema)[0] for g, r in ((a, x), (b, y)))
            assert np.array_equal(i[2], j[2]) and np.array_equal(i[1][~i[2]], (j[1] - col.bounds[0])[~j[2]])
        assert np.array_equal(TableEmbedding(numbers)(x), TableEmbedding(same)(y))


def test_booleans_are_categories_of_two():
    for nullable in (False, True):
        a, b = (Schema((Column('x', kind, cats, nullable=nullable),)) for kind, cats in (('categorical', ('False', 'True')), ('boolean', ())))
        x, y = (Tables(s).vary(Tables(s).random(np.zeros(99, int), rng()), .5, rng(1)) for s in (a, b))
        assert np.array_equal(column_arrays(x.data, a)[0][1], column_arrays(y.data, b)[0][1]) and np.array_equal(TableEmbedding(a)(x), TableEmbedding(b)(y))
        assert str(y.data['x'].dtype) == ('boolean' if nullable else 'bool')


def test_size_of_steps():
    schema = Schema((Column('f', 'float', low=0, high=1000),))
    middle = Records.table(pd.DataFrame(dict(f=np.full(50_000, 500.))), schema)
    far = lambda step: Tables(schema, step=step).vary(middle, .05, rng()).data['f'] - 500
    assert abs(far('normal').std() - 50) < 1 and far('normal').abs().max() > 150
    assert abs(far('uniform').std() - 50/math.sqrt(3)) < .6 and far('uniform').abs().max() <= 50


def test_categories_are_redrawn_at_their_rate():
    col = Column('c', 'categorical', ('1', 'nan', 'x'), nullable=True)
    g = Tables(Schema((col, Column('f', 'float', low=0, high=1))))
    r = g.random(np.zeros(40_000, int), rng())
    assert np.allclose(r.data['c'].value_counts(dropna=False)/len(r), .25, atol=.015)
    v = g.vary(r, dict(categorical=.4, numeric=0), rng(1)).data
    code = lambda d: d['c'].cat.codes.to_numpy()
    assert abs((code(v) != code(r.data)).mean() - .4*.75) < .015 and v['f'].equals(r.data['f'])
    assert g.vary(r, dict(categorical=0, numeric=.4), rng(1)).data['c'].equals(r.data['c'])


@pytest.mark.parametrize('kind', ['integer', 'float'])
def test_numbers_become_and_cease_to_be_missing(kind):
    col = Column('x', kind, low=5, high=50, nullable=True)
    g = Tables(Schema((col,)), missing=.3)
    r = g.random(np.zeros(40_000, int), rng())
    was, now = r.data['x'].isna(), g.vary(r, dict(categorical=.5, numeric=.01), rng(1)).data['x'].isna()
    assert abs(was.mean() - .3) < .015 and abs(now.mean() - .3) < .015
    assert abs(now[~was].mean() - .15) < .015 and abs(now[was].mean() - .65) < .02
    assert not Tables(Schema((col,)), missing=0).random(np.zeros(99, int), rng()).data['x'].isna().any()


def test_constant_columns_stay():
    schema = Schema((Column('i', 'integer', low=7, high=7), Column('f', 'float', low=.1, high=.1), Column('c', 'categorical', ('only',))))
    g = Tables(schema)
    r = g.random(np.zeros(20, int), rng())
    assert g.vary(r, 1, rng()) == r and r.data.drop_duplicates().to_numpy().tolist() == [[7, .1, 'only']]
    assert not TableEmbedding(schema)(r)[:, :2].any()


def test_many_columns_and_categories():
    schema = Schema(tuple(Column(f'c{i}', 'float', low=0, high=i) for i in range(200)) + (Column('c', 'categorical', tuple(map(str, range(100_000)))),))
    g = Tables(schema)
    r = g.vary(g.random(np.zeros(3, int), rng()), .5, rng())
    assert r == checked(r) and TableEmbedding(schema)(r).shape == (3, 100_200)


@pytest.mark.parametrize('bad', [-.1, 1.1, math.nan, math.inf, True, '0.5', None, [.5], {}, dict(numeric=.1), dict(categorical=.1, numeric=2), dict(categorical=.1, numeric=.1, x=1)])
def test_bad_degrees(bad):
    g = Tables(Schema((Column('x', 'float', low=0, high=1),)))
    with pytest.raises(ValueError, match='must'): g.check(bad)
    with pytest.raises(ValueError, match='must'): g.vary(g.random(np.zeros(2, int), rng()), bad, rng())
    with pytest.raises(ValueError, match='degree'): steps(Settings(generations=2, samples=4, degree=[.1, .1, bad]), g)


def test_bad_parts():
    schema = Schema((Column('x', 'float', low=0, high=1),))
    other = Schema((Column('x', 'float', low=0, high=2),))
    g = Tables(schema, ('a', 'b'))
    for kw in (dict(step='levy'), dict(edge='wrap'), dict(rounding='up'), dict(missing=2), dict(missing=True), dict(label_names=()), dict(label_names='ab')):
        with pytest.raises(ValueError, match='must'): Tables(schema, **kw)
    with pytest.raises(ValueError, match='must be a Schema'): Tables(schema.to_dict())
    for labels in ([2], [-1], [.5], [[0]]):
        with pytest.raises(ValueError, match='labels must'): g.random(np.array(labels), rng())
    for parents in (Records.texts(['a']), Tables(other, ('a', 'b')).random(np.array([0]), rng())):
        with pytest.raises(ValueError, match='with this schema'): g.vary(parents, .1, rng())
        with pytest.raises(ValueError, match='with this schema'): TableEmbedding(schema)(parents)
    with pytest.raises(ValueError, match='label_names'): g.vary(Tables(schema, ('a', 'c')).random(np.array([0]), rng()), .1, rng())


def test_fingerprints_say_everything():
    schema = Schema((Column('x', 'float', low=0, high=1), Column('c', 'categorical', ('a', 'b'))))
    gs = [Tables(schema), Tables(schema, ('a',)), Tables(schema, step='uniform'), Tables(schema, edge='reflect'), Tables(schema, rounding='nearest'), Tables(schema, missing=.2),
          Tables(Schema(schema.columns[::-1]))]
    es = [TableEmbedding(schema), TableEmbedding(schema, 'reference'), TableEmbedding(schema, numeric=2), TableEmbedding(schema, columns=dict(x=3)), TableEmbedding(schema, columns=dict(c=3))]
    for parts in (gs, es): assert len({p.fingerprint for p in parts}) == len(parts)
    before = gs[0].fingerprint
    gs[0].random(np.array([0]), rng())
    assert gs[0].fingerprint == before == Tables(schema).fingerprint and TableEmbedding(schema, 1/3).fingerprint == es[0].fingerprint
    assert json.loads(before.removeprefix('Tables '))['step'] == 'normal' and gs[0].record_bytes == 24


# ---- rates and stages ----

def test_rates_of_the_reference_and_of_the_paper():
    ref = mutation_rates(29, variant='reference')
    assert len(ref) == 30 and ref[0] == ref[1] == .5 and math.isclose(ref[29], .5 - .49*(28/30)**.2)
    paper = mutation_rates(15)
    assert math.isclose(paper[15], .5 - .48*(14/15)**.2) and math.isclose(paper[2], .5 - .48*(1/15)**.2)
    assert mutation_rates(15, variant='mended')[15] == .02 and mutation_rates(1, variant='mended') == [.5, .5]
    assert np.allclose(np.diff(mutation_rates(9, kind='linear')[1:]), -.48/9)


@given(st.integers(1, 60), st.floats(0, 1), st.floats(0, 1), st.floats(.01, 9), st.sampled_from(['polynomial', 'linear']), st.sampled_from(VARIANTS))
@settings(deadline=None, max_examples=100)
def test_rates_lie_between_start_and_end(T, start, end, gamma, kind, variant):
    r = np.array(mutation_rates(T, start, end, gamma, kind, variant))
    assert len(r) == T + 1 and r[0] == start and np.all((r >= min(start, end) - 1e-12) & (r <= max(start, end) + 1e-12)) and r.max() <= 1
    assert np.all(np.diff(r)*np.sign(end - start) >= -1e-12)


@pytest.mark.parametrize('variant, sample, single', [('paper', 6, 5), ('reference', 4, 4), ('mended', 5, 5)])
def test_where_the_stages_change(variant, sample, single):
    s = tab_pe(1000, 14, variant=variant)
    plan = steps(Settings(**s), Tables(Schema((Column('x', 'float', low=0, high=1),))))
    assert [p.t for p in plan[1:] if p.selection == 'sample'] == list(range(1, sample + 1))
    assert [p.t for p in plan[1:] if not p.keep_parents] == list(range(1, single + 1))
    assert [p.rows for p in plan[1:]] == [1000]*single + [4000]*(14 - single)
    assert {p.threshold for p in plan} == {0} and plan[-1].degree == mutation_rates(14, variant=variant)[-1]


def test_examples_and_bad_settings():
    for name in EXAMPLES:
        for variant in VARIANTS: assert len(steps(Settings(**example(name, variant)))) == example(name, variant)['generations'] + 1
    assert example('artificial_characters', 'reference')['generations'] == 14 and example('adult')['samples'] == 2000
    assert example('xor', samples=7, seed=3)['samples'] == 7 and example('xor', seed=3)['seed'] == 3
    for bad in (lambda: example('iris'), lambda: example('xor', 'best'), lambda: tab_pe(10, 5), lambda: tab_pe(10, 9, sampling=-1), lambda: tab_pe(10, 9, sampling=True),
                lambda: mutation_rates(0), lambda: mutation_rates(5, start=2), lambda: mutation_rates(5, gamma=0), lambda: mutation_rates(5, gamma=math.nan), lambda: mutation_rates(5, kind='cosine')):
        with pytest.raises(ValueError, match='must'): bad()


# ---- embedding ----

def distance(a, b, schema, cat, num):
    "Squared distance of paper 4, Equation 4, written as it is printed; missing numbers as the notebook says."
    d = 0.
    for c in schema.columns:
        x, y = a[c.name], b[c.name]
        if c.kind in ('categorical', 'boolean'): d += cat*((pd.isna(x) != pd.isna(y)) or (not pd.isna(x) and x != y))
        else:
            number = {'integer': int, 'float': float, 'ordinal': c.categories.index, 'date': lambda v: (v.date() - date(1970, 1, 1)).days}[c.kind]
            low, high = c.bounds
            place = lambda v: .5 if pd.isna(v) else 0. if low == high else float((number(v) - low)/(high - low))
            d += num*(place(x) - place(y))**2 + cat*(pd.isna(x) != pd.isna(y))
    return d


@given(schemas.filter(lambda s: all(math.isfinite(float(c.high) - float(c.low)) for c in s.columns if c.kind == 'float')),
       st.sampled_from(['paper', 'reference', .7, 0]), st.sampled_from([1., 4., 0]), st.integers(0, 99))
@settings(deadline=None, max_examples=100)
def test_distance_is_the_papers(schema, cat, num, seed):
    r = Tables(schema, missing=.4).random(np.zeros(5, int), rng(seed))
    v = TableEmbedding(schema, cat, num)(r).astype(np.float64)
    rows, cat = r.data.astype(object).to_dict('records'), {'paper': 1/3, 'reference': 2/9}.get(cat, cat)
    for i in range(5):
        for j in range(i): assert math.isclose(((v[i] - v[j])**2).sum(), distance(rows[i], rows[j], schema, cat, num), rel_tol=1e-5, abs_tol=1e-5)


@given(schemas, st.integers(0, 99))
@settings(deadline=None, max_examples=100)
def test_a_row_has_the_same_bits_in_every_batch(schema, seed):
    r, e = Tables(schema, missing=.3).random(np.zeros(9, int), rng(seed)), TableEmbedding(schema)
    v = e(r)
    assert v.dtype == np.float32 and v.shape == (9, e.width) and v.flags.c_contiguous and np.isfinite(v).all() and np.abs(v).max() <= 1
    assert e(r[:0]).shape == (0, e.width)
    for i in range(9): assert e(r[[i]]).tobytes() == v[i].tobytes()
    assert e(r[::-1]).tobytes() == v[::-1].tobytes()


def test_places():
    wide = Column('f', 'float', low=-1.7e308, high=1.7e308)
    assert places(np.array([-1.7e308, 0, 1.7e308]), wide).tolist() == [0, .5, 1]
    every = Column('i', 'integer', low=-2**63, high=2**63 - 1)
    assert places(np.array([-2**63, 2**63 - 1]), every).tolist() == [0, 1]
    assert places(np.array([2**53, 2**53 + 1, 2**53 + 2]), Column('i', 'integer', low=2**53, high=2**53 + 2)).tolist() == [0, .5, 1]


def test_text_that_looks_like_missing_is_a_category():
    schema = Schema((Column('c', 'categorical', ('a', 'nan'), nullable=True),))
    v = TableEmbedding(schema)(Records.table(pd.DataFrame(dict(c=pd.Series(['a', 'nan', None], dtype='str'))), schema))
    assert len(np.unique(v, axis=0)) == 3 and (np.count_nonzero(v, axis=1) == 1).all()


@pytest.mark.parametrize('kw', [dict(categorical='papers'), dict(categorical=-1), dict(categorical=math.nan), dict(numeric=math.inf), dict(numeric=True), dict(columns=dict(y=1)), dict(columns=dict(x=-1)), dict(categorical=None)])
def test_bad_weights(kw):
    with pytest.raises(ValueError, match='must'): TableEmbedding(Schema((Column('x', 'float', low=0, high=1),)), **kw)


def test_vectors_that_would_not_fit():
    schema = Schema((Column('zip', 'categorical', tuple(map(str, range(100_000)))), Column('x', 'float', low=0, high=1)))
    r = Tables(schema).random(np.zeros(10_000, int), rng())
    with pytest.raises(ValueError, match=r"a row takes 100001 entries of 4 bytes, 100000 of them for column 'zip'.*columns=\{'zip': None\}") as e: TableEmbedding(schema)(r)
    assert '10000 ' not in str(e.value)  # the number of private rows stays out of it
    left = TableEmbedding(schema, columns=dict(zip=None))
    assert np.array_equal(left(r), TableEmbedding(Schema(schema.columns[1:]))(Records.table(r.data[['x']], Schema(schema.columns[1:])))) and left.width == 1
    assert left.fingerprint != TableEmbedding(schema).fingerprint and TableEmbedding(schema, max_bytes=9).fingerprint == TableEmbedding(schema).fingerprint
    with pytest.raises(ValueError, match=r'max_bytes \(7\)'): left.__class__(schema, columns=dict(zip=None), max_bytes=7)(r[:2])
    assert TableEmbedding(schema, columns=dict(zip=None), max_bytes=8)(r[:2]).shape == (2, 1)


def test_weights_of_columns():
    schema = Schema((Column('x', 'float', low=0, high=1), Column('y', 'float', low=0, high=1)))
    v = TableEmbedding(schema, columns=dict(y=9))(Records.table(pd.DataFrame(dict(x=[0., 1, 0], y=[0., 0, 1])), schema))
    assert v.tolist() == [[0, 0], [1, 0], [0, 3]]


# ---- spikes ----

def spiked_schema(nullable=False):
    return Schema((Column('gain', 'integer', low=0, high=999, nullable=nullable), Column('x', 'float', low=-1, high=1, nullable=nullable), Column('c', 'categorical', ('u', 'v'))))


@given(st.booleans(), st.floats(0, 1), st.integers(0, 999), st.floats(-1, 1), rate, st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_spiked_rows_are_what_a_check_would_have_built(nullable, share, a, b, degree, seed):
    schema = spiked_schema(nullable)
    g = Tables(schema, spikes=dict(gain=a, x=b), spiked=share)
    r = g.random(np.zeros(30, int), rng(seed))
    v = g.vary(r, degree, rng(seed))
    assert r == checked(r) and v == checked(v) and v == g.vary(r, degree, rng(seed)) and g.vary(r, 0, rng(seed)) == r
    e = TableEmbedding(schema, spikes=dict(gain=a, x=b))
    assert e.width == TableEmbedding(schema).width + 2 and e(v)[4:5].tobytes() == e(v[[4]]).tobytes()


def test_spikes_stay_leave_and_come():
    schema, n, at = spiked_schema(), 40_000, lambda r: (r.data['gain'] == 7).to_numpy()
    g = Tables(schema, spikes=dict(gain=7), spiked=.6)
    r = g.random(np.zeros(n, int), rng())
    assert abs(at(r).mean() - .6) < .01
    still = g.vary(r, dict(categorical=0, numeric=.1), rng(1))
    assert at(still)[at(r)].all()                                         # a number at its spike does not move
    v = g.vary(r, dict(categorical=.5, numeric=.02), rng(1))
    assert abs(at(v)[at(r)].mean() - (.5 + .5*.6)) < .015                 # kept, or redrawn to the same
    assert abs(at(v)[~at(r)].mean() - .5*.6) < .02                        # a step hits it seldom
    left = v.data['gain'].to_numpy()[at(r) & ~at(v)]
    assert abs(left.mean() - 499.5) < 15 and left.min() < 20 and left.max() > 980   # from the whole range
    moved = (v.data['gain'] - r.data['gain']).to_numpy()[~at(r) & ~at(v)]
    assert abs(moved.std()/999 - .02) < .002
    assert np.array_equal(r.data['x'] == 7, np.zeros(n, bool)) and abs(v.data['x'].std() - r.data['x'].std()) < .02


def test_missing_is_not_the_spike():
    schema = Schema((Column('k', 'integer', low=0, high=9, nullable=True),))
    g = Tables(schema, spikes=dict(k=0), spiked=1., missing=.5)           # 0 also stands in a missing place
    r = g.random(np.zeros(4000, int), rng())
    gone = r.data['k'].isna().to_numpy(dtype=bool)
    assert .45 < gone.mean() < .55 and (r.data['k'][~gone] == 0).all()
    v = g.vary(r, 1., rng(1))
    assert .45 < v.data['k'].isna().mean() < .55 and (v.data['k'].dropna() == 0).all()
    half = Tables(schema, spikes=dict(k=0), spiked=.5, missing=0.).vary(r, .5, rng(1))
    come = gone & ~half.data['k'].isna().to_numpy(dtype=bool)             # numbers that were missing before: at the spike as often as random ones
    assert abs((half.data['k'][come] == 0).mean() - (.5 + .5/10)) < .04
    e = TableEmbedding(schema, spikes=dict(k=0))(r)
    assert e.shape[1] == 3 and (e[gone, 2] == 0).all() and np.allclose(e[~gone, 2]**2, 1/3)


def test_without_spikes_nothing_changes():
    schema = spiked_schema(True)
    a, b = Tables(schema), Tables(schema, spikes={}, spiked=.3)
    r = a.random(np.zeros(50, int), rng())
    assert r == b.random(np.zeros(50, int), rng()) and a.vary(r, .3, rng(2)) == b.vary(r, .3, rng(2)) and a.fingerprint == b.fingerprint
    assert 'spike' not in a.fingerprint and 'spike' not in TableEmbedding(schema).fingerprint
    assert TableEmbedding(schema, spikes={})(r).tobytes() == TableEmbedding(schema)(r).tobytes()
    others = [Tables(schema, spikes=dict(gain=0)), Tables(schema, spikes=dict(gain=1)), Tables(schema, spikes=dict(gain=0), spiked=.5)]
    assert len({g.fingerprint for g in [a, *others]}) == 4
    assert len({TableEmbedding(schema, spikes=s).fingerprint for s in ({}, dict(gain=0), dict(gain=1), dict(x=0))}) == 4
    assert Tables(schema, spikes=dict(x=0)).fingerprint == Tables(schema, spikes=dict(x=0.)).fingerprint


def test_distance_of_spikes():
    schema = Schema((Column('x', 'float', low=0, high=10),))
    v = TableEmbedding(schema, .5, 4., spikes=dict(x=0))(Records.table(pd.DataFrame(dict(x=[0., 5, 10])), schema)).astype(float)
    assert np.allclose(((v[:, None] - v[None])**2).sum(-1), [[0, 1.5, 4.5], [1.5, 0, 1], [4.5, 1, 0]])
    left = TableEmbedding(schema, columns=dict(x=None), spikes=dict(x=0))
    assert left.width == 0                                                # no part in the distance, so no spike


@pytest.mark.parametrize('spikes', [dict(y=0), dict(c=0), dict(gain=-1), dict(gain=1000), dict(gain=.5), dict(gain='0'), dict(gain=True), dict(gain=None), dict(x=math.nan), dict(x=2)])
def test_bad_spikes(spikes):
    for make in (Tables, TableEmbedding):
        with pytest.raises(ValueError, match='spike.* must be'): make(spiked_schema(), spikes=spikes)
    with pytest.raises(ValueError, match=r'spiked \(2\) must be'): Tables(spiked_schema(), spiked=2)


# ---- together ----

def xor_records(n, r):
    schema = Schema((Column('x', 'float', low=-10, high=10), Column('k', 'integer', low=0, high=1), Column('c', 'categorical', ('u', 'v'))))
    x, k = r.uniform(-10, 10, n), r.integers(0, 2, n)
    return Records.table(pd.DataFrame(dict(x=x, k=k, c=np.array(['u', 'v'])[r.integers(0, 2, n)])), schema, ((x > 0) ^ (k > 0)).astype(np.int64), ('0', '1'))


@pytest.mark.parametrize('variant', VARIANTS)
def test_evolution_finds_what_no_column_shows(variant):
    private = xor_records(3000, rng())
    run = list(evolve(private, Tables(private.schema, private.label_names), TableEmbedding(private.schema), Settings(**tab_pe(100, 10, variant=variant)),
                      Budget(epsilon=1., delta=1e-5), noise=SeededNoise(0)))
    right = lambda r: (((r.data.x > 0) ^ (r.data.k > 0)) == r.labels).mean()
    assert right(run[0].records) < .65 and right(run[-1].selected) > .8
    assert run[-1].selected == checked(run[-1].selected) and run[-1].epsilon == pytest.approx(1, abs=1e-2)
