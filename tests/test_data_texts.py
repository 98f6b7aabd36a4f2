"Texts: every way in gives the same records; labels are public; a row is used, refused by its number, or dropped and counted."
import csv
import hashlib
import http.server
import itertools
import json
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pe_nb.data import text_sets
from pe_nb.data.files import DownloadError
from pe_nb.data.text_sets import OPENREVIEW, SIZES, YELP, openreview, pubmed, yelp
from pe_nb.data.texts import (TextData, cells, check_label_values, chosen_rows, label_name, label_set, texts_csv, texts_datasets,
                              texts_frame, texts_jsonl, texts_of, texts_parquet)
from pe_nb.records import Records, load_records, save_records

DATA = Path(__file__).resolve().parents[2] / 'shared' / 'data'
SECRET = 'patient 4711 said so'
ODD = ['plain', '02134', 'NA', 'nan', 'None', 'null', 'true', '1e5', '${HOME}', '${oc.env:PATH}', '{}', '{text}', '{{', '%s %d', '<|endoftext|>', '[MASK] </s>', 'tab\there',
       'two\nlines', 'crlf\r\nline', '"quoted", ok', "it's", 'שלום עולם', 'مرحبا', '👩‍👩‍👧 🎉', 'a\u2028b', '\u200bzero', ' padded ', '\\N', '=1+1', '#no', ';;', 'x' * 5000]


def real(*parts):
    "A real file, or skip."
    if not (file := DATA.joinpath(*parts)).exists(): pytest.skip(f'needs shared/data/{"/".join(parts)} beside the checkout')
    return file


def write_csv(path, rows, **form):
    with open(path, 'w', encoding='utf-8', newline='') as f: csv.writer(f, **form).writerows(rows)
    return path


# ---- labels ----

def test_label_set_is_the_product_in_order():
    labels = {'b': ['y', 'x'], 'a': ['2', '1', '3']}
    assert label_set(labels) == tuple({'b': b, 'a': a} for b in 'yx' for a in '213')
    assert [label_name(v) for v in label_set(labels)][:2] == ['b: y | a: 2', 'b: y | a: 1']
    assert label_set(None) == label_set({}) == ({},) and label_name({}) == ''
    assert label_set([{'a': 'x'}, {'a': 'y'}]) == ({'a': 'x'}, {'a': 'y'}), 'not all combinations need to exist'


@pytest.mark.parametrize('labels', [{'a': 'xy'}, {'a': []}, {'a': ['x', 'x']}, {'a': [1]}, {'a': {'x': 1}}, {'a': {'x', 'y'}}, {1: ['x']}, [], [{'a': 1}], [{'a': 'x'}, {'b': 'x'}],
                                    [{'a': 'x', 'b': 'y'}, {'b': 'x', 'a': 'y'}], [{'a': 'x'}, {'a': 'x'}], ['x'], 'xy', [None]])
def test_bad_labels(labels):
    with pytest.raises(ValueError, match='label'): texts_of({'text': ['t'], 'a': ['x'], 'b': ['y']}, labels=labels)


def test_names_that_collide_are_refused():
    "Two labels whose values differ, and whose names do not."
    with pytest.raises(ValueError, match='label_names must be unique'):
        texts_of({'text': ['t'], 'a': ['1'], 'b': ['2']}, labels={'a': ['1', '1 | b: 2'], 'b': ['2', '2 | b: 2']})


def test_label_set_does_not_depend_on_the_data():
    labels = {'stars': ['1', '2', '3']}
    a, b = (texts_of({'text': ['t'] * len(v), 'stars': v}, labels=labels) for v in (['1', '3'], ['2']))
    assert a.label_names == b.label_names and a.label_values == b.label_values


# ---- rows ----

def slow(columns, labels, n_rows):
    "The obvious version: a loop over rows; (texts, label names) of the usable ones, and the reasons of the others."
    good, why = [], []
    for i in range(n_rows):
        row = {c: columns[c][i] for c in columns}
        own = [row[c] for c in labels]
        if not (row['text'] or '').strip(): why.append('missing text')
        elif any(v is None or v == '' for v in own): why.append('missing label')
        elif not all(v in labels[c] for c, v in zip(labels, own)): why.append('label outside the public set')
        else: good.append((row['text'], ' | '.join(f'{c}: {row[c]}' for c in labels)))
    return good, why


