"Vision embeddings: the papers' resizing to the bit, a vector that depends on its image alone, and models that are missing or wrong say so."
import json, os, subprocess, sys, threading, warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')

from pe_nb.embeddings import inception as inc, vision as module
from pe_nb.embeddings.inception import FILE, SHA256, Inception, file_sha256, find_weights
from pe_nb.embeddings.kept import Kept
from pe_nb.embeddings.resizing import FILTERS, Preparation, ahead, clean_resize, preparation_of, rgb, rounded_resize, to_res
from pe_nb.embeddings.vision import Clip, Dino, TorchEmbedding, state_digest
from pe_nb.hub import ModelMissing
from pe_nb.records import Records

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures('one_thread')
CPU = dict(device='cpu', threads=2)

def pixels(seed, *shape): return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
def images(seed, n, h=20, w=20, c=3): return Records.images(pixels(seed, n, h, w, c))

# ---- models of random weights ----

class Net(torch.nn.Module):
    "Convolution, batch normalisation, and a matrix product whose last bits depend on the size of the batch."
    def __init__(self, width=96):
        super().__init__()
        self.a, self.norm, self.b, self.out = torch.nn.Conv2d(3, width, 3, 2), torch.nn.BatchNorm2d(width), torch.nn.Linear(width, 256), torch.nn.Linear(256, 40)
    def forward(self, x): return self.out(torch.relu(self.b(torch.relu(self.norm(self.a(x))).mean((2, 3)))))

class Layers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = torch.nn.Conv2d(3, 6, 9, 8), torch.nn.Conv2d(6, 32, 5, 4), torch.nn.Linear(32, 2048)
    def forward(self, x): return self.c(torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3)))[..., None, None]

class StandIn(torch.nn.Module):
    "What clean-fid's wrapper asks of the file: a part `layers`."
    def __init__(self):
        super().__init__()
        self.layers = Layers()
    def forward(self, x, return_features: bool = False): return self.layers(x)

def seeded(make, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()

def scripted(net, path):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        torch.jit.script(net.eval()).save(str(path))
    return path

def saved(folder, make, config=None):
    from transformers.utils import logging
    logging.disable_progress_bar()
    seeded(make).save_pretrained(folder)
    if config is not None: (folder/'preprocessor_config.json').write_text(json.dumps(config))
    return folder

TINY = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, patch_size=8)
CLIP_CONFIG = dict(size=32, crop_size=32, resample=3, do_resize=True, do_center_crop=True, do_normalize=True, image_mean=[.48145466, .4578275, .40821073], image_std=[.26862954, .26130258, .27577711])
DINO_CONFIG = dict(size=dict(shortest_edge=48), crop_size=dict(height=40, width=40), resample=3, do_resize=True, do_center_crop=True, do_rescale=True, rescale_factor=1/255, do_normalize=True, do_convert_rgb=True,
                   image_mean=[.485, .456, .406], image_std=[.229, .224, .225], image_processor_type='BitImageProcessor')

@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    return saved(tmp_path_factory.mktemp('clip'), lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**TINY, intermediate_size=64, image_size=32, projection_dim=24)), CLIP_CONFIG)

@pytest.fixture(scope='module')
def dino(tmp_path_factory):
    from transformers import Dinov2Config, Dinov2Model
    return saved(tmp_path_factory.mktemp('dino'), lambda: Dinov2Model(Dinov2Config(**TINY, image_size=56)), DINO_CONFIG)

@pytest.fixture(scope='module')
def weights(tmp_path_factory): return scripted(seeded(StandIn), tmp_path_factory.mktemp('inception')/FILE)

@pytest.fixture(scope='module')
def net():
    net = seeded(Net)
    with torch.no_grad():
        net.norm.running_mean.copy_(torch.linspace(-.1, .1, 96))
        net.norm.running_var.copy_(torch.linspace(.5, 2, 96))
    return net

PLAIN = Preparation((20, 20), mean=.5, std=.25)

@pytest.fixture
def made(clip, dino, weights, net):
    "One of each kind, by name, with further settings."
    return dict(clip=lambda **kw: Clip(clip, **CPU | kw), pooled=lambda **kw: Clip(clip, layer='pooled', res=16, **CPU | kw), dino=lambda **kw: Dino(dino, **CPU | kw), patches=lambda **kw: Dino(dino, layer='patches', **CPU | kw),
                inception=lambda **kw: Inception(weights, res=16, sha256=file_sha256(weights), **CPU | kw), module=lambda **kw: TorchEmbedding(net, PLAIN, **CPU | kw),
                function=lambda **kw: TorchEmbedding(lambda x: x.flatten(1).float()[:, ::7], PLAIN, name='every seventh', **CPU | kw))

