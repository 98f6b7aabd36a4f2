"Schemas from dtypes, SDMetadata and domain.json: complete or refused, and never from values."
import copy, json

import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from pe_nb.formats import domain_of, schema_from_domain, schema_from_dtypes, schema_from_sdmetadata, to_sdmetadata
from pe_nb.schema import Column, Schema, check_table

SCHEMA = Schema((Column('i', 'integer', low=-5, high=2**53 + 1), Column('f', 'float', low=0, high=1, nullable=True), Column('d', 'date', low='2000-01-01', high='2030-12-31'),
                 Column('c', 'categorical', ('a', 'b "q"', '')), Column('o', 'ordinal', ('lo', 'mid', 'hi'), nullable=True), Column('b', 'boolean')), (Column('y', 'categorical', ('n', 'p')), Column('z', 'boolean')))


# ------------------------------------------------------------------ dtypes

FRAME = pd.DataFrame(dict(i=pd.Series([1, 2], dtype='int16'), u=pd.Series([1, 2], dtype='uint8'), m=pd.Series([1, None], dtype='Int32'), f=[.5, .25], g=pd.Series([.5, None], dtype='Float64'), b=[True, False],
                          n=pd.Series([True, None], dtype='boolean'), c=pd.Categorical(['x', 'y'], ['x', 'y', 'w']), o=pd.Categorical(['lo', 'hi'], ['lo', 'mid', 'hi'], ordered=True),
                          d=pd.to_datetime(['2020-01-01', '2021-01-01']), s=['p', 'q'], t=pd.Series(['p', 'q'], dtype=object)))
GIVEN = dict(bounds=dict(f=(0, 1), g=(0, 2), d=('2020-01-01', '2025-12-31'), i=(0, 10)), categories=dict(s=['p', 'q'], t=['q', 'p']), labels=['s'], declared=True, dtype_ranges=True)

def test_dtypes():
    s = schema_from_dtypes(FRAME, **GIVEN)
    assert {c.name: (c.kind, c.low, c.high, c.nullable) for c in s.columns if not c.coded} == dict(
        i=('integer', 0, 10, False), u=('integer', 0, 255, False), m=('integer', -2**31, 2**31 - 1, True), f=('float', 0., 1., False), g=('float', 0., 2., True), d=('date', '2020-01-01', '2025-12-31', False))
    assert {c.name: (c.kind, c.categories, c.nullable) for c in s.both if c.coded} == dict(
        b=('boolean', ('False', 'True'), False), n=('boolean', ('False', 'True'), True), c=('categorical', ('x', 'y', 'w'), False), o=('ordinal', ('lo', 'mid', 'hi'), False), t=('categorical', ('q', 'p'), False), s=('categorical', ('p', 'q'), False))
    assert s.label_columns == ('s',) and len(check_table(FRAME, s)) == 2


class Untouchable(pd.DataFrame):
    "Every way to a value is closed; the dtypes are open."
    @property
    def _constructor(self): raise AssertionError('a value was read')
    def __getitem__(self, key): raise AssertionError('a value was read')
    def items(self): raise AssertionError('a value was read')
    iterrows = itertuples = to_numpy = isna = head = items


def test_no_value_is_read():
    s = schema_from_dtypes(FRAME, **GIVEN)
    other = pd.DataFrame({name: FRAME[name].iloc[[1, 1, 0]].to_numpy() if FRAME[name].dtype.kind in 'iufM' and name not in 'mg' else FRAME[name].iloc[[1, 1, 0]].array for name in FRAME})
    for frame in (FRAME.head(0), other, FRAME.dtypes, dict(FRAME.dtypes), Untouchable(FRAME)): assert schema_from_dtypes(frame, **GIVEN) == s


def test_categories_need_a_statement():
    inferred = pd.DataFrame(dict(c=['clerk', 'astronaut'])).astype('category').assign(x=True)
    with pytest.raises(ValueError, match="declared=True.*must be given for 'c'") as e: schema_from_dtypes(inferred)
    assert 'astronaut' not in str(e.value)
    assert schema_from_dtypes(inferred, categories=dict(c=['clerk', 'other']))['c'].categories == ('clerk', 'other')
    assert schema_from_dtypes(inferred, columns=dict(c=Column('c', 'ordinal', ('a', 'b'))))['c'].kind == 'ordinal'
    ordered = FRAME[['o', 'b']]
    assert schema_from_dtypes(ordered, categories=dict(o=['1', '2']))['o'].kind == 'ordinal'