def test_against_the_obvious_version():
    rng = np.random.default_rng(0)
    labels = {'kind': ['a', 'b b', '${c}'], 'stars': ['1', '01', '1.0']}
    for trial in range(40):
        n = int(rng.integers(1, 60))
        draw = lambda values: [values[i] for i in rng.integers(len(values), size=n)]
        columns = {'text': draw([*ODD[:12], None, '', ' \n']), 'kind': draw(['a', 'b b', '${c}', 'other', None, '']), 'stars': draw(['1', '01', '1.0', '5', None])}
        good, why = slow(columns, labels, n)
        data = texts_of(columns, labels=labels, outside='drop', missing='drop')
        assert [(t, data.label_names[i]) for t, i in zip(data.records.data.tolist(), data.records.labels)] == good
        assert data.dropped == {k: why.count(k) for k in ('missing text', 'missing label', 'label outside the public set')}
        if why:
            with pytest.raises(ValueError, match='counted from 1'): texts_of(columns, labels=labels)


def test_a_dropped_row_depends_on_itself_alone():
    "Removing one row from the source removes at most that row from the records, whatever n is."
    columns = {'text': ['a', '', 'c', 'd', 'e', ''], 'k': ['x', 'x', 'z', 'x', 'x', 'x']}
    full = texts_of(columns, labels={'k': ['x']}, outside='drop', missing='drop').records.data.tolist()
    for i in range(6):
        less = texts_of({c: v[:i] + v[i + 1:] for c, v in columns.items()}, labels={'k': ['x']}, outside='drop', missing='drop').records.data.tolist()
        assert less == [t for t in full if t != (columns['text'][i] or None)]


def test_refusals_name_the_row_and_hide_the_content():
    for columns, policy, row in [({'text': ['a', SECRET], 'k': ['x', SECRET]}, {}, 2), ({'text': ['a', 'b', ''], 'k': ['x', 'x', SECRET]}, {}, 3), ({'text': [SECRET, 'b'], 'k': ['x', None]}, {}, 2),
                                 ({'text': ['a', 5], 'k': ['x', 'x']}, {}, 2), ({'text': ['a', 'b'], 'k': ['x', [SECRET]]}, {}, 2), ({'text': [SECRET, 'b'], 'k': ['x', 'x'], 'who': ['w', None]}, {'client_column': 'who'}, 2)]:
        with pytest.raises(ValueError) as e: texts_of(columns, labels={'k': ['x']}, **policy)
        assert f'of row {row} (counted from 1' in str(e.value) and SECRET not in str(e.value) and e.value.__cause__ is None


def test_empty_value_can_be_public():
    data = texts_of({'text': ['a', 'b'], 'k': ['', 'x']}, labels={'k': ['', 'x']})
    assert data.records.labels.tolist() == [0, 1] and data.label_names == ('k: ', 'k: x')


@pytest.mark.parametrize('options, what', [(dict(outside='keep'), 'outside'), (dict(missing=None), 'missing'), (dict(n=0), 'n '), (dict(n=4), 'n '), (dict(n=True), 'n '), (dict(n=1.5), 'n '), (dict(text_column='k'), 'text_column'),
                                           (dict(text_column='x'), 'missing'), (dict(extra='who'), 'extra'), (dict(extra=['x']), 'missing'), (dict(client_column='x'), 'missing')])
def test_bad_options(options, what):
    with pytest.raises(ValueError, match=what): texts_of({'text': ['a', 'b', 'c'], 'k': ['x'] * 3, 'who': ['w'] * 3}, labels={'k': ['x']}, **options)


def test_ragged_columns():
    for k in (['x'], 'xyz'):
        with pytest.raises(ValueError, match='one value for each of the 3 rows'): texts_of({'text': ['a', 'b', 'c'], 'k': k}, labels={'k': ['x']})


def test_n_and_seed():
    columns = {'text': [str(i) for i in range(100)], 'k': ['x', 'y'] * 50}
    take = lambda **k: [int(t) for t in texts_of(columns, labels={'k': ['x', 'y']}, **k).records.data]
    assert take() == list(range(100)) and take(n=7) == list(range(7))
    a, b = take(n=30, seed=0), take(n=30, seed=1)
    assert a == sorted(a) and len(set(a)) == 30 and a == take(n=30, seed=0) and a != b
    assert [x for x in chosen_rows(50, 20, 3)] == chosen_rows(50, 20, 3)
    hits = np.bincount([i for s in range(400) for i in chosen_rows(10, 3, s)], minlength=10)
    assert (abs(hits - 120) < 5 * (400 * .3 * .7) ** .5).all(), 'each row is as likely as another'
    # rows are chosen before their content is read: a bad row elsewhere does not matter
    assert texts_of(columns | {'text': [*map(str, range(99)), '']}, n=5).records.data.tolist() == list('01234')


