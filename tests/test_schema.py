"Schemas: kinds, labels, JSON, values outside the domain, and what of a table can go wrong before a run begins."
import hashlib, json, pickle, time
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from pe_nb.embeddings.tables import TableEmbedding
from pe_nb.exchange import csv_frame, from_csv, from_datasets, from_pandas, from_parquet, to_csv, to_datasets, to_pandas, to_parquet
from pe_nb.fit import CHOICES, Outside, fit_table
from pe_nb.generators.tables import Tables
from pe_nb.records import Column, Records, Schema, load_records, save_records
from pe_nb.schema import KINDS, check_table, column_arrays, day_number, iso_day, label_arrays, table_labels

DATA = Path(__file__).resolve().parents[2]/'shared'/'data'
rng = lambda s=0: np.random.default_rng(s)
I64 = st.integers(-2**63, 2**63 - 1)
SIZE, PAID, SINCE = Column('size', 'ordinal', ('S', 'M', 'L'), nullable=True), Column('paid', 'boolean', nullable=True), Column('since', 'date', low='2020-01-01', high='2024-12-31', nullable=True)
N, X, LAND = Column('n', 'integer', low=-2**63, high=2**63 - 1, nullable=True), Column('x', 'float', low=-1, high=1, nullable=True), Column('land', 'categorical', ('nan', '1', 'ä'), nullable=True)
SOLD, WHERE = Column('sold', 'boolean'), Column('where', 'categorical', ('web', 'shop', 'phone'))
ALL = Schema((SIZE, PAID, SINCE, N, X, LAND), (SOLD, WHERE))
FULL = pd.DataFrame({'size': ['L', None, 'S'], 'paid': [True, None, False], 'since': ['2020-02-29', None, '2024-12-31'], 'n': pd.array([2**53 + 1, None, -2**63], 'Int64'),
                     'x': [.1, np.nan, -1.], 'land': ['nan', None, '1'], 'sold': [True, False, True], 'where': ['phone', 'web', 'web']})
one = lambda kind, **kw: Schema((Column('c', kind, **kw),))
table = lambda s, values: check_table(pd.DataFrame({'c': values}), s)['c']


# ---- columns ----

def test_what_a_kind_says_of_itself():
    assert [Column('c', k, **({} if k == 'boolean' else dict(categories=('a', 'b', 'c')))).coded for k in KINDS[:3]] == [True]*3
    assert SIZE.bounds == (0, 2) and PAID.bounds is None and LAND.bounds is None and PAID.categories == ('False', 'True') and N.bounds == (-2**63, 2**63 - 1) and X.bounds == (-1., 1.)
    assert SINCE.bounds == ((date(2020, 1, 1) - date(1970, 1, 1)).days, (date(2024, 12, 31) - date(1970, 1, 1)).days) and not SINCE.coded
    assert Column('d', 'date', low=date(2020, 1, 1), high=datetime(2024, 12, 31)).low == '2020-01-01' and Column('d', 'date', low='0001-01-01', high='9999-12-31').bounds == (-719162, 2932896)


@pytest.mark.parametrize('how, rule', [
    (dict(kind='boolean', categories=('no', 'yes')), 'left out'), (dict(kind='boolean', low=0), 'left out'), (dict(kind='ordinal'), 'at least one'), (dict(kind='ordinal', categories='SML'), 'not one string'),
    (dict(kind='ordinal', categories=('a', 'a')), 'unique'), (dict(kind='ordinal', categories=('a',), high=1), 'left out'), (dict(kind='date'), 'must be a day'), (dict(kind='date', low='2020', high='2021'), 'must be a day'),
    (dict(kind='date', low='2020-02-30', high='2021-01-01'), 'must be a day'), (dict(kind='date', low=datetime(2020, 1, 1, 12), high='2021-01-01'), 'must be a day'), (dict(kind='date', low=0, high=1), 'must be a day'),
    (dict(kind='date', low='2021-01-01', high='2020-01-01'), 'at most'), (dict(kind='date', low='2020-01-01', high='2021-01-01', categories=('a',)), 'left out'), (dict(kind='Integer', low=0, high=1), "one of 'categorical'")])
def test_bad_columns(how, rule):
    with pytest.raises(ValueError, match=rule) as e: Column('age', **how)
    assert "column 'age'" in str(e.value)


@given(st.dates())
def test_days(d):
    assert iso_day(day_number(d)) == d.isoformat() and day_number(d.isoformat()) == day_number(datetime(d.year, d.month, d.day)) == (d - date(1970, 1, 1)).days
    assert day_number(d.isoformat() + ' 00:00:00.000') == day_number(d) and day_number(d.isoformat() + 'T00:00:01') is None


# ---- schemas ----