@pytest.mark.parametrize('change, rule', [
    (dict(bounds=dict(f=(0, 1), d=('2020-01-01', '2025-12-31'), i=(0, 10))), r"bounds \(low, high\) must be given for 'g'$"), (dict(bounds={}, dtype_ranges=False), "for 'i', 'u', 'm', 'f', 'g', 'd'"),
    (dict(categories=dict(s=['p'])), "categories must be given for 't'"), (dict(bounds=dict(GIVEN['bounds'], q=(0, 1))), r"bounds \('q'\) must name columns"), (dict(labels=['q']), 'labels'), (dict(drop='q'), 'drop'),
    (dict(nullable=['q']), 'nullable'), (dict(categories=dict(GIVEN['categories'], i=['1'])), r"astype\(str\).*for 'i'"), (dict(labels='f'), "labels"), (dict(labels='n'), "not nullable"), (dict(labels=['s', 's']), 'different names'),
    (dict(labels='s', drop=['s']), 'not dropped'), (dict(bounds=dict(GIVEN['bounds'], f=5)), 'pairs'), (dict(bounds=dict(GIVEN['bounds'], f=(1, 0))), "column 'f'"), (dict(bounds=dict(GIVEN['bounds'], c=(0, 1))), "column 'c'"),
    (dict(columns=dict(f='float')), 'must be Column'), (dict(columns=dict(f=Column('g', 'boolean'))), 'must be Column')])
def test_dtypes_bad_input(change, rule):
    with pytest.raises(ValueError, match=rule): schema_from_dtypes(FRAME, **{**GIVEN, **change})


@pytest.mark.parametrize('series, rule', [(pd.Series([1], dtype='uint64'), 'bounds'), (pd.to_datetime(pd.Series(['2020-01-01'])).dt.tz_localize('UTC'), 'dtype datetime64'), (pd.Series([1j]), 'dtype complex'),
                                          (pd.to_timedelta(pd.Series([1])), 'dtype timedelta'), (pd.Series([1, 2], dtype='category'), 'are str'), (pd.Series([pd.Interval(0, 1)]), 'dtype interval')])
def test_dtypes_without_a_kind(series, rule):
    with pytest.raises(ValueError, match=rule): schema_from_dtypes(pd.DataFrame(dict(x=series, b=True)), declared=True, dtype_ranges=True)
    assert schema_from_dtypes(pd.DataFrame(dict(x=series, b=True)), drop='x', declared=True).names == ('b',)


def test_nullable_is_the_callers():
    assert [c.name for c in schema_from_dtypes(FRAME, **GIVEN, nullable=['f', 'o']).both if c.nullable] == ['f', 'o']
    assert not any(c.nullable for c in schema_from_dtypes(FRAME, **GIVEN, nullable=[]).both)


@pytest.mark.parametrize('frame', [pd.DataFrame(), pd.DataFrame([[1, 2]], columns=['a', 'a']), {}])
def test_dtypes_need_columns(frame):
    with pytest.raises(ValueError, match='must have columns'): schema_from_dtypes(frame)


# ------------------------------------------------------------------ SDMetadata

ONE = {'columns': {  # as SDV 1 and SDMetrics write it
    'start': {'sdtype': 'datetime', 'datetime_format': '%Y-%m-%d'}, 'salary': {'sdtype': 'numerical', 'computer_representation': 'Int64'}, 'perc': {'sdtype': 'numerical', 'computer_representation': 'Float'},
    'student': {'sdtype': 'id', 'regex_format': r'\d{1,30}'}, 'spec': {'sdtype': 'categorical'}, 'level': {'sdtype': 'categorical', 'order': ['low', 'high']}, 'placed': {'sdtype': 'boolean'},
    'mail': {'sdtype': 'email', 'pii': True}, 'odd': {'sdtype': 'unknown', 'pii': True}, 'plain': {'sdtype': 'numerical'}}, 'primary_key': 'student', 'METADATA_SPEC_VERSION': 'SINGLE_TABLE_V1'}