KINDS = 'clip', 'pooled', 'dino', 'patches', 'inception', 'module', 'function'

# ---- resizing ----

@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 90), st.integers(1, 90), st.sampled_from([1, 3]), st.sampled_from([8, 32, 64]))
def test_the_papers_pipeline(seed, h, w, c, res):
    "To `res` without rounding, rounded, to 299 without rounding: clean-fid's functions, bit for bit."
    from cleanfid.resize import build_resizer, make_resizer
    x = pixels(seed, h, w, c)
    whole = rgb(x)
    first = np.around(np.clip(make_resizer('PIL', False, 'bicubic', (res, res))(whole), 0, 255)).astype(np.uint8)
    assert to_res(whole, res).tobytes() == first.tobytes()
    peer = build_resizer('clean')(first)
    assert Preparation((299, 299), res=res, clean=True, scale=1)(x).tobytes() == np.ascontiguousarray(peer.transpose(2, 0, 1)).tobytes()

@pytest.mark.parametrize('filter', ['bicubic', 'bilinear', 'lanczos', 'box', 'nearest'])
@pytest.mark.parametrize('size', [(7, 5), (40, 64), (20, 20)])
def test_resizing_alone(filter, size):
    from PIL import Image
    from cleanfid.resize import make_resizer
    x = pixels(1, 20, 30, 3)
    assert clean_resize(x, size, filter).tobytes() == make_resizer('PIL', False, filter, size[::-1])(x).tobytes()
    assert rounded_resize(x, size, filter).tobytes() == make_resizer('PIL', True, filter, size[::-1])(x).tobytes()
    assert FILTERS[Image.Resampling[filter.upper()]] == filter

@pytest.mark.parametrize('h,w', [(20, 20), (32, 32), (30, 45), (45, 30), (300, 211), (1, 1), (48, 48), (47, 95)])
def test_against_transformers(h, w, clip, dino):
    "The processors for machines without torchvision give the same numbers."
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    x = pixels(2, h, w, 3)
    for folder, cls in ((clip, CLIPImageProcessorPil), (dino, BitImageProcessorPil)):
        peer = cls.from_pretrained(folder)(x, return_tensors='np', input_data_format='channels_last')['pixel_values'][0]
        assert preparation_of(folder)(x).tobytes() == np.ascontiguousarray(peer, np.float32).tobytes()

def test_preparations(tmp_path):
    said = lambda **kw: (tmp_path/'preprocessor_config.json').write_text(json.dumps(DINO_CONFIG | kw)) and preparation_of(tmp_path, 16)
    assert (said(size=dict(height=50, width=40)).size, said(size=50).size, said(do_resize=False, do_center_crop=False).size) == ((50, 40), 50, None)
    p = said(do_normalize=False, do_rescale=False, do_center_crop=False, resample=2, size=20)
    assert (p.res, p.scale, p.mean, p.std, p.crop, p.filter) == (16, 1, [0]*3, [1]*3, None, 'bilinear') and p(pixels(0, 9, 9, 1)).max() > 2
    for bad in (dict(size=dict(longest_edge=50)), dict(size=dict(shortest_edge=40, longest_edge=50)), dict(do_pad=True)):
        with pytest.raises(ValueError, match='must name a size, or the shorter side, and no padding'): said(**bad)
    for gone in ('size', 'crop_size', 'image_mean', 'image_std'):
        (tmp_path/'preprocessor_config.json').write_text(json.dumps({k: v for k, v in DINO_CONFIG.items() if k != gone}))
        with pytest.raises(ValueError, match=f'must have {gone}, or do_.* false'): preparation_of(tmp_path)
    assert len({said(**k).fingerprint for k in ({}, dict(size=64), dict(resample=2), dict(image_mean=[.5]*3), dict(image_std=[.5]*3), dict(rescale_factor=1), dict(crop_size=32))}) == 7

