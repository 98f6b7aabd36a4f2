"The font renderer: settings refused early, images that depend on their own parameters alone, bounded variations."
import math, shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from pe_nb.generators import fonts as F
from pe_nb.generators.fonts import PARAMS, RANGES, Fonts

SHARED = Path(__file__).resolve().parents[2]/'shared'/'data'/'fonts'
rng = lambda s=0: np.random.default_rng(s)
WIDE = dict(shear=(-.5, .5), scale_x=(.5, 1.5), scale_y=(.5, 1.5), bend=(-.5, .5), waist=(-.4, .4), tilt=(-.4, .4), shift_x=(-1., 1.), shift_y=(-1., 1.))

@pytest.fixture(scope='module')
def plain(): return Fonts()
@pytest.fixture(scope='module')
def wide(): return Fonts(**WIDE)
@pytest.fixture(scope='module')
def small(): return Fonts(height=8, width=8, supersample=4, size_of='height', size=(8., 8.), rotation=(-15., 15.), stroke=(-.2, .6), **{k: v for k, v in WIDE.items() if k != 'shift_y'})

def mpl(): return F.font_files()
def fixed(**kw):
    e = dict(font=0, text=0, size=20, rotation=0, stroke=0, shear=0., scale_x=1., scale_y=1., bend=0., waist=0., tilt=0., shift_x=0., shift_y=0.) | kw
    n = max(np.size(v) for v in e.values())
    return {k: np.broadcast_to(np.asarray(v), n).copy() for k, v in e.items()}
def one(f, label=3, **kw):
    e = fixed(**kw)
    return F.draw(f, np.full(len(e['font']), label), e)[..., 0].astype(float)

# ---- which fonts

def test_matplotlib_fonts(plain):
    kept = {p.name for p in plain.fonts}
    assert {'DejaVuSans.ttf', 'STIXGeneral.ttf', 'cmr10.ttf'} <= kept
    for bad in ('cmsy10.ttf', 'cmex10.ttf', 'STIXNonUni.ttf', 'LastResortHE-Regular.ttf', 'DejaVuSansDisplay.ttf'):
        assert bad in plain.dropped and bad not in kept
    assert len(kept) + len(plain.dropped) == len(mpl())

def test_corrupt_fonts_are_dropped_and_none_left_is_an_error(tmp_path):
    good = next(p for p in mpl() if p.name == 'DejaVuSans.ttf')
    (tmp_path/'sub').mkdir()
    (tmp_path/'broken.ttf').write_bytes(b'not a font'); (tmp_path/'empty.otf').write_bytes(b'')
    (tmp_path/'cut.ttf').write_bytes(good.read_bytes()[:2000]); (tmp_path/'note.txt').write_text('x')
    with pytest.raises(ValueError, match='must hold a font'): Fonts(folder=tmp_path)
    shutil.copy(good, tmp_path/'sub'/'Good.TTF')
    f = Fonts(folder=tmp_path)
    assert [p.name for p in f.fonts] == ['Good.TTF'] and set(f.dropped) == {'broken.ttf', 'empty.otf', 'cut.ttf'}
    assert f.random(np.arange(10), rng()).data.max() > 200

def test_folder_refusals(tmp_path):
    with pytest.raises(ValueError, match='must be an existing folder'): Fonts(folder=tmp_path/'none')
    with pytest.raises(ValueError, match='must hold a font'): Fonts(folder=tmp_path)

def test_a_glyph_missing_for_one_text_drops_the_font():
    f = Fonts(texts={'a': ['0'], 'b': ['\u2603']})              # a snowman: some fonts have it
    assert 'cmr10.ttf' in f.dropped and 'DejaVuSans.ttf' in {p.name for p in f.fonts}
    with pytest.raises(ValueError, match='must hold a font'): Fonts(texts=['\U000e1234'])
    with pytest.raises(ValueError, match='must hold a font'): Fonts(texts=[' '])

def test_every_kept_font_draws_distinct_digits(plain):
    for i in range(len(plain.fonts)):
        ims = F.draw(plain, np.arange(10), fixed(font=np.full(10, i)))
        assert len({im.tobytes() for im in ims}) == 10 and all(im.max() > 60 for im in ims)

@pytest.mark.skipif(not SHARED.is_dir(), reason='shared font folder is absent')
def test_a_large_folder():
    f = Fonts(folder=SHARED)
    assert len(f.fonts) > 50
    r = f.random(np.arange(500) % 10, rng())
    assert (r.data.reshape(500, -1).max(1) > 0).all()

# ---- settings

