"Downloads: what servers do wrong, what is left on disk afterwards, two processes at once."
import hashlib
import os
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from pe_nb.data import files
from pe_nb.data.files import DownloadError, cache_folder, check_file, fetch, file_sha256

BODY = bytes(range(256)) * 2000                             # more than one block of the reader
SHA = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    daemon_threads, block_on_close, request_queue_size = True, False, 64
    def handle_error(self, *args): pass                     # clients hang up on purpose


class Handler(BaseHTTPRequestHandler):
    "Answers by the first part of the path; `asked` keeps (path, first byte asked for)."
    def log_message(self, *args): pass

    def send(self, status, body, headers=(), length=None):
        self.send_response(status)
        for k, v in headers: self.send_header(k, v)
        if length != 'none': self.send_header('Content-Length', str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def do_GET(self):
        start = int((self.headers['Range'] or 'bytes=0-')[6:-1])
        kind, n = self.path.split('/')[1], len(self.server.asked)
        self.server.asked.append((self.path, start))
        getattr(self, 'do_' + kind)(start, n)

    def part(self, start, body=BODY):
        if start >= len(body): return self.send(416, b'', [('Content-Range', f'bytes */{len(body)}')])
        self.send(206 if start else 200, body[start:], [('Content-Range', f'bytes {start}-{len(body)-1}/{len(body)}')] if start else [])

    def do_file(self, start, n): self.part(start)
    def do_whole(self, start, n): self.send(200, BODY)                                        # knows no parts
    def do_404(self, start, n): self.send(404, b'<html>Not here</html>')
    def do_busy(self, start, n): self.send(503, b'later') if n < 2 else self.part(start)
    def do_redirect(self, start, n): self.send(302, b'', [('Location', '/file/x.csv')])
    def do_loop(self, start, n): self.send(302, b'', [('Location', '/loop/x.csv')])
    def do_tofile(self, start, n): self.send(302, b'', [('Location', 'file:///etc/hostname')])
    def do_toftp(self, start, n): self.send(302, b'', [('Location', 'ftp://127.0.0.1/x')])
    def do_other(self, start, n): self.send(200, b'<html>Moved, status 200</html>')
    def do_empty(self, start, n): self.send(200, b'')
    def do_changed(self, start, n): self.part(start, BODY[::-1]) if n == 0 and start else self.part(start)
    def do_wrongpart(self, start, n):
        self.send(206, BODY[7:], [('Content-Range', f'bytes 7-{len(BODY)-1}/{len(BODY)}')]) if start else self.part(0)
    def do_nolength(self, start, n): self.send(200, BODY, length='none')
    def do_claimshuge(self, start, n): self.send(200, BODY[:10], length=10**12)
    def do_hang(self, start, n): self.server.stop.wait(20)
    def do_hanginside(self, start, n):
        self.send(200, BODY[:1000], length=len(BODY))
        self.server.stop.wait(20)

    def do_third(self, start, n):                                                             # each answer breaks off after 200,000 bytes
        self.send(206 if start else 200, BODY[start:start + 200_000],
            [('Content-Range', f'bytes {start}-{len(BODY)-1}/{len(BODY)}')] if start else [], len(BODY) - start)
        self.close_connection = True

    def do_endless(self, start, n):
        self.send_response(200)
        self.end_headers()
        while not self.server.stop.is_set(): self.wfile.write(BODY)

    def do_drip(self, start, n):
        self.send(200, b'', length=len(BODY))
        while not self.server.stop.wait(.05): self.wfile.write(b'x')

    def do_slow(self, start, n):
        self.send(206 if start else 200, b'', [('Content-Range', f'bytes {start}-{len(BODY)-1}/{len(BODY)}')] if start else [],
            len(BODY) - start)
        for i in range(start, len(BODY), 32_000):
            self.wfile.write(BODY[i:i + 32_000])
            self.server.stop.wait(.05)


@pytest.fixture
def server():
    s = Server(('127.0.0.1', 0), Handler)
    s.asked, s.stop = [], threading.Event()
    s.url = f'http://127.0.0.1:{s.server_port}'
    threading.Thread(target=s.serve_forever, kwargs=dict(poll_interval=.02), daemon=True).start()
    yield s
    s.stop.set()
    s.shutdown()
    s.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for k in list(os.environ):
        if k.lower().endswith('_proxy'): monkeypatch.delenv(k)
    monkeypatch.setattr(files, 'time', SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=lambda s: None))


