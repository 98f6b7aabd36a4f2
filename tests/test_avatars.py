"The avatar simulator: the package's pictures from kept bitmaps, randomness from rng alone, variations with a stated probability."
import builtins, io, os, random, subprocess, sys, tempfile

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

pytest.importorskip('cairosvg', reason="needs pip install 'pe_nb[avatars]'")
pytest.importorskip('python_avatars', reason="needs pip install 'pe_nb[avatars]'")

import cairosvg
import python_avatars
from PIL import Image

from pe_nb.generators import avatar_parts as P
from pe_nb.generators.avatar_parts import PARAMS, Parts, packages
from pe_nb.generators.avatars import Avatars
from pe_nb.records import Records

rng = lambda s=0: np.random.default_rng(s)
zeros = lambda n: np.zeros(n, np.int64)
TWO = dict(label_names=('man', 'woman'), choices={'man': dict(facial_hair=['BEARD_LIGHT', 'BEARD_MEDIUM'], top=['HairType.CAESAR', 'HatType.HAT']), 'woman': dict(facial_hair=['NONE'])})

@pytest.fixture(scope='module')
def faces(): return Avatars()
@pytest.fixture(scope='module')
def two(): return Avatars(**TWO)

def sharing(g, workers):
    "Another generator with the bitmaps of this one."
    other = Avatars(workers=workers)
    other.parts = g.parts
    return other

def slowly(avatar, size, crop=(40, 40, 224, 224)):
    "The picture as the reference makes it: one SVG text, one png, alpha dropped, cropped, scaled."
    im = Image.open(io.BytesIO(cairosvg.svg2png(bytestring=avatar.render()))).convert('RGB')
    return np.asarray(im.crop(crop).resize((size, size), Image.Resampling.BICUBIC)).astype(int)

def members(g, extra, i): return {k: list(g.parts.values[k].values())[extra[k][i]] for k in PARAMS}
def differ(g, extra, i, size, crop=(40, 40, 224, 224)):
    return np.abs(g.draw({k: v[i:i + 1] for k, v in extra.items()})[0] - slowly(g.parts.avatar(**members(g, extra, i)), size, crop))

# ---- the package's pictures

def every_value(g, style):
    "Avatars that are alike but for one parameter: all values of each."
    plain = dict(style=style, background_color='DEFAULT', top='HairType.SHORT_FLAT', hat_color='RED', eyebrows='DEFAULT', eyes='DEFAULT', nose='DEFAULT', mouth='DEFAULT', facial_hair='BEARD_LIGHT',
                 skin_color='LIGHT', hair_color='BROWN', facial_hair_color='BLACK', accessory='ROUND', clothing='GRAPHIC_SHIRT', clothing_color='PINK', shirt_graphic='BAT')
    base = [g.names[k].index(plain[k]) for k in PARAMS]
    rows = [[*base[:j], v, *base[j + 1:]] for j, k in enumerate(PARAMS) for v in range(len(g.names[k])) if k != 'style']
    return dict(zip(PARAMS, np.unique(np.array(rows), axis=0).T))

def test_every_value_of_every_parameter_looks_as_in_the_package(faces):
    extra = every_value(faces, 'CIRCLE')
    n = len(extra['top'])
    assert n > 190
    assert max(differ(faces, extra, i, 32).max() for i in range(n)) <= 3

def test_random_avatars_look_as_in_the_package(faces):
    extra = faces.chosen(zeros(25), rng(3))
    far = np.stack([differ(faces, extra, i, 32) for i in range(25)])
    assert far.max() <= 4 and far.mean() < .05

@pytest.mark.parametrize('crop,size', [((0, 0, 264, 280), 64), ((100, 10, 101, 11), 8), ((60, 150, 200, 280), 90)])
def test_any_crop(crop, size):
    g = Avatars(size, crop=crop, workers=1)
    extra = g.chosen(zeros(12), rng(1))
    assert g.draw(extra).shape == (12, size, size, 3)
    assert max(differ(g, extra, i, size, crop).max() for i in range(12)) <= 14   # where alpha is dropped, at the edge, and nothing is averaged away

