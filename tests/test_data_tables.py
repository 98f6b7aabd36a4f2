"Tables: real files where they are at hand, small ones in the same form otherwise; every bad file refused."
import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import datasets

from pe_nb.data import tables
from pe_nb.data.domains import DOMAINS, READ_OFF, domain
from pe_nb.data.files import file_sha256
from pe_nb.data.images import hash_order
from pe_nb.data.tables import (PARTS, SHA256, adult, artificial_characters, breast_cancer, breast_cancer_ljubljana, breast_cancer_wisconsin,
    bundled, mnist_table, part_sizes, person_activity,
                               pooled, read_cells, split)
from pe_nb.records import Records, load_records, save_records
from pe_nb.schema import Column, Schema

DATA = Path(__file__).resolve().parents[2] / 'shared' / 'data'


def real(name):
    "A folder of real files, or skip."
    if not (DATA / name).is_dir(): pytest.skip(f'needs the real files of {name}: shared/data/{name} beside the checkout')
    return DATA / name


@cache
def read_adult(part): return adult(part, real('adult'))


@cache
def rows_of(file): return pd.read_csv(file, dtype=str, keep_default_na=False)


# ---- domains ----

@pytest.mark.parametrize('name', DOMAINS)
@pytest.mark.parametrize('bounds', ['public', 'paper'])
def test_domain_is_a_schema_that_survives_json(name, bounds):
    s = domain(name, bounds)
    assert isinstance(s, Schema) and len(s.labels) == 1 and Schema.from_dict(s.to_dict()) == s
    public = domain(name)
    for c, p in zip(s.both, public.both):
        assert (c.name, c.kind, c.categories, c.nullable) == (p.name, p.kind, p.categories, p.nullable)
        if not c.coded: assert p.low <= c.low < c.high <= p.high, 'what occurs lies within the public bounds'
    assert (s == public) == (bounds == 'public' or name not in READ_OFF)


def test_drop():
    s = domain('adult', drop=('fnlwgt', 'education-num'))
    assert s.names == tuple(n for n in domain('adult').names if n not in ('fnlwgt', 'education-num')) and s.labels == domain('adult').labels
    for bad in ('income', 'nothing', ('age', 'x')):
        with pytest.raises(ValueError, match='must hold names of features'): domain('adult', drop=bad)
    with pytest.raises(ValueError, match='must be one of'): domain('iris2')
    with pytest.raises(ValueError, match="bounds .* must be 'public' or 'paper'"): domain('iris', 'private')


# ---- parts ----

@pytest.mark.parametrize('n,shares,sizes', [(10_218, (70, 15, 15), [7152, 1533, 1533]), (50_000, (70, 15, 15), [35_000, 7500, 7500]),
    (164_860, (70, 15, 15), [115_402, 24_729, 24_729]),
                                            (48_842, (70, 15, 15), [34_190, 7326, 7326]), (0, (1, 1), [0, 0]), (1, (1, 1, 2), [0, 0, 1]),
                                            (5, (1,), [5]), (10, (.1, .2, .7), [1, 2, 7])])
def test_part_sizes(n, shares, sizes): assert part_sizes(n, shares) == sizes


@pytest.mark.parametrize('shares', [(), (1, -1), (0,), (1, np.nan), (np.inf,)])
def test_bad_shares(shares):
    with pytest.raises(ValueError, match='shares .* must be finite numbers above 0'): part_sizes(5, shares)


@pytest.mark.parametrize('seed', [0, 1, 'iris'])
def test_split_is_a_partition(seed):
    schema = Schema((Column('i', 'integer', low=0, high=999),))
    r = Records.table(pd.DataFrame({'i': np.arange(1000)}), schema)
    parts = split(r, seed=seed)
    assert [len(p) for p in parts] == [700, 150, 150]
    ids = np.concatenate([p.data['i'] for p in parts])
    assert sorted(ids) == list(range(1000)) and ids.tolist() == hash_order(1000, f'pe_nb split {seed}').tolist()
    assert split(r, seed=seed)[0] == parts[0] and split(r, seed='other')[0] != parts[0]


