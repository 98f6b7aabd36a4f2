"Records: what they hold, how they compare, and that nothing is lost, invented or given away on the way in and out."
import csv
import hashlib
import io
import json
import pickle
import subprocess
import sys
import zipfile
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pe_nb.exchange import (from_csv, from_datasets, from_pandas, from_parquet, to_csv, to_datasets, to_pandas, to_parquet)
from pe_nb.folders import decode_images, from_image_folder, safe_name, to_image_folder
from pe_nb.records import (Column, Records, Schema, grid_image, infer_label_names, label_ids, load_records, random_split, save_records)
from pe_nb.schema import KINDS, TEXT, frozen, text_array

quick = settings(deadline=None, max_examples=25)
ODD = ['${oc.env:HOME}', '${x}', '{}', '{0}', '../', '../../etc/passwd', '"', "'", '""', 'a,"b"', 'two\nlines', 'cr\r', 'crlf\r\n', '\ttab ',
       '', ' ', 'NA', 'nan', 'None', 'null', '🙂👩‍👩‍👧', 'مرحبا \u202e bidi', '\ufeffbom', 'e\u0301 é', '\\n', '=1+1', '#', '%s %d', '<b>&amp;', '\x85\u2028\x0b\x1c']
word = st.text(st.characters(exclude_categories=['Cs']), max_size=8) | st.sampled_from(ODD)


@st.composite
def extras(draw, n):
    out = {}
    for key in draw(st.lists(word.filter(lambda w: w and chr(0) not in w), max_size=3, unique=True)):
        kind = draw(st.sampled_from(['int64', 'uint8', 'float32', 'float64', 'bool', 'text', 'wide']))
        if kind == 'text': out[key] = draw(st.lists(word, min_size=n, max_size=n))
        elif kind == 'wide': out[key] = np.arange(n * 6, dtype=np.float32).reshape(n, 2, 3)
        else: out[key] = np.array(draw(st.lists(st.integers(0, 255), min_size=n, max_size=n)), kind)
    return out


@st.composite
def schemas(draw):
    cols = []
    names = draw(st.lists(word.filter(lambda w: w and chr(0) not in w), min_size=1, max_size=5, unique=True))
    own = draw(st.integers(0, min(2, len(names) - 1)))  # label columns
    for i, name in enumerate(names):
        kind, nullable = draw(st.sampled_from(KINDS[:3] if i < own else KINDS)), i >= own and draw(st.booleans())
        if kind == 'boolean': cols.append(Column(name, kind, nullable=nullable))
        elif kind in KINDS[:2]: cols.append(Column(name, kind, draw(st.lists(word.filter(lambda w: ' | ' not in w), min_size=1, max_size=4, unique=True)), nullable=nullable))
        else:
            ends = {'integer': st.integers(-2**63, 2**63 - 1), 'float': st.floats(allow_nan=False, allow_infinity=False), 'date': st.dates()}[kind]
            low, high = sorted([draw(ends), draw(ends)])
            cols.append(Column(name, kind, low=low, high=high, nullable=nullable))
    return Schema(tuple(cols[own:]), tuple(cols[:own]))


@st.composite
def tables(draw, n):
    schema, cols = draw(schemas()), {}
    for c in schema.both:
        one = {'integer': lambda: st.integers(c.low, c.high), 'float': lambda: st.floats(c.low, c.high, allow_nan=False), 'boolean': st.booleans,
               'date': lambda: st.dates(date.fromisoformat(c.low), date.fromisoformat(c.high))}.get(c.kind, lambda: st.sampled_from(c.categories))()
        values = draw(st.lists(one | st.none() if c.nullable else one, min_size=n, max_size=n))
        cols[c.name] = pd.Series(values, dtype={'integer': 'Int64', 'float': np.float64}.get(c.kind, object))
    return pd.DataFrame(cols), schema


@st.composite
def records(draw, kinds=('image', 'text', 'table'), most=6, extra=True):
    n, kind = draw(st.integers(0, most)), draw(st.sampled_from(kinds))
    names = draw(st.none() | st.lists(word, min_size=1, max_size=4, unique=True))
    labels = None if names is None else draw(st.lists(st.integers(0, len(names) - 1), min_size=n, max_size=n))
    more = draw(extras(n)) if extra else None
    if kind == 'text': return Records.texts(draw(st.lists(word, min_size=n, max_size=n)), labels, names, more)
    if kind == 'table':
        df, schema = draw(tables(n))
        return Records.table(df, schema, *((None, None) if schema.labels else (labels, names)), more)
    h, w, c = draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 3, 4])))
    x = np.frombuffer(draw(st.binary(min_size=n * h * w * c, max_size=n * h * w * c)), np.uint8).reshape(n, h, w, c)
    return Records.images(x, labels, names, more)


def listed(r):
    "Records as plain lists, row by row: the slow, obvious form that everything is compared with."
    data = r.data.astype(object).where(r.data.notna(), None).values.tolist() if r.kind == 'table' else r.data.tolist()
    return [(x, int(i), {k: v[row].tolist() if v.dtype != TEXT else v[row] for k, v in r.extra.items()})
            for row, (x, i) in enumerate(zip(data, r.labels))]


# Rows, joining, comparing

@quick
@given(records(), st.data())
def test_rows_follow_a_list(r, data):
    rows, n = listed(r), len(r)
    s = data.draw(st.slices(n))
    assert listed(r[s]) == rows[s]
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    assert listed(r[mask]) == [x for x, m in zip(rows, mask) if m]
    where = data.draw(st.lists(st.integers(-n, n - 1), max_size=8)) if n else []
    assert listed(r[where]) == [rows[i] for i in where] == listed(r[np.array(where, np.int64)])
    for part in (r[s], r[mask], r[where]): assert part.label_names == r.label_names and part.schema == r.schema