def test_shirt_texts(faces):
    "Words and pictures on shirts show where the crop reaches them; the words are the same always, and the default crop ends above them."
    low = Avatars(64, crop=(0, 170, 264, 280))
    for g, many in ((low, len(low.names['shirt_graphic'])), (faces, 1)):
        extra = {k: np.repeat(v[:1], len(g.names['shirt_graphic'])) for k, v in every_value(g, 'TRANSPARENT').items()}
        extra['clothing'][:], extra['shirt_graphic'] = g.names['clothing'].index('GRAPHIC_SHIRT'), np.arange(len(g.names['shirt_graphic']))
        assert len({im.tobytes() for im in g.draw(extra)}) == many
    assert 'Hola!' in low.svg(low.records(zeros(len(extra['top'])), extra), low.names['shirt_graphic'].index('CUSTOM_TEXT'))

def test_equal_bitmaps_are_one_and_parts_are_drawn_once(monkeypatch):
    g = Avatars(workers=1)
    extra = g.chosen(zeros(30), rng())
    first = g.draw(extra)
    monkeypatch.setattr(Parts, 'bitmap', lambda *a: pytest.fail('a part was drawn again'))
    assert (g.draw(extra) == first).all()
    assert len({(b[0], b[1], b[2].shape, b[2].tobytes()) for b in g.parts.equal.values()}) == len(g.parts.equal)

def test_an_unknown_drawing_is_refused(faces, monkeypatch):
    with pytest.raises(ValueError, match="the part 'transparent_Ears'"): faces.parts.part('Ears')
    root = faces.parts.tree(style=python_avatars.AvatarStyle.CIRCLE)
    with pytest.raises(ValueError, match="without {'mask'} around 'circle_Body'"): P.framed(root, P.path_to(root, 'circle_Body'), [])

# ---- an image is a function of its own parameters

@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**32), st.integers(1, 25))
def test_independent_of_company(faces, seed, n):
    r = faces.random(zeros(n), rng(seed))
    order = rng(seed).permutation(n)
    assert (faces.draw({k: v[order] for k, v in r.extra.items()}) == r.data[order]).all()
    i = order[0]
    assert (faces.draw({k: v[i:i + 1] for k, v in r.extra.items()})[0] == r.data[i]).all()

def test_any_number_of_workers(faces):
    extra = faces.chosen(zeros(40), rng(5))
    extra |= {k: np.tile(v, 5) for k, v in extra.items()} | dict(eyes=faces.chosen(zeros(200), rng(6))['eyes'])    # 200 pictures of few parts
    want = sharing(faces, 1).draw(extra)
    for n in (2, 5): assert (sharing(faces, n).draw(extra) == want).all()
    assert Avatars(workers=2).fingerprint == faces.fingerprint

def test_an_error_in_a_thread_is_an_error(faces, monkeypatch):
    from pe_nb.generators import avatars
    def broken(*a): raise RuntimeError('no ink')
    monkeypatch.setattr(avatars, 'picture', broken)
    extra = {k: np.zeros(300, int) for k in PARAMS} | {k: np.arange(300) % len(faces.names[k]) for k in ('eyes', 'mouth', 'skin_color')}
    with pytest.raises(RuntimeError, match='no ink'): sharing(faces, 2).draw(extra)

def test_same_in_another_process(faces):
    "No seed, no hash and no order of files of this process matters."
    code = ('import random, numpy as np, hashlib; random.seed(9); np.random.seed(9)\nfrom pe_nb.generators.avatars import Avatars\n'
            'a = Avatars(); r = a.vary(a.random(np.zeros(20, np.int64), np.random.default_rng(2)), .5, np.random.default_rng(3)); print(r.fingerprint, hashlib.sha256(a.fingerprint.encode()).hexdigest())')
    said = {subprocess.run([sys.executable, '-c', code], env=os.environ | dict(PYTHONHASHSEED=h), capture_output=True, text=True, check=True).stdout for h in ('1', '77')}
    r = faces.vary(faces.random(zeros(20), rng(2)), .5, rng(3))
    assert len(said) == 1 and said.pop().split()[0] == r.fingerprint

def test_global_generators_are_left_alone(faces):
    before, np_before = random.getstate(), np.random.get_state()[1].copy()
    r = faces.vary(faces.random(zeros(5), rng()), .5, rng())
    assert random.getstate() == before and (np.random.get_state()[1] == np_before).all()
    assert faces.svg(r, 3) == faces.svg(r, 3) and not r.data.flags.writeable