# ---- scikit-learn's tables ----

@pytest.mark.parametrize('name', ['iris', 'wine', 'breast_cancer', 'digits'])
def test_bundled_holds_exactly_what_sklearn_has(name):
    d, r = getattr(datasets, f'load_{name}')(), bundled(name, 'all')
    assert np.array_equal(r.data.to_numpy(np.float64), d.data) and np.array_equal(r.labels, d.target)
    assert r.schema == domain(name) and len(r.label_names) == len(d.target_names)
    known = [str(v)[0].upper() if name == 'breast_cancer' else str(v) for v in d.target_names]
    assert list(r.label_names) == known
    if name != 'breast_cancer': assert list(r.schema.names) == list(d.feature_names)
    order = hash_order(len(r), f'pe_nb split {name}')
    a, b, c = (bundled(name, p) for p in PARTS[:3])
    assert Records.concat([a, b, c]) == r[order] and len(a) == part_sizes(len(r), (70, 15, 15))[0]
    assert min(a.label_counts) > 0 and min(c.label_counts) > 0


def test_column_names_of_breast_cancer_say_what_the_columns_are():
    old = [f"{part} {m.replace('_', ' ')}" if part != 'error' else f"{m.replace('_', ' ')} error" for part, m in
           ((dict(mean='mean', se='error', worst='worst')[n.rsplit('_', 1)[1]],
           n.rsplit('_', 1)[0]) for n in domain('breast_cancer').names)]
    assert old == list(datasets.load_breast_cancer().feature_names)


def test_bundled_refuses():
    with pytest.raises(ValueError, match="name .* must be one of 'iris'"): bundled('boston')
    with pytest.raises(ValueError, match="split .* must be one of 'train'"): bundled('iris', 'dev')


def test_bundled_never_changes():
    "Results are compared across versions, so the parts stay."
    for name, seen in BUNDLED.items():
        r = bundled(name, 'test')
        raw = r.data.to_numpy(np.float64).astype('<f8').tobytes() + r.labels.astype('<i8').tobytes()
        assert hashlib.sha256(raw).hexdigest()[:16] == seen, name


BUNDLED = dict(iris='353398dcd750549e', wine='4ccd5adb517d58f9', breast_cancer='c3cfce91ffc64781', digits='b8b2c1dbaedfaa55')


# ---- real files ----

@pytest.mark.parametrize('part,n,counts', [('train', 32_561, (24_720, 7841)), ('test', 16_281, (12_435, 3846))])
def test_adult(part, n, counts):
    file = real('adult') / f'{part}.csv'
    r, raw = read_adult(part), rows_of(file)
    assert len(r) == n and tuple(r.label_counts) == counts and r.label_names == ('<=50K', '>50K')
    if part == 'test': assert adult(part, file, sha256=file_sha256(file)) == r
    f = r.frame()
    for c in r.schema.both:
        mine = f[c.name].astype(object).where(f[c.name].notna(), '?').astype(str)
        assert mine.tolist() == raw[c.name].tolist(), c.name
    order = domain('adult')['education'].categories
    assert [order.index(v) + 1 for v in f['education']] == f['education-num'].tolist(), 'education is in the order of education-num'
    assert {c: int(f[c].isna().sum() > 0) for c in f} == {c.name: int(c.nullable) for c in r.schema.both}


def test_adult_as_uci_writes_it(tmp_path):
    "Both of UCI's files, rebuilt from the copy, have the hashes that `fetch` will ask for, and read the same."
    for part, name in (('train', 'adult.data'), ('test', 'adult.test')):
        lines = (real('adult') / f'{part}.csv').read_text().splitlines()[1:]
        dot, first = ('.', '|1x3 Cross validator\n') if part == 'test' else ('', '')
        (tmp_path / name).write_bytes((first + ''.join(', '.join(x.split(',')) + dot + '\n' for x in lines) + '\n').encode())
        assert file_sha256(tmp_path / name) == SHA256[name]
        assert adult(part, tmp_path, sha256=SHA256[name]) == read_adult(part)
        with pytest.raises(ValueError, match='damaged, or another one'): adult(part, tmp_path, sha256='0' * 64)