@quick
@given(records(), st.data())
def test_cut_and_joined_is_the_same(r, data):
    at = data.draw(st.integers(0, len(r)))
    joined = Records.concat([r[:at], r[at:]])
    assert joined == r and hash(joined) == hash(r) and joined.fingerprint == r.fingerprint
    assert listed(Records.concat([r, r])) == listed(r) * 2


@quick
@given(records(), records())
def test_equal_means_same_content(a, b):
    key = lambda r: (r.kind, r.data.shape, listed(r), r.label_names, r.schema, {k: (str(v.dtype), v.shape) for k, v in r.extra.items()})
    assert (a == b) == (repr(key(a)) == repr(key(b)) or key(a) == key(b))
    assert a == pickle.loads(pickle.dumps(a))


def test_fingerprint_sees_every_part():
    x = np.zeros((2, 2, 3, 1), np.uint8)
    a = Records.images(x, [0, 1], ['p', 'q'], dict(e=[1, 2]))
    y = x.copy(); y[1, 1, 2, 0] = 1
    others = [Records.images(y, [0, 1], ['p', 'q'], dict(e=[1, 2])), Records.images(x, [1, 0], ['p', 'q'], dict(e=[1, 2])),
              Records.images(x, [0, 1], ['p', 'r'], dict(e=[1, 2])), Records.images(x, [0, 1], ['p', 'q'], dict(f=[1, 2])),
              Records.images(x, [0, 1], ['p', 'q'], dict(e=[1, 3])), Records.images(x, [0, 1], ['p', 'q'], dict(e=np.float64([1, 2]))),
              Records.images(x, [0, 1], ['p', 'q']), Records.images(x.reshape(2, 3, 2, 1), [0, 1], ['p', 'q'], dict(e=[1, 2])), a[:1], a[::-1],
              Records.texts(['', ''], [0, 1], ['p', 'q'], dict(e=[1, 2]))]
    assert len({r.fingerprint for r in others} | {a.fingerprint}) == len(others) + 1 and all(r != a for r in others)
    b = Records.images(x, extra=dict(e=[1, 2], f=[3, 4]))
    assert b == Records.images(x, extra=dict(f=[3, 4], e=[1, 2]))
    assert a != 'something else'


def test_texts_do_not_collide():
    clashes = [['ab', 'c'], ['a', 'bc'], ['abc', ''], ['', 'abc'], ['abc'], ['a', 'b', 'c'], ['a\0b', 'c'], ['a', 'b\0c'], ['a\0'], ['a'], []]
    naive = {hashlib.sha256(''.join(t).encode()).hexdigest() for t in clashes}
    joined = {hashlib.sha256('\0'.join(t).encode()).hexdigest() for t in clashes}
    assert len(naive) < len(clashes) and len(joined) < len(clashes)
    assert len({Records.texts(t).fingerprint for t in clashes}) == len(clashes)
    assert len({Records.texts(['x'], [0], names).fingerprint for names in (['a', 'b'], ['ab'], ['a\0b'], ['a', 'b', ''])}) == 4


def test_fingerprints_never_change():
    "A run folder names its parts by fingerprint, so these values hold for good."
    schema = Schema((Column('a', 'integer', low=0, high=9, nullable=True), Column('b', 'categorical', ('x', 'y'))))
    r = [Records.images(np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3), [1], ['a', 'b'], dict(p=np.float32([.5]))), Records.texts(ODD),
         Records.table(pd.DataFrame({'a': pd.array([3, None], 'Int64'), 'b': ['y', 'x']}), schema)]
    assert [x.fingerprint[:16] for x in r] == PINNED


PINNED = ['9e0e9dd8ec5f5506', '354b7488150cf2f4', 'a78f808d271fbadf']


@pytest.mark.parametrize('change, what', [
    (dict(data=np.zeros((1, 2, 2, 3), np.uint8)), 'shape of images'), (dict(label_names=['a', 'c']), 'label_names'),
    (dict(extra={}), 'extra'), (dict(extra=dict(p=np.float64([1]))), 'dtype and shape of extra'), (dict(kind='text', data=['x']), 'kind')])
def test_joining_names_the_difference(change, what):
    base = dict(kind='image', data=np.zeros((1, 2, 2, 1), np.uint8), labels=[0], label_names=['a', 'b'], extra=dict(p=[1]))
    with pytest.raises(ValueError, match=f'^{what} must agree'): Records.concat([Records(**base), Records(**{**base, **change})])


def test_joining_tables_needs_one_schema():
    one, two = (Schema((Column('a', 'integer', low=0, high=h),)) for h in (5, 6))
    df = pd.DataFrame({'a': [1]})
    with pytest.raises(ValueError, match='^schema must agree'): Records.concat([Records.table(df, one), Records.table(df, two)])
    with pytest.raises(ValueError, match='at least one'): Records.concat([])
    with pytest.raises(ValueError, match='Records'): Records.concat([df])


@pytest.mark.parametrize('bad, error', [([True], IndexError), ([2], IndexError), ([-3], IndexError), (2, IndexError), ([0.5], TypeError),
                                        ('a', TypeError), ((0, 1), TypeError), ([[0]], TypeError), (None, TypeError), (np.uint64(2**64 - 1), IndexError)])
def test_bad_rows(bad, error):
    with pytest.raises(error): Records.texts(['a', 'b'])[bad]


def test_iterating_gives_single_records():
    assert [r.data[0] for r in Records.texts(['a', 'b', 'c'])] == ['a', 'b', 'c']


