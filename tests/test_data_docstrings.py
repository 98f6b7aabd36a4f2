"Texts from docstrings: what is read, what is prose, and that public and private, train and test share nothing."
import ast
import hashlib
import importlib
import re
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import pe_nb.data.docstrings as d
from pe_nb.data.texts import TextData

ROWS = ['train', 'validation', 'test']


@pytest.fixture(scope='module')
def parts(): return {s: d.private_docstrings(split=s) for s in ROWS}


def words(text): return re.findall(r'[a-z0-9]+', text.lower())


def grams(text):
    w = words(text)
    return {tuple(w[i:i + 3]) for i in range(max(1, len(w) - 2))}


# ---- reading ----

def test_reads_without_importing():
    code = ('import sys; import pe_nb.data.docstrings as d; before = set(sys.modules); docs = d.docstrings("networkx", under="utils"); '
            'print(len(docs), sorted(m for m in set(sys.modules) - before if m.startswith("networkx")))')
    run = subprocess.run([sys.executable, '-W', 'error', '-c', code], capture_output=True, text=True, timeout=120)
    n, imported = run.stdout.split(' ', 1)
    assert run.returncode == 0 and int(n) > 20 and imported.strip() == '[]', run.stderr


def test_docs_are_those_of_inspect():
    "What the syntax tree gives is what Python says of a module that defines its docstrings plainly."
    import fractions
    import inspect
    source = inspect.getsource(fractions)
    found = dict(d.source_docs(source))
    assert found['Fraction'] == inspect.getdoc(fractions.Fraction)
    assert found['Fraction.limit_denominator'] == inspect.getdoc(fractions.Fraction.limit_denominator)
    assert len(found) == sum(bool(ast.get_docstring(n)) for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef)))


def test_add_newdoc():
    assert d.source_docs('add_newdoc("erf",\n    """\n    Returns the error function.\n\n    Of z.\n    """)') == [('erf', 'Returns the error function.\n\nOf z.')]
    assert d.source_docs('add_newdoc("erf", text)\nother("erf", "No doc.")') == []


def test_no_tests_and_sorted():
    files = d.source_files('numpy')
    assert files == sorted(files, key=lambda f: f[1]) and len(files) > 100
    assert not [m for m, _ in files if 'tests' in m.split('.')]
    assert '' in dict(files) and 'linalg._linalg' in dict(files)


@pytest.mark.parametrize('name', ['no_such_package', 'no-such', ''])
def test_unknown_package(name):
    with pytest.raises((ImportError, ValueError), match='must be an installed package' if name else None): d.docstrings(name)


@pytest.mark.parametrize('least, most', [(0, 10), (11, 10), (-1, 5)])
def test_bad_lengths(least, most):
    with pytest.raises(ValueError, match='least'): d.docstrings('joblib', least=least, most=most)


def test_under_is_a_folder():
    all_of_it, some = d.docstrings('numpy'), d.docstrings('numpy', under='linalg')
    assert {m.split('.')[1] for m in some.modules} == {'linalg'} and 20 < len(some) < len(all_of_it)
    assert len(d.docstrings('numpy', under='lin')) == 0


# ---- prose ----

@pytest.mark.parametrize('text, said', [
    ('See `scipy.stats.norm` and ``x``.', 'See scipy.stats.norm and x.'), (':func:`~a.b`, :class:`B`', 'a.b, B'), ('`Name <http://x.y>`_ here', 'Name here'),
    ('so [1]_ and [Knuth 2]_.', 'so and.'), ('a *very* **bold** word', 'a very bold word'), ('2*x and *args or **kwargs', '2*x and *args or **kwargs'), ('one\n  two', 'one two')])
def test_clean(text, said): assert d.clean(text) == said


@pytest.mark.parametrize('doc, kept', [
    ('One.\n\nTwo\nlines.', ['One.', 'Two lines.']), ('One.\n\nParameters\n----------\nx : int\n    It.', ['One.']), ('One.\n\nArgs:\n    x: It.\n\nMore of it.', ['One.']),
    ('One.\n\n>>> f()\n1', ['One.']), ('One.\n\n- a\n- b', ['One.']), ('One.\n\nNotes\n-----\nTwo.\n\nReferences\n----------\nThree.', ['One.', 'Two.']), ('', []), ('\n\n', [])])
def test_prose(doc, kept): assert [p for p in d.prose(doc) if p] == kept


@pytest.mark.parametrize('text', ['', 'Short one.', 'this does not start well at all.', 'It has no end to it at all', 'Use x = 1 for the rest of it.', 'See https://a.b for the rest of it.', 'Ein Satz über die Länge von allem.',
    'A {0} of the rest of it.', '0 1 2 3 4 5 6.', 'The ' + 'very '*60 + 'end.', 'Numpy linalg matrix rank tolerance.'])
def test_not_english(text): assert not d.english(text)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from('alpha beta gamma delta'.split()), min_size=1, max_size=9), min_size=1, max_size=6), st.integers(1, 12))
def test_pieces_keep_all_words(sentences, most):
    text = ' '.join(' '.join(s).capitalize() + '.' for s in sentences)
    got = d.pieces(text, most)
    assert ' '.join(got) == text
    assert all(len(p.split()) <= most or '. ' not in p for p in got)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from('a b c d e'.split()), min_size=1, max_size=6).map(' '.join), max_size=12), st.integers(0, 4))