@pytest.mark.parametrize('bad', [dict(height=0), dict(width=2.5), dict(supersample=0), dict(supersample=True), dict(size=(0, 10)), dict(size=(30, 10)), dict(size=12),
    dict(rotation=(0, math.nan)), dict(rotation=(0, math.inf)), dict(stroke=(1,)), dict(shift_x=(-2, 0)), dict(scale_x=(0, 1)), dict(waist=(-1, 1)), dict(ink=256), dict(ink=(1, 2)),
    dict(paper=-1), dict(paper='black'), dict(size_of='px'), dict(cache_mb=0), dict(texts=[]), dict(texts=['']), dict(texts={}), dict(texts={'a': []}), dict(texts={'a': 'a'}, label_names=('b',)),
    dict(texts=['a'], label_names=('x', 'x')), dict(texts=[1])])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match='must'): Fonts(**bad)

def test_frozen(plain):
    with pytest.raises(AttributeError): plain.height = 3
    with pytest.raises(TypeError): Fonts(['a'])

def test_fingerprint_covers_settings_and_contents(plain, tmp_path):
    assert plain.fingerprint == Fonts().fingerprint == Fonts(cache_mb=5).fingerprint
    others = [Fonts(**k) for k in (dict(height=27), dict(width=27), dict(size=(10, 28)), dict(size=(10., 29.)), dict(rotation=(-30, 29)), dict(stroke=(0, 1)), dict(supersample=2), dict(ink=254),
              dict(paper=1), dict(size_of='box'), dict(texts={str(9 - i): str(9 - i) for i in range(10)}), dict(texts={str(i): [str(i), 'x'] for i in range(10)}), dict(shear=(0., .1)),
              dict(scale_x=(1., 1.1)), dict(scale_y=(1., 1.1)), dict(shift_x=(0., .1)), dict(shift_y=(0., .1)), dict(bend=(0., .1)), dict(waist=(0., .1)), dict(tilt=(0., .1)))]
    assert len({f.fingerprint for f in [plain, *others]}) == 21
    a, b = (next(p for p in mpl() if p.name == n) for n in ('DejaVuSans.ttf', 'cmr10.ttf'))
    prints = []
    for name, src in (('one', a), ('two', a), ('three', b)):
        (tmp_path/name).mkdir(); shutil.copy(src, tmp_path/name/'same.ttf'); prints.append(Fonts(folder=tmp_path/name).fingerprint)
    assert prints[0] == prints[1] != prints[2]                 # contents count, places do not

# ---- drawing

@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32), st.integers(1, 80), st.booleans())
def test_an_image_is_a_function_of_its_own_parameters(wide, small, seed, n, tiny):
    f = small if tiny else wide
    g = rng(seed); labels = g.integers(0, 10, n)
    e = F.random_params(f, labels, g)
    zero = g.random(n) < .3
    for k in F.WARPS: e[k] = np.where(zero, 0., e[k])          # warped and plain records side by side
    together = F.draw(f, labels, e)
    order = g.permutation(n)
    assert np.array_equal(F.draw(f, labels[order], {k: v[order] for k, v in e.items()}), together[order])
    for i in order[:5]: assert np.array_equal(F.draw(f, labels[i:i+1], {k: v[i:i+1] for k, v in e.items()})[0], together[i])

def test_a_full_cache_changes_nothing(wide):
    tight = Fonts(cache_mb=1, **WIDE)
    labels = np.arange(600) % 10
    assert tight.random(labels, rng(1)) == wide.random(labels, rng(1))
    assert tight._glyphs.flat.nbytes <= 2**20 and len(tight._glyphs.at) < 220
    with pytest.raises(ValueError, match='cache_mb must be large enough'): Fonts(cache_mb=.02).random(labels, rng())

def test_rotation_is_counter_clockwise_and_agrees_with_pillow(plain):
    from PIL import Image
    big = Fonts(height=64, width=64, size=(10, 60))
    upright, turned = one(big, size=44)[0], one(big, size=44, rotation=25)[0]
    peer = np.asarray(Image.fromarray(upright.astype(np.uint8)).rotate(25, Image.BICUBIC), float)
    best = min(np.abs(np.roll(peer, (dy, dx), (0, 1)) - turned).mean() for dy in range(-3, 4) for dx in range(-3, 4))
    other = np.asarray(Image.fromarray(upright.astype(np.uint8)).rotate(-25, Image.BICUBIC), float)
    wrong = min(np.abs(np.roll(other, (dy, dx), (0, 1)) - turned).mean() for dy in range(-3, 4) for dx in range(-3, 4))
    assert best < 6 < wrong