def test_labels_of_a_schema():
    assert Schema((X,)).label_names == () == Schema((X,)).label_columns and Schema((X,), (SOLD,)).label_names == ('False', 'True') and Schema((X,), (WHERE,)).label_names == WHERE.categories
    assert ALL.label_names == tuple(f'sold: {a} | where: {b}' for a in ('False', 'True') for b in ('web', 'shop', 'phone')) and ALL.label_columns == ('sold', 'where')
    assert ALL.names == ('size', 'paid', 'since', 'n', 'x', 'land') and ALL['where'] is WHERE and ALL['x'] is X
    for bad in ((PAID,), (N,), (SINCE,), (SIZE,)):
        with pytest.raises(ValueError, match='labels .* must be of kind'): Schema((LAND,), bad)
    for columns, labels in (((X, SOLD), (SOLD,)), ((X,), (SOLD, SOLD))):
        with pytest.raises(ValueError, match='different names'): Schema(columns, labels)
    wide = Column('w', 'categorical', tuple(map(str, range(1000))))
    with pytest.raises(ValueError, match='at most 100000'): Schema((X,), (wide, Column('v', 'categorical', wide.categories)))
    a, b = Column('a', 'categorical', ('p', 'p | b: q')), Column('b', 'categorical', ('r', 'q | b: r'))
    with pytest.raises(ValueError, match='a different name to every combination'): Schema((X,), (a, b))


def test_old_schemas_stay_what_they_were():
    old = {'columns': [{'name': 'a', 'kind': 'integer', 'categories': [], 'low': 0, 'high': 9, 'nullable': True}, {'name': 'b', 'kind': 'categorical', 'categories': ['x', 'y'], 'low': None, 'high': None, 'nullable': False}]}
    s = Schema.from_dict(old)
    assert s.to_dict() == old and json.dumps(s.to_dict()) == json.dumps(old)  # the order of keys, too: it is part of fingerprints
    assert Tables(s).fingerprint == 'Tables {"edge": "clip", "label_names": [""], "missing": 0.1, "rounding": "stochastic", "schema": ' + json.dumps(old, sort_keys=True) + ', "step": "normal"}'
    r = Tables(s, ('p', 'q')).random(np.arange(6) % 2, rng())
    v = Tables(s, ('p', 'q')).vary(r, .3, rng(1))
    assert r.fingerprint[:16] == 'edc11f8e3f0ebf4b' and v.fingerprint[:16] == '0ebdad3a242c2fd5'  # as before there were other kinds and label columns
    assert hashlib.sha256(TableEmbedding(s)(v).tobytes()).hexdigest()[:16] == '41130ee704f35076'


def test_json_files(tmp_path):
    ALL.to_json(tmp_path/'s.json')
    first = (tmp_path/'s.json').read_bytes()
    back = Schema.from_json(tmp_path/'s.json')
    back.to_json(str(tmp_path/'s.json'))
    assert back == ALL and hash(back) == hash(ALL) and pickle.loads(pickle.dumps(back)) == ALL and (tmp_path/'s.json').read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ['s.json'] and str(tmp_path) not in first.decode() and set(json.loads(first)) == {'columns', 'labels'}
    for bad in ('', '{', '[]', '{}', '{"columns": []}', '{"columns": [1]}', '{"columns": [{"name": "a"}]}', '{"columns": [{"name": "a", "kind": "boolean", "x": 1}]}', '{"columns": [{"name": "a", "kind": "boolean"}], "x": 1}'):
        (tmp_path/'bad').write_text(bad)
        with pytest.raises(ValueError, match='must'): Schema.from_json(tmp_path/'bad')
    (tmp_path/'bad').write_bytes(b'\xff\xfe')
    with pytest.raises(ValueError, match='JSON file in UTF-8'): Schema.from_json(tmp_path/'bad')


# ---- values ----

def test_one_dtype_for_each_kind():
    whole = FULL.dropna()
    strict = Schema(tuple(Column(c.name, c.kind, () if c.kind == 'boolean' else c.categories, c.low, c.high) for c in ALL.columns), ALL.labels)
    want = ['category', 'boolean', 'datetime64[s]', 'Int64', 'float64', 'category', 'bool', 'category']
    for df in (FULL, FULL[:0], FULL.astype(object).where(FULL.notna(), None).astype({'n': 'Int64', 'x': float})): assert list(map(str, check_table(df, ALL).dtypes)) == want
    assert list(map(str, check_table(whole, strict).dtypes)) == ['category', 'bool', 'datetime64[s]', 'int64', 'float64', 'category', 'bool', 'category']
    t = check_table(FULL, ALL)
    assert t['size'].cat.ordered and list(t['size'].cat.categories) == ['S', 'M', 'L'] and not t['land'].cat.ordered and t['size'].max() == 'L'
    assert [[v.tolist(), m.tolist()] for _, v, m in column_arrays(t, ALL)[:3]] == [[[2, -1, 0], [False, True, False]], [[1, -1, 0], [False, True, False]], [[18321, 0, 20088], [False, True, False]]]


DAYS = one('date', low='1900-01-01', high='2100-01-01', nullable=True)

@pytest.mark.parametrize('values', [
    ['2020-02-29', None], [date(2020, 2, 29), None], [datetime(2020, 2, 29), None], pd.to_datetime(['2020-02-29', None]), pd.to_datetime(['2020-02-29', None]).as_unit('ns'), [pd.Timestamp('2020-02-29'), pd.NaT],
    np.array(['2020-02-29', 'NaT'], 'datetime64[D]'), np.array(['2020-02-29', 'NaT'], 'datetime64[us]'), pd.Series(['2020-02-29T00:00:00', None], dtype='str'), pd.Categorical(['2020-02-29', None])])