@pytest.mark.parametrize('part,n', [('train', 7152), ('val', 1533), ('test', 1533)])
def test_artificial_characters(part, n):
    file = real('artificial_characters') / f'{part}.csv'
    r, raw = artificial_characters(part, file.parent), rows_of(file)
    assert len(r) == n == len(raw) and file_sha256(file) == SHA256[f'artificial-characters_{part}.csv']
    assert r.label_names == tuple('1 2 3 4 5 6 7 8 9 10'.split()) and [r.label_names[i] for i in r.labels] == raw['Class'].tolist()
    assert np.array_equal(r.data.to_numpy(np.float64), raw.drop(columns='Class').to_numpy(np.float64))
    assert [str(t) for t in r.data.dtypes] == ['int64'] * 5 + ['float64'] * 2
    paper = artificial_characters(part, file, bounds='paper')
    assert np.array_equal(paper.data.to_numpy(), r.data.to_numpy()) and paper.schema != r.schema
    assert Records.concat([r, r]).label_counts.tolist() == [2 * v for v in raw['Class'].value_counts().reindex(r.label_names, fill_value=0)]


def test_read_off_bounds_are_what_occurs():
    "bounds='paper': the extremes of the whole published data set, no more and no less."
    folder = real('artificial_characters')
    all3 = pd.concat([rows_of(folder / f'{p}.csv') for p in PARTS[:3]]).astype(float)
    assert READ_OFF['artificial_characters'] == {c: (all3[c].min(), all3[c].max()) for c in all3 if c != 'Class'}
    two = pd.concat([rows_of(real('adult') / f'{p}.csv') for p in ('train', 'test')])
    assert READ_OFF['adult'] == {c: (two[c].astype(int).min(), two[c].astype(int).max()) for c in READ_OFF['adult']}


@pytest.mark.parametrize('part', ['val', 'test'])
def test_person_activity(part):
    file = real('person_activity') / f'{part}.csv'
    r, raw = person_activity(part, file.parent), rows_of(file)
    assert len(r) == 24_729 and file_sha256(file) == SHA256[f'person-activity_{part}.csv'] and len(r.label_names) == 11
    assert r.frame().astype(str).to_numpy().tolist() == raw.to_numpy().tolist()


def test_person_activity_train_needs_a_hash_or_a_file(tmp_path):
    with pytest.raises(ValueError, match='(?s)sha256 .None. must be given for https://.*person-activity_train.csv.*Or give `path`'):
        person_activity(cache=tmp_path)
    if (DATA / 'person_activity').is_dir():
        with pytest.raises(FileNotFoundError, match='must hold one of person-activity_train.csv, train.csv'):
            person_activity(path=DATA / 'person_activity')


def test_breast_cancer_of_wisconsin():
    r, raw = breast_cancer_wisconsin('all', real('breast_cancer_wisconsin')), rows_of(real('breast_cancer_wisconsin') / 'all.csv')
    assert len(r) == 699 and r.label_counts.tolist() == [458, 241] and int(r.data['bare_nuclei'].isna().sum()) == 16
    assert r.frame().astype(object).where(r.frame().notna(), '?').astype(str).to_numpy().tolist() == raw.to_numpy().tolist()
    assert [len(breast_cancer_wisconsin(p, real('breast_cancer_wisconsin'))) for p in PARTS] == [489, 105, 105, 699]