@pytest.mark.parametrize('bad', [dict(size=0), dict(size=True), dict(size=(3,)), dict(size=(3, -1)), dict(size=1.5), dict(size='224'), dict(size=10**6), dict(res=0), dict(res=(32, 32)), dict(res=32.), dict(crop=0), dict(size=224, crop=225), dict(size=(9, 300), crop=10),
                                 dict(filter='cubic'), dict(filter=3), dict(scale=0), dict(scale=float('nan')), dict(std=0), dict(std=(1, 1)), dict(std=(1, 0, 1)), dict(mean=float('inf')), dict(mean=(1, 2))])
def test_bad_preparations(bad):
    with pytest.raises(ValueError, match='must be'): Preparation(**bad)

def test_images_smaller_than_the_crop():
    with pytest.raises(ValueError, match="crop .* must be at most the image's size"): Preparation(crop=30)(pixels(0, 20, 40, 3))
    for c in (2, 4):
        with pytest.raises(ValueError, match=rf'images \({c} channels\) must have'): Preparation(8)(pixels(0, 8, 8, c))

def test_ahead():
    done, gate = [], threading.Event()
    def f(i):
        gate.wait(5)
        done.append(i)
        if i == 30: raise KeyError(i)
        return -i
    g = ahead(f, iter(range(10**9)), 3, 7)
    gate.set()
    got = []
    with pytest.raises(KeyError):
        for v in g: got.append(v)
    assert got == [-i for i in range(30)] and len(done) <= 30 + 7 + 1
    assert list(ahead(f, [], 2, 2)) == [] and list(ahead(str, range(3), 1, 1)) == ['0', '1', '2']

# ---- a function of the image alone ----

def check_alone(e, r):
    "Alone, in another order, without some, with a new one in front: the same bits."
    x = e(r)
    assert x.dtype == np.float32 and x.ndim == 2 and len(x) == len(r) and np.isfinite(x).all() and x.flags.c_contiguous
    for i in range(min(3, len(r))): assert e(r[i:i+1]).tobytes() == x[i].tobytes()
    order = np.random.default_rng(0).permutation(len(r))
    assert e(r[order]).tobytes() == x[order].tobytes()
    assert e(r[1:]).tobytes() == x[1:].tobytes()
    front = Records.images(np.concatenate([r.data[-1:], r.data]))
    assert e(front)[1:].tobytes() == x.tobytes()
    return x

@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('batch', [None, 5])
def test_alone(made, kind, batch):
    r = images(3, 13 if kind != 'inception' else 7)
    x = check_alone(made[kind](batch=batch), r)
    assert len(np.unique(x, axis=0)) == len(r)
    assert made[kind](batch=batch, threads=1)(r).tobytes() == x.tobytes()
    assert np.allclose(x, made[kind](batch=3, exact=False)(r), atol=1e-4)

def test_that_test_can_fail(made):
    "Batches that end with a smaller one, as every loader makes them, do not pass it."
    r = images(4, 65)
    assert made['module'](batch=64, exact=False)(r)[64:].tobytes() != made['module'](batch=64, exact=False)(r[1:])[63:].tobytes()
    check_alone(made['module'](batch=64), r)

def test_places_are_tried():
    "Three networks that depend on the batch: on the other images, on the place, on the place by the last bit only."
    class Mix(torch.nn.Module):
        def forward(self, x): return x.flatten(1) - x.flatten(1).mean(0)
    class Place(torch.nn.Module):
        def forward(self, x): return x.flatten(1)*(1 + torch.arange(len(x), dtype=x.dtype)[:, None])
    class Bit(torch.nn.Module):
        def forward(self, x): return torch.cat([x[:7].flatten(1), torch.nextafter(x[7:].flatten(1), torch.tensor(9.))])
    for net in (Mix(), Place(), Bit()):
        with pytest.raises(ValueError, match=r'batch \(8\) must be 1, or another: with it, a vector depends on its place'): TorchEmbedding(net, PLAIN, batch=8, **CPU)(images(0, 3))
        assert TorchEmbedding(net, PLAIN, batch=8, exact=False, **CPU)(images(0, 3)).shape == (3, 1200)
        check_alone(TorchEmbedding(net, PLAIN, batch=1, **CPU), images(0, 3))