def test_dates_from_many_forms(values): assert table(DAYS, values).dt.strftime('%F').tolist()[0] == '2020-02-29' and table(DAYS, values).isna().tolist() == [False, True]


@pytest.mark.parametrize('value', ['2020-02-29 12:00:00', '2020-02-30', '29.02.2020', '2020-2-9', '2020', '', 'secret 7731', '٢٠٢٠-01-01', 20200229, 7731.5, True, b'2020-02-29', datetime(2020, 2, 29, 1), pd.Timestamp('2020-02-29') + pd.Timedelta(1, 'ns'),
                                   datetime(2020, 2, 29, tzinfo=timezone.utc), pd.Timestamp('2020-02-29', tz='UTC'), timedelta(1)])
def test_what_is_no_day(value):
    for values in ([value], [value, '2020-02-29'], pd.Series([value, '2020-02-29'], dtype=object)):
        with pytest.raises(ValueError, match="column 'c' must hold whole days") as e: table(DAYS, values)
        assert '7731' not in str(e.value)


@pytest.mark.parametrize('values, rule', [([0, 1], 'True and False, not int64'), (['True', 'False'], 'True and False'), ([1., None], 'True and False'), ([True, 'x'], 'True and False'), ([True, None], 'missing')])
def test_what_is_no_boolean(values, rule):
    with pytest.raises(ValueError, match=rule): table(one('boolean'), values)


def test_booleans_from_many_forms():
    for values in ([True, False], np.array([True, False]), pd.array([True, False], 'boolean'), np.array([True, False], object), pd.Categorical([True, False])): assert table(one('boolean'), values).tolist() == [True, False]
    assert table(one('boolean', nullable=True), [None, None]).isna().all()


@given(st.lists(st.sampled_from(['a', 'b', 'a\0', 'nan', '1', '', 'ä', 'a\u0308', None]), max_size=9), st.sampled_from([object, 'category', 'str']), st.sampled_from(['categorical', 'ordinal']))
@settings(deadline=None, max_examples=100)
def test_codes_are_positions(values, dtype, kind):
    cats = ('ä', 'nan', 'a', '', '1', 'a\0', 'b', 'a\u0308')
    t = check_table(pd.DataFrame({'c': pd.Series(values, dtype=dtype)}), s := one(kind, categories=cats, nullable=True))
    assert column_arrays(t, s)[0][1].tolist() == [-1 if v is None else cats.index(v) for v in values]


def test_unused_categories_of_a_column_do_no_harm():
    s = one('categorical', categories=('a', 'b'))
    assert table(s, pd.Categorical(['a'], ['z', 'a'])).tolist() == ['a'] and table(s, pd.Categorical(['b'], ['b', 'z'])[:0]).tolist() == []
    for bad in (pd.Categorical(['z', 'a']), ['a', 'z']):
        with pytest.raises(ValueError, match='its 2 public categories'): table(s, bad)
    for bad in (pd.Categorical([1, 2]), [1, 2], ['a', 1]):
        with pytest.raises(ValueError, match='must hold str'): table(s, bad)


# ---- records with label columns ----

def test_labels_come_from_the_label_columns():
    r = Records.table(FULL, ALL)
    assert r.labels.tolist() == [5, 0, 3] and r.label_names == ALL.label_names and list(r.data) == list(ALL.names) and r.frame().equals(check_table(FULL, ALL))
    assert r == Records.table(r.data, ALL, [5, 0, 3]) == Records.table(r.data, ALL, [5, 0, 3], ALL.label_names) == Records.table(FULL, ALL, label_names=list(ALL.label_names)) == pickle.loads(pickle.dumps(r))
    assert r[[2]].frame().equals(r.frame()[2:].reset_index(drop=True)) and Records.concat([r[:1], r[1:]]) == r and Records.concat([r, r]).frame()[3:].reset_index(drop=True).equals(r.frame())
    assert len({r.fingerprint, r[::-1].fingerprint, Records.table(FULL.assign(sold=False), ALL).fingerprint, Records.table(r.data, Schema(ALL.columns), r.labels, r.label_names).fingerprint}) == 4
    frame = r.frame()
    frame.loc[:, 'x'] = 0.
    assert r.frame()['x'][0] == .1  # what is given out is the caller's own
    with pytest.raises(ValueError, match="must be 'table' for a frame"): Records.texts(['a']).frame()
    assert list(Records.table(r.data, Schema(ALL.columns)).frame()) == list(ALL.names)


def test_labels_are_given_once():
    r = Records.table(FULL, ALL)
    with pytest.raises(ValueError, match=r"missing: \['sold', 'where'\]"): Records.table(r.data, ALL)
    with pytest.raises(ValueError, match='labels must be left out when the table has'): Records.table(FULL, ALL, [5, 0, 3])
    with pytest.raises(ValueError, match='label_names must be left out'): Records.table(FULL, ALL, label_names=['a'])
    with pytest.raises(ValueError, match='labels must lie in 0..5'): Records.table(r.data, ALL, [0, 0, 6])
    with pytest.raises(ValueError, match=r"not declared: \['sold', 'where'\]"): Records.table(FULL, Schema(ALL.columns))
    with pytest.raises(ValueError, match='label must be left out'): from_pandas(FULL, schema=ALL, label='sold', label_names=['a'])
    for bad, rule in ((None, 'missing values'), ('fax', 'its 3 public categories')):
        with pytest.raises(ValueError, match=f"column 'where' must.*{rule}"): Records.table(FULL.assign(where=['web', 'web', bad]), ALL)


