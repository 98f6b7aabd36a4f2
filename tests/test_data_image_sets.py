"The image sets: small files in each set's real format, real MNIST and CIFAR-10 where they are at hand, and files that lie."
import functools, gzip, hashlib, io, itertools, os, struct, tarfile, threading, tracemalloc, warnings, zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pe_nb.data import image_files, image_sets
from pe_nb.data.files import DownloadError
from pe_nb.data.image_files import (Files, chosen, decoded, fit_steps, member_name, pictures, pictures_of, read_cifar_batch, read_idx, read_npz, resized,
                                    shaped, thread_count)
from pe_nb.data.image_sets import (ATTRIBUTES, NAMES, SIZES, camelyon17, cats, celeba, cifar10, digiface1m, fashion_mnist, image_folder, imagenet, mnist)
from pe_nb.folders import from_image_folder

SHARED = Path(__file__).resolve().parents[2] / 'shared' / 'data'
needs = lambda name: pytest.mark.skipif(not (SHARED / name / 'test.npz').exists(), reason=f'the real files of {name} are not at hand (../shared/data/{name})')


def noise(*shape, seed=0): return np.random.default_rng([seed, *shape]).integers(0, 256, shape, dtype=np.uint8)


def encoded(x, kind='PNG', **options):
    out = io.BytesIO()
    Image.fromarray(x[..., 0] if x.ndim == 3 and x.shape[2] == 1 else x).save(out, kind, **options)
    return out.getvalue()


def put(root, files):
    for name, body in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body if isinstance(body, bytes) else body.encode())
    return root


def packed(where, files, kind):
    "The files as a folder or an archive, in an order that is not theirs."
    order = list(files)[::-1]
    if kind == 'folder': return put(where / 'as_folder', files)
    path = where / f'archive.{kind}'
    if kind == 'zip':
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z:
            for n in order: z.writestr(n, files[n])
        return path
    with tarfile.open(path, 'w' + {'tar': '', 'tar.gz': ':gz', 'tar.bz2': ':bz2'}[kind]) as t:
        for n in order:
            body = files[n] if isinstance(files[n], bytes) else files[n].encode()
            info = tarfile.TarInfo('./' + n)
            info.size = len(body)
            t.addfile(info, io.BytesIO(body))
    return path


KINDS = ['folder', 'zip', 'tar', 'tar.gz', 'tar.bz2']


def idx(x, code=8): return bytes([0, 0, code, x.ndim]) + struct.pack(f'>{x.ndim}I', *x.shape) + x.tobytes()


# ---- IDX, CIFAR, npz ----

@pytest.mark.parametrize('shape', [(7,), (3, 5), (4, 6, 2), (2, 3, 4, 3), (0, 28, 28)])
def test_idx(tmp_path, shape):
    x = noise(*shape)
    for i, body in enumerate([idx(x), gzip.compress(idx(x)), gzip.compress(idx(x)[:9]) + gzip.compress(idx(x)[9:])]):
        (tmp_path / f'{i}').write_bytes(body)
        got = read_idx(tmp_path / f'{i}')
        assert got.dtype == np.uint8 and got.shape == shape and (got == x).all()


WHOLE = idx(noise(5, 8, 8))


@pytest.mark.parametrize('body, said', [
    (b'', 'IDX file of unsigned bytes'), (WHOLE[:3], 'IDX file'), (WHOLE[:7], 'IDX file'), (WHOLE[:16], 'must hold the 320 numbers'), (WHOLE[:-1], 'must hold the 320 numbers'),
    (WHOLE + b'x', 'no more and no fewer'), (idx(noise(4), 13), 'IDX file'), (b'\0\0\x08\0', 'IDX file'), (b'\x89PNG\r\n', 'IDX file'), (b'<html>404</html>', 'IDX file'),
    (gzip.compress(WHOLE)[:-20], 'is damaged'), (gzip.compress(WHOLE)[:4], 'is damaged'), (gzip.compress(WHOLE)[:-6] + b'abcdef', 'is damaged'),
    (b'\0\0\x08\x03' + b'\xff' * 12, 'must hold the 79228162458924105385300197375 numbers')])
def test_bad_idx(tmp_path, body, said):
    (tmp_path / 'x').write_bytes(body)
    with pytest.raises(ValueError, match=said): read_idx(tmp_path / 'x')


def cifar_body(x, y):
    "Written pixel by pixel, as the set's page describes it."
    out = bytearray()
    for picture, label in zip(x, y):
        out.append(label)
        for c in range(3):
            for row in range(32):
                for col in range(32): out.append(int(picture[row, col, c]))
    return bytes(out)


def test_cifar_batch():
    x, y = noise(3, 32, 32, 3), [9, 0, 4]
    a, b = read_cifar_batch(cifar_body(x, y))
    assert (a == x).all() and b.tolist() == y and b.dtype == np.int64
    for bad in (b'', cifar_body(x, y)[:-1], cifar_body(x, y) + b'0', cifar_body(x, [9, 10, 4])):
        with pytest.raises(ValueError, match='test.bin must h'): read_cifar_batch(bad, 'test.bin')


def test_npz(tmp_path):
    x, y = noise(4, 8, 8, 3), np.arange(4, dtype=np.uint8)
    for images in (x, x[..., 0]):
        np.savez(tmp_path / 'a.npz', images=images, labels=y)
        a, b = read_npz(tmp_path / 'a.npz')
        assert (a == (images if images.ndim == 4 else images[..., None])).all() and b.tolist() == [0, 1, 2, 3] and b.dtype == np.int64


@pytest.mark.parametrize('arrays, said', [
    (dict(images=noise(2, 4, 4)), 'it lacks labels'), (dict(x=noise(2, 4, 4)), 'it lacks images and labels'), (dict(images=noise(2, 4, 4) / 255, labels=[0, 1]), 'float64'),
    (dict(images=noise(2, 4, 4), labels=[0, 1, 2]), 'must hold images uint8'), (dict(images=noise(2, 4), labels=[0, 1]), 'must hold images'),
    (dict(images=noise(2, 4, 4), labels=[0., 1.]), 'of integers'), (dict(images=noise(2, 4, 4), labels=np.array([{}, 1], object)), 'must be an npz file')])
def test_bad_npz(tmp_path, arrays, said):
    np.savez(tmp_path / 'a.npz', **arrays)
    with pytest.raises(ValueError, match=said): read_npz(tmp_path / 'a.npz')