def test_clients():
    columns = {'text': ['a', 'b', '', 'd', 'e'], 'who': ['u9', 'u1', 'u5', 'u9', 'ü'], 'k': ['x'] * 5}
    data = texts_of(columns, labels={'k': ['x']}, missing='drop', client_column='who')
    assert data.clients.tolist() == [1, 0, 1, 2] and data.clients.dtype == np.int64 and not data.clients.flags.writeable
    assert data[[3, 0]].clients.tolist() == [2, 1] and data[data.clients == 1].records.data.tolist() == ['a', 'd'] and data[1:3].records.data.tolist() == ['b', 'd']
    assert texts_of(columns | {'who': [3, 1, 2, 3, 10]}, missing='drop', client_column='who').clients.tolist() == [2, 0, 2, 1], 'numbers are names too'
    assert texts_of(columns, missing='drop').clients is None


def test_extra_columns_are_texts():
    data = texts_of({'text': ['a', '', 'c'], 'year': ['0099', 'x', 7]}, missing='drop', extra=['year'])
    assert data.records.extra['year'].tolist() == ['0099', '7']


def test_text_data_is_checked():
    records = Records.texts(['a', 'b'], [0, 1], ['x', 'y'])
    TextData(records, [{'k': 'x'}, {'k': 'y'}])
    for bad in ([{}], [{'k': 'x'}, {'j': 'y'}], [{'k': 'x'}, {'k': 1}], ['x', 'y'], [{'k': 'x'}, {'k': 'x'}]):
        with pytest.raises(ValueError, match='label_values'): TextData(records, bad)
    for bad in ([1], [1., 2.], ['a', 'b'], [[1], [2]]):
        with pytest.raises(ValueError, match='clients'): TextData(records, [{'k': 'x'}, {'k': 'y'}], bad)
    with pytest.raises(ValueError, match='records'): TextData(['a'], [{}])
    data = texts_of({'text': [SECRET, '']}, missing='drop')
    assert SECRET not in repr(data) and 'missing' not in repr(data)
    with pytest.raises(AttributeError): data.records = records
    assert check_label_values(None) == ({},)


# ---- every way in ----

def test_every_way_gives_the_same_records(tmp_path):
    labels = {'kind': ['a', '${b}', '007'], 'stars': ['5', '1']}
    n = len(ODD)
    columns = {'text': ODD, 'kind': [labels['kind'][i % 3] for i in range(n)], 'stars': [labels['stars'][i % 2] for i in range(n)], 'who': [f'u{i % 5}' for i in range(n)]}
    df = pd.DataFrame(columns)
    write_csv(tmp_path / 'a.csv', [list(columns), *zip(*columns.values())])
    write_csv(tmp_path / 'b.tsv', [['skipped', *columns], *zip(range(n), *columns.values())], delimiter='\t', quoting=csv.QUOTE_ALL)
    (tmp_path / 'c.csv').write_bytes(b'\xef\xbb\xbf' + (tmp_path / 'a.csv').read_bytes())
    rows = [dict(zip(columns, r)) for r in zip(*columns.values())]
    (tmp_path / 'd.jsonl').write_text('\n'.join(json.dumps(r) for r in rows), encoding='utf-8')
    (tmp_path / 'e.jsonl').write_bytes(b'\xef\xbb\xbf' + '\r\n'.join(json.dumps(r | {'stars': int(r['stars'])}, ensure_ascii=False) for r in rows).encode())
    df.to_parquet(tmp_path / 'f.parquet')
    df.astype({'stars': np.int8, 'kind': 'category'}).to_parquet(tmp_path / 'g.parquet')
    hub = pytest.importorskip('datasets')
    ds = hub.Dataset.from_dict(columns)
    named = ds.cast_column('kind', hub.ClassLabel(names=['007', 'a', '${b}']))
    more = dict(labels=labels, client_column='who')
    ways = [texts_of(columns, **more), texts_csv(tmp_path / 'a.csv', **more), texts_csv(tmp_path / 'b.tsv', delimiter='\t', **more), texts_csv(tmp_path / 'c.csv', **more), texts_jsonl(tmp_path / 'd.jsonl', **more),
            texts_jsonl(tmp_path / 'e.jsonl', **more), texts_parquet(tmp_path / 'f.parquet', **more), texts_parquet(tmp_path / 'g.parquet', **more), texts_frame(df, **more),
            texts_frame(df.set_index('who', drop=False).astype({'kind': 'category', 'stars': 'Int64'}), **more), texts_datasets(ds, **more), texts_datasets(named, **more), texts_of(columns, labels=label_set(labels), client_column='who')]
    for i, data in enumerate(ways):
        assert data.records == ways[0].records and data.label_values == ways[0].label_values, i
        assert np.array_equal(data.clients, ways[0].clients) and data.records.data.tolist() == ODD, i
    save_records(ways[0].records, tmp_path / 'r'); assert load_records(tmp_path / 'r') == ways[0].records