@given(st.lists(st.integers(0, 5), max_size=9))
@settings(deadline=None)
def test_label_columns_and_ids_are_one_to_one(ids):
    cols = label_arrays(np.array(ids, np.int64), ALL)
    df = pd.DataFrame(cols)
    assert table_labels(df, ALL).tolist() == ids and [ALL.label_names[i] for i in ids] == [f'sold: {a} | where: {b}' for a, b in zip(*(df[c].tolist() for c in ALL.label_columns))]


@pytest.mark.parametrize('how', ['csv', 'parquet', 'pandas', 'datasets', 'file'])
def test_every_kind_survives_every_round_trip(tmp_path, how):
    whole = Schema(ALL.columns + (Column('low', 'integer', low=-2**63, high=-2**63), Column('high', 'integer', low=2**63 - 1, high=2**63 - 1), Column('first', 'date', low='0001-01-01', high='9999-12-31')), ALL.labels)
    r = Records.table(FULL.assign(low=-2**63, high=2**63 - 1, first=[date(1, 1, 1), date(9999, 12, 31), date(1969, 12, 31)]), whole)
    if how == 'csv': to_csv(r, tmp_path/'f'); back = from_csv(tmp_path/'f', schema=whole)
    if how == 'parquet': to_parquet(r, tmp_path/'f'); back = from_parquet(tmp_path/'f', schema=whole)
    if how == 'pandas': back = from_pandas(to_pandas(r), schema=whole)
    if how == 'datasets': back = from_datasets(to_datasets(r), schema=whole)
    if how == 'file': save_records(r, tmp_path/'f'); back = load_records(tmp_path/'f')
    assert back == r and back.data['n'][0] == 2**53 + 1 and back.data['low'][0] == -2**63 and back.data['high'][2] == 2**63 - 1 and list(map(str, back.data.dtypes)) == list(map(str, r.data.dtypes))
    if how == 'csv': assert '"sold","where"\n' in (tmp_path/'f').read_text() and '"0001-01-01"' in (tmp_path/'f').read_text() and '"True"' in (tmp_path/'f').read_text()


def test_types_in_files_are_what_others_expect(tmp_path):
    import pyarrow as pa, pyarrow.parquet as pq
    from datasets import ClassLabel, Dataset, Features, Value
    r = Records.table(FULL, ALL)
    to_parquet(r, tmp_path/'f')
    with pq.ParquetFile(tmp_path/'f') as f: types = dict(zip(f.schema_arrow.names, f.schema_arrow.types))
    assert types['since'] == pa.date32() and types['paid'] == types['sold'] == pa.bool_() and types['n'] == pa.int64() and pa.types.is_large_string(types['size'])
    ds = to_datasets(r)
    assert ds.features['where'] == ClassLabel(names=list(WHERE.categories)) and ds.features['sold'] == Value('bool') and 'label' not in ds.features
    other = ds.cast_column('where', ClassLabel(names=list(WHERE.categories))).rename_column('where', 'w').add_column('where', [2, 1, 0]).cast_column('where', ClassLabel(names=['phone', 'shop', 'web']))
    assert from_datasets(other, schema=ALL).frame()['where'].tolist() == ['web', 'shop', 'phone']  # by name, whatever the ids
    gone = Dataset.from_dict(dict(x=[0., 0.], land=[-1, 0], where=[1, None]), Features(x=Value('float64'), land=ClassLabel(names=['ä', '1']), where=ClassLabel(names=['web', 'shop'])))
    assert from_datasets(gone, schema=Schema((X, LAND))).data['land'].isna().tolist() == [True, False]
    with pytest.raises(ValueError, match="column 'where' must not have missing values"): from_datasets(gone, schema=Schema((X,), (WHERE,)))
    with pytest.raises(ValueError, match='labels must not be missing'): from_datasets(gone, schema=Schema((X,)), label='where', label_names=WHERE.categories)


def test_views_name_the_label_columns():
    r = Records.table(FULL, ALL)
    html = r._repr_html_()
    assert '<th style="text-align:left">sold</th><th style="text-align:left">where</th><th style="text-align:left">size' in html and '>2020-02-29<' in html and '>label<' not in html
    assert repr(r) == 'Records(table, n=3, 6 columns, 6 labels (sold, where))'


# ---- values outside the domain ----

TIGHT = Schema((Column('i', 'integer', low=-3, high=3, nullable=True), Column('f', 'float', low=-1, high=1, nullable=True), Column('d', 'date', low='2020-01-01', high='2020-12-31', nullable=True),
                Column('o', 'ordinal', ('a', 'b'), nullable=True), Column('c', 'categorical', ('a', 'b'), nullable=True), Column('b', 'boolean', nullable=True)), (Column('y', 'categorical', ('u', 'v')),))