TWO = {'tables': {'t': {'primary_key': 'id', 'columns': {  # as SDV 2 detects it
    'id': {'sdtype': 'id'}, 'age': {'sdtype': 'numerical', 'range_is_nullable': False, 'range_min': 20, 'range_max': 39, 'decimal_places': 0}, 'inc': {'sdtype': 'numerical', 'range_is_nullable': True, 'range_min': 0.0, 'range_max': 1.0, 'decimal_places': 3},
    'whole': {'sdtype': 'numerical', 'range_is_nullable': False, 'range_min': 0.0, 'range_max': 19.0, 'decimal_places': 0}, 'd': {'sdtype': 'datetime', 'range_is_nullable': False, 'range_min': '2020-01-01 00:00:00', 'range_max': '2020-01-20 00:00:00'},
    'e': {'sdtype': 'datetime', 'datetime_format': '%d.%m.%y', 'range_is_nullable': False, 'range_min': '01.02.20', 'range_max': '29.02.20'}, 'c': {'sdtype': 'categorical', 'range_is_nullable': False, 'range_values': ['b', 'a'], 'high_cardinality': False},
    'b': {'sdtype': 'categorical', 'range_is_nullable': False, 'range_values': [True, False], 'high_cardinality': False}, 'many': {'sdtype': 'categorical', 'range_is_nullable': True, 'high_cardinality': True},
    'code': {'sdtype': 'ordinal', 'range_is_nullable': False, 'range_values': [1, 2, 3]}}}}, 'relationships': [], 'METADATA_SPEC_VERSION': 'V2'}


def test_first_generation():
    with pytest.raises(ValueError) as e: schema_from_sdmetadata(ONE)
    for part in ("bounds (low, high) must be given for 'start', 'salary', 'perc'", "categories must be given for 'spec', 'level'", "(sdtype 'id') must be given for 'student'", "(sdtype 'email')", "(sdtype 'unknown')",
                 "whether it is integer or float) must be given for 'plain'"): assert part in str(e.value)
    s = schema_from_sdmetadata(ONE, dict(start=('2020-01-01', '2020-12-31'), salary=(0, 10**6), perc=(0, 100)), 'placed', categories=dict(spec=['a', 'b'], level=['low', 'mid', 'high']), drop=['student', 'mail', 'odd'],
                               columns=dict(plain=Column('plain', 'integer', low=0, high=5)), nullable=['salary'])
    assert [(c.name, c.kind) for c in s.both] == [('start', 'date'), ('salary', 'integer'), ('perc', 'float'), ('spec', 'categorical'), ('level', 'ordinal'), ('plain', 'integer'), ('placed', 'boolean')]
    assert s.label_columns == ('placed',) and [c.name for c in s.both if c.nullable] == ['salary'] and s['level'].categories == ('low', 'mid', 'high')


def test_ranges_are_used_only_if_public():
    with pytest.raises(ValueError) as e: schema_from_sdmetadata(TWO, drop='id')
    assert "'age', 'inc', 'whole', 'd', 'e'" in str(e.value) and "categories must be given for 'c', 'many', 'code'" in str(e.value) and '39' not in str(e.value)
    s = schema_from_sdmetadata(TWO, drop='id', ranges_are_public=True, categories=dict(many=['q', 'r']))
    assert [c for c in s.columns] == [Column('age', 'integer', low=20, high=39), Column('inc', 'float', low=0, high=1, nullable=True), Column('whole', 'float', low=0, high=19), Column('d', 'date', low='2020-01-01', high='2020-01-20'),
                                      Column('e', 'date', low='2020-02-01', high='2020-02-29'), Column('c', 'categorical', ('b', 'a')), Column('b', 'boolean'), Column('many', 'categorical', ('q', 'r'), nullable=True), Column('code', 'ordinal', ('1', '2', '3'))]
    wide = dict(age=(0, 120), inc=(0, 9), whole=(0, 50), d=('2000-01-01', '2030-12-31'), e=('2000-01-01', '2030-12-31'))
    known = schema_from_sdmetadata(TWO, wide, drop='id', categories=dict(c=['a'], many=['q'], code=['1']))
    assert known['age'].high == 120 and known['inc'].nullable is False and known['b'].kind == 'boolean'      # nothing of the detected ranges is left
    changed = copy.deepcopy(TWO)
    for c in changed['tables']['t']['columns'].values():
        for key, v in dict(range_min=-5 if isinstance(c.get('range_min'), int) else -5., range_max=10**6 if isinstance(c.get('range_max'), int) else 1e6, range_is_nullable=True).items():
            if key in c: c[key] = v
    assert schema_from_sdmetadata(changed, wide, drop='id', categories=dict(c=['a'], many=['q'], code=['1'])) == known