def test_breast_cancer_of_ljubljana(tmp_path):
    folder = real('breast_cancer')
    r, raw = breast_cancer_ljubljana('all', folder), rows_of(folder / 'all.csv')
    assert len(r) == 286 and r.label_counts.tolist() == [201, 85] and r.data.isna().sum().sum() == (raw == 'nan').sum().sum() == 9
    assert r.frame().astype(object).where(r.frame().notna(), 'nan').to_numpy().tolist() == raw.to_numpy().tolist()
    assert r.data['tumor-size'].dtype.ordered and not r.data['breast'].dtype.ordered
    assert [len(breast_cancer_ljubljana('all', folder / f)) for f in ('train80_seed0.csv', 'test20_seed0.csv')] == [228, 58]
    bare = [','.join([x.split(',')[-1], *x.split(',')[:-1]]).replace('nan', '?') for x in (folder / 'all.csv').read_text().splitlines()[1:]]
    (tmp_path / 'breast-cancer.data').write_text('\n'.join(bare) + '\n')                       # as UCI writes it
    assert breast_cancer_ljubljana('all', tmp_path) == r


def test_mnist():
    folder, part, n = real('mnist'), 'test', 10_000
    r = mnist_table(folder, part)
    with np.load(folder / f'{part}.npz') as z: x, y = z['images'], z['labels']
    assert len(r) == n and len(r.schema.columns) == 196 and np.array_equal(r.labels, y) and r.label_names == tuple('0123456789')
    v = r.data.to_numpy()
    i = np.random.default_rng(0).integers(0, n, 50)
    x = x.reshape(n, 28, 28).astype(int)
    slow = [[int(x[k, 2*a:2*a + 2, 2*b:2*b + 2].mean() + .5) for a in range(14) for b in range(14)] for k in i]
    assert v.dtype == np.int64 and np.array_equal(v[i], slow) and v.max() > 250


# ---- small files in the same form ----

ADULT = ['39', 'State-gov', '77516', 'Bachelors', '13', 'Never-married', 'Adm-clerical', 'Not-in-family', 'White', 'Male', '2174', '0',
    '40', 'United-States', '<=50K']
STROKE = ['2', '10', '16', '10', '8', '8.0', '26.0', '5']
HEAD = 'V1,V2,V3,V4,V5,V6,V7,Class'.split(',')


def write(path, *rows, end='\n', **kw):
    path.write_text(end.join(','.join(r) for r in rows) + end, **kw)
    return path


def changed(row, i, v): return [*row[:i], v, *row[i + 1:]]


def test_folder_prefers_the_official_name_and_split_chooses(tmp_path):
    with pytest.raises(FileNotFoundError, match='must hold one of artificial-characters_val.csv, val.csv'):
        artificial_characters('val', tmp_path)
    write(tmp_path / 'val.csv', HEAD, STROKE)
    assert len(artificial_characters('val', tmp_path)) == 1
    write(tmp_path / 'artificial-characters_val.csv', HEAD, STROKE, STROKE)
    assert len(artificial_characters('val', tmp_path)) == 2
    write(tmp_path / 'adult_train.csv', [*domain('adult').names, 'income'], ADULT)
    assert len(adult('paper-train', tmp_path)) == 1
    with pytest.raises(FileNotFoundError, match='adult.data, train.csv'): adult('train', tmp_path)
    with pytest.raises(FileNotFoundError, match='must be a file, or a folder'): adult('train', tmp_path / 'none')


def test_without_path_the_file_is_fetched(tmp_path, monkeypatch):
    asked = []
    def fetched(url, sha256, cache): return asked.append((url, sha256, cache)) or write(tmp_path / 'x.csv', HEAD, STROKE)
    monkeypatch.setattr(tables, 'fetch', fetched)
    artificial_characters('test', cache='c')
    person_activity_hash = 'a' * 64
    with pytest.raises(ValueError, match='columns of'): adult('paper-val', cache='c', sha256=person_activity_hash)
    with pytest.raises(ValueError, match='columns of'): adult('test', cache='c')
    with pytest.raises(ValueError, match='columns of'): breast_cancer('val', sha256='b' * 64)
    assert asked == [
        (f'{tables.PAPER}/artificial-characters/artificial-characters_test.csv', SHA256['artificial-characters_test.csv'], 'c'),
        (f'{tables.PAPER}/adult/adult_val.csv', 'a' * 64, 'c'), (f'{tables.UCI}/adult/adult.test', SHA256['adult.test'], 'c'),
        (f'{tables.PAPER}/breast-cancer/breast-cancer_val.csv', 'b' * 64, None)]
    assert all(len(v) == 64 for v in SHA256.values()) and len(set(SHA256.values())) == len(SHA256)