# Frozen

def test_the_callers_arrays_stay_theirs():
    x, labels, e = np.zeros((3, 2, 2, 1), np.uint8), np.array([0, 1, 0]), np.arange(3.)
    r = Records.images(x, labels, ['a', 'b'], dict(e=e))
    before = r.fingerprint
    x[0], labels[0], e[0] = 9, 1, 9
    assert x.flags.writeable and labels.flags.writeable and Records.images(r.data, r.labels, r.label_names, r.extra).fingerprint == before
    view = x[:]
    view.flags.writeable = False
    kept = Records.images(view)
    x[0] = 77
    assert kept.data[0].max() == 9


@quick
@given(records())
def test_nothing_can_be_written(r):
    for part in (r, r[::-1], r[:2], Records.concat([r, r]), r.with_extra(z=np.zeros(len(r)))):
        for a in [part.labels, *part.extra.values()] + [part.data] * (r.kind != 'table'):
            assert not a.flags.writeable and a.flags.c_contiguous
    with pytest.raises(TypeError): r.extra['new'] = 1
    with pytest.raises(AttributeError): r.labels = None
    with pytest.raises(AttributeError): del r.labels


def test_a_table_handed_out_is_a_copy():
    r = Records.table(pd.DataFrame({'a': [1, 2]}), Schema((Column('a', 'integer', low=0, high=9),)))
    before, df = r.fingerprint, r.data
    df['a'] = 7
    df.loc[0, 'a'] = 8
    df['b'] = 1
    assert list(r.data.columns) == ['a'] and Records.table(r.data, r.schema).fingerprint == before


def test_shared_when_already_frozen():
    r = Records.images(np.zeros((4, 2, 2, 1), np.uint8))
    assert np.shares_memory(Records.images(r.data).data, r.data) and np.shares_memory(r[1:3].data, r.data)
    assert frozen(np.frombuffer(bytearray(3), np.uint8)).base is None


def test_extra_arrays_come_and_go():
    r = Records.texts(['a', 'b']).with_extra(p=[1, 2], q=['x', 'y'])
    assert list(r.extra) == ['p', 'q'] and list(r.without_extra('p').extra) == ['q'] and not r.without_extra().extra
    with pytest.raises(KeyError): r.without_extra('z')
    for bad in (dict(p=[1]), dict(p=3), dict(p=[None, 1]), dict(p=[1, 'a']), dict(p=np.array([1, 2], complex)), dict(p=np.array(['2020', '2021'], 'M8[Y]'))):
        with pytest.raises(ValueError, match="extra 'p'"): r.with_extra(**bad)
    assert r.with_extra(p=np.array([1, 2], '>i4')).extra['p'].dtype.isnative


# Labels are public, and never come from the data

def test_names_do_not_depend_on_the_data():
    "One record with a label of its own must not change what is public (the names), and may not come in unnoticed."
    names = ['cat', 'dog', 'owl']
    many, one = (from_pandas(pd.DataFrame({'t': ['x'] * len(v), 'l': v}), text='t', label='l', label_names=names) for v in (['dog', 'cat'] * 3, ['owl']))
    assert many.label_names == one.label_names == tuple(names)
    assert one.labels.tolist() == [2] and many.labels.tolist() == [1, 0] * 3       # ids agree across files
    assert Records.concat([many, one]).label_counts.tolist() == [3, 3, 1]
    with pytest.raises(ValueError, match='label_names must be given'): from_pandas(pd.DataFrame({'t': ['x'], 'l': ['cat']}), text='t', label='l')
    with pytest.raises(ValueError, match='label_names must be given'): Records.texts(['x'], [0])
    with pytest.raises(ValueError, match='labels must be given'): Records.texts(['x'], label_names=names)
    assert Records.texts(['x'], label_names=['only']).labels.tolist() == [0]


@quick
@given(st.lists(word, max_size=8), st.lists(word, min_size=1, max_size=5, unique=True))
def test_ids_are_positions_in_the_names(values, names):
    if set(values) <= set(names): assert [names[i] for i in label_ids(values, names)] == values
    else:
        with pytest.raises(ValueError, match='must be among'): label_ids(values, names)


def test_unknown_labels_are_not_repeated():
    with pytest.raises(ValueError) as e: label_ids(['a', 'SECRET-7731'], ['a'])
    assert 'SECRET' not in str(e.value) and 'infer_label_names' in str(e.value) and e.value.__cause__ is None


def test_inferring_names_says_so():
    with pytest.warns(UserWarning, match='reads the label names off the data'): assert infer_label_names(['b', 'a', 'b']) == ('a', 'b')


@pytest.mark.parametrize('labels, names, rule', [([0, 3], 'ab', 'not one string'), ([0, 3], ['a', 'b'], 'must lie in 0..1'), ([-1, 0], ['a'], 'must lie'),
    ([0], ['a'], 'shape'), ([0., 1.], ['a', 'b'], 'must be integers'), ([True, False], ['a', 'b'], 'must be integers'), (['a', 'b'], ['a', 'b'], 'label_ids'),
    ([0, 0], ['a', 'a'], 'unique'), ([0, 0], [], 'at least one'), ([0, 0], [1], 'must be str'), ([0, 0], ['\ud800'], 'valid Unicode')])
def test_bad_labels(labels, names, rule):
    with pytest.raises(ValueError, match=rule): Records.texts(['x', 'y'], labels, names)