def test_sdmetadata_there_and_back(tmp_path):
    (tmp_path/'m.json').write_text(json.dumps(to_sdmetadata(SCHEMA, table='x')))
    assert schema_from_sdmetadata(str(tmp_path/'m.json'), labels=('y', 'z'), ranges_are_public=True) == SCHEMA
    one = json.loads(json.dumps(to_sdmetadata(SCHEMA, version='V1')))
    assert one['METADATA_SPEC_VERSION'] == 'V1' and 'range' not in json.dumps(one)
    bounds = {c.name: (c.low, c.high) for c in SCHEMA.both if not c.coded}
    again = schema_from_sdmetadata(one, bounds, ['y', 'z'], categories={c.name: c.categories for c in SCHEMA.both if c.kind in ('categorical', 'ordinal')}, nullable=['f', 'o'])
    assert again == SCHEMA
    assert schema_from_sdmetadata(to_sdmetadata(SCHEMA), labels=('z', 'y'), ranges_are_public=True).label_columns == ('z', 'y')


def test_sdmetadata_keys_are_those_of_sdv():
    "The keys that SDV 2 and SDV 1 accept for each sdtype."
    two = dict(numerical={'range_min', 'range_max', 'range_is_nullable', 'decimal_places'}, datetime={'datetime_format', 'range_min', 'range_max', 'range_is_nullable'}, categorical={'range_values', 'range_is_nullable', 'high_cardinality'},
               ordinal={'range_values', 'range_is_nullable', 'high_cardinality'}, boolean={'range_is_nullable'})
    one = dict(numerical={'computer_representation'}, datetime={'datetime_format'}, categorical={'order', 'order_by'}, boolean=set())
    for version, keys in (('V2', two), ('V1', one)):
        d = to_sdmetadata(SCHEMA, version=version)
        assert set(d) == {'tables', 'relationships', 'METADATA_SPEC_VERSION'} and set(d['tables']['table']) == {'columns'}
        for c in d['tables']['table']['columns'].values(): assert set(c) - {'sdtype'} <= keys[c['sdtype']]


@pytest.mark.parametrize('d, kw, rule', [
    ({}, {}, "must hold 'columns'"), ({'columns': {}}, {}, "must hold 'columns'"), ({'columns': {'a': {}}}, {}, 'sdtype'), ({'columns': {'a': {'sdtype': 3}}}, {}, 'sdtype'), ({'tables': {}}, {}, 'at least one table'),
    ({'tables': {'a': ONE, 'b': ONE}}, {}, "table must be one of 'a', 'b'"), ({'tables': {'a': ONE}}, dict(table='q'), "table \\('q'\\)"), ({'tables': {'a': 5}}, {}, 'columns'),
    ({'columns': {'a': {'sdtype': 'datetime', 'datetime_format': '%Y-%m-%d %H:%M'}}}, {}, 'time of day'), ({'columns': {'a': {'sdtype': 'datetime', 'range_min': 'yesterday'}}}, dict(ranges_are_public=True), 'must be a datetime'),
    ({'columns': {'a': {'sdtype': 'categorical', 'range_values': 'abc'}}}, {}, 'must be a list'), ({'columns': {'a': {'sdtype': 'numerical', 'range_min': None, 'decimal_places': 0}}}, dict(ranges_are_public=True), 'bounds')])