def test_no_files_no_network(no_network, monkeypatch):
    for name in ('mkstemp', 'mkdtemp', 'NamedTemporaryFile', 'TemporaryFile'): monkeypatch.setattr(tempfile, name, lambda *a, **k: pytest.fail('a temporary file'))
    assert len(Avatars().random(zeros(3), rng())) == 3

# ---- random and vary

def test_random(faces):
    r = faces.random(zeros(50), rng(4))
    assert r == faces.random(zeros(50), rng(4)) and r != faces.random(zeros(50), rng(5))
    assert r.data.shape == (50, 32, 32, 3) and r.data.dtype == np.uint8 and set(r.extra) == set(PARAMS) and len(PARAMS) == 16
    assert all(v.dtype == np.int64 for v in r.extra.values())
    assert len(faces.random(zeros(0), rng())) == 0 and len(faces.vary(r[:0], .5, rng())) == 0
    for bad in ([1], [-1], [.5], [[0]], ['']):
        with pytest.raises(ValueError): faces.random(bad, rng())

def test_random_is_uniform(faces):
    from scipy.stats import chisquare
    extra = faces.chosen(zeros(30_000), rng())
    for k, v in extra.items():
        counts = np.bincount(v, minlength=len(faces.names[k]))
        assert len(counts) == len(faces.names[k]) and chisquare(counts).pvalue > 1e-4

def test_names_are_sorted_and_complete(faces):
    assert all(list(v) == sorted(v) for v in faces.names.values())
    tops = {f'HairType.{m.name}' for m in python_avatars.HairType} | {f'HatType.{m.name}' for m in python_avatars.HatType}
    assert set(faces.names['top']) == tops and len(tops) == len(faces.names['top'])
    assert set(faces.names['skin_color']) == {m.name for m in python_avatars.SkinColor}
    r = faces.random(zeros(4), rng())
    assert faces.named(r)[2] == {k: faces.names[k][v[2]] for k, v in r.extra.items()}

@settings(deadline=None, max_examples=12)
@given(st.integers(0, 2**32), st.one_of(st.floats(0, 1), st.dictionaries(st.sampled_from(list(PARAMS)), st.floats(0, 1))))
def test_variations(two, seed, degree):
    r = two.random(np.arange(16) % 2, rng(seed)); v = two.vary(r, degree, rng(seed + 1))
    assert v == two.vary(r, degree, rng(seed + 1)) and np.array_equal(v.labels, r.labels) and v.label_names == r.label_names
    for k in PARAMS:
        if not (degree.get(k, 0) if isinstance(degree, dict) else degree): assert (v.extra[k] == r.extra[k]).all()
        for l in range(2): assert np.isin(v.extra[k][r.labels == l], two.allowed[k][l]).all()
    if degree in ({}, 0): assert v == r

def test_degree_is_the_probability_of_a_new_value(faces):
    n, p = 20_000, .3
    old = faces.chosen(zeros(n), rng())
    blank = Records.images(np.zeros((n, 1, 1, 3), np.uint8), zeros(n), ('',), old)
    g = Avatars()
    g.draw = lambda extra: np.zeros((n, 1, 1, 3), np.uint8)
    for degree, where in ((p, PARAMS), (dict(top=p, nose=p), ('top', 'nose'))):
        v = g.vary(blank, degree, rng(1)).extra
        for k in PARAMS:
            want = p*(1 - 1/len(g.names[k])) if k in where else 0
            assert abs((v[k] != old[k]).mean() - want) < 5*np.sqrt(want/n) + 1e-12
    a, b = g.vary(blank, 1, rng(1)).extra, g.chosen(zeros(n), rng(1))
    assert all(abs(np.corrcoef(a[k], old[k])[0, 1]) < .05 and set(a[k]) == set(b[k]) for k in PARAMS)

def test_a_parameter_does_not_move_with_another(faces):
    "Degrees of other parameters change nothing about this one."
    r = faces.random(zeros(60), rng())
    a, b = (faces.vary(r, d, rng(1)).extra['mouth'] for d in (dict(mouth=.5), dict(mouth=.5, top=1., skin_color=.2)))
    assert (a == b).all() and (a != r.extra['mouth']).any()