def test_missing_in_every_way(tmp_path):
    df = pd.DataFrame({'text': ['a', None, 'c', 'd'], 'k': [1, 2, None, 2]}).astype({'k': 'Int64'})
    df.to_parquet(tmp_path / 'a.parquet')
    (tmp_path / 'b.jsonl').write_text('{"text": "a", "k": 1}\n{"text": null, "k": 2}\n{"text": "c", "k": NaN}\n\n{"text": "d", "k": 2}\n')
    write_csv(tmp_path / 'c.csv', [['text', 'k'], ['a', 1], ['', 2], ['c', ''], ['d', 2]])
    hub = pytest.importorskip('datasets')
    ds = hub.Dataset.from_dict({'text': ['a', None, 'c', 'd'], 'k': [0, 1, None, 1]}, features=hub.Features(text=hub.Value('string'), k=hub.ClassLabel(names=['1', '2'])))
    more = dict(labels={'k': ['1', '2']}, missing='drop')
    for data in (texts_frame(df, **more), texts_parquet(tmp_path / 'a.parquet', **more), texts_jsonl(tmp_path / 'b.jsonl', **more), texts_csv(tmp_path / 'c.csv', **more), texts_datasets(ds, **more)):
        assert data.records.data.tolist() == ['a', 'd'] and data.records.labels.tolist() == [0, 1] and data.dropped == {'missing text': 1, 'missing label': 1, 'label outside the public set': 0}


def test_a_float_is_read_as_python_writes_it():
    "pandas makes floats of integers beside a gap: the public list decides, and says so."
    assert cells([5.0, 5, np.float64(.5), np.int64(3), np.bool_(True)], 'k') == ['5.0', '5', '0.5', '3', 'True']
    with pytest.raises(ValueError, match='must be among the public labels'): texts_frame(pd.DataFrame({'text': ['a', 'b'], 'k': [1, None]}), labels={'k': ['1']}, missing='drop')


def test_long_and_many(tmp_path):
    long = 'word ' * 100_000
    write_csv(tmp_path / 'a.csv', [['text'], [long], ['b']])
    assert texts_csv(tmp_path / 'a.csv').records.data[0] == long
    assert len(texts_of({'text': ['t'] * 100_000, 'k': ['x', 'y'] * 50_000}, labels={'k': ['x', 'y']}, n=50_000, seed=0)) == 50_000


@pytest.mark.parametrize('raw, what', [
    (b'text,k\n"open,x\n', 'a quoted cell does not end'), (b'text,k\n"a"b,x\n', 'follows its closing quote'), (b'text,k\na,x,y\n', 'must have 2 cells'), (b'text,k\na\n', 'must have 2 cells'), (b'', 'column names'),
    ('text,k\ncafé,x\n'.encode('latin-1'), 'UTF-8'), ('text,k\na,x\n'.encode('utf-16'), 'UTF-8'), (b'text,text,k\na,b,x\n', "repeated: \\['text'\\]"), (b'txt,k\na,x\n', "missing: \\['text'\\]"), (b'text;k\na;x\n', 'missing')])
def test_bad_csv(tmp_path, raw, what):
    (tmp_path / 'a.csv').write_bytes(raw)
    with pytest.raises(ValueError, match=what): texts_csv(tmp_path / 'a.csv', labels={'k': ['x']})


@pytest.mark.parametrize('raw, what', [
    (b'{"text": "a"}\n{"text": "' + SECRET.encode(), 'line 2 of'), (b'["text"]\n', 'line 1 of'), (b'\n{"text": "a", "text": "b"}\n', 'line 2 of'), (b'[' * 100_000, 'line 1 of'), (b'', 'missing'), (b'{"txt": "a"}\n', 'missing'),
    ('{"text": "café"}'.encode('latin-1'), 'UTF-8'), (b'{"text": ["a"]}\n', 'must be str'), (b'{"text": 5}\n', 'must be str'), (b'{"text": "\\ud800"}\n', 'surrogates'), (b'{"text": "a", "k": {"x": 1}}\n', 'k of row 1')])