def test_sdmetadata_bad_input(d, kw, rule):
    with pytest.raises(ValueError, match=rule): schema_from_sdmetadata(d, **kw)


def test_sdmetadata_versions():
    with pytest.raises(ValueError, match='version'): to_sdmetadata(SCHEMA, version='V3')


@pytest.mark.parametrize('content, rule', [(b'{"a": 1, "a": 2}', 'key twice'), (b'{"columns": {"a": {"sdtype": "boolean"}, "a": {"sdtype": "id"}}}', 'key twice'), (b'[1]', 'one JSON object'), (b'{', 'must be JSON'), (b'\xff\xfe', 'must be JSON'), (b'', 'must be JSON')])
def test_bad_files(tmp_path, content, rule):
    (tmp_path/'f.json').write_bytes(content)
    for read in (schema_from_sdmetadata, schema_from_domain):
        with pytest.raises(ValueError, match=rule) as e: read(tmp_path/'f.json')
        assert str(tmp_path) not in str(e.value)
        with pytest.raises(FileNotFoundError): read(tmp_path/'none.json')


# ------------------------------------------------------------------ domain.json

ADULT = {'age': 85, 'workclass': 9, 'sex': 2, 'income>50K': 2}

def test_domain():
    s = schema_from_domain(ADULT, 'income>50K')
    assert s['age'].categories == tuple(str(i) for i in range(85)) and s.label_names == ('0', '1') and domain_of(s) == ADULT
    whole = schema_from_domain(ADULT, 'income>50K', integers=True)
    assert all((c.kind, c.low, c.high) == ('integer', 0, ADULT[c.name] - 1) for c in whole.columns) and domain_of(whole) == ADULT
    some = schema_from_domain(ADULT, integers=['age'], drop='sex', columns=dict(workclass=Column('workclass', 'boolean')))
    assert [c.kind for c in some.columns] == ['integer', 'boolean', 'categorical']


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=['Cs']), min_size=1), st.integers(1, 50), min_size=1, max_size=6), st.data())
def test_domain_there_and_back(d, data):
    integers = data.draw(st.sets(st.sampled_from(sorted(d))))
    assert domain_of(schema_from_domain(json.loads(json.dumps(d)), integers=integers)) == d


def test_domain_of_a_schema():
    assert domain_of(SCHEMA, dict(i=8, f=20)) == dict(i=8, f=21, d=31*365 + 8, c=3, o=4, b=2, y=2, z=2)       # one code more where values may be missing; 8 leap days
    assert domain_of(SCHEMA, dict(f=1))['i'] == 2**53 + 7
    for bins, rule in ((None, "for 'f'"), (dict(f=0), 'bins'), (dict(f=2, c=3), "bins \\('c'\\)"), (dict(f=True), 'bins'), (dict(q=1), 'must name columns')):
        with pytest.raises(ValueError, match=rule): domain_of(SCHEMA, bins)


@pytest.mark.parametrize('d, kw, rule', [({}, {}, 'must be a dict'), ({'a': 0}, {}, 'integers from 1'), ({'a': 2.}, {}, 'integers from 1'), ({'a': True}, {}, 'integers from 1'), ({'a': '3'}, {}, 'integers from 1'), ({'a': 2**31}, {}, 'million codes'),
                                         ({'a': 3}, dict(integers='b'), 'integers'), ({'a': 3}, dict(labels='b'), 'labels'), ({'a': 3}, dict(labels='a'), 'at least one'), ({'a': 3, 'b': 2}, dict(labels='a', integers=['a']), 'labels'), ({'': 3}, {}, 'non-empty')])
def test_domain_bad_input(d, kw, rule):
    with pytest.raises(ValueError, match=rule): schema_from_domain(d, **kw)


def test_wide_domains():
    assert len(schema_from_domain({f'x{i}': 3 for i in range(200)}).columns) == 200
    assert schema_from_domain({'a': 2**31, 'b': 100_000}, integers='a')['a'].high == 2**31 - 1
    assert len(schema_from_dtypes({f'x{i}': 'bool' for i in range(200)}).columns) == 200