# ---- labels and choices

def test_choices(two):
    labels = np.arange(4000) % 2
    extra, man = two.chosen(labels, rng()), labels == 0
    say = lambda k, who: {two.names[k][i] for i in extra[k][who]}
    assert say('facial_hair', man) == {'BEARD_LIGHT', 'BEARD_MEDIUM'} and say('facial_hair', ~man) == {'NONE'}
    assert say('top', man) == {'HairType.CAESAR', 'HatType.HAT'} and len(say('top', ~man)) == 61 and len(say('nose', man)) == 3
    assert abs((extra['facial_hair'][man] == two.names['facial_hair'].index('BEARD_LIGHT')).mean() - .5) < .05

def test_labels_without_choices_share_everything():
    g = Avatars(label_names=('a', 'b', 'c'))
    r = g.random(np.array([2, 0, 1, 1]), rng())
    assert r.labels.tolist() == [2, 0, 1, 1] and r.label_names == ('a', 'b', 'c')
    assert (r.data == Avatars().random(zeros(4), rng()).data).all()

def test_order_of_choices_does_not_matter(two):
    again = Avatars(label_names=TWO['label_names'], choices={'woman': dict(facial_hair=('NONE',)), 'man': dict(top=['HatType.HAT', 'HairType.CAESAR'], facial_hair=['BEARD_MEDIUM', 'BEARD_LIGHT'])})
    assert again.fingerprint == two.fingerprint and again.random(np.arange(6) % 2, rng()) == two.random(np.arange(6) % 2, rng())

# ---- what is refused

@pytest.mark.parametrize('bad,why', [(dict(size=0), 'size'), (dict(size=32.), 'size'), (dict(size=True), 'size'), (dict(workers=0), 'workers'), (dict(workers='2'), 'workers'),
    (dict(crop=(0, 0, 265, 10)), 'crop'), (dict(crop=(0, 0, 0, 10)), 'crop'), (dict(crop=(5, 9, 10, 9)), 'crop'), (dict(crop=(-1, 0, 10, 10)), 'crop'), (dict(crop=(0, 0, 10)), 'crop'),
    (dict(crop=None), 'crop'), (dict(crop=(0., 0, 10, 10)), 'crop'), (dict(label_names=()), 'label_names'), (dict(label_names=('a', 'a')), 'label_names'), (dict(label_names='ab'), 'label_names'),
    (dict(choices=[1]), 'choices'), (dict(choices={'x': dict(nose=['WIDE'])}), 'choices'), (dict(choices={'': ['WIDE']}), 'choices'), (dict(choices={'': dict(ears=['WIDE'])}), "'ears'"),
    (dict(choices={'': dict(nose=['LONG'])}), r"\['LONG'\]"), (dict(choices={'': dict(nose=[])}), 'at least one'), (dict(choices={'': dict(nose='WIDE')}), 'list of names'),
    (dict(choices={'': dict(nose=['WIDE', 'WIDE'])}), 'each once'), (dict(choices={'': dict(top=['HAT'])}), 'choices for top')])
def test_bad_settings(bad, why):
    with pytest.raises(ValueError, match=f'{why}(.|\n)*must|must(.|\n)*{why}'): Avatars(**bad)

@pytest.mark.parametrize('bad', [-.1, 1.1, float('nan'), float('inf'), True, '0.5', None, [.5], dict(ears=.5), dict(nose=2), dict(nose=None), dict(nose=True)])
def test_bad_degrees(faces, bad):
    with pytest.raises(ValueError, match='degree'): faces.check(bad)
    with pytest.raises(ValueError, match='degree'): faces.vary(faces.random(zeros(2), rng()), bad, rng())

def test_good_degrees(faces):
    for d in (0, 1, .06, np.float32(.5), {}, dict(top=1), dict.fromkeys(PARAMS, .5)): faces.check(d)