def test_looks_like_pillow(plain):
    "The distance field against FreeType itself, at the same size and stroke width."
    from PIL import Image, ImageDraw, ImageFont
    for stroke in (0, 1, 2):
        font = ImageFont.truetype(str(plain.fonts[3]), 22, layout_engine=ImageFont.Layout.BASIC)
        im = Image.new('L', (28, 28)); l, t, r, b = font.getbbox('3', stroke_width=stroke)
        ImageDraw.Draw(im).text((14 - (l + r)/2, 14 - (t + b)/2), '3', fill=255, font=font, stroke_width=stroke)
        ours, peer = one(plain, font=3, size=22, stroke=stroke)[0], np.asarray(im, float)
        diff = min(np.abs(np.roll(peer, (dy, dx), (0, 1)) - ours).mean() for dy in (-1, 0, 1) for dx in (-1, 0, 1))
        assert diff < 16 and abs(ours.sum()/peer.sum() - 1) < .15

def test_parameters_do_what_they_say(plain):
    ink = lambda **kw: one(plain, **kw).sum((1, 2))
    cols = lambda x: (x.max(1) > 60).sum(1); rows = lambda x: (x.max(2) > 60).sum(1)
    assert (np.diff(ink(stroke=np.array([-.5, 0, .5, 1, 2]))) > 0).all() and (np.diff(ink(size=np.arange(12, 26))) > 0).all()
    assert (np.diff(cols(one(plain, scale_x=np.array([.5, 1, 1.5])))) > 2).all() and (np.diff(rows(one(plain, scale_y=np.array([.5, 1, 1.3])))) > 2).all()
    x = np.arange(28); middle = lambda im: (im.sum(0)*x).sum()/im.sum()
    left, mid, right = one(plain, shift_x=np.array([-1., 0, 1]))
    assert middle(left) < 10 < middle(mid) < 18 < middle(right) and left[:, 0].max() > 60 and right[:, -1].max() > 60
    top, _, low = one(plain, shift_y=np.array([-1., 0, 1]))
    assert top[0].max() > 60 and low[-1].max() > 60
    sheared = one(plain, label=1, shear=.5)[0]
    assert middle(sheared[:14]) > middle(sheared[14:]) + 2     # the top leans right
    bent = one(plain, label=1, bend=.6)[0]
    assert middle(bent[10:18]) > middle(bent[:9]) + 1
    y = np.arange(28)[:, None]; height = lambda im: (im*y).sum()/im.sum()
    six = one(plain, label=8, waist=np.array([-.3, .3]))
    assert height(six[1]) > height(six[0])

@pytest.fixture(scope='module')
def fine(): return [Fonts(height=n, width=n, supersample=4, **WIDE) for n in (28, 84)]

@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32))
def test_ink_stays_in_the_frame(fine, seed):
    "A shift to any side loses no ink: as much is seen as in the middle of a sheet three times as large."
    g = rng(seed); labels = g.integers(0, 10, 20); e = F.random_params(fine[0], labels, g)
    e['size'], e['stroke'] = np.minimum(e['size'], 14), np.ones(20, int)      # ink of a pixel or more, smaller than the frame
    e['shift_x'], e['shift_y'] = g.choice([-1., 1.], 20), g.uniform(-1, 1, 20)
    amount = lambda f, e: F.draw(f, labels, e).astype(float).sum((1, 2, 3))
    there, whole = amount(fine[0], e), amount(fine[1], e | dict(shift_x=np.zeros(20), shift_y=np.zeros(20)))
    assert (np.abs(there/whole - 1) < .12).all()

def test_height_fills_the_frame():
    r = Fonts(height=8, width=8, supersample=4, size_of='height', size=(8, 8), rotation=(-15, 15), stroke=(0., .6), shear=(-.3, .3), scale_x=(.6, 1.), waist=(-.3, .3),
              bend=(-.3, .3)).random(np.arange(300) % 10, rng())
    inked = (r.data[..., 0].max(2) > 0).sum(1)
    assert inked.min() >= 7 and (inked == 8).mean() > .95
    box = Fonts(size_of='box', size=(20, 20), stroke=(0, 0)).random(np.arange(100) % 10, rng()).data[..., 0] > 20
    h, w = box.any(2).sum(1), box.any(1).sum(1)
    assert (np.abs(np.maximum(h, w) - 20) <= 2).all()

def test_colours(plain):
    f = Fonts(ink=(250, 10, 0), paper=(0, 20, 90), stroke=(0, 0))
    x = f.random(np.arange(50) % 10, rng()).data
    assert x.shape == (50, 28, 28, 3) and x.dtype == np.uint8
    assert {tuple(c) for c in x[:, 0, 0]} == {(0, 20, 90)} and [250, 10, 0] in x.reshape(-1, 3).tolist()
    grey = plain.random(np.arange(50) % 10, rng()).data
    inverted = Fonts(ink=0, paper=255).random(np.arange(50) % 10, rng()).data
    assert np.abs(255 - inverted.astype(int) - grey).max() <= 1