ROW = st.fixed_dictionaries(dict(i=st.none() | I64 | st.integers(-4, 4), f=st.none() | st.floats(-2, 2) | st.sampled_from([np.inf, -np.inf, np.nan]), d=st.none() | st.dates() | st.dates(date(2019, 12, 30), date(2021, 1, 2)),
                                 o=st.sampled_from([None, 'a', 'b', 'z']), c=st.sampled_from([None, 'a', 'b', 'nan']), b=st.sampled_from([None, True, False]), y=st.sampled_from(['u', 'v', 'v', 'w', None])))
HOWS = st.fixed_dictionaries({k: st.sampled_from(CHOICES[:1]*(k == 'b') + CHOICES[1:] if k in 'ifdb' else CHOICES[2:]) for k in 'ifdoc'} | dict(y=st.just('drop')))


def frame(rows):
    return pd.DataFrame({c.name: pd.Series([r[c.name] for r in rows], dtype={'i': 'Int64', 'f': float}.get(c.name, object)) for c in TIGHT.both})


def slow(row, how):
    "One row, made to fit by hand: None if it goes, else its values."
    out, bad = {}, []
    for c in TIGHT.both:
        v = row[c.name]
        if v is None or v != v:
            out[c.name] = None
            if not c.nullable: bad.append(c.name)
            continue
        low, high = (date.fromisoformat(c.low), date.fromisoformat(c.high)) if c.kind == 'date' else (c.low, c.high)
        ok = v in c.categories if c.kind in ('categorical', 'ordinal') else True if c.kind == 'boolean' else low <= v <= high
        if not ok: bad.append(c.name)
        out[c.name] = v if ok or how[c.name] == 'drop' else None if how[c.name] == 'missing' else min(max(v, low), high)
    return (None if any(how[k] == 'drop' for k in bad) else out), bad


@given(st.lists(ROW, max_size=6), HOWS)
@settings(deadline=None, max_examples=200)
def test_fitting_follows_a_row_by_row_version(rows, how):
    df, outside = fit_table(frame(rows), TIGHT, how)
    want, bad = zip(*[slow(r, how | dict(b='refuse')) for r in rows]) if rows else ((), ())
    got = [[None if pd.isna(v) else v.date() if isinstance(v, datetime) else v for v in r] for r in df.astype(object).to_numpy().tolist()]
    assert got == [list(w.values()) for w in want if w is not None]
    assert outside.counts == {k: n for k in 'ifdocby' if (n := sum(k in b for b in bad))} and outside.rows == len(rows) and outside.kept.tolist() == [i for i, w in enumerate(want) if w is not None]
    assert Records.table(df, TIGHT).frame().equals(df) and list(df.dtypes) == list(check_table(df, TIGHT).dtypes)


@given(st.lists(ROW, min_size=1, max_size=6), HOWS, st.data())
@settings(deadline=None, max_examples=100)
def test_a_row_stays_or_goes_by_itself(rows, how, data):
    "Removing one record removes at most that one row of the fitted table, so the sensitivity of what follows is the same."
    gone = data.draw(st.integers(0, len(rows) - 1))
    a, b = fit_table(frame(rows), TIGHT, how), fit_table(frame(rows[:gone] + rows[gone + 1:]), TIGHT, how)
    rest = a[0][a[1].kept != gone].reset_index(drop=True)
    assert rest.equals(b[0]) and len(a[0]) - len(b[0]) in (0, 1)


def test_a_count_of_private_data_says_so():
    df = frame([dict(i=9, f=np.inf, d=None, o='a', c='b', b=True, y='u'), dict(i=0, f=0., d=None, o='a', c='b', b=True, y='w')])
    out = fit_table(df, TIGHT, dict(i='clip', f='missing', y='drop'))[1]
    assert out.private and isinstance(out, Outside) and out.counts == dict(i=1, f=1, y=1) and out.dropped == 1
    assert repr(out) == 'Outside(i: 1 (clip), f: 1 (missing), y: 1 (drop); 1 of 2 rows dropped. These are counts of private data, not for release)'
    assert fit_table(df[:0], TIGHT)[1].counts == {} and fit_table(df[:0], TIGHT, 'clip')[0].equals(check_table(df[:0], TIGHT))


def test_choices_that_have_no_meaning():
    strict = Schema((Column('i', 'integer', low=0, high=3), Column('c', 'categorical', ('a', 'b'))))
    fine, odd, unknown, none = (pd.DataFrame(dict(i=i, c=c)) for i, c in (([1], ['a']), ([4], ['a']), ([1], ['z']), (pd.array([None], 'Int64'), ['a'])))
    for how in CHOICES: assert fit_table(fine, strict, how)[0].equals(check_table(fine, strict))
    for how, rule in ((dict(c='clip'), "column 'c' .'clip'. must go with numbers"), (dict(i='missing'), 'nullable column'), (dict(z='drop'), 'must name columns'), ('trim', 'must be one of'), (dict(i='Clip'), 'must be one of'), (None, 'must be one of')):
        with pytest.raises(ValueError, match=rule): fit_table(fine, strict, how)  # before any value is looked at
    with pytest.raises(ValueError, match="'clip' finds none near an unknown one"): fit_table(unknown, strict, 'clip')
    with pytest.raises(ValueError, match="column 'i' must be nullable"): fit_table(odd, strict, 'missing')
    with pytest.raises(ValueError, match='its 2 public categories'): fit_table(unknown, strict, dict(i='clip'))
    for how in CHOICES[:3]:
        with pytest.raises(ValueError, match='must not have missing values'): fit_table(none, strict, how)
    assert len(fit_table(none, strict, 'drop')[0]) == 0
    for bad, rule in ((fine.astype(str), 'integer dtype'), (fine.assign(c=1), 'must hold str'), (fine.drop(columns='c'), 'missing'), (fine.assign(z=1), 'not declared')):
        for how in CHOICES:
            with pytest.raises(ValueError, match=rule): fit_table(bad, strict, how)