def test_distinct_by_brute_force(texts, n_known):
    known, texts = texts[:n_known], texts[n_known:]
    kept = []
    for i, t in enumerate(texts):
        if not any(len(grams(t) & grams(o)) > .5*len(grams(t)) for o in [*known, *(texts[j] for j in kept)]): kept.append(i)
    assert d.distinct(texts, known=known) == kept


# ---- private and public ----

def test_private_set(parts):
    for s, x in parts.items():
        assert isinstance(x, TextData) and x.records.kind == 'text' and x.label_values == tuple({'topic': t} for t in d.TOPICS)
        assert x.records.label_names == tuple(f'topic: {t}' for t in d.TOPICS)
        assert all(d.english(t) and 5 <= len(t.split()) <= 60 for t in x.records.data)
    n = {s: len(x) for s, x in parts.items()}
    assert 1200 < n['train'] < 2400 and n['validation'] > 100 and n['test'] > 200
    counts = sum(x.records.label_counts for x in parts.values())
    assert counts.max() <= 300 and counts.min() > 100


def test_no_near_copies_at_all(parts):
    "No two texts of any parts share more than half of the shorter one's word triples."
    texts = [t for s in ROWS for t in parts[s].records.data]
    g, where = [grams(t) for t in texts], {}
    for i, x in enumerate(g):
        for t in x: where.setdefault(t, []).append(i)
    shared = {}
    for rows in where.values():
        for a, b in combinations(rows, 2): shared[a, b] = shared.get((a, b), 0) + 1
    assert shared and max(n/min(len(g[a]), len(g[b])) for (a, b), n in shared.items()) <= .5


def test_split_is_a_hash_of_the_text_alone(parts):
    for s in ROWS:
        for t in list(parts[s].records.data)[:20]:
            h = hashlib.sha256(f'pe_nb docstrings 1:{" ".join(words(t))}'.encode()).digest()
            assert {**dict.fromkeys(range(15), 'train'), 15: 'validation', 16: 'validation'}.get(int.from_bytes(h[-4:], 'big') % 20, 'test') == s


def test_same_every_time(parts):
    code = 'from pe_nb.data.docstrings import private_docstrings as p; print(p().records.fingerprint)'
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120, env={**__import__('os').environ, 'PYTHONHASHSEED': '77'})
    assert run.stdout.strip() == parts['train'].records.fingerprint, run.stderr


def test_some_topics_in_their_order(parts):
    two = d.private_docstrings(['signals', 'statistics'])
    assert two.label_values == ({'topic': 'signals'}, {'topic': 'statistics'})
    all_of_it = parts['train'].records
    for i, t in enumerate(('signals', 'statistics')):
        assert sorted(two.records.data[two.records.labels == i].tolist()) == sorted(all_of_it.data[all_of_it.labels == list(d.TOPICS).index(t)].tolist())


def test_labels_are_the_folders(parts):
    docs = d.docstrings('scipy') + d.docstrings('sklearn')
    home = {}
    for t, m in zip(docs.texts, docs.modules): home.setdefault(t, m)
    for t, l in zip(parts['test'].records.data, parts['test'].records.labels.tolist()):
        assert any(home[t].startswith(f) for f in list(d.TOPICS.values())[l][0])


@pytest.mark.parametrize('given, message', [(dict(labels=[]), 'labels'), (dict(labels=['poetry']), 'poetry'), (dict(labels=['signals', 'signals']), 'labels'), (dict(split='all'), "split \\('all'\\) must be"),
    (dict(most=0), 'most')])
def test_bad_input(given, message):
    with pytest.raises(ValueError, match=message): d.private_docstrings(**given)


def test_public_shares_nothing():
    private = [t for p in d.PRIVATE for t in d.docstrings(p).texts]
    before, public = d.docstrings('numpy'), d.public_docstrings(['numpy'])
    sentences = lambda ts: {w for t in ts for s in re.split(r'(?<=[.!?]) (?=[A-Z])', t) if len(w := tuple(words(s))) > 2}
    assert len(sentences(before.texts) & sentences(private)) > 10          # there was something to drop
    assert not sentences(public.texts) & sentences(private)
    g = [grams(t) for t in private]
    for t in public.texts[::40]: assert max(len(grams(t) & x) for x in g) <= .5*len(grams(t))
    assert len(public) > .8*len(before) and not set(d.PUBLIC) & set(d.PRIVATE)


def test_rules_fill_a_prompt():
    from pe_nb.generators.prompts import Prompt
    prompt, rng = Prompt('Topic: {keywords}', rules=d.topic_rules(words=2)), np.random.default_rng(0)
    prompt.check((), [{'topic': t} for t in d.TOPICS])
    for t, (_, about, keywords) in d.TOPICS.items():
        said = {prompt.fill({'topic': t}, rng)[0][1].removeprefix('Topic: ') for _ in range(30)}
        assert len(said) > 15 and all(set(s.split(', ')) <= set(keywords.split(', ')) and len(s.split(', ')) == 2 for s in said)
    for bad in (0, 4, True, 1.5):
        with pytest.raises(ValueError, match='words'): d.topic_rules(words=bad)


def test_versions_of_what_is_there():
    v = d.versions()
    assert v['scipy'] == importlib.import_module('scipy').__version__ and v['python'].startswith(f'{sys.version_info[0]}.') and v['sklearn']
    assert d.versions(['no_such_package']) == {'no_such_package': None}