def test_integer_labels_are_not_guessed():
    df = pd.DataFrame({'t': ['x', 'y'], 'stars': [1, 2]})
    with pytest.raises(ValueError, match='ids=True'): from_pandas(df, text='t', label='stars', label_names=['1', '2', '3'])
    assert from_pandas(df, text='t', label='stars', label_names=['1', '2', '3'], ids=True).labels.tolist() == [1, 2]
    with pytest.raises(ValueError, match='must lie'): from_pandas(df, text='t', label='stars', label_names=['1', '2'], ids=True)


# Images and texts

@pytest.mark.parametrize('x, rule', [(np.zeros((2, 3, 3)), 'uint8'), (np.zeros((2, 3, 3), np.uint8), 'x\\[..., None\\]'),
                                     (np.zeros((2, 0, 3, 1), np.uint8), 'channels last'), ([[1]], 'uint8')])
def test_bad_images(x, rule):
    with pytest.raises(ValueError, match=rule): Records.images(x)


@pytest.mark.parametrize('x', [['a', None], ['a', 3], ['a', b'b'], ['a', float('nan')], 'abc', b'abc', ['\ud800'], np.array([['a']], dtype=TEXT), pd.Series(['a', None])])
def test_bad_texts(x):
    with pytest.raises(ValueError, match='texts must be'): Records.texts(x)


def test_texts_from_anywhere():
    for x in (ODD, tuple(ODD), np.array(ODD, dtype=object), pd.Series(ODD), text_array(ODD)): assert Records.texts(x).data.tolist() == ODD


# Schemas and tables

@pytest.mark.parametrize('how, rule', [
    (dict(kind='year'), 'kind'), (dict(kind='integer', low=0), 'high'), (dict(kind='integer', low=0, high=1.5), 'high'), (dict(kind='integer', low=0, high=2**63), 'high'),
    (dict(kind='float', low=0, high=np.inf), 'finite'), (dict(kind='float', low=np.nan, high=1), 'finite'), (dict(kind='float', low=2, high=1), 'at most'),
    (dict(kind='categorical'), 'at least one'), (dict(kind='categorical', categories=('a', 'a')), 'unique'), (dict(kind='categorical', categories='ab'), 'not one string'),
    (dict(kind='categorical', categories=(1, 2)), 'must be str'), (dict(kind='categorical', categories=('a',), low=1), 'left out'),
    (dict(kind='integer', low=0, high=1, categories=('a',)), 'left out'), (dict(kind='integer', low=True, high=2), 'low'), (dict(kind='float', low=0, high=1, nullable=1), 'nullable')])
def test_bad_columns(how, rule):
    with pytest.raises(ValueError, match=rule) as e: Column('age', **how)
    assert "column 'age'" in str(e.value)


@quick
@given(schemas())
def test_schema_through_json(s): assert Schema.from_dict(json.loads(json.dumps(s.to_dict()))) == s


def test_bad_schemas():
    c = Column('a', 'integer', low=0, high=1)
    for bad in ((), (c, c), ('a',)):
        with pytest.raises(ValueError, match='columns must'): Schema(bad)
    with pytest.raises(ValueError, match='^labels must hold Column'): Schema((c,), ('a',))
    with pytest.raises(KeyError, match="no column 'b'"): Schema((c,))['b']
    with pytest.raises(ValueError, match='schema must be'): Records.table(pd.DataFrame({'a': [1]}), None)
    with pytest.raises(ValueError, match='left out'): Records('text', ['a'], schema=Schema((c,)))


AGE, SEX, PAY = Column('age', 'integer', low=0, high=120), Column('sex', 'categorical', ('f', 'm')), Column('pay', 'float', low=0, high=1e6)
FINE = dict(age=[30, 40], sex=['f', 'm'], pay=[1.5, 2.5])


@pytest.mark.parametrize('col, values, rule', [
    ('age', [30, 7731], 'within its public bounds 0 to 120'), ('age', [30., 77.31], 'integer dtype'), ('age', [30, None], 'missing'), ('age', [True, False], 'integer dtype'),
    ('age', ['30', '7731'], 'integer dtype'), ('age', np.array([30, 2**64 - 7731], np.uint64), 'within'), ('sex', ['f', 'SECRET-7731'], 'its 2 public categories'),
    ('sex', ['f', 7731], 'must hold str'), ('sex', ['f', None], 'missing'), ('pay', [1, 7731e9], 'within'), ('pay', [1, np.inf], 'within'), ('pay', [1, np.nan], 'missing'),
    ('pay', ['1', '7731'], 'numeric dtype')])
def test_table_errors_name_the_rule_and_not_the_value(col, values, rule):
    with pytest.raises(ValueError, match=rule) as e: Records.table(pd.DataFrame({**FINE, col: values}), Schema((AGE, SEX, PAY)))
    assert f"column '{col}'" in str(e.value) and '7731' not in str(e.value) and '77.31' not in str(e.value) and e.value.__cause__ is None


def test_table_columns_must_be_those_of_the_schema():
    s, df = Schema((AGE, SEX, PAY)), pd.DataFrame(FINE)
    with pytest.raises(ValueError, match=r"missing: \['pay'\], not declared: \['x'\]"): Records.table(df.rename(columns={'pay': 'x'}), s)
    with pytest.raises(ValueError, match='different names'): Records.table(pd.concat([df, df], axis=1), s)
    with pytest.raises(ValueError, match='DataFrame'): Records.table(FINE, s)
    assert list(Records.table(df[['pay', 'age', 'sex']], s).data.columns) == ['age', 'sex', 'pay']