def test_what_the_network_is_given(net):
    "Batches of one size, filled up with zeros, and no gradients; after the trial."
    seen = []
    def f(x):
        seen.append((tuple(x.shape), float(x[-1].abs().sum()), torch.is_inference_mode_enabled(), torch.get_num_threads()))
        return x.flatten(1)
    e = TorchEmbedding(f, PLAIN, name='f', batch=4, device='cpu', threads=1)
    e(images(0, 10))
    assert [s[0] for s in seen] == [(4, 3, 20, 20)]*(4 + 3) and seen[-1][1] == 0 and all(s[2] and s[3] == 1 for s in seen)
    seen.clear()
    e(images(0, 10))
    assert len(seen) == 3                                   # tried once
    seen.clear()
    TorchEmbedding(f, PLAIN, name='f', batch=4, exact=False, device='cpu', threads=1)(images(0, 10))
    assert [s[0][0] for s in seen] == [4, 4, 2]

def test_threads_are_put_back(made):
    before, got = torch.get_num_threads(), []
    r = images(5, 12)
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            got.append(made['module'](batch=5)(r).tobytes())
            assert torch.get_num_threads() == n
        e = made['module'](batch=5)
        pool = [threading.Thread(target=lambda: got.append(e(r).tobytes())) for _ in range(4)]
        for t in pool: t.start()
        for t in pool: t.join()
        assert len(got) == 6 and len(set(got)) == 1
    finally: torch.set_num_threads(before)

# ---- against the libraries ----

def test_clip_against_transformers(clip, made, tmp_path):
    from transformers import CLIPConfig, CLIPModel, CLIPVisionModel, CLIPVisionModelWithProjection
    r, p = images(6, 4, 30, 50), preparation_of(clip)
    with torch.inference_mode():
        peers = [torch.cat([m(torch.from_numpy(p(i))[None])[k] for i in r.data]).numpy() for m, k in ((CLIPVisionModelWithProjection.from_pretrained(clip).eval(), 'image_embeds'), (CLIPVisionModel.from_pretrained(clip).eval(), 'pooler_output'))]
    assert made['clip']()(r).tobytes() == peers[0].tobytes() and peers[0].shape == (4, 24)
    assert Clip(clip, layer='pooled', **CPU)(r).tobytes() == peers[1].tobytes() and peers[1].shape == (4, 32)
    assert np.allclose(made['clip'](normalize=True)(r), peers[0]/np.linalg.norm(peers[0], axis=1, keepdims=True), atol=1e-6)
    text = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=40, max_position_embeddings=8)
    both = saved(tmp_path, lambda: CLIPModel(CLIPConfig(text_config=text, vision_config=TINY | dict(intermediate_size=64, image_size=32, projection_dim=24), projection_dim=24)), CLIP_CONFIG)   # a folder with the tower of texts too, as the hub's
    with torch.inference_mode(): peer = torch.cat([CLIPModel.from_pretrained(both).eval().get_image_features(pixel_values=torch.from_numpy(p(i))[None]).pooler_output for i in r.data])
    assert np.allclose(Clip(both, **CPU)(r), peer.numpy(), atol=1e-6)

def test_dino_against_transformers(dino, made, tmp_path):
    from transformers import Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel
    r, p = images(7, 4, 30, 50), preparation_of(dino)
    def outs(folder, cls):
        with torch.inference_mode(): return [cls.from_pretrained(folder).eval()(torch.from_numpy(p(i))[None]) for i in r.data]
    o = outs(dino, Dinov2Model)
    assert made['dino']()(r).tobytes() == torch.cat([y.pooler_output for y in o]).numpy().tobytes()
    assert np.allclose(made['patches']()(r), torch.cat([y.last_hidden_state[:, 1:].mean(1) for y in o]).numpy(), atol=1e-6)
    more = saved(tmp_path, lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**TINY, image_size=56, num_register_tokens=3)), DINO_CONFIG)
    o = outs(more, Dinov2WithRegistersModel)
    assert np.allclose(Dino(more, layer='patches', **CPU)(r), torch.cat([y.last_hidden_state[:, 4:].mean(1) for y in o]).numpy(), atol=1e-6)

def test_inception_against_clean_fid(weights, made):
    from cleanfid.resize import build_resizer
    r = images(8, 3, 16, 16)
    net = inc.open_inception(weights).eval()
    with torch.inference_mode(): peer = torch.cat([net(torch.from_numpy(build_resizer('clean')(i).transpose(2, 0, 1))[None]) for i in r.data]).numpy()
    assert made['inception']()(r).tobytes() == peer.tobytes() and peer.shape == (3, 2048)