def test_fitting_is_exact_at_the_ends_of_64_bits():
    s = one('integer', low=-2**63, high=2**63 - 2)
    assert fit_table(pd.DataFrame({'c': [2**53 + 1, 2**63 - 1, -2**63]}), s, 'clip')[0]['c'].tolist() == [2**53 + 1, 2**63 - 2, -2**63]
    assert fit_table(pd.DataFrame({'c': np.array([2**64 - 1, 0], np.uint64)}), s, 'clip')[0]['c'].tolist() == [2**63 - 2, 0]
    assert fit_table(pd.DataFrame({'c': [2**60 + 1, 3]}), one('float', low=0, high=9), 'clip')[0]['c'].tolist() == [9., 3.]
    for v in (2**53 + 1, -2**53 - 1):
        with pytest.raises(ValueError, match='exact in float64'): fit_table(pd.DataFrame({'c': [v]}), one('float', low=-1e18, high=1e18), 'clip')


# ---- bad files ----

HEAD = 'size,paid,since,n,x,land,sold,where\n'
LINE = 'L,True,2020-02-29,9007199254740993,.1,nan,True,phone\n'

@pytest.mark.parametrize('text, rule', [
    ('', 'begin with a line of column names'), ('\n\n', 'begin with a line of column names'), (HEAD.replace(',where', '') + LINE.replace(',phone', ''), r"missing: \['where'\]"), (HEAD.replace('x,', 'n,', 1) + LINE, "repeated: .'n'"),
    (HEAD + LINE.replace(',phone', ''), '8 cells in every line; record 0 has 7'), (HEAD + LINE.replace('True,2020', 'yes,2020'), "column 'paid' must hold values of kind 'boolean' or nothing"),
    (HEAD + LINE.replace('2020-02-29', '29/02/2020'), "column 'since' must hold values of kind 'date' or nothing"), (HEAD + LINE.replace('2020-02-29', '2019-02-29'), "column 'since' must hold whole days"),
    (HEAD + LINE.replace('2020-02-29', '2019-02-28'), "column 'since' must lie within its public bounds 2020-01-01 to 2024-12-31"), (HEAD + LINE.replace('9007199254740993', '35.0'), "column 'n' must hold values of kind 'integer'"),
    (HEAD + LINE.replace('.1', 'inf'), "column 'x' must lie within"), (HEAD + LINE.replace('.1', '-inf'), "column 'x' must lie within"), (HEAD + LINE.replace('nan', 'NaN'), "column 'land' must hold nothing but its 3 public categories"),
    (HEAD + LINE.replace('True,phone', ',phone'), "column 'sold' must hold values of kind 'boolean'$"), (HEAD + LINE.replace('phone', ''), "column 'where' must hold nothing but its 3"), (HEAD + LINE.replace('phone', 'fax'), "column 'where' must hold nothing but its 3")])
def test_bad_csv_files(tmp_path, text, rule):
    (tmp_path/'f').write_text(text)
    with pytest.raises(ValueError, match=rule): from_csv(tmp_path/'f', schema=ALL)


def test_files_with_a_defined_result(tmp_path):
    read = lambda text: ((tmp_path/'f').write_text(text), from_csv(tmp_path/'f', schema=ALL))[1]
    assert len(read(HEAD)) == 0 and read(HEAD) == Records.table(FULL[:0], ALL) and read(HEAD).label_counts.tolist() == [0]*6
    assert read(HEAD + LINE) == Records.table(FULL[:1], ALL)
    turned = ','.join(['id'] + HEAD.strip().split(',')[::-1]) + '\n' + ','.join(['7'] + LINE.strip().split(',')[::-1]) + '\n'
    assert read(turned) == read(HEAD + LINE)  # another order, and a column that nobody asked for
    gone = read(HEAD + LINE.replace('.1', 'nan') + ',,,,,,False,web\n')
    assert gone.data['x'].isna().all() and gone.data.isna().sum().tolist() == [1, 1, 1, 1, 2, 1] and gone.data['land'][0] == 'nan'
    (tmp_path/'f').write_text(HEAD + LINE.replace('.1', 'inf') + LINE.replace('phone', 'fax') + LINE)
    df, outside = fit_table(csv_frame(tmp_path/'f', ALL), ALL, dict(x='clip', where='drop'))
    assert outside.counts == dict(x=1, where=1) and df['x'].tolist() == [1., .1]