@pytest.mark.parametrize('body', [b'', b'PK', b'junk' * 100])
def test_no_npz(tmp_path, body):
    (tmp_path / 'a.npz').write_bytes(body)
    with pytest.raises(ValueError, match='must be an npz file'): read_npz(tmp_path / 'a.npz')
    np.save(tmp_path / 'b.npy', noise(3, 4, 4))
    with pytest.raises(ValueError, match='must be an npz file'): read_npz(tmp_path / 'b.npy')


# ---- folders and archives ----

@pytest.mark.parametrize('kind', KINDS)
def test_files(tmp_path, kind):
    content = {f'{a}/{i}.png': bytes([i]) * (i + 1) for a in 'ba' for i in range(12)} | {'readme.txt': b'hello', '.hidden/x.png': b'', '__MACOSX/a/._0.png': b'', 'a/.1.png': b''}
    files = Files(packed(tmp_path, content, kind))
    assert files.names == sorted(content, key=lambda n: n.split('/')) and files.kind == kind.partition('.')[0]
    assert pictures_of(files.names) == sorted(f'{a}/{i}.png' for a in 'ab' for i in range(12)) and pictures_of(files.names, 'a') == sorted(f'a/{i}.png' for i in range(12))
    want = ['b/3.png', 'gone.png', 'a/1.png', 'readme.txt']
    got = {n: b.read_bytes() if isinstance(b, Path) and b.exists() else None if isinstance(b, Path) else b for n, b in files.each(want)}
    assert got == {'b/3.png': b'\x03' * 4, 'gone.png': None, 'a/1.png': b'\x01' * 2, 'readme.txt': b'hello'}
    assert files.read('readme.txt', 'b/3.png') == [b'hello', b'\x03' * 4] and list(files.each([])) == []
    with pytest.raises(FileNotFoundError, match='must hold the file gone.png'): files.read('gone.png')


@pytest.mark.parametrize('name', ['../x.png', 'a/../../x.png', '/x.png', 'C:/x.png', 'a\\..\\x.png', '..', '.', ''])
def test_names_that_lead_out(tmp_path, name):
    with pytest.raises(ValueError, match='must stay inside'): member_name(name)
    inside = tmp_path / 'in' / 'deep'
    inside.mkdir(parents=True)
    if name not in ('', '.'):
        with zipfile.ZipFile(inside / 'a.zip', 'w') as z: z.writestr(zipfile.ZipInfo(name), b'evil')
        with tarfile.open(inside / 'a.tar', 'w') as t:
            info = tarfile.TarInfo(name)
            info.size = 4
            t.addfile(info, io.BytesIO(b'evil'))
        for f in ('a.zip', 'a.tar'):
            for use in (lambda: Files(inside / f).names, lambda: list(Files(inside / f).each(['x'])), lambda: image_folder(inside / f, label=None)):
                with pytest.raises(ValueError, match='must stay inside'): use()
    with pytest.raises(ValueError, match='must stay inside'): list(Files(inside).each([name]))
    assert {p.name for p in tmp_path.rglob('*')} <= {'in', 'deep', 'a.zip', 'a.tar'}, 'nothing was written'


def test_links_are_no_files(tmp_path):
    (tmp_path / 'secret').write_bytes(b'not yours')
    with tarfile.open(tmp_path / 'a.tar', 'w') as t:
        for kind, name in ((tarfile.SYMTYPE, 'a/1.png'), (tarfile.LNKTYPE, 'a/2.png'), (tarfile.CHRTYPE, 'a/3.png')):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(tmp_path / 'secret')
            t.addfile(info)
    assert Files(tmp_path / 'a.tar').names == [] and list(Files(tmp_path / 'a.tar').each(['a/1.png'])) == [('a/1.png', None)]
    put(tmp_path / 'd', {'x/1.png': b'1'})
    os.symlink(tmp_path / 'd', tmp_path / 'd' / 'x' / 'again')
    with pytest.raises(ValueError, match='links to folders, and again is one'): Files(tmp_path / 'd').names


