"Kept embeddings: the same bytes with and without, files that are what they seem, and nobody else's to read."
import json, os, stat, subprocess, sys, threading
from pathlib import Path

import numpy as np
import pytest

from pe_nb.embeddings.images import Pixels
from pe_nb.embeddings.kept import Damaged, Kept, read_vectors, write_vectors
from pe_nb.embeddings.texts import HashedWords
from pe_nb.records import Records

ROOT = Path(__file__).resolve().parents[1]
posix = pytest.mark.skipif(os.name != 'posix', reason='permissions of POSIX')

def texts(*x): return Records.texts(list(x))

class Counted(HashedWords):
    "HashedWords that counts its calls."
    def __init__(self, dim=16):
        super().__init__(dim)
        self.calls = 0
    def __call__(self, records):
        self.calls += 1
        return super().__call__(records)

R = texts('a soup', 'a car', '', 'a soup')

@pytest.mark.parametrize('mapped', [False, True])
def test_the_same_bytes(tmp_path, mapped):
    e = Counted()
    k = Kept(e, tmp_path/'v', mapped=mapped)
    for _ in range(3):
        x = k(R)
        assert x.dtype == np.float32 and x.tobytes() == HashedWords(16)(R).tobytes() and e.calls == 1
    assert Kept(e, tmp_path/'v', mapped=mapped)(R).tobytes() == x.tobytes() and e.calls == 1      # another process would do the same
    assert np.load(k.file(R), allow_pickle=False).tobytes() == x.tobytes() and k.fingerprint == e.fingerprint
    if mapped:
        with pytest.raises(ValueError): x[0, 0] = 1
    else: x[0, 0] = 7                                                                               # the caller's own
    assert k(R)[0, 0] != 7

def test_keys(tmp_path):
    "Other records, labels or another embedding: another file."
    k = Kept(Counted(16), tmp_path/'v')
    many = [R, R[:3], R[::-1], texts('b'), Records.texts(list(R.data), labels=[0, 1, 0, 1], label_names=['p', 'q'])]
    for r in many: k(r)
    assert k.embedding.calls == len(many) == len(list((tmp_path/'v').iterdir()))
    for r in many: assert k(r).tobytes() == HashedWords(16)(r).tobytes()
    assert k.embedding.calls == len(many)
    other = Kept(Counted(8), tmp_path/'v')
    assert other(R).shape == (4, 8) and other.embedding.calls == 1 and k(R).shape == (4, 16)

def test_no_records_and_images(tmp_path):
    for mapped in (False, True):
        k = Kept(Counted(), tmp_path/'v', mapped=mapped)
        assert k(texts()).shape == (0, 16) == k(texts()).shape
    r = Records.images(np.random.default_rng(0).integers(0, 256, (3, 4, 4, 1)).astype(np.uint8))
    p = Kept(Pixels(), tmp_path/'v')
    assert p(r).tobytes() == p(r).tobytes() == Pixels()(r).tobytes()

def test_only(tmp_path):
    e = Counted()
    for only in (R, [R, texts('z')]):
        k = Kept(e, tmp_path/'v', only=only)
        e.calls = 0
        for _ in range(2): k(texts('synthetic'))
        assert e.calls == 2
        k(R), k(R)
        assert len(list((tmp_path/'v').iterdir())) == 1
    assert Kept(e, tmp_path/'v', only=[]).only == set()

# ---- whose files they are ----

@posix
def test_permissions(tmp_path):
    before = os.umask(0o000)
    try:
        k = Kept(Counted(), tmp_path/'deep'/'v')
        k(R)
    finally: os.umask(before)
    assert stat.S_IMODE(k.folder.stat().st_mode) == 0o700 and all(stat.S_IMODE(f.stat().st_mode) == 0o600 for f in k.folder.iterdir())
    for mode in (0o750, 0o701, 0o755, 0o777):
        k.folder.chmod(mode)
        with pytest.raises(ValueError, match=r"folder \('v'\) must be open to its owner only: chmod 700"): Kept(Counted(), k.folder)
    k.folder.chmod(0o700)
    assert Kept(Counted(), k.folder)(R).shape == (4, 16)

def test_nothing_is_written_before_a_call_and_no_text_ever(tmp_path):
    k = Kept(HashedWords(16), tmp_path/'v')
    assert not list(k.folder.iterdir())
    k(texts('zebra crossing'))
    assert b'zebra' not in k.file(texts('zebra crossing')).read_bytes() and 'zebra' not in str(list(k.folder.iterdir()))
    assert 'WRITTEN TO DISK' in Kept.__doc__ and 'as private as' in Kept.__doc__ and 'private' in repr(k)

# ---- damage ----