@pytest.mark.parametrize('df, rule', [
    (FULL.drop(columns='where'), r"missing: \['where'\]"), (FULL.assign(n=['1', '2', '3']), 'integer dtype'), (FULL.assign(since=pd.Timestamp('2020-01-01 01:00')), 'whole days'),
    (FULL.assign(since=pd.Timestamp('2020-01-01', tz='UTC')), 'whole days'), (FULL.assign(where='fax'), 'its 3 public'), (FULL.assign(sold=['yes', 'no', 'no']), 'True and False')])
def test_bad_parquet_files(tmp_path, df, rule):
    df.to_parquet(tmp_path/'f')
    with pytest.raises(ValueError, match=rule): from_parquet(tmp_path/'f', schema=ALL)
    FULL.assign(id=1)[list(FULL)[::-1] + ['id']].to_parquet(tmp_path/'f')
    assert from_parquet(tmp_path/'f', schema=ALL) == Records.table(FULL, ALL)
    (tmp_path/'f').write_bytes(b'')
    with pytest.raises(ValueError, match='0 bytes'): from_parquet(tmp_path/'f', schema=ALL)


@pytest.mark.parametrize('df, rule', [
    (pd.concat([FULL, FULL[['x']]], axis=1), 'different names'), (FULL.drop(columns=['n', 'sold']), r"missing: \['n', 'sold'\]"), (FULL.assign(id=1), r"not declared: \['id'\]"), (FULL.assign(n=[1., 2., 3.]), 'integer dtype'),
    (FULL.assign(x=['a', 'b', 'c']), 'numeric dtype'), (FULL.assign(x=[0, np.inf, 0]), "column 'x' must lie within"), (FULL.assign(x=[0, -np.inf, 0]), "column 'x' must lie within"), (FULL.assign(where='fax'), 'its 3 public'),
    (FULL.assign(sold=[1, 0, 1]), 'True and False'), (FULL.assign(size=[0, 1, 2]), 'must hold str'), (FULL.assign(x=[1j, 0, 0]), 'numeric dtype'), (FULL.to_dict(), 'must be a pandas DataFrame'), (None, 'must be a pandas DataFrame')])
def test_bad_frames(df, rule):
    with pytest.raises(ValueError, match=rule): Records.table(df, ALL)


def test_200_columns_one_row_one_label(tmp_path):
    cols = tuple(Column(f'c{i}', 'float', low=0, high=1) for i in range(200))
    schema = Schema(cols, (Column('y', 'categorical', ('only',)),))
    g = Tables(schema)
    r = g.vary(g.random(np.zeros(1, int), rng()), .1, rng())
    to_csv(r, tmp_path/'f')
    assert from_csv(tmp_path/'f', schema=schema) == r and TableEmbedding(schema)(r).shape == (1, 200) and r.label_names == ('only',) and r.frame().shape == (1, 201)
    blank = Schema(cols[:1], (Column('y', 'categorical', ('',)),))
    b = Tables(blank).random(np.zeros(2, int), rng())
    to_csv(b, tmp_path/'f')
    assert from_csv(tmp_path/'f', schema=blank) == b and list(to_pandas(b)) == ['c0', 'y']  # a label column of the schema is never left out


def test_100000_categories_are_quick():
    cats = tuple(f'{i:06}' for i in range(100_000))
    schema = Schema((Column('zip', 'categorical', cats), Column('o', 'ordinal', cats)))
    x = np.array(cats, object)[rng().integers(0, 100_000, 10_000)]
    df = pd.DataFrame(dict(zip=x, o=x))
    start = time.process_time()
    r = Records.table(df, schema)
    assert time.process_time() - start < 1 and (r.data['zip'] == x).all()
    with pytest.raises(ValueError, match="100000 of them for column 'zip'"): TableEmbedding(schema)(r)
    v = TableEmbedding(schema, columns=dict(zip=None))(r)
    assert v.shape == (10_000, 1) and np.allclose(v[:, 0], x.astype(int)/99_999)


# ---- the defects of the reference, row by row of the list ----

def test_b8_b39_the_domain_of_labels_is_never_read_off_the_data(tmp_path):
    "A file that lacks a class, or has a class of its own, gives the same ids or an error."
    schema = Schema((X,), (WHERE,))
    read = lambda text: ((tmp_path/'f').write_text(text), from_csv(tmp_path/'f', schema=schema))[1]
    train, test = read('x,where\n0,web\n0,shop\n0,phone\n'), read('where,x\nphone,0\nshop,0\n')
    assert train.label_names == test.label_names == WHERE.categories and train.labels.tolist() == [0, 1, 2] and test.labels.tolist() == [2, 1]
    with_rare = 'x,where\n0,web\n0,7731\n'
    with pytest.raises(ValueError, match="column 'where' must hold nothing but its 3") as e: read(with_rare)
    assert '7731' not in str(e.value)
    with pytest.raises(ValueError, match='must not have missing|must hold nothing but'): read('x,where\n0,\n')
    (tmp_path/'f').write_text(with_rare)
    fitted = Records.table(fit_table(csv_frame(tmp_path/'f', schema), schema, 'drop')[0], schema)
    assert fitted.label_names == WHERE.categories and len(fitted) == 1