def test_repeated_index_does_not_multiply_records():
    df = pd.DataFrame(FINE, index=[7, 7])
    r = Records.table(df, Schema((AGE, SEX, PAY)))
    both = Records.concat([r, r])
    assert len(both) == 4 and list(both.data.index) == [0, 1, 2, 3] and both.data['age'].tolist() == [30, 40, 30, 40]
    t = from_pandas(pd.DataFrame({'t': list('abc'), 'e': [1, 2, 3]}, index=[0, 0, 0]), text='t', extra=['e'])
    assert t.data.tolist() == list('abc') and t.extra['e'].tolist() == [1, 2, 3]


def test_one_dtype_whatever_the_rows():
    s = Schema((Column('a', 'integer', low=-5, high=2**60, nullable=True), Column('b', 'integer', low=0, high=9), Column('c', 'categorical', ('x',), nullable=True),
                Column('d', 'float', low=0, high=1, nullable=True)))
    frames = [dict(a=[None], b=[1], c=[None], d=[None]), dict(a=[9007199254740993], b=pd.array([1], 'Int8'), c=['x'], d=pd.array([1], 'Float64')), dict(a=[], b=[], c=[], d=[]),
              dict(a=np.array([7], np.uint8), b=np.array([7], np.uint64), c=pd.Categorical(['x'], ['x', 'unused']), d=np.array([1], np.float32))]
    rs = [Records.table(pd.DataFrame(f), s) for f in frames]
    assert {tuple(map(str, r.data.dtypes)) for r in rs} == {('Int64', 'int64', 'category', 'float64')}
    assert rs[1].data['a'][0] == 9007199254740993 and len(Records.concat(rs)) == 3


def test_constant_column_is_fine():
    r = Records.table(pd.DataFrame({'a': [3, 3]}), Schema((Column('a', 'integer', low=3, high=3),)))
    assert r.data['a'].tolist() == [3, 3]


def test_integers_that_no_float_can_hold():
    with pytest.raises(ValueError, match='exact'): Records.table(pd.DataFrame({'a': [2**53 + 1]}), Schema((Column('a', 'float', low=0, high=1e18),)))


# Files

@settings(deadline=None, max_examples=40)
@given(records())
def test_saved_and_loaded(tmp_path_factory, r):
    d = tmp_path_factory.mktemp('save')
    for name in ('one.odd', 'two'): save_records(r, d/name)
    back = load_records(d/'two')
    assert back == r and listed(back) == listed(r) and list(back.label_names) == list(r.label_names)
    save_records(back, d/'three')
    assert (d/'one.odd').read_bytes() == (d/'two').read_bytes() == (d/'three').read_bytes()
    assert sorted(p.name for p in d.iterdir()) == ['one.odd', 'three', 'two']