@pytest.mark.parametrize('load', [lambda: adult('paper-train'), breast_cancer_wisconsin, breast_cancer_ljubljana])
def test_no_hash_no_download(load):
    with pytest.raises(ValueError, match='sha256 .None. must be given'): load()


@pytest.mark.parametrize('load', [adult, artificial_characters, person_activity, breast_cancer, breast_cancer_wisconsin,
    breast_cancer_ljubljana])
def test_unknown_part(load, tmp_path):
    write(tmp_path / 'all.csv', domain('breast_cancer_wisconsin').names + ('class',), ['1'] * 9 + ['2'])
    with pytest.raises(ValueError): load('dev', tmp_path)


def test_labels_do_not_depend_on_the_file(tmp_path):
    "B39: a file that lacks classes has the same ids; B9: a strange row changes no bound."
    a = artificial_characters(path=write(tmp_path / 'a.csv', HEAD, *[changed(STROKE, 7, c) for c in ('3', '10')]))
    b = artificial_characters(path=write(tmp_path / 'b.csv', HEAD, changed(STROKE, 7, '10')))
    assert a.labels.tolist() == [2, 9] and b.labels.tolist() == [9] and a.schema == b.schema and a.label_names == b.label_names


def test_dots_and_missing_values_of_adult(tmp_path):
    t = write(tmp_path / 'adult.test', ['|1x3 Cross validator'], changed(ADULT, 14, '>50K.'), changed(ADULT, 1, ' ?'), [''])
    r = adult('test', t)
    assert r.labels.tolist() == [1, 0] and r.data['workclass'].isna().tolist() == [False, True]
    with pytest.raises(ValueError, match="column 'race' must not have missing values"): adult('test', write(t, changed(ADULT, 8, '?')))
    with pytest.raises(ValueError, match="column 'income'"): adult('test', write(t, changed(ADULT, 14, '?')))
    with pytest.raises(ValueError, match="column 'income' must hold nothing but its 2 public categories"):
        adult('test', write(t, changed(ADULT, 14, '>50K..')))


def test_order_of_columns_and_line_ends(tmp_path):
    r = artificial_characters(path=write(tmp_path / 'a.csv', HEAD, STROKE))
    assert artificial_characters(path=write(tmp_path / 'b.csv', HEAD[::-1], STROKE[::-1])) == r
    assert artificial_characters(path=write(tmp_path / 'c.csv', HEAD, STROKE, end='\r\n')) == r
    assert artificial_characters(path=write(tmp_path / 'd.csv', HEAD, STROKE, encoding='utf-8-sig')) == r
    assert artificial_characters(path=write(tmp_path / 'e.csv', [f'"{c}"' for c in HEAD], [f' "{v}"' for v in STROKE])) == r
    (tmp_path / 'f.csv').write_text(','.join(HEAD) + '\n' + ','.join(STROKE))     # no end of line at the end
    assert artificial_characters(path=tmp_path / 'f.csv') == r


def test_paper_files_of_breast_cancer(tmp_path):
    "Label first, sklearn's columns by the paper's names."
    r = bundled('breast_cancer', 'all')[np.arange(5)]
    rows = [[r.label_names[y], *map(str, v)] for y, v in zip(r.labels, r.data.to_numpy())]
    assert breast_cancer('test', write(tmp_path / 'breast-cancer_test.csv', ['diagnosis', *r.schema.names], *rows)) == r
    assert breast_cancer('test', tmp_path) == r
    assert breast_cancer('all') == bundled('breast_cancer', 'all')