@pytest.mark.parametrize('kind', KINDS)
def test_grey_and_empty(made, kind):
    e, grey = made[kind](batch=2), images(9, 3, c=1)
    assert e(grey).tobytes() == e(Records.images(np.repeat(grey.data, 3, -1))).tobytes()
    assert e(grey[:0]).shape == (0, e(grey).shape[1]) and e(grey[:0]).dtype == np.float32

@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_other_types(made, dtype):
    r = images(10, 6)
    for kind in ('clip', 'module'):
        x, y = made[kind](dtype=dtype)(r), made[kind]()(r)
        assert x.dtype == np.float32 and x.tobytes() != y.tobytes() and np.allclose(x, y, atol=.1*abs(y).max())

# ---- opened once, named by everything ----

def test_opened_once(made, clip, monkeypatch):
    seen, real = [], module.open_model
    monkeypatch.setattr(module, 'open_model', lambda *a: seen.append(a) or real(*a))
    e = made['clip']()
    e.fingerprint
    assert not seen                                       # made and named, not opened
    pool = [threading.Thread(target=lambda: e(images(0, 2))) for _ in range(3)]
    for t in pool: t.start()
    for t in pool: t.join()
    e(images(1, 1))
    assert len(seen) == 1 and not any(p.requires_grad for p in e.loaded().parameters()) and not e.loaded().training

def test_loading_is_silent_and_changes_nothing(clip, weights, capfd):
    from transformers.utils import logging
    state, level, bar = torch.random.get_rng_state(), logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_info()
    logging.enable_progress_bar()
    try:
        Clip(clip, layer='pooled', **CPU)(images(0, 1))   # without the projection: weights are left over, and nobody is told
        Inception(weights, sha256=file_sha256(weights), **CPU)(images(0, 1))
        assert logging.get_verbosity() == logging.INFO and logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity(level)
        if not bar: logging.disable_progress_bar()
    out = capfd.readouterr()
    assert out.out == out.err == '' and torch.equal(torch.random.get_rng_state(), state)

def test_files_may_change_after_loading(clip, tmp_path):
    import shutil
    shutil.copytree(clip, tmp_path/'m')
    e, r = Clip(tmp_path/'m', **CPU), images(0, 2)
    x = e(r)
    with open(tmp_path/'m'/'model.safetensors', 'r+b') as f:
        f.seek(-4000, 2)
        f.write(b'\7'*4000)
    assert e(r).tobytes() == x.tobytes() and Clip(tmp_path/'m', **CPU).fingerprint != e.fingerprint

def test_the_given_module_stays_as_it_is(net):
    net.train()
    e, r = TorchEmbedding(net, PLAIN, **CPU), images(0, 4)
    x, said = e(r), e.fingerprint
    assert net.training and all(p.requires_grad for p in net.parameters())
    with torch.no_grad():
        net.out.weight[0, 0] += 1
        assert e(r).tobytes() == x.tobytes() and TorchEmbedding(net, PLAIN, **CPU).fingerprint != said
        net.out.weight[0, 0] -= 1
    net.eval()

def test_fingerprints(clip, dino, weights, net, made):
    d, f = file_sha256(weights), lambda x: x.flatten(1)
    said = [e.fingerprint for e in (*(Clip(clip, **CPU | k) for k in ({}, dict(res=8), dict(res=9), dict(layer='pooled'), dict(normalize=True), dict(exact=False), dict(batch=2), dict(dtype='bfloat16'), dict(device='cuda'))),
        *(Dino(dino, **CPU | k) for k in ({}, dict(layer='patches'), dict(res=8))), *(Inception(weights, sha256=d, **CPU | k) for k in ({}, dict(res=32), dict(res=64))),
        *(TorchEmbedding(net, PLAIN, **CPU | k) for k in ({}, dict(name='x'), dict(take=0))), TorchEmbedding(net, Preparation((20, 20)), **CPU), TorchEmbedding(f, PLAIN, name='f', **CPU), TorchEmbedding(f, PLAIN, name='g', **CPU))]
    assert len(set(said)) == len(said) and d in said[13]
    assert Clip(clip, device='cpu', threads=7).fingerprint == said[0] == Clip(str(clip), device='cpu', batch=1).fingerprint    # neither threads nor the path matter
    assert state_digest(seeded(Net)) == state_digest(seeded(Net).eval()) != state_digest(seeded(Net, 1))
    for name in KINDS: assert json.loads(made[name]().fingerprint.split(' ', 1)[1]) and str(ROOT) not in made[name]().fingerprint + repr(made[name]())