def test_b9_an_outlier_changes_no_domain():
    s = Schema((Column('age', 'integer', low=0, high=110), Column('c', 'categorical', ('a', 'b'))))
    plain = pd.DataFrame(dict(age=[30, 40], c=['a', 'b']))
    odd = pd.concat([plain, pd.DataFrame(dict(age=[7731], c=['a']))])
    with pytest.raises(ValueError, match='0 to 110'): Records.table(odd, s)
    for how in ('clip', 'drop'):
        a, b = (Records.table(fit_table(df, s, how)[0], s) for df in (plain, odd))
        assert a.schema == b.schema and Tables(a.schema).fingerprint == Tables(b.schema).fingerprint and TableEmbedding(a.schema).fingerprint == TableEmbedding(b.schema).fingerprint and b.data['age'].max() <= 110


@pytest.mark.parametrize('col', [Column('i', 'integer', low=0, high=1), Column('i', 'integer', low=0, high=2), Column('i', 'ordinal', ('a', 'b')), Column('i', 'date', low='2020-01-01', high='2020-01-02'), Column('i', 'boolean')])
def test_b35_small_ranges_do_not_freeze(col):
    g = Tables(Schema((col,)), step='uniform')
    r = g.random(np.zeros(20_000, int), rng())
    assert (g.vary(r, .2, rng(1)).data['i'] != r.data['i']).mean() > .02


def test_b36_missing_is_no_text_and_unknown_is_no_first_category():
    schema = Schema((LAND, SIZE))
    r = Records.table(pd.DataFrame({'land': ['nan', None, '1'], 'size': ['S', None, 'M']}), schema)
    assert len(np.unique(TableEmbedding(schema)(r), axis=0)) == 3 and r.data['land'].tolist()[0] == 'nan' and r.data['land'].isna().tolist() == [False, True, False]
    v = Tables(schema).vary(r[[0]*3000], 1, rng())
    assert set(v.data['land'].dropna()) == {'nan', '1', 'ä'} and v.data['land'].isna().mean() > .2
    for bad in ('unseen', 1):
        with pytest.raises(ValueError, match="column 'land' must hold"): Records.table(pd.DataFrame({'land': [bad], 'size': ['S']}), schema)


def test_b37_constant_and_missing_columns_have_finite_vectors():
    schema = Schema((Column('i', 'integer', low=3, high=3), Column('f', 'float', low=.5, high=.5, nullable=True), Column('o', 'ordinal', ('only',), nullable=True), Column('d', 'date', low='2020-01-01', high='2020-01-01', nullable=True), PAID, X))
    df = pd.DataFrame(dict(i=[3, 3], f=[.5, None], o=['only', None], d=['2020-01-01', None], paid=[None, True], x=[None, 0.]))
    v = TableEmbedding(schema)(Records.table(df, schema))
    assert np.isfinite(v).all() and len(np.unique(v, axis=0)) == 2
    w = TableEmbedding(schema)(Tables(schema, missing=.5).vary(Tables(schema, missing=.5).random(np.zeros(500, int), rng()), .5, rng()))
    assert np.isfinite(w).all() and w.min() >= 0 and w.max() <= 1


def test_b38_integers_stay_integers(tmp_path):
    schema = Schema((Column('id', 'integer', low=2**53 + 1, high=2**53 + 3), Column('age', 'integer', low=0, high=99, nullable=True), X))
    g = Tables(schema)
    r = g.vary(g.random(np.zeros(200, int), rng()), .5, rng(1))
    to_csv(r, tmp_path/'f')
    lines = [x.split(',') for x in (tmp_path/'f').read_text().replace('"', '').splitlines()[1:]]
    assert set(r.data['id'].tolist()) == {2**53 + 1, 2**53 + 2, 2**53 + 3} and all('.' not in x[0] + x[1] for x in lines) and from_csv(tmp_path/'f', schema=schema) == r
    assert r.data['id'].dtype == np.int64 and str(r.data['age'].dtype) == 'Int64'


@pytest.mark.skipif(not (DATA/'artificial_characters'/'train.csv').exists(), reason='the data folder artificial_characters is not here; it belongs at ../shared/data beside the repository')
def test_a_real_file(tmp_path):
    "The label column of a file is read by its name; a part of the file has the same ids."
    folder = DATA/'artificial_characters'
    whole = json.loads((folder/'metadata.json').read_text())['int_columns']
    names = (folder/'train.csv').read_text().split('\n', 1)[0].split(',')
    cols = [Column(c, 'integer' if c in whole else 'float', low=-1000, high=1000) for c in names if c != 'Class']
    schema = Schema(tuple(cols), (Column('Class', 'categorical', tuple(map(str, range(1, 11)))),))
    r = from_csv(folder/'train.csv', schema=schema)
    df = pd.read_csv(folder/'train.csv')
    assert len(r) == len(df) and np.array_equal(r.labels, df['Class'] - 1) and all(np.array_equal(r.data[c], df[c]) for c in schema.names)
    df[df['Class'] > 7][:50].to_csv(tmp_path/'f', index=False)
    part = from_csv(tmp_path/'f', schema=schema)
    assert part.label_names == r.label_names and set(part.labels) <= {7, 8, 9}