def test_files_run_no_code(tmp_path):
    class Bomb:
        def __reduce__(self): return (Path(tmp_path/'ran').write_text, ('x',))
    bomb = pickle.dumps(Bomb())
    (tmp_path/'pickle').write_bytes(bomb)
    with pytest.raises(ValueError, match='must be a file written by save_records'): load_records(tmp_path/'pickle')
    save_records(Records.images(np.zeros((1, 2, 2, 1), np.uint8)), tmp_path/'good')
    f = io.BytesIO()
    np.lib.format.write_array(f, np.array([Bomb()], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(tmp_path/'good') as a, zipfile.ZipFile(tmp_path/'bad', 'w') as b:
        for name in a.namelist(): b.writestr(name, f.getvalue() if name == 'data.npy' else a.read(name))
    with pytest.raises(ValueError, match='allow_pickle'): load_records(tmp_path/'bad')
    assert not (tmp_path/'ran').exists()


def test_damaged_files_are_refused(tmp_path):
    for r in (Records.images(np.zeros((9, 8, 8, 1), np.uint8)), Records.texts(ODD)):
        save_records(r, tmp_path/'f')
        whole = (tmp_path/'f').read_bytes()
        for cut in (0, 3, 50, len(whole) // 2, len(whole) - 1):
            (tmp_path/'f').write_bytes(whole[:cut])
            with pytest.raises(Exception): load_records(tmp_path/'f')


def test_changed_bytes_are_noticed(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 1), np.uint8)
    for r, mark in ((Records.images(x), x[4].tobytes()), (Records.texts(['some text to be found'] * 3), b'to be found')):
        save_records(r, tmp_path/'f')
        whole = (tmp_path/'f').read_bytes()
        at = whole.index(mark)
        (tmp_path/'f').write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
        with pytest.raises(Exception, match='(?i)crc|checksum'): load_records(tmp_path/'f')


def test_loading_checks_the_schema_again(tmp_path):
    import pyarrow.parquet as pq
    r = Records.table(pd.DataFrame({'a': [5]}), Schema((Column('a', 'integer', low=0, high=9),)))
    save_records(r, tmp_path/'f')
    t = pq.ParquetFile(tmp_path/'f').read()
    meta = json.loads(t.schema.metadata[b'pe_nb'])
    meta['schema']['columns'][0]['high'] = 4
    pq.write_table(t.replace_schema_metadata({b'pe_nb': json.dumps(meta)}), tmp_path/'f')
    with pytest.raises(ValueError, match='within its public bounds'): load_records(tmp_path/'f')


# Strings and numbers are data, wherever they go

LONG = ' '.join(['word'] * 100_000)


def around(r, d, how):
    "The records through another format and back."
    names = None if r.label_names == ('',) else r.label_names
    args = dict(label='label', label_names=names) if names and not (r.schema and r.schema.labels) else {}
    args.update({'text': dict(text='text'), 'table': dict(schema=r.schema), 'image': dict(image='image', channels=r.data.shape[-1])}[r.kind])
    args['extra'] = {k: 'text' if v.dtype == TEXT else v.dtype for k, v in r.extra.items()}
    if how == 'csv':
        to_csv(r, d/'f')
        return from_csv(d/'f', **args)
    if how == 'parquet':
        to_parquet(r, d/'f')
        return from_parquet(d/'f', **args)
    if how == 'pandas': return from_pandas(to_pandas(r), **args)
    return from_datasets(to_datasets(r), **args)


@pytest.mark.parametrize('how', ['csv', 'parquet', 'pandas', 'datasets'])
def test_strings_are_data(tmp_path, how):
    texts = ODD + [LONG] + ['nul\0'] * (how != 'csv' or sys.version_info >= (3, 11))
    r = Records.texts(texts, np.arange(len(texts)) % len(ODD), ODD, dict(prompt=texts[::-1]))
    limit = csv.field_size_limit()
    back = around(r, tmp_path, how)
    assert back == r and back.data.tolist() == texts and back.label_names == tuple(ODD) and csv.field_size_limit() == limit


@pytest.mark.parametrize('how', ['csv', 'parquet', 'pandas', 'datasets'])
def test_integers_stay_exact(tmp_path, how):
    big = [9007199254740993, -2**63, 2**63 - 1, None]
    s = Schema((Column('a', 'integer', low=-2**63, high=2**63 - 1, nullable=True), Column('age', 'integer', low=0, high=99), Column('x', 'float', low=-1, high=1)))
    df = pd.DataFrame({'a': pd.array(big, 'Int64'), 'age': [35, 36, 37, 38], 'x': [0.1, 1/3, -5e-324, -0.0]})
    r = Records.table(df, s, [0, 1, 1, 0], ['no', 'yes'], dict(id=np.array(big[:3] + [1], np.int64)))
    back = around(r, tmp_path, how)
    assert back == r and back.data['a'].tolist()[:3] == big[:3] and back.data['age'].dtype == np.int64
    if how == 'csv': assert '35.0' not in (tmp_path/'f').read_text() and '9007199254740993' in (tmp_path/'f').read_text()


def flat(r):
    "Can these records become one table? Columns need different names, and one value each."
    names = [*([c.name for c in r.schema.both] if r.schema else [r.kind]), *['label'] * (r.label_names != ('',) and not (r.schema and r.schema.labels)), *r.extra]
    return len(set(names)) == len(names) and all(v.ndim == 1 for v in r.extra.values())


@quick
@given(records().filter(flat), st.sampled_from(['csv', 'parquet', 'pandas']))
def test_there_and_back(tmp_path_factory, r, how):
    nul = sys.version_info < (3, 11) and '\\x00' in repr((listed(r), r.label_names, r.schema))
    clash = r.schema and any(c.nullable and '' in c.categories for c in r.schema.columns)
    if how == 'csv' and (r.kind == 'image' or clash):
        with pytest.raises(ValueError, match='CSV'): around(r, tmp_path_factory.mktemp('x'), how)
    elif r.kind == 'image' and not len(r):
        with pytest.raises(ValueError, match='at least one image'): around(r, tmp_path_factory.mktemp('x'), how)
    elif not (how == 'csv' and nul): assert around(r, tmp_path_factory.mktemp('x'), how) == r


@settings(deadline=None, max_examples=8)
@given(records().filter(flat).filter(len))
def test_there_and_back_with_datasets(tmp_path_factory, r):
    assert around(r, tmp_path_factory.mktemp('x'), 'datasets') == r


def test_what_does_not_fit_a_table_is_refused():
    with pytest.raises(ValueError, match='one-dimensional'): to_pandas(Records.texts(['a'], extra=dict(z=np.zeros((1, 2)))))
    with pytest.raises(ValueError, match='must differ'): to_pandas(Records.texts(['a'], extra=dict(text=[1])))
    df = pd.DataFrame({'t': ['a'], 'm': [None]})
    with pytest.raises(ValueError, match=r"missing: \['u'\]"): from_pandas(df, text='u')
    with pytest.raises(ValueError, match='exactly one'): from_pandas(df)
    with pytest.raises(ValueError, match='exactly one'): from_pandas(df, text='t', image='m')
    with pytest.raises(ValueError, match="extra 'm' must not have missing"): from_pandas(df, text='t', extra=['m'])
    with pytest.raises(ValueError, match='labels must be str'): from_pandas(df, text='t', label='m', label_names=['a'])


@pytest.mark.parametrize('body, rule', [('a,b\n1\n', '2 cells in every line; record 0 has 1'), ('', 'begin with a line'), ('a,a\n1,2\n', "repeated: \\['a'"),
                                        ('b\n1\n', "missing: \\['a'\\]"), ('a\n1.0\n', "'integer'"), ('a\n 1\n', "'integer'"), ('a\n1_0\n', "'integer'"),
                                        ('a\n\n""\n', "'integer'"), ('a\n99999999999999999999\n', "'integer'"), ('a\n9223372036854775808\n', '64 bits'), ('a\n11\n', 'within')])
def test_bad_csv(tmp_path, body, rule):
    (tmp_path/'f').write_text(body)
    with pytest.raises(ValueError, match=rule): from_csv(tmp_path/'f', schema=Schema((Column('a', 'integer', low=0, high=9),)))


def test_csv_of_others(tmp_path):
    (tmp_path/'f').write_bytes('\ufeffid\ttext\tflag\r\n1\tNA\tTrue\r\n\r\n2\t"a\nb"\tFalse\r\n'.encode())
    r = from_csv(tmp_path/'f', text='text', extra=dict(id='int32', flag=bool), delimiter='\t')
    assert r.data.tolist() == ['NA', 'a\nb'] and r.extra['id'].dtype == np.int32 and r.extra['flag'].tolist() == [True, False]
    (tmp_path/'g').write_bytes(b'text\n\xff\n')
    with pytest.raises(ValueError, match='UTF-8'): from_csv(tmp_path/'g', text='text')


def test_datasets_features_and_label_names():
    from datasets import ClassLabel, Image as HFImage
    x = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)
    r = Records.images(x, [2, 0, 1, 1], ['a', 'b', 'c'])
    ds = to_datasets(r)
    assert isinstance(ds.features['image'], HFImage) and ds.features['label'] == ClassLabel(names=['a', 'b', 'c'])
    assert (np.asarray(ds[0]['image']) == x[0]).all()
    mixed = from_datasets(ds.select([3, 0]), image='image', label='label', label_names=['c', 'x', 'b', 'a'], channels=3)
    assert mixed.labels.tolist() == [2, 0] and (mixed.data == x[[3, 0]]).all()
    with pytest.raises(ValueError, match='label_names must be given'): from_datasets(ds, image='image', label='label', channels=3)
    with pytest.raises(ValueError, match='among the 2 label_names'): from_datasets(ds, image='image', label='label', label_names=['a', 'b'], channels=3)
    with pytest.raises(ValueError, match='one split'): from_datasets({'train': ds}, image='image', channels=3)


# Image folders

HOSTILE = ['../', '..', '.', '/', '/etc/passwd', '', ' ', 'a/b', '..\\..\\x', 'CON', 'nul\0', '🙂', 'größe', 'مرحبا', 'x' * 500, '🙂' * 200, '~', '-rf', '${HOME}', 'a:b*?"<>|', 'A', 'a', '.hidden', 'end.']


@quick
@given(word)
def test_safe_names(name):
    s = safe_name(name)
    assert '/' not in s and '\\' not in s and '\0' not in s and s not in ('.', '..') and len(f'00000-{s}'.encode()) < 255
    assert Path('folder', f'0-{s}').resolve().parent == Path('folder').resolve()


def test_hostile_label_names_stay_inside(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (2 * len(HOSTILE), 3, 4, 3), np.uint8)
    r = Records.images(x, np.arange(len(x)) % len(HOSTILE), HOSTILE)
    to_image_folder(r, tmp_path/'deep'/'out')
    assert [p.name for p in tmp_path.iterdir()] == ['deep'] and [p.name for p in (tmp_path/'deep').iterdir()] == ['out']
    inside = list((tmp_path/'deep'/'out').rglob('*'))
    assert len(inside) == len(HOSTILE) + len(x) + 1 and not any(p.is_symlink() for p in inside)
    assert from_image_folder(tmp_path/'deep'/'out') == r
    with pytest.raises(ValueError, match='new or empty'): to_image_folder(r, tmp_path/'deep'/'out')


@settings(deadline=None, max_examples=10)
@given(records(['image'], extra=False))
def test_folder_there_and_back(tmp_path_factory, r):
    d = tmp_path_factory.mktemp('f')
    to_image_folder(r, d)
    assert from_image_folder(d) == r


def test_a_manifest_cannot_lead_outside(tmp_path):
    to_image_folder(Records.images(np.zeros((1, 2, 2, 1), np.uint8)), tmp_path/'a')
    to_image_folder(Records.images(np.zeros((1, 2, 2, 1), np.uint8)), tmp_path/'b')
    m = json.loads((tmp_path/'a'/'manifest.json').read_text())
    for bad in ('../b/0-/0.png', str(tmp_path/'b'/'0-'/'0.png')):
        m['files'] = [bad]
        (tmp_path/'a'/'manifest.json').write_text(json.dumps(m))
        with pytest.raises(ValueError, match='inside the folder'): from_image_folder(tmp_path/'a')


def mixed_folder(d):
    "Gray, RGB, RGBA, palette, bilevel, JPEG and GIF files of one size in two sub-folders."
    for i, (mode, suffix) in enumerate([('L', 'png'), ('RGB', 'png'), ('RGBA', 'png'), ('P', 'png'), ('1', 'png'), ('RGB', 'jpg'), ('P', 'gif'), ('LA', 'png')]):
        sub = d/('cat', 'dog')[i % 2]
        sub.mkdir(exist_ok=True)
        Image.new(mode, (6, 4)).save(sub/f'x_{i}.{suffix}')
    (d/'readme.txt').write_text('not an image')
    (d/'.cache').mkdir()
    (d/'.cache'/'thumb.png').write_bytes(b'hidden')


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_folders_of_mixed_modes(tmp_path, channels):
    mixed_folder(tmp_path)
    r = from_image_folder(tmp_path, channels=channels, label_names=['dog', 'cat', 'owl'])
    assert r.data.shape == (8, 4, 6, channels) and r.labels.tolist() == [1] * 4 + [0] * 4
    assert from_image_folder(tmp_path, channels=channels, label='prefix', label_names=['x']).label_counts.tolist() == [8]
    assert from_image_folder(tmp_path, channels=channels, label=None, size=2).data.shape == (8, 2, 2, channels)


def test_folder_errors(tmp_path):
    mixed_folder(tmp_path)
    with pytest.raises(ValueError, match='channels'): from_image_folder(tmp_path, label=None)
    with pytest.raises(ValueError, match='label_names must be given'): from_image_folder(tmp_path, channels=1)
    with pytest.raises(ValueError, match='among the 1 label_names'): from_image_folder(tmp_path, channels=1, label_names=['cat'])
    Image.new('L', (5, 5)).save(tmp_path/'cat'/'other.png')
    with pytest.raises(ValueError, match='one size'): from_image_folder(tmp_path, channels=1, label=None)
    whole = (tmp_path/'cat'/'other.png').read_bytes()
    for name, content in [('cut.png', whole[:30]), ('text.jpg', b'hello'), ('empty.png', b'')]: (tmp_path/'dog'/name).write_bytes(content)
    with pytest.raises(ValueError, match='3 of 12') as e: from_image_folder(tmp_path, channels=1, label=None, size=4)
    assert all(f'dog/{x}' in str(e.value) for x in ('cut.png', 'text.jpg', 'empty.png')) and str(tmp_path) not in str(e.value)
    (tmp_path/'none').mkdir()
    with pytest.raises(ValueError, match='must hold image files'): from_image_folder(tmp_path/'none', channels=1, label=None)
    with pytest.raises(ValueError, match='no place in an image folder'): to_image_folder(Records.images(np.zeros((1, 2, 2, 1), np.uint8), extra=dict(e=[1])), tmp_path/'new')
    with pytest.raises(ValueError, match='must be images'): to_image_folder(Records.texts(['a']), tmp_path/'new')


def test_decoding_is_exact_and_upright():
    x = np.random.default_rng(0).integers(0, 256, (4, 6, 4), np.uint8)
    def enc(mode, kind='PNG', **kw):
        f = io.BytesIO()
        Image.fromarray(x).convert(mode).save(f, kind, **kw)
        return f.getvalue()
    assert (decode_images([('a', enc('RGBA'))], 4)[0] == x).all() and (decode_images([('a', enc('RGBA'))], 3)[0] == x[..., :3]).all()
    assert (decode_images([('a', enc('RGB'))], 4)[0, ..., 3] == 255).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_images([('a', enc('RGB', exif=exif))], 3).shape == (1, 6, 4, 3)
    for mode in ('I;16', 'I', 'F'):
        f = io.BytesIO()
        Image.new(mode, (2, 2)).save(f, 'TIFF')
        with pytest.raises(ValueError, match='deep.tif'): decode_images([('deep.tif', f.getvalue())], 1)


def test_hugging_face_reads_our_folders(tmp_path):
    from datasets import load_dataset
    r = Records.images(np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8), [0, 1, 1, 0], ['cat', 'dog'])
    to_image_folder(r, tmp_path/'f')
    ds = load_dataset('imagefolder', data_dir=str(tmp_path/'f'), split='train', cache_dir=str(tmp_path/'cache'))
    assert ds.features['label'].names == ['0-cat', '1-dog'] and len(ds) == 4


