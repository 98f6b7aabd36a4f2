"The diffusion model of digits that ships: its files, what it draws, and that its classes mean something."
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import pe_nb.generators.digits_diffusion as s

torch = pytest.importorskip('torch')
pytest.importorskip('diffusers')
from pe_nb import Records
from pe_nb.data.images import digits
from pe_nb.embeddings.images import Edges, Pixels, Resized
from pe_nb.generators.diffusion import Diffusion
from pe_nb.generators.fonts import Fonts
from pe_nb.metrics.downstream import train_on_synthetic

FOLDER = Path(s.digits_diffusion())
CLASSES = {n: i for i, n in enumerate(s.NAMES)}


@pytest.fixture(scope='module')
def drawn(one_thread):
    g = Diffusion(FOLDER, label_names=s.NAMES, classes=CLASSES, respacing='ddim10', device='cpu')
    return g, g.random(np.repeat(np.arange(10), 12), np.random.default_rng(0))


# ---- files ----

def test_files_are_those_of_the_hashes_and_small():
    names = {p.name for p in FOLDER.iterdir()}
    assert set(s.SHA256) <= names and {'LICENSES.txt', 'loss.csv'} <= names
    assert (FOLDER/'diffusion_pytorch_model.safetensors').stat().st_size <= 4_000_000
    said = (FOLDER/'LICENSES.txt').read_text()
    assert sum(map(int, re.findall(r'^\S.*?\s{2,}(\d+)\s{2}', said, re.M))) == 132
    assert not [p for p in FOLDER.iterdir() if p.suffix in ('.ttf', '.otf')]


@pytest.mark.parametrize('name', sorted(s.SHA256))
def test_damage_is_seen(tmp_path, name):
    folder = tmp_path/'unet'
    shutil.copytree(FOLDER, folder)
    s.check_folder(folder)
    data = bytearray((folder/name).read_bytes())
    data[len(data)//2] ^= 1
    (folder/name).write_bytes(data)
    with pytest.raises(ValueError, match=f'{re.escape(name)}.*must be as it was shipped'): s.check_folder(folder)
    (folder/name).unlink()
    with pytest.raises(FileNotFoundError, match=f'{re.escape(name)}.*install pe_nb again'): s.check_folder(folder)


# ---- what it draws ----

def test_shape_labels_and_classes(drawn):
    g, r = drawn
    assert r.data.shape == (120, 28, 28, 1) and r.data.dtype == np.uint8 and r.label_names == s.NAMES
    assert (r.extra['model_class'] == r.labels).all() and g.opened_model().net.config.num_class_embeds == 10
    assert 1.5e6 < sum(p.numel() for p in g.net.parameters()) < 2.1e6


def test_images_are_dark_with_ink_and_all_different(drawn):
    ink = drawn[1].data.astype(float).mean((1, 2, 3))
    assert 10 < ink.mean() < 110 and len({x.tobytes() for x in drawn[1].data}) == 120


def test_classes_are_what_they_say(drawn):
    "Beyond chance, as a classifier sees it that was trained on fonts; and with the classes shifted by one, at most by chance."
    fonts = Fonts(height=28, width=28, size_of='height', supersample=2, size=(15., 28.), rotation=(-25., 25.), shear=(-.6, 1.), scale_x=(.5, 1.5), bend=(-.4, .4), shift_x=(-.5, .5), shift_y=(-.5, .5))
    printed = fonts.random(np.repeat(np.arange(10), 100), np.random.default_rng(0))
    right = float(train_on_synthetic(printed, drawn[1], features=Edges(cell=4, pixels=0))['accuracy'])
    r = drawn[1]
    wrong = float(train_on_synthetic(printed, Records.images(r.data, (r.labels + 1) % 10, r.label_names), features=Edges(cell=4, pixels=0))['accuracy'])
    assert right > .3 and wrong < .2


def test_fewer_skipped_steps_change_more(drawn):
    g, r = drawn
    moved = [float(np.abs(g.vary(r, k, np.random.default_rng(1)).data.astype(float) - r.data).mean()) for k in (0, 3, 7)]
    assert moved[0] > 1.5*moved[1] > 3*moved[2] > 0


def test_the_same_without_and_with_other_batches(drawn):
    g, r = drawn
    other = Diffusion(FOLDER, label_names=s.NAMES, classes=CLASSES, respacing='ddim10', device='cpu', batch_size=17)
    again = other.random(r.labels, np.random.default_rng(0))
    assert np.mean(again.data != r.data) < .01 and np.abs(again.data.astype(int) - r.data).max() <= 2


# ---- what goes with it ----

def test_enlarged_digits():
    small, large = digits('test'), digits('test', 28)
    assert large.data.shape == (397, 28, 28, 1) and (large.labels == small.labels).all() and large.data.dtype == np.uint8
    back = Resized(Pixels(), 8)(large)
    assert np.abs(back - Pixels()(small)).mean() < .1
    for bad in (0, 1.5, True, '28'):
        with pytest.raises(ValueError, match='size'): digits('test', bad)


def test_resized_is_a_function_of_each_image_alone():
    r = digits('test', 28)
    e = Resized(Edges(), 8)
    whole = e(r)
    assert all(np.array_equal(e(r[i:i + 1])[0], whole[i]) for i in range(0, 397, 40))
    assert np.array_equal(Resized(Edges(), (28, 28))(r), Edges()(r)) and Resized(Edges(), 8)(r[:0]).shape[0] == 0
    with pytest.raises(ValueError, match='must be images'): Resized(Pixels(), 8)(Records.texts(['a']))
    assert Resized(Pixels(), 8).fingerprint != Resized(Pixels(), 9).fingerprint != Resized(Pixels(), 9, 'bicubic').fingerprint