def test_kept(made, tmp_path):
    r = images(11, 6)
    for kind in ('clip', 'inception'):
        e = made[kind]()
        k = Kept(e, tmp_path/'v')
        assert k(r).tobytes() == e(r).tobytes() == k(r).tobytes() and k.fingerprint == e.fingerprint
    assert len(list((tmp_path/'v').iterdir())) == 2

# ---- memory ----

def small_device(limit, calls):
    def f(x):
        calls.append(len(x))
        if len(x) > limit: raise torch.OutOfMemoryError('no memory left')
        return x.flatten(1)[:, :50]*2
    return f

def test_out_of_memory():
    "Half a batch is tried once, for all images of the call; half is still too much: an error that says so."
    r, calls = images(12, 20), []
    e = TorchEmbedding(small_device(5, calls), PLAIN, name='f', batch=8, **CPU)
    said = e.fingerprint
    with pytest.warns(RuntimeWarning, match='not enough memory on cpu: the batch is 4 from here on') as got: x = e(r)
    assert len(got) == 1 and e.batch == 4 and set(calls[1:]) == {4} and e.fingerprint == said
    assert x.tobytes() == TorchEmbedding(small_device(99, []), PLAIN, name='f', batch=4, **CPU)(r).tobytes() and e(r).tobytes() == x.tobytes()
    e = TorchEmbedding(small_device(2, []), PLAIN, name='f', batch=8, **CPU)
    with pytest.warns(RuntimeWarning, match='the batch is 4'), pytest.raises(MemoryError, match=r'batch \(4\) must be smaller: the images do not fit the memory of cpu'): e(r)
    with pytest.raises(MemoryError, match=r'batch \(1\) must be smaller'): TorchEmbedding(small_device(0, []), PLAIN, name='f', batch=1, **CPU)(r)

# ---- bad input ----

@pytest.mark.parametrize('kind', KINDS)
def test_bad_records(made, kind):
    e = made[kind]()
    for c in (2, 4):
        with pytest.raises(ValueError, match=rf'images \({c} channels\) must have 1 channel \(grey\) or 3'): e(images(0, 2, c=c))
    with pytest.raises(ValueError, match="records \\(of kind 'text'\\) must be images"): e(Records.texts(['secret']))
    with pytest.raises(ValueError, match="records \\(of kind 'ndarray'\\) must be images"): e(pixels(0, 2, 8, 8, 3))

@pytest.mark.parametrize('bad', [dict(batch=0), dict(batch=-1), dict(batch=True), dict(batch=2.), dict(threads=0), dict(threads='2'), dict(dtype='float64'), dict(dtype=None)])
def test_bad_settings(bad, clip, net):
    for make in (lambda: Clip(clip, **bad), lambda: Dino(clip, **bad), lambda: Inception(**bad), lambda: TorchEmbedding(net, PLAIN, **bad)):
        with pytest.raises(ValueError, match='must be'): make()

def test_bad_models(net, clip, dino):
    for bad, why in (((None, PLAIN), 'must be a torch.nn.Module, or a function'), ((net, None), 'must be a Preparation'), ((net, len), 'must be a Preparation'), ((len, PLAIN), r'name \(None\) must be given')):
        with pytest.raises(ValueError, match=why): TorchEmbedding(*bad)
    for kw in (dict(name=''), dict(name=3), dict(take=1.5), dict(take=True)):
        with pytest.raises(ValueError, match='must be'): TorchEmbedding(net, PLAIN, **kw)
    with pytest.raises(ValueError, match=r'must give a tensor \(n, d\), one row per image, not \(1, 3, 20, 20\)'): TorchEmbedding(torch.nn.Identity(), PLAIN, **CPU)(images(0, 2))
    with pytest.raises(ValueError, match='not tuple'): TorchEmbedding(lambda x: (x, x), PLAIN, name='f', **CPU)(images(0, 2))
    assert TorchEmbedding(lambda x: (0, x.flatten(1)), PLAIN, name='f', take=1, **CPU)(images(0, 2)).shape == (2, 1200)
    with pytest.raises(ValueError, match=r"device \('gpu'\) must be one that torch knows"): TorchEmbedding(net, PLAIN, device='gpu')(images(0, 2))
    with pytest.raises(ValueError, match='must give finite vectors$'): TorchEmbedding(lambda x: x.flatten(1)/0, PLAIN, name='f', **CPU)(images(0, 2))
    with pytest.raises(ValueError, match="finite vectors; dtype='float32' may do"): TorchEmbedding(lambda x: x.flatten(1)*1e6, PLAIN, name='f', dtype='float16', **CPU)(images(0, 2))
    for make in (Clip, Dino):
        with pytest.raises(ValueError, match=r"layer \('last'\) must be one of"): make(clip, layer='last')
        with pytest.raises(ValueError, match=r'res \(0\) must be a whole number'): make(clip, res=0)
        for name in ('', None, 3):
            with pytest.raises(ValueError, match='must be a folder or a name'): make(name)(images(0, 1))
    with pytest.raises(ValueError, match="of type 'dinov2'\\) must be one of"): Clip(dino)(images(0, 1))
    with pytest.raises(ValueError, match="of type 'clip_vision_model'\\) must be one of"): Dino(clip).fingerprint
    with pytest.raises(TypeError): Clip(clip, size=3)