@pytest.mark.parametrize('h,w', [(1, 1), (3, 40), (64, 16)])
def test_any_frame(h, w):
    r = Fonts(height=h, width=w).random(np.arange(20) % 10, rng())
    assert r.data.shape == (20, h, w, 1)

# ---- random and vary

def test_random(plain):
    labels = np.array([3, 3, 0, 9, 7])
    r = plain.random(labels, rng(4))
    assert r == plain.random(labels, rng(4)) and r != plain.random(labels, rng(5))
    assert np.array_equal(r.labels, labels) and r.label_names == plain.label_names and set(r.extra) == set(PARAMS)
    assert all(r.extra[k].dtype == np.int64 for k in ('font', 'text', 'size', 'rotation', 'stroke')) and r.extra['shear'].dtype == np.float64
    assert len(plain.random(np.zeros(0, np.int64), rng())) == 0
    for bad in ([10], [-1], [0.5], [[1]], ['1']):
        with pytest.raises(ValueError, match='labels'): plain.random(bad, rng())

def test_random_covers_the_ranges(plain):
    r = plain.random(np.arange(20_000) % 10, rng())
    for k in ('size', 'rotation', 'stroke'):
        low, high = getattr(plain, k)
        assert set(r.extra[k].tolist()) == set(range(low, high + 1))
    assert set(r.extra['font'].tolist()) == set(range(len(plain.fonts)))

@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.fixed_dictionaries({}, optional=dict(font=st.floats(0, 1), text=st.floats(0, 1), size=st.integers(0, 30), rotation=st.integers(0, 90), stroke=st.integers(0, 3))
       | {k: st.floats(0, 3) for k in WIDE}))
def test_variations_are_bounded(wide, seed, degree):
    labels = np.arange(40) % 10
    a = wide.random(labels, rng(seed)); b = wide.vary(a, degree, rng(seed + 1))
    assert np.array_equal(a.labels, b.labels) and b.label_names == a.label_names and b == wide.vary(a, degree, rng(seed + 1))
    for k in RANGES:
        low, high = getattr(wide, k)
        assert (b.extra[k] >= low).all() and (b.extra[k] <= high).all() and b.extra[k].dtype == a.extra[k].dtype
        assert (np.abs(b.extra[k] - a.extra[k]) <= degree.get(k, 0) + 1e-12).all()
    if not degree: assert a == b

def test_categories_change_with_their_probability():
    f = Fonts(texts={'x': ['0', '1', '2', '3'], 'y': ['4']})
    a = f.random(np.arange(4000) % 2, rng())
    b = f.vary(a, dict(font=.5, text=.25), rng(1))
    changed = (a.extra['font'] != b.extra['font']).mean()
    assert abs(changed - .5*(1 - 1/len(f.fonts))) < .05
    x = a.labels == 0
    assert abs((a.extra['text'] != b.extra['text'])[x].mean() - .25*.75) < .05 and (b.extra['text'][~x] == 0).all()
    assert (f.vary(a, dict(font=1., text=0), rng(2)).extra['text'] == a.extra['text']).all()

@pytest.mark.parametrize('bad', [dict(weight=1), dict(font=2), dict(font=-.1), dict(text=math.nan), dict(size=1.5), dict(size=-1), dict(size=True), dict(rotation='5'), dict(shear=math.inf), 3, [1], None])
def test_bad_degrees(plain, bad):
    with pytest.raises(ValueError, match='degree'): plain.check(bad)
    with pytest.raises(ValueError, match='degree'): plain.vary(plain.random(np.arange(3), rng()), bad, rng())

def test_foreign_parents(plain):
    r = plain.random(np.arange(10), rng())
    from pe_nb.records import Records
    bare = Records.images(r.data, r.labels, label_names=r.label_names)
    with pytest.raises(ValueError, match='extra of the parents'): plain.vary(bare, {}, rng())
    with pytest.raises(ValueError, match='label_names of the parents'): Fonts(texts=['0', '1']).vary(r, {}, rng())
    for k, v in dict(font=99, text=1, size=400, rotation=-31, shear=.1).items():
        odd = Records.images(r.data, r.labels, label_names=r.label_names, extra=dict(r.extra) | {k: np.full(10, v)})
        with pytest.raises(ValueError, match=f'{k} of the parents'): plain.vary(odd, {}, rng())

def test_survives_a_slice_and_a_reload(plain, tmp_path):
    from pe_nb.records import load_records, save_records
    r = plain.random(np.arange(30) % 10, rng())
    save_records(r, tmp_path/'r.npz')
    assert plain.vary(load_records(tmp_path/'r.npz')[::2], {}, rng()) == r[::2]