def names(folder): return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


# ---- what comes back ----

@pytest.mark.parametrize('kind', ['file', 'whole', 'redirect', 'nolength', 'busy', 'third'])
def test_file_arrives_whole(server, tmp_path, kind):
    f = fetch(f'{server.url}/{kind}/x.csv', SHA.upper(), tmp_path)
    assert f.read_bytes() == BODY and f.name == f'{SHA[:16]}-x.csv' and names(tmp_path) == [f.name]
    n = len(server.asked)
    assert fetch(f'{server.url}/{kind}/x.csv', SHA, tmp_path) == f and len(server.asked) == n, 'the cache answers'


def test_resumes_where_it_broke_off(server, tmp_path):
    fetch(f'{server.url}/third/x.csv', SHA, tmp_path)
    assert [start for _, start in server.asked] == [0, 200_000, 400_000]


def test_a_later_call_resumes(server, tmp_path):
    with pytest.raises(DownloadError, match='broke off after 200000 of 512000 bytes'):
        fetch(f'{server.url}/third/x.csv', SHA, tmp_path, tries=1)
    assert names(tmp_path) == [f'{SHA[:16]}-x.csv.part']
    assert fetch(f'{server.url}/file/x.csv', SHA, tmp_path).read_bytes() == BODY
    assert server.asked[-1] == ('/file/x.csv', 200_000) and names(tmp_path) == [f'{SHA[:16]}-x.csv']


@pytest.mark.parametrize('kind', ['whole', 'changed', 'wrongpart', 'file'])
@pytest.mark.parametrize('left', [b'junk!', BODY[:70_000], BODY, BODY + b'more', b''], ids=['junk', 'half', 'all', 'more', 'empty'])
def test_any_remains_of_an_earlier_download_do_no_harm(server, tmp_path, kind, left):
    "The server has no parts, has another file by now, sends the wrong part, or the remains are no beginning of the file."
    (tmp_path / f'{SHA[:16]}-x.csv.part').write_bytes(left)
    if kind == 'wrongpart' and left:
        with pytest.raises(DownloadError, match='another part of the file'): fetch(f'{server.url}/{kind}/x.csv', SHA, tmp_path)
        return
    assert fetch(f'{server.url}/{kind}/x.csv', SHA, tmp_path).read_bytes() == BODY
    assert names(tmp_path) == [f'{SHA[:16]}-x.csv']


def test_remains_of_a_killed_process_are_taken_when_old(server, tmp_path):
    young, old = tmp_path / f'{SHA[:16]}-x.csv.aaaa.tmp', tmp_path / f'{SHA[:16]}-x.csv.bbbb.tmp'
    for p, k in ((young, 10), (old, 20)): p.write_bytes(BODY[:k])
    os.utime(old, (time.time() - 5000,) * 2)
    fetch(f'{server.url}/file/x.csv', SHA, tmp_path)
    assert server.asked == [('/file/x.csv', 20)] and names(tmp_path) == [f'{SHA[:16]}-x.csv', young.name]


def test_damaged_cache_is_fetched_again(server, tmp_path):
    f = tmp_path / f'{SHA[:16]}-x.csv'
    f.write_bytes(BODY[:-1])
    assert fetch(f'{server.url}/file/x.csv', SHA, tmp_path) == f and f.read_bytes() == BODY


def test_same_name_other_hash(server, tmp_path):
    other = b'<html>Moved, status 200</html>'
    a = fetch(f'{server.url}/file/x.csv', SHA, tmp_path)
    b = fetch(f'{server.url}/other/x.csv', hashlib.sha256(other).hexdigest(), tmp_path)
    assert a != b and a.read_bytes() == BODY and b.read_bytes() == other