def test_bare_wisconsin_with_its_number(tmp_path):
    r = breast_cancer_wisconsin('all', write(tmp_path / 'breast-cancer-wisconsin.data', '1000025,5,1,1,1,2,1,3,1,1,2'.split(','),
        '1057013,8,4,5,1,2,?,7,3,1,4'.split(',')))
    assert r.labels.tolist() == [0, 1] and r.data['bare_nuclei'].isna().tolist() == [False, True] and 'id' not in r.data
    with pytest.raises(ValueError, match="column 'mitoses' must not have missing values"):
        breast_cancer_wisconsin('all', write(tmp_path / 'x', '1000025,5,1,1,1,2,1,3,1,?,2'.split(',')))


def test_records_survive_a_round_trip(tmp_path):
    r = adult('train', write(tmp_path / 'adult.data', ADULT, changed(ADULT, 6, '?')), drop='fnlwgt')
    save_records(r, tmp_path / 'r.parquet')
    assert load_records(tmp_path / 'r.parquet') == r


BAD = {
    'empty': (b'', 'it is empty'), 'blank': (b'\n\n \n', 'columns of .* must be'),
    'head': (','.join(HEAD).encode() + b'\n', 'none after its first line'),
    'binary': (bytes(range(256)), 'must be a text file'), 'nul': ((','.join(HEAD) + '\n' + ','.join(STROKE).replace('8.0', '8\0')).encode(),
    'must be a text file|must hold numbers'),
    'latin': (','.join(HEAD).encode() + '\né'.encode('latin-1'), 'must be a text file in UTF-8'),
    'html': (b'<html><body>404 Not Found</body></html>\n', 'its first line names none of them'),
    'quote': ((','.join(HEAD) + '\n"' + ','.join(STROKE) + '\n').encode(), 'must be a text file')}


@pytest.mark.parametrize('name', BAD)
def test_file_that_is_no_table(name, tmp_path):
    (tmp_path / 'x.csv').write_bytes(BAD[name][0])
    with pytest.raises(ValueError, match=BAD[name][1]) as e: artificial_characters(path=tmp_path / 'x.csv')
    assert 'x.csv' in str(e.value)


@pytest.mark.parametrize('head,row,text', [
    (HEAD[:-1], STROKE[:-1], r"missing: \['Class'\], twice or not declared: \[\]"),
    (HEAD + ['id'], STROKE + ['1'], r"missing: \[\], twice or not declared: \['id'\]"),
    (HEAD[:-1] + ['V1'], STROKE, r"missing: \['Class'\], twice or not declared: \['V1'\]"),
    ([c.lower() for c in HEAD], STROKE, 'names none of them'),
    (HEAD, STROKE[:-1], 'row 1 of .* must have 8 cells, not 7'), (HEAD, STROKE + ['1'], 'row 1 of .* must have 8 cells, not 9'),
    (HEAD, [';'.join(STROKE)], 'must have 8 cells, not 1'),
    (HEAD, changed(STROKE, 0, '2.0'), "column 'V1' must hold whole numbers"), (HEAD, changed(STROKE, 0, ''), "'V1' must hold whole"),
    (HEAD, changed(STROKE, 0, '1_0'), "'V1' must hold whole"),
    (HEAD, changed(STROKE, 0, '٣'), "'V1' must hold whole"), (HEAD, changed(STROKE, 0, '9' * 19), "'V1' must hold integers of 64 bits"),
    (HEAD, changed(STROKE, 0, '10'), "'V1' must lie within its public bounds 0 to 9"),
    (HEAD, changed(STROKE, 0, '-1'), "'V1' must lie within"), (HEAD, changed(STROKE, 5, 'nan'), "'V6' must hold numbers"),
    (HEAD, changed(STROKE, 5, 'inf'), "'V6' must hold numbers"),
    (HEAD, changed(STROKE, 5, '1e400'), "'V6' must lie within"), (HEAD, changed(STROKE, 5, '0x10'), "'V6' must hold numbers"),
    (HEAD, changed(STROKE, 5, '96'), "'V6' must lie within"),
    (HEAD, changed(STROKE, 7, '11'), "'Class' must hold nothing but its 10 public categories"),
    (HEAD, changed(STROKE, 7, ''), "'Class' must hold nothing"), (HEAD, changed(STROKE, 7, '1.0'), "'Class' must hold")])