def damage(raw):
    yield 'empty', b''
    yield 'half', raw[:len(raw)//2]
    yield 'no head', raw[:raw.rindex(b'{')]
    yield 'head cut', raw[:-3]
    yield 'number', raw[:150] + bytes([raw[150] ^ 4]) + raw[151:]
    yield 'magic', b'X' + raw[1:]
    yield 'dtype', raw.replace(b"'<f4'", b"'<i4'", 1)
    yield 'shape', raw.replace(b'(4, 16)', b'(2, 16)', 1)
    yield 'huge shape', raw.replace(b'(4, 16), ', b'(9**9, 16)', 1)
    yield 'wide', raw.replace(b'(4, 16)', b'(8, 8) ', 1)
    yield 'digest', raw.replace(b'"sha256": "', b'"sha256": "0')
    yield 'other records', raw.replace(R.fingerprint.encode(), texts('b').fingerprint.encode())
    yield 'other embedding', raw.replace(b'HashedWords', b'HeshedWords')
    yield 'format', raw.replace(b'"format": 1', b'"format": 2')
    yield 'list', raw[:raw.rindex(b'{')] + b'[1]'
    yield 'pickle', b'\x80\x04K\x01.'
    yield 'random', np.random.default_rng(0).bytes(len(raw))

@pytest.mark.parametrize('mapped', [False, True])
def test_damage_is_said_and_mended(tmp_path, mapped):
    k = Kept(Counted(), tmp_path/'v', mapped=mapped)
    k(R)
    raw, seen = k.file(R).read_bytes(), 0
    for name, bad in damage(raw):
        assert bad != raw, name
        k.file(R).write_bytes(bad)
        calls = k.embedding.calls
        with pytest.warns(RuntimeWarning, match="a file of kept vectors in 'v' is not used") as said: x = k(R)
        assert len(said) == 1 and R.fingerprint not in str(said[0].message) and k.file(R).name not in str(said[0].message)
        assert x.tobytes() == HashedWords(16)(R).tobytes() and k.embedding.calls == calls + 1, name
        assert k.file(R).read_bytes() == raw and len(list(k.folder.iterdir())) == 1, name
        del x
        seen += 1
    assert seen == 17

def test_every_flipped_bit_is_found(tmp_path):
    path = tmp_path/'x.npy'
    write_vectors(path, np.arange(6, dtype=np.float32).reshape(2, 3), dict(of='a'))
    raw, want = path.read_bytes(), read_vectors(path, dict(of='a')).tobytes()
    start, silent = raw.index(b'\n') + 1, 0
    for i in range(start, len(raw)):
        path.write_bytes(raw[:i] + bytes([raw[i] ^ 1]) + raw[i+1:])
        try: got = read_vectors(path, dict(of='a')).tobytes()
        except Damaged: continue
        silent += 1
        assert got == want                                  # a key that nobody asked for, or a blank: the numbers are right all the same
    assert silent < 12

def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    k = Kept(Counted(), tmp_path/'v')
    def full(*a, **kw): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(np.lib.format, 'write_array', full)
    with pytest.raises(OSError, match='No space'): k(R)
    assert not list(k.folder.iterdir())
    monkeypatch.undo()
    assert k(R).shape == (4, 16)

@pytest.mark.parametrize('bad', [lambda r: np.zeros((len(r), 3)), lambda r: np.zeros(len(r), np.float32), lambda r: np.zeros((len(r) + 1, 3), np.float32), lambda r: [[1.]]*len(r)])
def test_wrong_vectors_are_not_kept(tmp_path, bad):
    class Wrong:
        fingerprint = 'wrong'
        def __call__(self, r): return bad(r)
    k = Kept(Wrong(), tmp_path/'v')
    with pytest.raises(ValueError, match='embedding must give float32'): k(R)
    assert not list(k.folder.iterdir())

@pytest.mark.parametrize('bad', [lambda f: Kept(len, f), lambda f: Kept('x', f), lambda f: Kept(None, f), lambda f: Kept(HashedWords(), f, only=[1]), lambda f: Kept(HashedWords(), f, only='ab')])
def test_bad_settings(tmp_path, bad):
    with pytest.raises(ValueError, match='must be'): bad(tmp_path/'v')

# ---- many at once ----

def test_threads(tmp_path):
    k, got = Kept(Counted(), tmp_path/'v'), []
    all_ = [texts(*(f'{i} {j}' for j in range(50))) for i in range(6)]
    def work():
        for r in all_: got.append(k(r).tobytes() == HashedWords(16)(r).tobytes())
    pool = [threading.Thread(target=work) for _ in range(8)]
    for t in pool: t.start()
    for t in pool: t.join()
    assert len(got) == 48 and all(got) and len(list(k.folder.iterdir())) == 6

def test_processes(tmp_path):
    code = ("import sys, warnings; warnings.simplefilter('error'); from pe_nb.embeddings.kept import Kept; from pe_nb.embeddings.texts import HashedWords; from pe_nb.records import Records\n"
            "r, e = Records.texts([f'{i} soup' for i in range(200)]), HashedWords(256)\n"
            "for _ in range(30):\n"
            "    k = Kept(e, sys.argv[1])\n"
            "    assert k(r).tobytes() == e(r).tobytes()\n"
            "    k.file(r).unlink(missing_ok=True) if sys.argv[2] == '0' else None\n")
    # one of the three removes the file again and again: the others see it whole or not at all
    quiet = code.replace("simplefilter('error')", "simplefilter('ignore')")
    runs = [subprocess.Popen([sys.executable, '-c', quiet, str(tmp_path/'v'), str(i)], cwd=ROOT, stderr=subprocess.PIPE) for i in range(3)]
    for r in runs: assert r.communicate()[1] == b'' and r.returncode == 0
    assert not [f for f in (tmp_path/'v').iterdir() if f.suffix != '.npy']

def test_a_run_goes_on_with_and_without(tmp_path):
    "The same run with plain and with kept vectors: the same fingerprint, so it may be resumed either way."
    assert Kept(HashedWords(), tmp_path/'v').fingerprint == HashedWords().fingerprint
    assert json.loads(Kept(HashedWords(), tmp_path/'v').fingerprint.partition(' ')[2])['dim'] == 1024