def test_twice_the_same_name(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as z: z.writestr('1.png', b'1'), z.writestr('1.png', b'2')
    with tarfile.open(tmp_path / 'a.tar', 'w') as t:
        for n in ('1.png', './1.png'): t.addfile(tarfile.TarInfo(n))
    for f in ('a.zip', 'a.tar'):
        with pytest.raises(ValueError, match='two files of one name'): Files(tmp_path / f).names


def test_no_files(tmp_path):
    for body in (b'', b'<html>', b'PK\3\4'):
        (tmp_path / 'x').write_bytes(body)
        with pytest.raises(ValueError, match='must be a folder, a zip or a tar'): Files(tmp_path / 'x')
    with pytest.raises(FileNotFoundError, match='there is none'): Files(tmp_path / 'none')


@pytest.mark.parametrize('kind', ['tar', 'tar.gz', 'tar.bz2'])
def test_cut_off_tar(tmp_path, kind):
    path = packed(tmp_path, {f'{i}.png': noise(30_000, seed=i).tobytes() for i in range(5)}, kind)
    path.write_bytes(path.read_bytes()[:70_000])
    for use in (lambda: Files(path).names, lambda: dict(Files(path).each([f'{i}.png' for i in range(5)])), lambda: image_folder(path, label=None)):
        with pytest.raises(ValueError, match='is damaged' if kind != 'tar.bz2' else 'whole and not damaged'): use()   # bz2: not even its first block is whole


def test_damaged_zip_member_is_named(tmp_path):
    content = {f'{i}.png': encoded(noise(20, 20, 3, seed=i)) for i in range(3)}
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as z:
        for n, b in content.items(): z.writestr(n, b)
    raw = bytearray((tmp_path / 'a.zip').read_bytes())
    raw[raw.index(content['1.png']) + 300] ^= 1
    (tmp_path / 'a.zip').write_bytes(raw)
    with pytest.raises(ValueError, match=r'1 of 3 images cannot be read: 1.png \(BadZipFile\)'): image_folder(tmp_path / 'a.zip', label=None)
    with pytest.raises(ValueError, match='file 1.png of .* is damaged'): Files(tmp_path / 'a.zip').read('1.png')


@pytest.mark.parametrize('kind', ['zip', 'tar.gz'])
def test_too_large_a_member(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(image_files, 'MAX_MEMBER', 1000)
    path = packed(tmp_path, {'1.png': encoded(noise(4, 4)), '2.png': bytes(10**6)}, kind)
    with pytest.raises(ValueError, match=r'1 of 2 images cannot be read: 2.png \(ValueError\)'): image_folder(path, label=None)


# ---- sizes ----

def triangle(x, new):
    "Bilinear scaling with a filter that widens when it shrinks, along the first axis, written out."
    old = len(x)
    scale = max(old / new, 1)
    out = np.empty((new, *x.shape[1:]))
    for i in range(new):
        centre = (i + .5) * old / new
        w = np.maximum(0, 1 - np.abs((np.arange(old) + .5 - centre) / scale))
        out[i] = np.tensordot(w / w.sum(), x, 1)
    return out


@pytest.mark.parametrize('h, w, size', [(218, 178, 32), (96, 96, 64), (20, 31, 16), (31, 20, 16), (8, 8, 32), (33, 47, 33), (50, 49, 7)])
def test_fit_is_torchvisions(h, w, size):
    yy, xx = np.mgrid[:h, :w]
    x = np.stack([128 + 100 * np.sin(yy / 9 + xx / 17), 255 * xx / w, 255 * ((yy // 9 + xx // 9) % 2)], -1).astype(np.uint8)
    new = (size, int(size * w / h)) if h <= w else (int(size * h / w), size)
    full = triangle(triangle(x.astype(float), new[0]).transpose(1, 0, 2), new[1]).transpose(1, 0, 2)
    top, left = (int(round((a - size) / 2.)) for a in new)
    got = shaped(x, fit_steps(size))
    assert got.shape == (size, size, 3) and np.abs(got - full[top:top + size, left:left + size]).max() <= 1.5
    assert (shaped(x[..., :1], fit_steps(size)) == got[..., :1]).all(), 'one channel as three'


def test_odd_rests_are_rounded_to_even():
    "torchvision crops at int(round(rest / 2)): 0 for 1, 2 for 3, 2 for 5."
    for rest, left in ((0, 0), (1, 0), (2, 1), (3, 2), (5, 2), (7, 4)):
        x = np.tile(np.arange(10 + rest, dtype=np.uint8), (10, 1))[..., None]
        assert shaped(x, [('centre', 10)])[0, 0, 0] == left


def test_steps():
    x = noise(40, 60, 3)
    assert shaped(x, ()) is x and fit_steps(None) == ()
    assert (shaped(x, [('square', 16)]) == np.asarray(Image.fromarray(x).resize((16, 16)))).all()
    with pytest.raises(ValueError, match='must have at least 50 x 50'): shaped(x, [('centre', 50)])
    for bad in (0, -1, 1.5, '8', True, 10**6):
        with pytest.raises(ValueError, match='size .* must be an integer'): fit_steps(bad)
    many = noise(600, 12, 9, 1)
    assert (resized(many, fit_steps(6), 3) == np.stack([shaped(v, fit_steps(6)) for v in many])).all()
    assert resized(many[:0], fit_steps(6)).shape[0] == 0


# ---- many pictures ----

@functools.lru_cache(None)
def coloured(n=30): return {f'{i:02}.png': encoded(noise(14, 11, 3, seed=i)) for i in range(n)}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('workers', [1, 2, 7])
def test_pictures_do_not_depend_on_threads_or_packing(tmp_path, kind, workers):
    names = sorted(coloured())[::-1]
    x, rows = pictures(Files(packed(tmp_path, coloured(), kind)), names, workers=workers)
    assert (x == np.stack([noise(14, 11, 3, seed=int(n[:2])) for n in names])).all() and rows.tolist() == list(range(30))


@pytest.mark.parametrize('workers', [1, 2, 3])
def test_workers_are_honoured(tmp_path, monkeypatch, workers):
    "As many decode at once as were asked for, and never more."
    now, most, lock, real = [0], [0], threading.Lock(), image_files.decode_image
    meet = threading.Barrier(workers)
    def slow(*args):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        meet.wait(20)                                  # passes only when all of them are here
        with lock: now[0] -= 1
        meet.wait(20)
        return real(*args)
    monkeypatch.setattr(image_files, 'decode_image', slow)
    image_folder(put(tmp_path, dict(list(coloured().items())[:12])), label=None, workers=workers)
    assert most[0] == workers


def test_few_pictures_wait(tmp_path, monkeypatch):
    "No more files are taken from an archive than can be decoded soon."
    files, taken, real = Files(packed(tmp_path, coloured(), 'zip')), [0], Files.each
    def counting(self, names):
        for v in real(self, names):
            taken[0] += 1
            yield v
    monkeypatch.setattr(Files, 'each', counting)
    for used, _ in enumerate(decoded(files, sorted(coloured()), 3, (), 2)): assert taken[0] - used <= 8
    assert used == 29


def test_memory_is_that_of_the_result(tmp_path):
    big = encoded(noise(200, 200, 3))
    put(tmp_path, {f'{i}.png': big for i in range(150)})           # 18 MB when decoded
    tracemalloc.start()
    r = image_folder(tmp_path, label=None, size=16, workers=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(r) == 150 and peak < 5_000_000


GRAY = noise(10, 10)
AS_RGB = np.repeat(GRAY[..., None], 3, axis=2)


@pytest.mark.parametrize('name, body', [
    ('gray.png', encoded(GRAY)), ('rgb.png', encoded(AS_RGB)), ('rgba.png', encoded(np.dstack([AS_RGB, np.full((10, 10), 255, np.uint8)]))),
    ('la.png', encoded(np.dstack([GRAY, np.full((10, 10), 255, np.uint8)]))), ('palette.png', (lambda o: (Image.fromarray(GRAY).convert('P').save(o, 'PNG'), o.getvalue())[1])(io.BytesIO())),
    ('gray.gif', encoded(GRAY, 'GIF')), ('gray.bmp', encoded(GRAY, 'BMP')), ('gray.tiff', encoded(GRAY, 'TIFF')), ('GRAY.PNG', encoded(GRAY))])
def test_every_mode_becomes_what_is_asked(tmp_path, name, body):
    put(tmp_path, {name: body})
    assert (image_folder(tmp_path, label=None).data[0] == AS_RGB).all()
    assert np.abs(image_folder(tmp_path, label=None, channels=1).data[0, ..., 0].astype(int) - GRAY).max() <= 1
    assert image_folder(tmp_path, label=None, channels=4, size=5).data.shape == (1, 5, 5, 4)


def bad_folder(root):
    "Eight pictures, four of them broken in four ways."
    good = {f'{i % 2}/{i}.png': encoded(np.full((6, 6, 3), i, np.uint8)) for i in range(8)}
    bad = {'1/1.png': b'', '0/2.png': good['0/2.png'][:40], '1/5.png': b'<html>404</html>', '0/6.png': encoded(np.full((6, 6), 60_000, np.uint16))}
    return put(root, good | bad)


@pytest.mark.parametrize('workers', [1, 3])
def test_unreadable_files_are_named_or_skipped(tmp_path, workers):
    bad_folder(tmp_path)
    with pytest.raises(ValueError, match='4 of 8 images cannot be read: 0/2.png .*, 0/6.png .*, 1/1.png .*, 1/5.png .*unreadable=.skip'):
        image_folder(tmp_path, label_names=['0', '1'], workers=workers)
    with pytest.warns(UserWarning, match='4 of 8 images cannot be read: 0/2.png'):
        r = image_folder(tmp_path, label_names=['0', '1'], workers=workers, unreadable='skip')
    assert r.data[:, 0, 0, 0].tolist() == [0, 4, 3, 7] and r.labels.tolist() == [0, 0, 1, 1], 'labels stay with their pictures'


def test_nothing_readable(tmp_path):
    put(tmp_path, {f'{i:02}.png': b'no' for i in range(15)})
    with pytest.raises(ValueError, match='15 of 15 images cannot be read: .*09.png .*, …'): image_folder(tmp_path, label=None, unreadable='skip')


@pytest.mark.parametrize('kw, said', [
    (dict(channels=2), 'channels .2. must'), (dict(workers=0), 'workers .0. must'), (dict(workers=1.5), 'workers'), (dict(workers=True), 'workers'), (dict(unreadable='ignore'), 'unreadable'),
    (dict(n=0), 'n .0. must'), (dict(n=31), 'number of images .30.'), (dict(n=2.), 'n .2.0. must'), (dict(n=True), 'n .True. must'), (dict(size=0), 'size'), (dict(label='class'), 'label .*class')])
def test_bad_options(tmp_path, monkeypatch, kw, said):
    put(tmp_path, coloured())
    monkeypatch.setattr(image_files, 'decode_image', lambda *a: pytest.fail('a picture was read'))
    with pytest.raises(ValueError, match=said): image_folder(tmp_path, **dict(label=None) | kw)


def test_several_sizes(tmp_path):
    put(tmp_path, {'1.png': encoded(noise(5, 5)), '2.png': encoded(noise(5, 6))})
    with pytest.raises(ValueError, match='must all have one size, and 2.png has .5, 6.'): image_folder(tmp_path, label=None, workers=1)
    assert image_folder(tmp_path, label=None, size=4).data.shape == (2, 4, 4, 3)


def test_chosen():
    assert chosen(5).tolist() == [0, 1, 2, 3, 4]
    assert sorted(chosen(50, 50)) == list(range(50)) and (chosen(50, 20)[:7] == chosen(50, 7)).all() and chosen(50, 9, 1).tolist() != chosen(50, 9).tolist()
    want = sorted(range(50), key=lambda i: hashlib.sha256(f'pe_nb images 3:{i}'.encode()).digest())[:9]
    assert chosen(50, 9, 3).tolist() == want
    assert 1 <= thread_count(None) <= 8


# ---- MNIST, Fashion-MNIST ----

def mnist_files(n=20, suffix='.gz', dots=False, stem='t10k'):
    x, y = noise(n, 28, 28), np.arange(n, dtype=np.uint8) % 10
    zipped = gzip.compress if suffix else bytes
    names = [f'{stem}-images-idx3-ubyte', f'{stem}-labels-idx1-ubyte']
    return x, y, {(k.replace('-idx', '.idx') if dots else k) + suffix: zipped(idx(v)) for k, v in zip(names, (x, y))}


@pytest.mark.parametrize('load, sub', [(mnist, 'MNIST/raw'), (fashion_mnist, 'FashionMNIST/raw')])
def test_mnist_forms(tmp_path, load, sub):
    for i, (suffix, dots, inside) in enumerate([('.gz', False, ''), ('', False, 'raw'), ('', True, ''), ('', False, sub)]):
        x, y, files = mnist_files(suffix=suffix, dots=dots)
        r = load('test', put(tmp_path / f'{i}' / inside, files) if not inside else [put(tmp_path / f'{i}' / inside, files), tmp_path / f'{i}'][1])
        assert (r.data[..., 0] == x).all() and (r.labels == y).all() and r.data.shape == (20, 28, 28, 1)
    np.savez(tmp_path / 'test.npz', images=x, labels=y)
    assert load('test', tmp_path) == r and load('train', tmp_path / 'test.npz') == r
    three = load('test', tmp_path, channels=3)
    assert (three.data == r.data).all() and three.data.shape[3] == 3 and three.labels.tolist() == r.labels.tolist()
    assert load('test', tmp_path, labels=False).label_names == ('',)
    assert r.label_names == NAMES[load.__name__] and len(r.label_names) == 10
    assert (load('test', tmp_path, size=32).data == np.stack([shaped(v, fit_steps(32)) for v in r.data])).all()


def test_label_names_do_not_depend_on_the_file(tmp_path):
    x = noise(3, 28, 28)
    np.savez(tmp_path / 'train.npz', images=x, labels=[7, 7, 3])
    assert mnist('train', tmp_path).labels.tolist() == [7, 7, 3] and mnist('train', tmp_path).label_names == tuple('0123456789')
    np.savez(tmp_path / 'train.npz', images=x, labels=[7, 10, 3])
    with pytest.raises(ValueError, match='labels'): mnist('train', tmp_path)
    np.savez(tmp_path / 'train.npz', images=noise(3, 28, 28, 3), labels=[7, 1, 3])
    with pytest.raises(ValueError, match='gray images'): mnist('train', tmp_path)


def test_mnist_that_does_not_fit(tmp_path):
    _, _, files = mnist_files()
    put(tmp_path, files | {'t10k-labels-idx1-ubyte.gz': gzip.compress(idx(np.zeros(19, np.uint8)))})
    with pytest.raises(ValueError, match='one label each'): mnist('test', tmp_path)
    put(tmp_path, files)
    with pytest.raises(ValueError, match=r'mnist \(test\) must hold 10,000 images, not 20'): mnist('test', tmp_path, complete=True)
    with pytest.raises(ValueError, match='split .*dev'): mnist('dev', tmp_path)
    with pytest.raises(ValueError, match='channels .4. must be 1 or 3'): mnist('test', tmp_path, channels=4)
    (tmp_path / 't10k-labels-idx1-ubyte.gz').unlink()
    with pytest.raises(FileNotFoundError, match='t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte'): mnist('test', tmp_path)
    with pytest.raises(FileNotFoundError, match='must be an npz file, or a folder'): mnist('test', tmp_path / 'nowhere')


MD5 = {  # of the unpacked files, as many projects print them
    'train': ('6bbc9ace898e44ae57da46a324031adb', 'a25bea736e30d166cdddb491f175f624'), 'test': ('2646ac647ad5339dbf082846283269ea', '27ae3e4e09519cfbb04c329615203637')}


@needs('mnist')
@pytest.mark.parametrize('split', ['train', 'test'])
def test_real_mnist(tmp_path, split):
    "The real digits, put back into the real format: the bytes are those of the official files, and read back they are the digits."
    r = mnist(split, SHARED / 'mnist', complete=True)
    assert r.data.shape == (SIZES['mnist'][split], 28, 28, 1) and r.labels[:5].tolist() == dict(train=[5, 0, 4, 1, 9], test=[7, 2, 1, 0, 4])[split]
    stem, bodies = dict(train='train', test='t10k')[split], (idx(r.data[..., 0]), idx(r.labels.astype(np.uint8)))
    assert tuple(hashlib.md5(b).hexdigest() for b in bodies) == MD5[split]
    put(tmp_path, dict(zip((f'{stem}-images-idx3-ubyte', f'{stem}-labels-idx1-ubyte'), bodies)))
    assert mnist(split, tmp_path, complete=True) == r
    part = mnist(split, tmp_path, n=300, seed=1)
    rows = chosen(len(r), 300, 1)
    assert part == r[rows] and part.label_counts.min() > 10


# ---- CIFAR-10 ----

def cifar_files(per=3):
    x, y = noise(6 * per, 32, 32, 3), np.arange(6 * per) % 10
    names = [*(f'data_batch_{i}.bin' for i in range(1, 6)), 'test_batch.bin']
    return x, y, {f'cifar-10-batches-bin/{n}': cifar_body(x[i * per:(i + 1) * per], y[i * per:(i + 1) * per]) for i, n in enumerate(names)} | {'cifar-10-batches-bin/batches.meta.txt': 'airplane\n'}


@pytest.mark.parametrize('kind', KINDS)
def test_cifar10(tmp_path, kind):
    x, y, files = cifar_files()
    path = packed(tmp_path, files, kind)
    train, test = cifar10('train', path), cifar10('test', path)
    assert (train.data == x[:15]).all() and (train.labels == y[:15]).all() and (test.data == x[15:]).all() and (test.labels == y[15:]).all()
    assert train.label_names == ('plane', 'car', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck')
    if kind == 'folder':
        assert cifar10('test', path / 'cifar-10-batches-bin') == test
        (path / 'cifar-10-batches-bin' / 'data_batch_4.bin').unlink()
        with pytest.raises(FileNotFoundError, match='must hold data_batch_4.bin'): cifar10('train', path)
    else:
        assert cifar10('test', path, sha256=hashlib.sha256(path.read_bytes()).hexdigest()) == test
        with pytest.raises(ValueError, match='damaged, or another one'): cifar10('test', path, sha256='0' * 64)


def test_cifar10_other_forms(tmp_path):
    x, y, files = cifar_files()
    packed(tmp_path, files, 'tar.gz').rename(tmp_path / 'cifar-10-binary.tar.gz')
    assert (cifar10('test', tmp_path).data == x[15:]).all()
    np.savez(tmp_path / 'some.npz', images=x, labels=y)
    assert (cifar10('train', tmp_path / 'some.npz').data == x).all()
    np.savez(tmp_path / 'gray.npz', images=x[..., 0], labels=y)
    with pytest.raises(ValueError, match='must hold images of 32 x 32 x 3'): cifar10('train', tmp_path / 'gray.npz')
    with pytest.raises(ValueError, match='sha256 must be left out for a folder'): cifar10('test', tmp_path, sha256='0' * 64)


@pytest.mark.parametrize('name', ['cifar-10-batches-py/data_batch_1', 'cifar-10-python.tar.gz'])
def test_pickled_cifar10_is_refused(tmp_path, name):
    "The Python version may run any code when it is opened; it is not opened."
    put(tmp_path, {name: b'cos\nsystem\n(S"touch pwned"\ntR.'})
    for split in ('train', 'test'):
        with pytest.raises(ValueError, match='binary version .*pickle'): cifar10(split, tmp_path)


@needs('cifar10')
def test_real_cifar10(tmp_path):
    r = cifar10('test', SHARED / 'cifar10', complete=True)
    assert r.data.shape == (10_000, 32, 32, 3) and r.label_counts.tolist() == [1000] * 10 and (np.diff(r.labels) >= 0).all(), 'sorted by class'
    with np.load(SHARED / 'cifar10' / 'test.npz', allow_pickle=False) as z: names = z['class_names'].tolist()
    assert [dict(plane='airplane', car='automobile').get(n, n) for n in r.label_names] == names
    some = cifar10('test', SHARED / 'cifar10', n=500)
    assert some.label_counts.min() > 20 and len(set(some.labels[:20].tolist())) > 5 and some == r[chosen(10_000, 500)], 'n takes random pictures'
    i = chosen(10_000, 30)
    put(tmp_path, {'test_batch.bin': cifar_body(r.data[i], r.labels[i])})
    assert cifar10('test', tmp_path) == r[i]


# ---- Camelyon17 ----

COLUMNS = ['', 'patient', 'node', 'x_coord', 'y_coord', 'tumor', 'slide', 'center', 'split']


def patch(i): return encoded(np.full((96, 96, 3), i, np.uint8))


@functools.lru_cache(None)
def wilds(root='camelyon17_v1.0/'):
    "Two patches of each hospital and each value of `split`, and the metadata, in the columns of WILDS."
    rows, files = [], {}
    for i, (center, split) in enumerate(itertools.product(range(5), range(2))):
        for j in range(2):
            patient, node, x, y = f'{20 * center + j:03}', j, 1000 + i, 2000 + j
            rows.append((2 * i + j, patient, node, x, y, (i + j) % 2, 10 * center + j, center, split))
            files[f'{root}patches/patient_{patient}_node_{node}/patch_patient_{patient}_node_{node}_x_{x}_y_{y}.png'] = patch(2 * i + j)
    return rows, files | {f'{root}metadata.csv': '\n'.join(','.join(map(str, r)) for r in [COLUMNS, *rows]) + '\n', f'{root}RELEASE_v1.0.txt': ''}


def official(center, split): return 'val' if center == 1 else 'test' if center == 2 else ('train', 'id_val')[split]


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('root', ['camelyon17_v1.0/', ''])
def test_camelyon17(tmp_path, kind, root):
    rows, files = wilds(root)
    path, seen = packed(tmp_path, files, kind), 0
    for split in SIZES['camelyon17']:
        want = [r for r in rows if official(r[7], r[8]) == split]
        got = camelyon17(split, path, extra=['patient', 'center', 'slide', 'node'])
        assert got.data.shape == (len(want), 64, 64, 3) and got.label_names == ('no_tumor', 'tumor')
        assert got.data[:, 0, 0, 0].tolist() == [r[0] for r in want] and got.labels.tolist() == [r[5] for r in want]
        for k, at in (('patient', 1), ('node', 2), ('slide', 6), ('center', 7)): assert got.extra[k].tolist() == [int(r[at]) for r in want]
        seen += len(got)
    assert seen == len(rows)
    only = camelyon17('train', path, centers=[3], size=None, extra=['center'], n=1)
    assert only.extra['center'].tolist() == [3] and only.data.shape == (1, 96, 96, 3)


def table(rows, columns=COLUMNS): return '\n'.join(','.join(map(str, r)) for r in [columns, *rows])


GOOD = (0, '004', 1, 5, 6, 0, 3, 0, 0)


@pytest.mark.parametrize('text, said', [
    ('', 'must have the columns patient'), (table([GOOD[:-1]], COLUMNS[:-1]), 'must have the columns'), (table([GOOD[:-1]]), 'row 1 of metadata.csv must hold 9 cells'),
    (table([GOOD, (1, '../../etc', 1, 5, 6, 0, 3, 0, 0)]), 'row 2 of metadata.csv'), (table([(0, '004', 1, 5.5, 6, 0, 3, 0, 0)]), 'row 1'), (table([(0, '004', 1, 5, 6, 0, 3, '', 0)]), 'row 1')])
def test_bad_camelyon17_tables(tmp_path, text, said):
    put(tmp_path, {'metadata.csv': text})
    with pytest.raises(ValueError, match=said) as e: camelyon17('train', tmp_path)
    assert 'etc' not in str(e.value)


def test_camelyon17_lacks_something(tmp_path):
    with pytest.raises(FileNotFoundError, match='must hold metadata.csv'): camelyon17('train', tmp_path)
    rows, files = wilds('')
    put(tmp_path, files)
    first = next(n for n in files if n.endswith('.png'))
    (tmp_path / first).unlink()
    with pytest.raises(ValueError, match=f'1 of 6 images cannot be read: {first} .FileNotFoundError'): camelyon17('train', tmp_path)
    with pytest.warns(UserWarning, match='1 of 6'): assert camelyon17('train', tmp_path, unreadable='skip', extra=['slide']).extra['slide'].tolist() == [1, 30, 31, 40, 41]
    with pytest.raises(ValueError, match='must hold 302,436 images, not 6'): camelyon17('train', tmp_path, complete=True)
    put(tmp_path, {'metadata.csv': table([(0, '004', 1, 5, 6, 2, 3, 0, 0)]), 'patches/patient_004_node_1/patch_patient_004_node_1_x_5_y_6.png': patch(1)})
    with pytest.raises(ValueError, match='labels'): camelyon17('train', tmp_path)
    for kw, said in ((dict(centers=[5]), 'centers'), (dict(extra=['tumor']), 'extra'), (dict(split='dev'), 'split'), (dict(size=-1), 'size')):
        with pytest.raises(ValueError, match=said): camelyon17(**dict(path=tmp_path) | kw)
    with pytest.raises(ValueError, match='nobody here has seen that file'): camelyon17()


# ---- CelebA ----

def celeb(n=9):
    "Faces whose gray level is their number; attribute j of face i is bit (i * 7 + j) % 3 == 0."
    names = [f'{i + 1:06}.jpg' for i in range(n)]
    value = lambda i, j: 1 if (i * 7 + j) % 3 == 0 else -1
    attributes = f"{n}\n{' '.join(ATTRIBUTES)} \n" + ''.join(f"{f}  {'  '.join(f'{value(i, j):2}' for j in range(40))}\n" for i, f in enumerate(names))
    faces = {f'img_align_celeba/{f}': encoded(np.full((218, 178, 3), 20 * i, np.uint8), 'JPEG', quality=95) for i, f in enumerate(names)}
    return faces, {'list_attr_celeba.txt': attributes, 'list_eval_partition.txt': ''.join(f'{f} {i % 3}\n' for i, f in enumerate(names))}, value


@pytest.mark.parametrize('zipped', [False, True])
@pytest.mark.parametrize('inside', ['', 'celeba'])
def test_celeba(tmp_path, zipped, inside):
    faces, lists, value = celeb()
    put(tmp_path / inside, lists)
    if zipped: packed(tmp_path, faces, 'zip').rename(tmp_path / inside / 'img_align_celeba.zip')
    else: put(tmp_path / inside, faces)
    for k, split in enumerate(('train', 'val', 'test')):
        for attribute in ('Male', 'Young', '5_o_Clock_Shadow'):
            r, rows = celeba(split, tmp_path, attribute=attribute, workers=1), range(k, 9, 3)
            assert r.label_names == (f'{attribute}_0', f'{attribute}_1') and r.data.shape == (3, 32, 32, 3)
            assert r.labels.tolist() == [int(value(i, ATTRIBUTES.index(attribute)) == 1) for i in rows]
            assert np.abs(r.data[:, 5, 5, 0] - np.array([20 * i for i in rows])).max() <= 2
    assert celeba('test', tmp_path, size=None).data.shape == (3, 218, 178, 3) and celeba('test', tmp_path, labels=False).label_names == ('',)


@pytest.mark.parametrize('change, said', [
    ({'list_attr_celeba.txt': ''}, 'must hold a count, the 40 names'), ({'list_attr_celeba.txt': celeb()[1]['list_attr_celeba.txt'].replace(' Male ', ' ')}, 'the 40 names'),
    ({'list_attr_celeba.txt': celeb()[1]['list_attr_celeba.txt'].replace('-1', ' 0', 1)}, 'numbers -1 or 1'), ({'list_eval_partition.txt': '000001.jpg 3\n'}, 'and 0, 1 or 2'),
    ({'list_eval_partition.txt': '../x.jpg 0\n'}, 'and 0, 1 or 2'), ({'list_eval_partition.txt': '000002.jpg 0\n000001.jpg 0\n'}, 'in the same order')])
def test_bad_celeba(tmp_path, change, said):
    faces, lists, _ = celeb()
    put(tmp_path, faces | lists | change)
    with pytest.raises(ValueError, match=said): celeba('train', tmp_path)


def test_celeba_lacks_something(tmp_path):
    faces, lists, _ = celeb()
    with pytest.raises(FileNotFoundError, match='must be a folder that holds list_attr_celeba.txt'): celeba('train', tmp_path)
    put(tmp_path, lists)
    with pytest.raises(FileNotFoundError, match='img_align_celeba.zip'): celeba('train', tmp_path)
    put(tmp_path, faces)
    (tmp_path / 'img_align_celeba' / '000001.jpg').unlink()
    with pytest.raises(ValueError, match='img_align_celeba/000001.jpg'): celeba('train', tmp_path)
    with pytest.raises(ValueError, match='must hold 162,770 images, not 3'): celeba('train', tmp_path, complete=True)
    with pytest.raises(ValueError, match='attribute .*male.* must be one of 5_o'): celeba('train', tmp_path, attribute='male')
    with pytest.raises(ValueError, match='path .None. must be given for celeba'): celeba()


# ---- cats ----

@pytest.mark.parametrize('kind', ['zip', 'folder'])
@pytest.mark.parametrize('top', ['', 'cat-cookie-doudou/'])
def test_cats(tmp_path, kind, top):
    files = {f'{top}{c}/{c}_{i}.jpg': encoded(np.full((24, 24, 3), 50 * k + 10 * i, np.uint8), 'JPEG') for i in range(3) for k, c in enumerate(('doudou', 'cookie'))}
    path = packed(tmp_path, files | {f'{top}readme.txt': 'two cats'}, kind)
    both = cats(path=path, size=24)
    assert both.label_names == ('cookie', 'doudou') and both.labels.tolist() == [0, 0, 0, 1, 1, 1] and both.data[:, 0, 0, 0].tolist() == [50, 60, 70, 0, 10, 20]
    assert cats('doudou', path, size=24) == both[3:] and cats('cookie', path, size=24) == both[:3] and cats(path=path).data.shape == (6, 512, 512, 3)
    with pytest.raises(ValueError, match=r'cats \(cookie, doudou\) must hold 200 images, not 6'): cats(path=path, complete=True)
    with pytest.raises(ValueError, match='cat .*tom.* must be .both'): cats('tom', path)


def test_odd_cats(tmp_path):
    put(tmp_path, {'cookie/1.png': encoded(noise(4, 4)), 'tom/2.png': encoded(noise(4, 4))})
    with pytest.raises(ValueError, match='1 do not, such as tom/2.png'): cats(path=tmp_path)
    with pytest.raises(ValueError, match='sha256 .None. must be given for https://www.kaggle.com'): cats()


# ---- ImageNet, DigiFace1M ----

WNIDS = ['n01440764', 'n01443537', 'n01484850']


@pytest.mark.parametrize('kind', ['folder', 'zip', 'tar'])
def test_imagenet(tmp_path, kind):
    xs = {f'{split}/{w}/{split}_{i}.JPEG': noise(*(260 + 40 * i, 300, 3)[:3 - (i == 1)], seed=i) for split in ('train', 'val') for i, w in enumerate(WNIDS[:2])}
    path = packed(tmp_path, {n: encoded(x, 'JPEG', quality=90) for n, x in xs.items()}, kind)
    r = imagenet('val', path, size=64)
    assert r.data.shape == (2, 64, 64, 3) and r.label_names == ('',)
    for got, name in zip(r.data, sorted(n for n in xs if n.startswith('val/'))):     # the second picture is gray
        im = Image.open(io.BytesIO(encoded(xs[name], 'JPEG', quality=90))).convert('RGB')
        w, h = im.size
        im = im.resize((256, int(256 * h / w)) if w <= h else (int(256 * w / h), 256), Image.Resampling.BILINEAR)
        a, b = round((im.size[0] - 224) / 2), round((im.size[1] - 224) / 2)
        assert (got == np.asarray(im.crop((a, b, a + 224, b + 224)).resize((64, 64), Image.Resampling.BILINEAR))).all()
    (tmp_path / 'classes.txt').write_text(''.join(f'{w} some name, another\n' for w in WNIDS[::-1]))
    labelled = imagenet('val', path, size=32, label_names=tmp_path / 'classes.txt')
    assert labelled.labels.tolist() == [2, 1] and labelled.label_names == tuple(WNIDS[::-1]) and labelled == imagenet('val', path, label_names=WNIDS[::-1])
    assert imagenet('train', path, label_names=WNIDS, labels=False).label_names == ('',)
    with pytest.raises(ValueError, match='among the 1 label_names'): imagenet('val', path, label_names=WNIDS[:1])
    with pytest.raises(ValueError, match='must hold 50,000 images, not 2'): imagenet('val', path, complete=True)
    if kind == 'folder': assert imagenet('train', path / 'val', size=64) == r and imagenet('val', path, size=None).data.shape == (2, 224, 224, 3)


@pytest.mark.parametrize('kind', ['folder', 'zip'])
def test_digiface(tmp_path, kind, monkeypatch):
    xs = {f'{i}/{j}.png': noise(112, 112, 3, seed=10 * i + j) for i in range(2) for j in range(3)}
    path = packed(tmp_path, {n: encoded(x) for n, x in xs.items()} | {'LICENSE.txt': '', '0/preview.jpg': b''}, kind)
    r = digiface1m(path)
    assert (r.data == np.stack([np.asarray(Image.fromarray(xs[n]).resize((32, 32))) for n in sorted(xs)])).all() and r.label_names == ('',)
    with pytest.raises(ValueError, match='must hold 1,219,995 images, not 6'): digiface1m(path, complete=True)
    monkeypatch.setitem(SIZES, 'digiface1m', dict(all=6))
    assert digiface1m(path, complete=True) == r and digiface1m(path, size=None).data.shape[1:] == (112, 112, 3) and len(digiface1m(path, n=2)) == 2


def test_empty_sets(tmp_path):
    for load in (lambda: digiface1m(tmp_path), lambda: imagenet('val', tmp_path), lambda: cats(path=tmp_path), lambda: image_folder(tmp_path, label=None)):
        with pytest.raises(ValueError, match='must hold pictures of this set'): load()


# ---- any folder ----

@pytest.mark.parametrize('kind', KINDS)
def test_image_folder(tmp_path, kind):
    files = {f'{a}/{b}/{c}_{i}.png': encoded(np.full((4, 5, 3), 20 * i + 10 * 'xy'.index(b) + 'pq'.index(a), np.uint8)) for i, (a, b, c) in enumerate(itertools.product('pq', 'xy', ['cat', 'dog']))}
    path = packed(tmp_path, files, kind)
    for label, names, of in (('folder', ['p', 'q', 'z'], lambda n: n[0]), ('parent', ['y', 'x'], lambda n: n[2]), ('prefix', ['dog', 'cat'], lambda n: n[4:7])):
        r = image_folder(path, label=label, label_names=names)
        assert r.labels.tolist() == [names.index(of(n)) for n in sorted(files)] and r.label_names == tuple(names)
        if kind == 'folder' and label != 'parent': assert r == from_image_folder(path, label=label, label_names=names, channels=3)
    assert image_folder(path, label=None).label_names == image_folder(path, labels=False).label_names == ('',)
    part = image_folder(path, label='prefix', label_names=['dog', 'cat'], n=5, seed='b')
    assert part == image_folder(path, label='prefix', label_names=['dog', 'cat'])[chosen(8, 5, 'b')]
    with pytest.raises(ValueError, match='label_names must be given'): image_folder(path)
    with pytest.raises(ValueError, match='among the 1 label_names'): image_folder(path, label_names=['p'])


# ---- the network ----

class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args): pass

    def do_GET(self):
        self.server.asked.append(self.path)
        body, start = self.server.files.get(self.path), int((self.headers['Range'] or 'bytes=0-')[6:-1])
        if body is None: return self.send_error(404)
        self.send_response(206 if start else 200)
        if start: self.send_header('Content-Range', f'bytes {start}-{len(body) - 1}/{len(body)}')
        self.send_header('Content-Length', str(len(body) - start))
        self.end_headers()
        cut = self.server.cut.pop(self.path, None)
        self.wfile.write(body[start:] if cut is None else body[start:start + cut])
        self.close_connection = True


@pytest.fixture
def server(monkeypatch, tmp_path):
    for k in list(os.environ):
        if k.lower().endswith('_proxy'): monkeypatch.delenv(k)
    s = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    s.daemon_threads, s.asked, s.files, s.cut, s.url = True, [], {}, {}, f'http://127.0.0.1:{s.server_port}'
    threading.Thread(target=s.serve_forever, kwargs=dict(poll_interval=.02), daemon=True).start()
    yield s
    s.shutdown()
    s.server_close()


def test_mnist_from_a_server(server, tmp_path, monkeypatch):
    x, y, files = mnist_files()
    server.files = {f'/m/{n}': b for n, b in files.items()}
    for n, b in files.items(): monkeypatch.setitem(image_sets.SHA256, f'mnist/{n}', hashlib.sha256(b).hexdigest())
    server.cut['/m/t10k-images-idx3-ubyte.gz'] = 5000                                     # the first connection breaks
    r = mnist('test', cache=tmp_path / 'cache', url=server.url + '/m/')
    assert (r.data[..., 0] == x).all() and (r.labels == y).all()
    n = len(server.asked)
    assert n == 3 and mnist('test', cache=tmp_path / 'cache', url=server.url + '/m') == r and len(server.asked) == n, 'the cache answers'
    assert len(list((tmp_path / 'cache').iterdir())) == 2
    server.files = {}
    with pytest.raises(DownloadError, match='404'): mnist('train', cache=tmp_path / 'cache', url=server.url + '/m')


def test_another_file_is_never_taken(server, tmp_path):
    "The published hashes stand: a server that has something else under the name is refused."
    server.files = {f'/{n}': b for n, b in mnist_files()[2].items()} | {'/c.tar.gz': b'<html>Moved</html>'}
    for load in (mnist, fashion_mnist):
        with pytest.raises(DownloadError, match='it gave another file'): load('test', cache=tmp_path / 'cache', url=server.url)
    with pytest.raises(DownloadError, match='it gave another file'): cifar10('test', cache=tmp_path / 'cache', url=server.url + '/c.tar.gz', sha256='0' * 64)
    with pytest.raises(ValueError, match='nobody here has seen that file'): cifar10('test', cache=tmp_path / 'cache', url=server.url + '/c.tar.gz')
    assert not list((tmp_path / 'cache').iterdir())


@pytest.mark.parametrize('load, kind, files', [
    (cifar10, 'tar.gz', lambda: cifar_files()[2]), (camelyon17, 'tar.gz', lambda: wilds()[1]), (cats, 'zip', lambda: {'cookie/1.png': encoded(noise(8, 8)), 'doudou/1.png': encoded(noise(8, 8))})])
def test_archives_from_a_server(server, tmp_path, load, kind, files):
    path = packed(tmp_path, files(), kind)
    body, name = path.read_bytes(), f'/{load.__name__}/contents/blob/'
    server.files, server.cut = {name: body}, {name: len(body) // 2}
    kw = dict(cache=tmp_path / 'cache', url=server.url + name, sha256=hashlib.sha256(body).hexdigest())
    assert load(**kw) == load(path=path) and len(server.asked) == 2
    assert load(**kw) == load(path=path) and len(server.asked) == 2


def test_hashes_are_hashes():
    known = image_sets.SHA256
    assert all(len(v) == 64 and set(v) <= set('0123456789abcdef') for v in known.values()) and len(set(known.values())) == len(known) == 9
    assert set(SIZES) >= set(NAMES) and sum(SIZES['camelyon17'].values()) == 455_954 and sum(SIZES['celeba'].values()) == 202_599