@pytest.mark.parametrize('path,name', [('a/b.csv', 'b.csv'), ('a/b%2F..%2Fc.csv', 'c.csv'), ('a/%2e%2e', '..'), ('', 'file'),
    ('a/b.csv?x=/../y', 'b.csv'), ('a/' + 'n' * 300, 'n' * 80),
                                       ('a/b%00c%20d.csv', 'b_c_d.csv')])
def test_names_in_the_cache_are_harmless(server, tmp_path, path, name):
    f = fetch(f'{server.url}/file/{path}', SHA, tmp_path)
    assert f.parent == tmp_path and f.name == f'{SHA[:16]}-{name}'


# ---- what does not ----

@pytest.mark.parametrize('kind,text', [
    ('404', 'it answered 404 Not Found'), ('other', 'it gave another file'), ('empty', 'it gave another file'), ('loop', 'it answered 302'),
    ('tofile', 'it answered 302'),
    ('toftp', 'unknown url type: ftp'), ('claimshuge', 'the file has 1000000000000 bytes, and max_bytes is 1000000'),
    ('endless', 'the file has more than max_bytes')])
def test_refused(server, tmp_path, kind, text):
    with pytest.raises(DownloadError) as e: fetch(f'{server.url}/{kind}/x.csv', SHA, tmp_path, max_bytes=10**6)
    for part in (text, SHA, str(tmp_path / f'{SHA[:16]}-x.csv')): assert part in str(e.value), 'says what to get and where to put it'
    assert names(tmp_path) == [], 'nothing is left'
    assert kind == 'toftp' or len(server.asked) == 1 or kind == 'loop', 'no second try'


@pytest.mark.parametrize('kind', ['hang', 'hanginside'])
def test_silence_ends(server, tmp_path, kind):
    t = time.monotonic()
    with pytest.raises(DownloadError, match='(?i)timed out'): fetch(f'{server.url}/{kind}/x.csv', SHA, tmp_path, timeout=.2, tries=2)
    assert time.monotonic() - t < 5 and len(server.asked) == 2
    assert names(tmp_path) == ([f'{SHA[:16]}-x.csv.part'] if kind == 'hanginside' else [])


def test_drip_ends(server, tmp_path):
    t = time.monotonic()
    with pytest.raises(DownloadError, match='longer than limit_s'): fetch(f'{server.url}/drip/x.csv', SHA, tmp_path, timeout=5, limit_s=.3)
    assert time.monotonic() - t < 4