# ---- models that are not there ----

def test_missing_models(monkeypatch, clip, tmp_path, no_network):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises(ModelMissing, match='HF_HUB_OFFLINE is set, so it was not tried.*hf download nobody/clip --local-dir'): Clip('nobody/clip')(images(0, 1))
    with pytest.raises(ModelMissing, match='hf download facebook/dinov2-giant'): Dino('facebook/dinov2-giant').fingerprint
    with pytest.raises(ModelMissing, match='must be a folder that exists, or owner/name on the hub'): Clip('clip')(images(0, 1))
    for path in ('./nothing', '/no/such/place', tmp_path/'gone', 'a/b/c'):
        with pytest.raises(ModelMissing, match='must be a folder that exists'): Clip(path)(images(0, 1))
    with pytest.raises(ModelMissing, match=r'must be a folder that holds \*.safetensors'): Clip(tmp_path)(images(0, 1))
    import shutil
    for gone in ('config.json', 'preprocessor_config.json'):
        shutil.copytree(clip, tmp_path/gone)
        (tmp_path/gone/gone).unlink()
        with pytest.raises(ModelMissing, match=f'must be a folder that holds {gone}'): Clip(tmp_path/gone, **CPU)(images(0, 1))

def test_weights_that_are_not_all_there(clip, tmp_path):
    import shutil
    from safetensors.torch import load_file, save_file
    shutil.copytree(clip, tmp_path/'m')
    state = load_file(clip/'model.safetensors')
    save_file({k: v for k, v in state.items() if 'visual_projection' not in k}, tmp_path/'m'/'model.safetensors', metadata=dict(format='pt'))
    with pytest.raises(ValueError, match='must have all its weights.*visual_projection'): Clip(tmp_path/'m', **CPU)(images(0, 1))

def test_a_download(clip, monkeypatch):
    "What is asked of the hub, and what comes of it."
    import huggingface_hub
    asked = []
    def hub(repo, **kw):
        asked.append((repo, bool(kw.get('local_files_only'))))
        if kw.get('local_files_only'): raise FileNotFoundError('not in the cache')
        return str(clip)
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', hub)
    monkeypatch.delenv('HF_HUB_OFFLINE', raising=False)
    monkeypatch.delenv('TRANSFORMERS_OFFLINE', raising=False)
    e = Clip(**CPU)
    assert e(images(0, 2)).shape == (2, 24) and e.fingerprint == Clip(clip, **CPU).fingerprint
    assert asked == [('openai/clip-vit-base-patch32', True), ('openai/clip-vit-base-patch32', False)]

def test_missing_inception(monkeypatch, tmp_path, no_network):
    monkeypatch.setenv('PE_NB_CACHE', str(tmp_path/'cache'))
    with pytest.raises(ModelMissing, match=f'{FILE} .96 MB. from {inc.ADDRESS}, with the SHA-256 {SHA256}: put it into .*cache, or give its path') as e: Inception()(images(0, 1))
    assert 'fetch(ADDRESS, SHA256)' in str(e.value) and not (tmp_path/'cache').exists()
    for gone in (tmp_path/'gone.pt', tmp_path): # no such file; a folder without it
        with pytest.raises(ModelMissing, match='must be that file, or a folder that holds it'): Inception(gone)(images(0, 1))
    for bad in ('', 'abc', None, 64*'g', 7):
        with pytest.raises(ValueError, match='must be 64 hexadecimal digits'): Inception(sha256=bad)
    for bad in (0, 31.5, (32, 32), '32'):
        with pytest.raises(ValueError, match='res .* must be a whole number'): Inception(res=bad)