def test_rows_that_do_not_fit(head, row, text, tmp_path):
    with pytest.raises(ValueError, match=text) as e: artificial_characters(path=write(tmp_path / 'x.csv', head, row))
    assert 'x.csv' in str(e.value)


def test_errors_hold_no_values(tmp_path):
    "What stands in the rows is private, the first row of a file without a header included."
    for rows in ([changed(STROKE, 0, '77777')], [HEAD, changed(STROKE, 0, '77777')], [HEAD, changed(STROKE, 5, 'x77777')],
        [HEAD, changed(STROKE, 7, '77777')]):
        with pytest.raises(ValueError) as e: artificial_characters(path=write(tmp_path / 'x.csv', *rows))
        assert '77777' not in str(e.value)


def test_read_cells_keeps_texts(tmp_path):
    assert read_cells(write(tmp_path / 'x', ['a', 'b'], ['nan', '1e5'], ['', '007']), ['a', 'b']) == dict(a=['nan', ''], b=['1e5', '007'])


# ---- pixels ----

def test_pooled_is_the_rounded_mean():
    x = np.random.default_rng(0).integers(0, 256, (3, 12, 8), dtype=np.uint8)
    mean = lambda block: int(np.floor(block.astype(float).mean() + .5))
    for size in (1, 2, 4):
        a, b = 12 // size, 8 // size
        slow = [[mean(im[i*a:(i + 1)*a, j*b:(j + 1)*b]) for i in range(size) for j in range(size)] for im in x]
        assert np.array_equal(pooled(x, size), slow)
    assert pooled(np.full((1, 2, 2), 255, np.uint8), 1).tolist() == [[255]] and pooled(np.array([[[0, 1], [1, 0]]], np.uint8),
        1).tolist() == [[1]]
    for size in (0, 3, 5, True, 2.0):
        with pytest.raises(ValueError, match='size .* must be a whole number that divides 12 and 8'): pooled(x, size)


def test_mnist_refuses(tmp_path):
    p = tmp_path / 'train.npz'
    def bad(match, **arrays):
        np.savez(p, **arrays)
        with pytest.raises(ValueError, match=match): mnist_table(tmp_path)
    x, y = np.zeros((4, 28, 28), np.uint8), np.array([0, 1, 2, 9])
    np.savez(p, images=x[..., None], labels=y)
    assert len(mnist_table(p)) == 4 and mnist_table(tmp_path, size=7).data.shape == (4, 49)
    bad('must be an npz file with images and labels', images=x)
    bad('images of .* must be uint8', images=x.astype(float), labels=y)
    bad('images of .* must be uint8', images=np.zeros((4, 28, 28, 3), np.uint8), labels=y)
    bad('images of .* must be uint8', images=x[0], labels=y)
    bad('labels of .* must be integers from 0 to 9', images=x, labels=y[:3])
    bad('labels of .* must be integers from 0 to 9', images=x, labels=y + 1)
    bad('labels of .* must be integers from 0 to 9', images=x, labels=y.astype(float))
    bad('divides 27 and 28', images=np.zeros((4, 27, 28), np.uint8), labels=y)
    bad('must be an npz file', images=np.array([object()] * 4), labels=y)                       # would need pickle
    p.write_bytes(b'no zip')
    with pytest.raises(ValueError, match='must be an npz file'): mnist_table(tmp_path)
    p.write_bytes(b'')
    with pytest.raises(ValueError, match='must be an npz file'): mnist_table(tmp_path)
    with pytest.raises(FileNotFoundError, match='must hold one of test.npz'): mnist_table(tmp_path, 'test')
    with pytest.raises(ValueError, match="split .* must be one of 'train', 'test'"): mnist_table(tmp_path, 'val')