def test_bad_jsonl(tmp_path, raw, what):
    (tmp_path / 'a.jsonl').write_bytes(raw)
    with pytest.raises(ValueError, match=what) as e: texts_jsonl(tmp_path / 'a.jsonl', labels={'k': ['x']} if b'"k"' in raw else None)
    assert SECRET not in str(e.value)


def test_other_bad_sources(tmp_path):
    for read in (texts_csv, texts_jsonl, texts_parquet):
        with pytest.raises(FileNotFoundError): read(tmp_path / 'nothing')
    hub = pytest.importorskip('datasets')
    ds = hub.Dataset.from_dict({'text': ['a']})
    with pytest.raises(ValueError, match='one split, not streamed'): texts_datasets(hub.DatasetDict(train=ds))
    with pytest.raises(ValueError, match='one split, not streamed'): texts_datasets(ds.to_iterable_dataset())
    with pytest.raises(ValueError, match="missing: \\['k'\\]"): texts_datasets(ds, labels={'k': ['x']})
    pd.DataFrame({'text': ['a'], 'k': pd.to_datetime(['2024-01-01'])}).to_parquet(tmp_path / 'a.parquet')
    with pytest.raises(ValueError, match='k of row 1 .* not datetime'): texts_parquet(tmp_path / 'a.parquet', labels={'k': ['x']})
    with pytest.raises(ValueError, match="repeated: \\['text'\\]"): texts_frame(pd.DataFrame([['a', 'b']], columns=['text', 'text']))


# ---- the papers' sets ----

def test_public_labels():
    assert len(label_set(YELP)) == 50 and len(label_set(OPENREVIEW)) == 60
    assert label_name(label_set(YELP)[0]) == 'business_category: Arts & Entertainment | review_stars: 1.0'
    assert all(' | ' not in v and v == v.strip() for s in (YELP, OPENREVIEW) for c in s.values() for v in c)
    assert [sum(s.values()) for s in SIZES.values()] == [1_949_290, 13_992, 94_192]


@pytest.mark.parametrize('split', ['val', 'test'])
def test_yelp_real(split):
    data = yelp(split, real('yelp'))
    assert len(data) == SIZES['yelp'][split] and len(data.label_names) == 50 and sum(data.dropped.values()) == 0
    rows = pd.read_csv(real('yelp', f'{split}.csv'), dtype=str, keep_default_na=False)
    assert data.records.data.tolist() == rows['text'].tolist()
    assert [data.label_values[i]['review_stars'] for i in data.records.labels] == rows['review_stars'].tolist()
    assert [f"Business Category: {data.label_values[i]['business_category']}" for i in data.records.labels] == rows['label1'].tolist()
    assert set(rows['business_category']) == set(YELP['business_category']) and set(rows['review_stars']) == set(YELP['review_stars'])
    few = yelp(split, real('yelp', f'{split}.csv'), n=500, seed=4)
    assert len(few) == 500 and set(few.records.data.tolist()) <= set(data.records.data.tolist())


def test_agnews_real():
    file = real('agnews', 'official_test_7600.csv')
    data = texts_csv(file, labels={'label': ['World', 'Sports', 'Business', 'Sci/Tech']}, extra=['title'])
    assert data.records.label_counts.tolist() == [1900] * 4 and data.label_names[3] == 'label: Sci/Tech'
    assert data.records.data.tolist() == pd.read_csv(file, dtype=str, keep_default_na=False)['text'].tolist()
    with pytest.raises(ValueError, match='among the public labels .* in 1900 rows'): texts_csv(file, labels={'label': ['World', 'Sports', 'Business']})
    assert texts_csv(file, labels={'label': ['World', 'Sports', 'Business']}, outside='drop').dropped['label outside the public set'] == 1900


def test_pubmedqa_and_banking_real():
    assert len(texts_csv(real('pubmedqa', 'test.csv'))) == 500
    file = real('banking77', 'test.csv')
    names = sorted(set(pd.read_csv(real('banking77', 'train.csv'), dtype=str)['label']))
    data = texts_csv(file, labels={'label': names})
    assert len(data) == 3080 and len(data.label_names) == 77