def test_foreign_parents(faces, two):
    r = two.random(np.arange(10) % 2, rng())
    with pytest.raises(ValueError, match='label_names of the parents'): faces.vary(r, .5, rng())
    with pytest.raises(ValueError, match="must hold \\['top'\\]"): two.vary(r.without_extra('top'), .5, rng())
    with pytest.raises(ValueError, match='Records of images'): two.vary(r.data, .5, rng())
    with pytest.raises(ValueError, match='Records of images'): two.vary(Records.texts(['a'], [0], two.label_names), .5, rng())
    for k, v in dict(nose=3, eyes=-1, facial_hair=two.names['facial_hair'].index('WICK_BEARD')).items():
        with pytest.raises(ValueError, match=f'{k} of the parents'): two.vary(r.with_extra(**{k: np.full(10, v)}), .5, rng())
    with pytest.raises(ValueError, match='eyes of the parents'): two.vary(r.with_extra(eyes=np.full(10, .5)), .5, rng())
    with pytest.raises(ValueError, match='eyes of the parents'): two.vary(r.with_extra(eyes=np.zeros((10, 2), int)), .5, rng())

# ---- what is missing

@pytest.mark.parametrize('gone', ['python_avatars', 'cairosvg', 'cairocffi'])
def test_missing_packages(gone, monkeypatch):
    monkeypatch.setitem(sys.modules, gone, None)
    with pytest.raises(ImportError, match=r"pip install 'pe_nb\[avatars\]'") as e: Avatars()
    assert gone in str(e.value)

def test_missing_libcairo(monkeypatch):
    real = builtins.__import__
    def without(name, *a, **k):
        if name == 'cairocffi': raise OSError('no library called "cairo-2" was found')
        return real(name, *a, **k)
    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(OSError, match='libcairo, a C library that pip does not bring, must be installed') as e: packages()
    assert not isinstance(e.value, ImportError) and 'cairo-2' in str(e.value.__cause__)

# ---- fingerprint, files, runs

def test_fingerprint(faces, two, monkeypatch):
    others = [Avatars(31), Avatars(crop=(40, 40, 224, 223)), Avatars(label_names=('a',)), Avatars(choices={'': dict(nose=['WIDE'])}), two]
    assert len({a.fingerprint for a in [faces, *others]}) == 6 and faces.fingerprint == Avatars(workers=3).fingerprint
    for said in (python_avatars.__version__, cairosvg.__version__, Image.__name__.split('.')[0].lower() + 'low'): assert said in faces.fingerprint
    monkeypatch.setattr(python_avatars.NoseType, 'get_all', classmethod(lambda cls: list(cls)[:2]))
    fewer = Avatars()
    assert fewer.fingerprint != faces.fingerprint and fewer.names['nose'] == ('DEFAULT', 'SMALL')

def test_fingerprint_reads_the_drawings(faces, tmp_path, monkeypatch):
    from pathlib import Path
    here = Path(python_avatars.__file__).parent
    (tmp_path/'avatar_parts').mkdir(); (tmp_path/'avatar_parts'/'new.svg').write_text('<svg/>')
    monkeypatch.setattr(python_avatars, '__file__', str(tmp_path/'__init__.py'))
    one = Avatars().fingerprint
    (tmp_path/'avatar_parts'/'new.svg').write_text('<svg />')
    assert len({one, Avatars().fingerprint, faces.fingerprint}) == 3 and here.is_dir()

def test_survives_a_file(two, tmp_path):
    from pe_nb.records import load_records, save_records
    r = two.random(np.arange(10) % 2, rng())
    save_records(r, tmp_path/'r.npz')
    assert (tmp_path/'r.npz').stat().st_size < 10*two.record_bytes + 20_000
    assert two.vary(load_records(tmp_path/'r.npz')[::2], 0, rng()) == r[::2]

def test_a_run(two, tmp_path):
    from pe_nb import Budget, Settings, synthesize
    from pe_nb.embeddings.images import Pixels
    from pe_nb.release import SeededNoise
    private = two.random(np.arange(100) % 2, rng(9)).without_extra()
    run = synthesize(private, two, Pixels(), Settings(samples=20, generations=2, degree=[1., dict(top=.5), .1], lookahead=2, seed=0), Budget(epsilon=50., delta=1e-3), tmp_path/'run', noise=SeededNoise(0), report=False)
    assert run.finished and set(PARAMS) <= set(run.records().extra)
    with pytest.raises(ValueError, match='degree'):
        synthesize(private, two, Pixels(), Settings(samples=20, generations=2, degree=[1., 2., .1], seed=0), Budget(epsilon=50., delta=1e-3), tmp_path/'other', noise=SeededNoise(0), report=False)