def test_offline(tmp_path):
    s = Server(('127.0.0.1', 0), Handler)
    url = f'http://127.0.0.1:{s.server_port}/file/x.csv'
    s.server_close()
    with pytest.raises(DownloadError, match='(?s)must give the file, but.*refused.*get the file another way.*save it as.*x.csv'):
        fetch(url, SHA, tmp_path)
    (tmp_path / f'{SHA[:16]}-x.csv').write_bytes(BODY)
    assert fetch(url, SHA, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize('kw,text', [
    (dict(url='file:///etc/hostname'), 'url .* must begin with http'), (dict(url='ftp://x/y'), 'url .* must begin'),
    (dict(url='x.csv'), 'url .* must begin'), (dict(url='http:///x'), 'name a server'), (dict(url='http://x/a b'), 'without blanks'),
    (dict(url='http://x/a\nb'), 'without blanks'),
    (dict(sha256='12'), 'sha256 .* must be 64'), (dict(sha256=None), 'sha256 .* must be 64'), (dict(sha256='g' * 64), 'must be 64'),
    (dict(sha256=SHA + '\n'), 'must be 64'),
    (dict(timeout=0), 'timeout'), (dict(limit_s=-1), 'limit_s'), (dict(max_bytes=0), 'max_bytes'), (dict(tries=0), 'tries'),
    (dict(cache=''), 'cache')])
def test_bad_arguments(tmp_path, kw, text):
    with pytest.raises(ValueError, match=text): fetch(**dict(url='http://127.0.0.1:9/x', sha256=SHA, cache=tmp_path) | kw)
    assert names(tmp_path) == []


def test_interrupt_keeps_what_came(server, tmp_path, monkeypatch):
    "Ctrl-C in the middle: the partial file stays for the next call."
    real = files.receive
    def broken(url, part, *args):
        part.write_bytes(BODY[:300])
        raise KeyboardInterrupt
    monkeypatch.setattr(files, 'receive', broken)
    with pytest.raises(KeyboardInterrupt): fetch(f'{server.url}/file/x.csv', SHA, tmp_path)
    assert names(tmp_path) == [f'{SHA[:16]}-x.csv.part']
    monkeypatch.setattr(files, 'receive', real)
    fetch(f'{server.url}/file/x.csv', SHA, tmp_path)
    assert server.asked == [('/file/x.csv', 300)]


def test_plain_reading_would_not_notice(server):
    "The fault that the counting prevents: the standard library returns the truncated body without an error."
    with urllib.request.urlopen(f'{server.url}/third/x.csv', timeout=5) as r:
        got = b''.join(iter(lambda: r.read(4096), b''))
    assert len(got) == 200_000 < len(BODY)


# ---- two at once ----

PROGRAM = 'import sys; from pe_nb.data.files import fetch; print(fetch(sys.argv[1], sys.argv[2], sys.argv[3]))'


def test_processes_at_once(server, tmp_path):
    (tmp_path / f'{SHA[:16]}-x.csv.part').write_bytes(BODY[:1000])       # which only one of them can claim
    runs = [subprocess.Popen([sys.executable, '-c', PROGRAM, f'{server.url}/slow/x.csv', SHA, str(tmp_path)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True) for _ in range(3)]
    out = [r.communicate(timeout=60) for r in runs]
    assert [r.returncode for r in runs] == [0] * 3, out
    assert {o.strip() for o, _ in out} == {str(tmp_path / f'{SHA[:16]}-x.csv')}
    assert file_sha256(tmp_path / f'{SHA[:16]}-x.csv') == SHA and names(tmp_path) == [f'{SHA[:16]}-x.csv']
    assert sorted(server.asked)[-1][1] == 1000 and len([1 for _, start in server.asked if start]) == 1


def test_threads_at_once(server, tmp_path):
    got = []
    ts = [threading.Thread(target=lambda: got.append(fetch(f'{server.url}/third/x.csv', SHA,
        tmp_path).read_bytes() == BODY)) for _ in range(8)]
    for t in ts: t.start()
    for t in ts: t.join(30)
    assert got == [True] * 8 and names(tmp_path) == [f'{SHA[:16]}-x.csv']


# ---- folders and hashes ----

def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv('PE_NB_CACHE', str(tmp_path / 'env'))
    assert cache_folder(tmp_path / 'arg') == tmp_path / 'arg' and cache_folder() == tmp_path / 'env'
    monkeypatch.setenv('PE_NB_CACHE', '')
    monkeypatch.setattr(files.sys, 'platform', 'linux')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    assert cache_folder() == tmp_path / 'xdg' / 'pe_nb'
    monkeypatch.setenv('XDG_CACHE_HOME', 'relative')          # to be ignored, says the standard
    assert cache_folder() == Path.home() / '.cache' / 'pe_nb'
    monkeypatch.setattr(files.sys, 'platform', 'darwin')
    assert cache_folder() == Path.home() / 'Library' / 'Caches' / 'pe_nb'
    monkeypatch.setattr(files.sys, 'platform', 'win32')
    monkeypatch.setenv('LOCALAPPDATA', str(tmp_path / 'local'))
    assert cache_folder() == tmp_path / 'local' / 'pe_nb' / 'Cache'


def test_environment_variable_is_used(server, tmp_path, monkeypatch):
    monkeypatch.setenv('PE_NB_CACHE', str(tmp_path / 'not' / 'there' / 'yet'))
    assert fetch(f'{server.url}/file/x.csv', SHA).parent == tmp_path / 'not' / 'there' / 'yet'


def test_check_file(tmp_path):
    p = tmp_path / 'x'
    p.write_bytes(BODY)
    assert check_file(str(p), SHA) == p and file_sha256(p) == SHA
    with pytest.raises(ValueError, match='must be ' + '0' * 64 + ': the file is damaged, or another one'): check_file(p, '0' * 64)
    with pytest.raises(FileNotFoundError): check_file(tmp_path / 'none', SHA)