def both_forms(folder, prefixes, rows):
    "The same rows as the authors write them, and as the reference library does."
    old = [['text', 'label1', 'label2'], *([t, *(p + v for p, v in zip(prefixes.values(), own))] for t, *own in rows)]
    return write_csv(folder / 'train.csv', old), write_csv(folder / 'new.csv', [['text', *prefixes], *rows], quoting=csv.QUOTE_ALL)


@pytest.mark.parametrize('load, labels, prefixes', [(yelp, YELP, {'business_category': 'Business Category: ', 'review_stars': 'Review Stars: '}), (openreview, OPENREVIEW, {'area': 'Area: ', 'recommendation': 'Recommendation: '})])
def test_both_forms(tmp_path, load, labels, prefixes):
    rows = [(ODD[i % len(ODD)], *v) for i, v in enumerate(itertools.product(*labels.values()))]
    old, new = both_forms(tmp_path, prefixes, rows)
    data = load('train', tmp_path)
    assert data.records == load(path=new).records and data.records == load(path=old, sha256=hashlib.sha256(old.read_bytes()).hexdigest()).records
    assert data.records.labels.tolist() == list(range(len(rows))) and data.records.data.tolist() == [r[0] for r in rows]
    with pytest.raises(ValueError, match='damaged, or another one'): load(path=old, sha256='0' * 64)
    write_csv(tmp_path / 'val.csv', [['text', 'label1'], ['a', 'b']])
    with pytest.raises(ValueError, match='must be text and .*missing'): load('val', tmp_path)
    with pytest.raises(FileNotFoundError, match='must hold one of'): load('test', tmp_path)
    write_csv(tmp_path / 'test.csv', [['text', *prefixes], ['a', 'Zoo', 'none']])
    with pytest.raises(ValueError, match='of row 1 .* must be among the public labels') as e: load('test', tmp_path)
    assert 'Zoo' not in str(e.value)
    own = {c: ['Zoo'] if i == 0 else ['none'] for i, c in enumerate(prefixes)}
    assert load('test', tmp_path, labels=own).label_names == (label_name({c: v[0] for c, v in own.items()}),)


def test_pubmed(tmp_path):
    write_csv(tmp_path / 'dev.csv', [['text'], ['An abstract.'], ['Another.']])
    data = pubmed('val', tmp_path)
    assert data.label_names == ('',) and data.label_values == ({},) and len(data) == 2
    assert len(pubmed(path=tmp_path / 'dev.csv', n=1)) == 1


def test_no_address_without_hash(monkeypatch):
    monkeypatch.setattr(text_sets, 'fetch', lambda *a, **k: pytest.fail('nothing may be fetched'))
    for load, split in [(yelp, 'train'), (pubmed, 'train')]:
        with pytest.raises(ValueError, match='Google Drive.* url and sha256'): load(split)
        with pytest.raises(ValueError, match='sha256 .* must be given for https://example.org'): load(split, url='https://example.org/a.csv')
    for load, split in [(yelp, 'val'), (yelp, 'test'), (pubmed, 'val'), (openreview, 'train'), (openreview, 'val')]:
        with pytest.raises(ValueError, match='sha256 .* must be given for https://raw.githubusercontent.com/AI-secure/aug-pe/[0-9a-f]{40}/data/'): load(split)
    with pytest.raises(ValueError, match="split .'dev'. must be one of"): yelp('dev')


def test_from_a_server(tmp_path):
    "By address and hash; a page that says 404 never becomes data."
    site = tmp_path / 'site'; site.mkdir()
    file = write_csv(site / 'reviews.csv', [['text', 'label1', 'label2'], ['Good beer.', 'Business Category: Bars', 'Review Stars: 5.0']])
    want = hashlib.sha256(file.read_bytes()).hexdigest()
    class Site(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *a): super().__init__(*a, directory=site)
        def log_message(self, *a): return
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever); thread.start()
        try:
            at = f'http://127.0.0.1:{server.server_port}'
            for _ in range(2): assert yelp(cache=tmp_path / 'cache', url=f'{at}/reviews.csv', sha256=want).label_names[9] == 'business_category: Bars | review_stars: 5.0'
            with pytest.raises(DownloadError, match='404'): yelp(cache=tmp_path / 'other', url=f'{at}/nothing.csv', sha256=want)
            with pytest.raises(DownloadError, match='another file'): yelp(cache=tmp_path / 'other', url=f'{at}/reviews.csv', sha256='0' * 64)
            assert not [p for p in (tmp_path / 'other').glob('*') if p.suffix == '.csv']
        finally: server.shutdown(); thread.join()