# Parts and pictures

@quick
@given(records(), st.data())
def test_random_split(r, data):
    n = len(r)
    a = data.draw(st.integers(0, n))
    b = data.draw(st.integers(0, n - a))
    rows = r.with_extra(row=np.arange(n))
    parts = random_split(rows, [a, 0, b, n - a - b], np.random.default_rng(0))
    assert [len(p) for p in parts] == [a, 0, b, n - a - b]
    assert sorted(np.concatenate([p.extra['row'] for p in parts]).tolist()) == list(range(n))
    for p in parts: assert p == rows[p.extra['row']] and p.label_names == r.label_names
    again = random_split(rows, [a, 0, b, n - a - b], np.random.default_rng(0))
    assert list(parts) == list(again)


@pytest.mark.parametrize('sizes', [[1, 1], [4], [-1, 4], [1.5, 1.5], [True, 2], []])
def test_bad_splits(sizes):
    with pytest.raises(ValueError, match='sizes must'): random_split(Records.texts(list('abc')), sizes, np.random.default_rng(0))


@quick
@given(records(['image']), st.integers(1, 7), st.integers(0, 3))
def test_grid_holds_every_image_in_its_place(r, columns, gap):
    n, h, w, c = r.data.shape
    g = grid_image(r, columns, gap, fill=99)
    columns = min(columns, max(n, 1))
    seen = np.full(g.shape, 99, np.uint8)
    for i in range(n):
        y, x = i // columns * (h + gap), i % columns * (w + gap)
        seen[y:y + h, x:x + w] = r.data[i]
    assert g.dtype == np.uint8 and (g == seen).all() and g.shape == (max(-(-n // columns), 1) * (h + gap) - gap, columns * (w + gap) - gap, c)


@quick
@given(records())
def test_html_is_text_only(r):
    html = r._repr_html_()
    assert f'n={len(r)}' in html and '<script' not in html and repr(r).startswith(f'Records({r.kind}, n={len(r)}')


def test_html_escapes_and_cuts():
    h = Records.texts(['<script>', 'y' * 500], [0, 1], ['<i>', 'b'])._repr_html_()
    assert '<script>' not in h and '&lt;script&gt;' in h and 'y' * 201 not in h and '<i>' not in h
    assert 'data:image/png;base64,' in Records.images(np.zeros((3, 4, 4, 3), np.uint8))._repr_html_()
    assert 'secret' not in repr(Records.texts(['secret']))


def test_show():
    import matplotlib
    matplotlib.use('Agg')
    for c in (1, 2, 3, 4): assert len(Records.images(np.zeros((3, 4, 4, c), np.uint8), [0] * 3, ['$x$']).show(2).axes) == 2
    assert Records.images(np.zeros((0, 4, 4, 1), np.uint8)).show()
    with pytest.raises(ValueError, match="must be 'image'"): Records.texts(['a']).show()


def test_importing_is_light():
    heavy = "pandas pyarrow PIL matplotlib datasets sklearn scipy faiss torch IPython".split()
    code = f"import sys, pe_nb.records, pe_nb.exchange, pe_nb.folders, pe_nb.data.images; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, '-c', code], cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == '[]'