def test_inception_files(monkeypatch, weights, tmp_path):
    "Its hash is checked before it is opened; other names, folders and the cache of downloads do."
    import shutil
    opened = []
    monkeypatch.setattr(inc, 'open_inception', lambda *a: opened.append(a))
    with pytest.raises(ValueError, match=f'sha256 of {FILE} .* must be {SHA256}: the file is damaged, or another one'): Inception(weights, **CPU)(images(0, 1))
    assert not opened
    monkeypatch.undo()
    d, r = file_sha256(weights), images(0, 2)
    x = Inception(weights, sha256=d.upper(), **CPU)(r)
    renamed = tmp_path/f'{SHA256[:16]}-{FILE}'     # as fetch names it
    shutil.copyfile(weights, renamed)
    monkeypatch.setenv('PE_NB_CACHE', str(tmp_path))
    for place in (renamed, tmp_path, None, weights.parent, str(weights)): assert Inception(place, sha256=d, **CPU)(r).tobytes() == x.tobytes()
    assert find_weights() == renamed
    from pe_nb.data.files import cache_folder
    assert find_weights(cache_folder()) == renamed
    for name, raw in (('empty.pt', b''), ('text.pt', b'not a network'), ('half.pt', weights.read_bytes()[:5000])):
        (tmp_path/name).write_bytes(raw)
        with pytest.raises(ValueError, match='weights .* must be the TorchScript file of Inception v3'): Inception(tmp_path/name, sha256=file_sha256(tmp_path/name), **CPU)(r)
    other = scripted(seeded(Net), tmp_path/'other.pt')   # TorchScript, but another network
    with pytest.raises(ValueError, match='must be the TorchScript file of Inception v3: AttributeError'): Inception(other, sha256=file_sha256(other), **CPU)(r)

def test_nothing_of_torchvision(weights, clip):
    "Neither is it imported, nor the parts of clean-fid that need it; and an extra that is missing is named."
    code = f'''
import sys, warnings
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'torchvision': raise ImportError('torchvision was asked for')
import pe_nb.embeddings.inception as i, pe_nb.embeddings.vision as v
assert 'torch' not in sys.modules and 'cleanfid' not in sys.modules
import numpy as np
from pe_nb.records import Records
r = Records.images(np.zeros((2, 8, 8, 3), np.uint8))
assert i.Inception({str(weights)!r}, sha256=i.file_sha256(i.Path({str(weights)!r})), device='cpu', threads=1)(r).shape == (2, 2048)
assert v.Clip({str(clip)!r}, device='cpu', threads=1)(r).shape == (2, 24)
assert not [m for m in sys.modules if m.partition('.')[0] == 'torchvision' or m in ('cleanfid.features', 'cleanfid.fid', 'cleanfid.utils')]
import importlib.util
real = importlib.util.find_spec
for gone, make in (('cleanfid', lambda: i.open_inception(None)), ('torch', lambda: v.TorchEmbedding(len, lambda: 0, name='f')), ('transformers', lambda: v.vision_folder('a/b'))):
    importlib.util.find_spec = lambda name, *a: None if name == gone else real(name, *a)
    try: make() if gone != 'torch' else v.check_torch()
    except ImportError as e: assert "pip install 'pe_nb[images]'" in str(e), e
    else: raise AssertionError(gone)
'''
    run = subprocess.run([sys.executable, '-W', 'error', '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ | dict(OMP_NUM_THREADS='1'))
    assert run.returncode == 0, run.stderr
    assert run.stderr == ''

# ---- a GPU, where there is one ----

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('kind', KINDS)
def test_gpu(made, kind):
    "Exact on a GPU too, whatever the caller has set; and near the vectors of the processor."
    r = images(13, 70)
    e = made[kind](device='cuda', batch=32)
    x = check_alone(e, r)
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    try:
        torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision('medium')
        assert made[kind](device='cuda', batch=32)(r).tobytes() == x.tobytes()
        assert torch.backends.cudnn.benchmark and torch.backends.cudnn.allow_tf32 and torch.get_float32_matmul_precision() == 'medium'
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = before[:2]
        torch.set_float32_matmul_precision(before[2])
    assert np.allclose(x, made[kind](device='cpu')(r), atol=1e-3)
