"Text to image: prompts, strengths, batches, families, loading, safety checker, sizes, memory, bad input; with small random models."
import json
import math
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('diffusers')
import tiny_images  # noqa: E402
from diffusers import EulerAncestralDiscreteScheduler, PNDMScheduler  # noqa: E402
from diffusers.utils import logging as dlog  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers.utils import logging as tlog  # noqa: E402

from pe_nb.generators.image_pipelines import ModelMissing, find_pipeline, hub_folder, networks, open_pipeline, pair, pipeline_digest, quiet  # noqa: E402
from pe_nb.generators.text_to_image import TextToImage, again, at_least_one, own_size, prompt_table, read_degree, resized, shared_out  # noqa: E402
from pe_nb.records import Records  # noqa: E402

pytestmark = [pytest.mark.usefixtures('one_thread'), pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning:diffusers')]  # its schedulers, with numpy 2
rng = np.random.default_rng
MAKERS = {k: getattr(tiny_images, k) for k in ('stable_diffusion', 'sdxl', 'sd3')}


@pytest.fixture(scope='module')
def make(tmp_path_factory):
    "A small model of a family; made once for the same arguments."
    kept = {}
    def f(name='stable_diffusion', fresh=False, scheduler=None, **kw):
        key = json.dumps([name, scheduler, kw])
        if not fresh and key in kept: return kept[key]
        more = {} if scheduler is None else dict(scheduler=PNDMScheduler(1000, skip_prk_steps=True, steps_offset=1) if scheduler == 'PNDM' else EulerAncestralDiscreteScheduler(1000, steps_offset=1))
        with quiet(): pipe = getattr(tiny_images, name)(tmp_path_factory.mktemp('words'), **kw, **more)
        return pipe if fresh else kept.setdefault(key, pipe)
    return f


@pytest.fixture(scope='module')
def sd(make): return make()


@pytest.fixture(scope='module')
def saved(make, tmp_path_factory):
    "Stable Diffusion with a checker, as a folder. Copy it before you change it."
    d = tmp_path_factory.mktemp('saved')/'sd'
    with quiet(): make(least=None).save_pretrained(d)
    return d


def gen(model, prompts='a cat', **kw): return TextToImage(model, prompts, **dict(size=16, steps=4, device='cpu') | kw)


def same(a, b, most=1):
    "Equal but for the last bit of a pixel."
    return a.labels.tolist() == b.labels.tolist() and a.extra['prompt'].tolist() == b.extra['prompt'].tolist() and np.abs(a.data.astype(int) - b.data).max(initial=0) <= most


def parents(n=1, size=(16, 16), channels=3, names=('',), extra=None, seed=0):
    return Records.images(rng(seed).integers(0, 256, (n, *size, channels)).astype(np.uint8), np.zeros(n, int), names, dict(prompt=['a cat']*n) if extra is None else extra)


class Counting:
    "Counts the calls of a network, and the images in each."
    def __init__(self, net): self.seen, self.hook = [], net.register_forward_hook(lambda m, args, kwargs, out: self.seen.append((kwargs.get('hidden_states', args[0] if args else None)).shape[0]), with_kwargs=True)
    def __enter__(self): return self.seen
    def __exit__(self, *a): self.hook.remove()


def net_of(pipe): return getattr(pipe, 'unet', None) or pipe.transformer


# ---- prompts ----

@pytest.mark.parametrize('given, names, want', [
    ('a cat', None, (('',), [['a cat']])), ('a cat', ('x', 'y'), (('x', 'y'), [['a cat'], ['a cat']])), (['a', 'b'], None, (('',), [['a', 'b']])), (('a', 'b'), ('x',), (('x',), [['a', 'b']])),
    (dict(x='a', y=['b', 'c']), None, (('x', 'y'), [['a'], ['b', 'c']])), (dict(x='a', y='b'), ('y', 'x'), (('y', 'x'), [['b'], ['a']]))])
def test_prompts(given, names, want): assert prompt_table(given, names) == want


@pytest.mark.parametrize('given, names, text', [
    (dict(x='a'), ('x', 'y'), r"there is none for \['y'\]"), (dict(x='a', y='b', z='c'), ('x', 'y'), r"\['z'\]"), (dict(x=''), None, "label 'x'"), (dict(x=[]), None, "label 'x'"), (dict(x=['a', 3]), None, "label 'x'"),
    (dict(x=None), None, "label 'x'"), (dict(x=['a', '  ']), None, "label 'x'"), ('', None, 'none of them empty'), ([], None, 'prompts'), (None, None, 'prompts'), (3, None, 'prompts'), ({}, None, 'label_names'),
    ('a', 'x', 'label_names'), ('a', ('x', 'x'), 'unique'), ({1: 'a'}, None, 'label_names')])
def test_bad_prompts(given, names, text):
    with pytest.raises(ValueError, match=text): TextToImage('nobody/nothing', given, names)


def test_prompts_from_a_file(tmp_path):
    f = tmp_path/'p.json'
    f.write_text(json.dumps(dict(cat=['eine Katze', 'un chat'], hund='chien Ω')), encoding='utf-8')
    for path in (f, str(f)): assert prompt_table(path, None) == (('cat', 'hund'), [['eine Katze', 'un chat'], ['chien Ω']])
    with pytest.raises(ValueError, match=r"there is none for \['owl'\]"): prompt_table(f, ('cat', 'hund', 'owl'))
    with pytest.raises(ValueError, match=r"\['hund'\]"): prompt_table(f, ('cat',))


@pytest.mark.parametrize('raw, text', [(b'{"a": ', 'must be a JSON file'), (b'["a"]', 'must hold an object'), (b'"a"', 'must hold an object'), (b'\xff\xfe', 'must be a JSON file'), (b'{"a": "x", "a": "y"}', 'once'), (b'{"a": 3}', "label 'a'"), (b'', 'must be a JSON file')])
def test_bad_files(tmp_path, raw, text):
    (tmp_path/'p.json').write_bytes(raw)
    with pytest.raises(ValueError, match=text): TextToImage('nobody/nothing', tmp_path/'p.json')


def test_absent_file(tmp_path):
    for p in (tmp_path/'no.json', 'no.json', tmp_path):
        with pytest.raises(ValueError, match='must be a file that exists'): TextToImage('nobody/nothing', p)


@pytest.mark.parametrize('n, k', [(0, 3), (1, 3), (2, 3), (3, 3), (10, 3), (100, 7), (5, 1)])
def test_prompts_share_the_images_as_in_paper_1(n, k):
    table = [[f'p{i}' for i in range(k)], ['q']]
    labels = rng(0).permutation(np.repeat([0, 1], [n, 4]))
    got = np.array(shared_out(labels, table), object)
    assert [sum(got == f'p{i}') for i in range(k)] == [(n + i)//k for i in range(k)]
    own = got[labels == 0].tolist()
    assert own == sorted(own) and (got[labels == 1] == 'q').all() and max(own.count(p) for p in table[0]) - min(own.count(p) for p in table[0]) <= 1


# ---- degrees ----

def test_at_least_one_step():
    for n in range(1, 400):
        for s in (1e-9, 1/n, .5/n, .02, .29, .98, 1.):
            got = at_least_one(s, n)
            assert int(n*got) == max(1, int(n*s)) and 0 < got <= 1 and (got == s or int(n*s) == 0)
            assert got == s or n - int(max(n - min(n*got, n), 0)) == 1  # flow models count from the other end: one step there too


@pytest.mark.parametrize('degree, want', [(.98, (.98, 50, 7.5)), (1, (1., 50, 7.5)), (np.float32(.5), (.5, 50, 7.5)), (dict(strength=.4), (.4, 50, 7.5)), (dict(strength=.4, steps=20, guidance=3), (.4, 20, 3.)),
                                          (dict(strength=.4, steps=None, guidance=0), (.4, 50, 0.)), (.001, (.02, 50, 7.5)), (dict(strength=.05, steps=np.int64(10)), (.1, 10, 7.5))])
def test_degrees(degree, want):
    got = read_degree(degree, 50, 7.5)
    assert (got['strength'], got['steps'], got['guidance']) == want


@pytest.mark.parametrize('degree', [0, 0., -1, 1.01, True, None, '1', [.5], math.nan, math.inf, np.bool_(True), {}, dict(steps=3), dict(strength=.5, step=3), dict(strength=0), dict(strength=.5, steps=0), dict(strength=.5, steps=2.),
                                    dict(strength=.5, guidance=-1), dict(strength=.5, guidance=math.inf), dict(strength=.5, guidance='x'), dict(strength=.5, steps=True)])
def test_bad_degrees(sd, degree):
    g = gen(sd)
    with pytest.raises(ValueError, match='degree|strength|steps|guidance'): g.check(degree)
    with pytest.raises(ValueError, match='degree|strength|steps|guidance'): g.vary(parents(), degree, rng(0))


@pytest.mark.parametrize('family', MAKERS)
def test_steps_taken(make, family):
    pipe = make(family)
    g = gen(pipe, steps=10)
    with Counting(net_of(pipe)) as seen:
        g.random([0], rng(0))
        assert len(seen) == 10
        for degree, n in ((.05, 1), (.1, 1), (.3, 3), (.55, 6 if family == 'sd3' else 5), (1., 10), (dict(strength=.5, steps=4), 2), (dict(strength=1e-6, steps=7), 1), (dict(strength=1., steps=1), 1)):
            seen.clear()
            assert g.vary(parents(), degree, rng(0)).data.shape == (1, 16, 16, 3)
            assert len(seen) == n, degree
            if family != 'sd3': assert g.costs([('vary', degree, [1])]).steps == (0, n)


# ---- the library's own pipelines ----

@pytest.mark.parametrize('family', MAKERS)
def test_random_and_vary_are_the_pipelines_own(make, family):
    pipe = make(family)
    g, (text, image) = gen(pipe, dict(a=['a cat', 'two dogs'], b='x'), guidance=4., steps=5), pair(pipe)
    labels = np.array([0, 1, 0])
    first = g.random(labels, rng(3))
    generators = lambda seed: [torch.Generator().manual_seed(int(s)) for s in rng(seed).integers(0, 2**63, 3)]
    with quiet(): want = text(['a cat', 'x', 'two dogs'], height=16, width=16, guidance_scale=4., num_inference_steps=5, generator=generators(3)).images
    assert np.array_equal(first.data, np.stack([np.asarray(x) for x in want])) and first.extra['prompt'].tolist() == ['a cat', 'x', 'two dogs']
    more = dict(height=16, width=16) if family == 'sd3' else {}
    with quiet(): want = image(['a cat', 'x', 'two dogs'], image=want, strength=.6, guidance_scale=2., num_inference_steps=7, generator=generators(4), **more).images
    second = g.vary(first, dict(strength=.6, steps=7, guidance=2), rng(4))
    assert np.array_equal(second.data, np.stack([np.asarray(x) for x in want])) and second.labels.tolist() == [0, 1, 0]


def test_one_set_of_weights(sd):
    text, image = gen(sd).opened_model().pipes
    assert all(text.components[k] is image.components[k] is sd.components[k] for k in networks(sd)) and type(image).__name__ == 'StableDiffusionImg2ImgPipeline'
    assert text.scheduler is not sd.scheduler and text is not sd


def test_the_prompt_travels(make):
    "A variation takes the prompt of its parent, and another prompt gives another image."
    g = gen(make('sdxl'), dict(a=['a cat', 'a dog']), guidance=5., steps=2)
    asked, (text, image) = [], g.opened_model().pipes
    class Listen:
        def __init__(self, pipe): self.pipe = pipe
        def __call__(self, **kw):
            asked.append(kw['prompt'])
            return self.pipe(**kw)
    g.pipes = Listen(text), Listen(image)
    r = g.random([0, 0], rng(0))
    back = g.vary(r[::-1], .5, rng(0))
    assert asked == [['a cat', 'a dog'], ['a dog', 'a cat']] and back.extra['prompt'].tolist() == ['a dog', 'a cat']
    a, b = (g.vary(parents(extra=dict(prompt=[p]), names=('a',)), 1., rng(0)).data for p in ('a cat', 'six birds'))
    assert not np.array_equal(a, b)


@pytest.mark.parametrize('kw', [dict(guidance=9.), dict(steps=5), dict(options=dict(negative_prompt='no dog')), dict(options=dict(guidance_rescale=.9))])
def test_settings_reach_the_model(sd, kw):
    a, b = (gen(sd, **dict(guidance=3.) | k).random([0, 0], rng(0)).data for k in ({}, kw))
    assert not np.array_equal(a, b)


def test_defaults_are_the_models(make, sd):
    g = TextToImage(sd, 'a cat').opened_model()
    assert (g.steps, g.guidance, g.size, g.device.type, g.dtype) == (50, 7.5, (16, 16), 'cpu', 'float32')   # those of paper 1's cats
    for family, guidance in (('sdxl', 5.), ('sd3', 7.)): assert TextToImage(make(family), 'a').opened_model().guidance == guidance and TextToImage(make(family), 'a').opened_model().size == (16, 16)


# ---- chance ----

@pytest.mark.parametrize('scheduler', [None, 'PNDM', 'ancestral'])
def test_an_image_does_not_depend_on_its_batch(make, scheduler):
    made = [gen(make(scheduler=scheduler), dict(a=['a cat', 'a dog in the sun'], b='x'), batch_size=b) for b in (1, 3, 64)]
    labels = np.array([0, 1, 0, 1, 0, 0, 1])
    first = [g.random(labels, rng(0)) for g in made]
    later = [g.vary(first[0], .7, rng(1)) for g in made]
    for rs in (first, later): assert all(same(r, rs[0]) for r in rs) and len({x.tobytes() for x in rs[0].data}) == 7


@pytest.mark.parametrize('family', ['sdxl', 'sd3'])
def test_batches_of_later_families(make, family):
    one, two = (gen(make(family), batch_size=b, steps=3) for b in (5, 2))
    first = one.random(np.zeros(5, int), rng(0))
    assert same(first, two.random(np.zeros(5, int), rng(0))) and same(one.vary(first, .7, rng(1)), two.vary(first, .7, rng(1)))


def test_same_seed_same_images_and_no_global_generator(make):
    g = gen(make(scheduler='ancestral'))
    torch.manual_seed(1)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    a = g.random(np.zeros(3, int), rng(3))
    c = g.vary(a, .8, rng(5))
    assert torch.equal(before[0], torch.random.get_rng_state()) and np.array_equal(before[1], np.random.get_state()[1])
    torch.manual_seed(2)
    assert a == g.random(np.zeros(3, int), rng(3)) != g.random(np.zeros(3, int), rng(4)) and c == g.vary(a, .8, rng(5)) != g.vary(a, .8, rng(6))
    twins = g.vary(a[np.zeros(3, int)], .8, rng(3))
    assert len({x.tobytes() for x in twins.data}) == 3


def test_a_schedule_leaves_nothing_behind(make):
    "The scheduler keeps notes between steps (PNDM): one call does not change the next, nor what the caller's pipeline does."
    pipe = make(fresh=True, scheduler='PNDM')
    g = gen(pipe)
    a = g.random([0], rng(0))
    g.vary(a, dict(strength=.3, steps=9), rng(0))
    assert g.random([0], rng(0)) == a and pipe.scheduler.num_inference_steps is None


def test_lower_strength_stays_closer(sd):
    "Compared with the lowest strength, for a random autoencoder brings nothing back."
    g = gen(sd, steps=10)
    far = [np.abs(g.vary(parents(6), s, rng(0)).data.astype(float) - g.vary(parents(6), 1e-3, rng(0)).data).mean() for s in (.2, .5, .9)]
    assert far[0] < far[1] < far[2]


# ---- safety checker ----

def test_nothing_flagged_nothing_said(make, sd):
    a = gen(make(least=None)).random(np.zeros(5, int), rng(0))
    assert same(a, gen(sd).random(np.zeros(5, int), rng(0)), 0)


def test_off_takes_the_checker_out_of_our_pipelines_only(make):
    pipe = make(least=-2.)      # flags everything
    g = gen(pipe, safety='off')
    a = g.random(np.zeros(3, int), rng(0))
    assert g.flagged['flagged'] == 0 and a.data.any() and pipe.safety_checker is not None and pipe.config.requires_safety_checker and all(p.safety_checker is None for p in g.pipes)
    assert g.vary(a, .5, rng(0)).data.any()


def test_flagged_images_are_drawn_again(make):
    pipe, n = make(least=tiny_images.MIDDLE), 12
    none, some, more = (gen(pipe, redraws=k, batch_size=b) for k, b in ((0, 5), (3, 5), (3, 2)))
    with pytest.warns(UserWarning, match='0 were drawn again from another seed, . stay black'): first = none.random(np.zeros(n, int), rng(0))
    black = first.data.reshape(n, -1).max(1) == 0
    assert 0 < black.sum() < n and none.flagged == dict(images=n, flagged=black.sum(), redrawn=0, left=black.sum())
    with pytest.warns(UserWarning, match=f'flagged {black.sum()} of {n} images'): got = some.random(np.zeros(n, int), rng(0))
    with pytest.warns(UserWarning): other = more.random(np.zeros(n, int), rng(0))
    assert same(got, other) and np.array_equal(got.data[~black], first.data[~black]) and len({x.tobytes() for x in got.data}) == n - max(0, some.flagged['left'] - 1)
    assert some.flagged['flagged'] == black.sum() and some.flagged['left'] < black.sum() and some.flagged['redrawn'] + some.flagged['left'] == black.sum()
    free = gen(pipe, safety='off')
    seeds = rng(0).integers(0, 2**63, n)
    i = int(np.flatnonzero(black)[0])
    want = next((x for k in range(1, 4) if not none.batch(s := again(seeds[[i]], k), ['a cat'], None, dict(steps=4, guidance=7.5))[1][0] for x in [free.opened_model().batch(s, ['a cat'], None, dict(steps=4, guidance=7.5))[0][0]]), np.zeros((16, 16, 3)))
    assert np.abs(got.data[i].astype(int) - want).max() <= 1


def test_flagged_variations_keep_their_parents(make):
    g = gen(make(least=-2.), redraws=2)
    p = parents(3)
    with Counting(g.opened_model().pipes[0].unet) as seen, pytest.warns(UserWarning, match='flagged 3 of 3 images: 0 were drawn again from another seed, 3 stay as their parents are'): got = g.vary(p, .5, rng(0))
    assert got == p and len(seen) == 3*2 and g.flagged == dict(images=3, flagged=3, redrawn=0, left=3)   # the first try and two more, two steps each
    half = gen(make(least=tiny_images.MIDDLE), redraws=0, size_out=8)
    q = parents(12, (8, 8))
    with pytest.warns(UserWarning, match='stay as their parents are'): got = half.vary(q, 1., rng(0))
    kept = (got.data == q.data).all((1, 2, 3))
    assert kept.sum() == half.flagged['left'] and 0 < kept.sum() < 12 and got.data.reshape(12, -1).max(1).all()


# ---- sizes ----

def test_rectangles_and_other_sizes_for_the_records(sd, make):
    a = gen(sd, size=(16, 24)).random([0], rng(0))
    assert a.data.shape == (1, 16, 24, 3)
    big, small = gen(sd, size=32), gen(sd, size=32, size_out=(12, 10))
    b, c = big.random([0, 0], rng(0)), small.random([0, 0], rng(0))
    want = np.stack([np.asarray(Image.fromarray(x).resize((10, 12), Image.Resampling.LANCZOS)) for x in b.data])
    assert np.array_equal(c.data, want) and small.vary(c, .5, rng(0)).data.shape == (2, 12, 10, 3) and small.record_bytes == 12*10*3 + 16 + 5
    for family in ('sdxl', 'sd3'):
        g = gen(make(family), size=(24, 16), steps=2)
        assert g.vary(g.random([0], rng(0)), .5, rng(0)).data.shape == (1, 24, 16, 3)
    x = parents(2).data
    assert resized(x, (16, 16)) is x


@pytest.mark.parametrize('size, text', [(20, 'multiples of 8'), ((16, 12), 'multiples of 8')])
def test_sizes_that_the_model_cannot_make(sd, size, text):
    with pytest.raises(ValueError, match=text): gen(sd, size=size).check(.5)


@pytest.mark.parametrize('parts, want', [
    (dict(unet=SimpleNamespace(config=dict(sample_size=64)), vae_scale_factor=8), (512, 512)), (dict(unet=None, transformer=SimpleNamespace(config=dict(sample_size=(60, 90))), vae_scale_factor=8), (480, 720)),
    (dict(default_sample_size=128, vae_scale_factor=8), (1024, 1024)), (dict(unet=SimpleNamespace(config=dict(sample_size=64))), (64, 64)), (dict(transformer=SimpleNamespace(config={}), vae_scale_factor=8), None), (dict(), None)])
def test_own_size(parts, want):
    "Of Stable Diffusion, a transformer, Flux, a pixel model, and of models that do not say."
    if want: assert own_size(SimpleNamespace(**parts)) == want
    else:
        with pytest.raises(ValueError, match='size .None. must be given'): own_size(SimpleNamespace(**parts))


# ---- bad input ----

@pytest.mark.parametrize('kw, text', [
    (dict(batch_size=0), 'batch_size'), (dict(batch_size=True), 'batch_size'), (dict(batch_size=2.), 'batch_size'), (dict(dtype='int8'), 'dtype'), (dict(dtype=torch.float16), 'dtype'), (dict(safety='on'), 'safety'), (dict(safety=None), 'safety'),
    (dict(steps=0), 'steps'), (dict(steps=1.5), 'steps'), (dict(guidance=-1), 'guidance'), (dict(guidance=math.nan), 'guidance'), (dict(guidance='7'), 'guidance'), (dict(size=0), 'size'), (dict(size=(16, 16, 3)), 'size'),
    (dict(size=16.), 'size'), (dict(size_out=-1), 'size_out'), (dict(redraws=-1), 'redraws'), (dict(options=dict(prompt='x')), 'options'), (dict(options=dict(strength=1)), 'options'), (dict(options=[1]), 'options'),
    (dict(options=dict(callback_on_step_end=print)), 'options'), (dict(options={1: 2}), 'options')])
def test_bad_settings(kw, text):
    with pytest.raises(ValueError, match=text): gen('nobody/nothing', **kw)


def test_bad_settings_that_need_the_model(sd, make):
    with pytest.raises(ValueError, match=r"options \(\['colour'\]\) must be arguments of StableDiffusionPipeline"): gen(sd, options=dict(colour='red')).check(.5)
    for m in (object(), 3, torch.nn.Linear(1, 1)):
        with pytest.raises(ValueError, match='model'): gen(m).check(.5)
    with pytest.raises(ValueError, match="model"): gen('')


@pytest.mark.parametrize('records, text', [
    (parents(channels=1), 'three colours'), (parents(channels=4), 'three colours'), (parents(size=(8, 8)), '8x8x3'), (parents(extra={}), "must be \\['prompt'\\]"), (parents(extra=dict(prompt=['a'], font=[1])), 'font'), (parents(extra=dict(prompt=[3])), 'texts'),
    (parents(extra=dict(prompt=[' '])), 'texts'), (parents(names=('a', 'b')), 'label_names'), (Records.texts(['x']), 'Records of images'), (np.zeros((1, 16, 16, 3), np.uint8), 'Records of images')])
def test_bad_parents(sd, records, text):
    with pytest.raises(ValueError, match=text): gen(sd).vary(records, .5, rng(0))


def test_nothing_asked_nothing_made(sd):
    g = gen(sd, dict(a='x', b='y'))
    none = g.random(np.zeros(0, int), rng(0))
    assert none.data.shape == (0, 16, 16, 3) and none.extra['prompt'].dtype == g.random([0], rng(0)).extra['prompt'].dtype and len(g.vary(none, .5, rng(0))) == 0
    with pytest.raises(ValueError, match='label'): g.random([2], rng(0))


def test_a_family_without_a_way_back(make, tmp_path):
    "Random images are fine; variations are refused when a run is planned, before anything private is read."
    from pe_nb.embeddings.images import Pixels
    from pe_nb.evolution import Settings
    from pe_nb.release import Budget, SeededNoise
    from pe_nb.runs import synthesize
    g = gen(make('pixart'), 'a cat', steps=2, options=dict(use_resolution_binning=False))
    assert g.random([0, 0], rng(0)).data.shape == (2, 16, 16, 3)
    for f in (lambda: g.check(.5), lambda: g.vary(parents(), .5, rng(0)), lambda: g.costs([('vary', .5, [1])])):
        with pytest.raises(ValueError, match=r'model \(PixArtAlphaPipeline\) must be of a family with a pipeline from image to image'): f()
    with pytest.raises(ValueError, match='it has no variations'):
        synthesize(parents(5, extra={}), g, Pixels(), Settings(generations=1, samples=2, degree=.5, threshold=0., seed=1), Budget(epsilon=5., delta=1e-3), tmp_path/'run', noise=SeededNoise(1), report=False)
    assert not list((tmp_path/'run').glob('releases/*'))


def test_values_that_are_no_numbers_are_refused(make):
    pipe = make(fresh=True)
    with torch.no_grad(): pipe.vae.decoder.conv_out.bias.fill_(math.nan)
    with pytest.raises(ValueError, match="dtype .* such as 'bfloat16'"): gen(pipe).random([0], rng(0))


def test_long_prompts_are_not_cut_in_silence(make, sd):
    long = 'cat '*40
    with pytest.warns(UserWarning, match='a prompt has 122 tokens and the model reads 77'): gen(sd, long).check(.5)
    gen(sd, 'cat '*20).check(.5)  # silent: warnings are errors here


# ---- quiet ----

def test_nothing_is_written_and_switches_stay(saved, capfd):
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    bars = tlog.is_progress_bar_enabled()  # another test may have turned them off
    tlog.enable_progress_bar()
    state = lambda: (dlog.get_verbosity(), tlog.get_verbosity(), dlog.is_progress_bar_enabled(), tlog.is_progress_bar_enabled(), are_progress_bars_disabled())
    before = state()
    g = gen(saved)
    g.vary(g.random([0], rng(0)), .5, rng(0))
    assert state() == before and capfd.readouterr() == ('', '')
    tlog.disable_progress_bar()
    dlog.set_verbosity(17)
    try:
        other = state()
        with pytest.raises(KeyError), quiet(): raise KeyError
        assert state() == other != before
    finally:
        tlog.enable_progress_bar()
        dlog.set_verbosity(before[0])
    disable_progress_bars()
    try:
        with quiet(): pass
        assert are_progress_bars_disabled() and state()[:4] == before[:4]
    finally: enable_progress_bars()
    assert state() == before
    if not bars: tlog.disable_progress_bar()


# ---- where models come from ----

def test_a_folder_a_single_file_and_an_object_are_the_same(saved, make, tmp_path):
    tiny_images.single_file(make(least=None), tmp_path/'one.safetensors')
    kinds = [gen(make(least=None)), gen(saved), gen(str(saved)), gen(tmp_path/'one.safetensors', config=saved), gen(saved, safety='off')]
    assert all(g.pipes is None for g in kinds)      # nothing is read before it is needed
    first = kinds[0].random([0, 0], rng(0))
    for g in kinds[1:]: assert g.random([0, 0], rng(0)) == first
    assert kinds[0].fingerprint == kinds[1].fingerprint == kinds[2].fingerprint and kinds[3].pipes[0].safety_checker is None
    assert kinds[3].digest == kinds[4].digest != kinds[0].digest and kinds[3].fingerprint != kinds[4].fingerprint != kinds[0].fingerprint


@pytest.mark.parametrize('family', ['sdxl', 'sd3', 'pixart'])
def test_folders_of_later_families(make, family, tmp_path):
    pipe = make(family)
    with quiet(): pipe.save_pretrained(tmp_path/'m')
    more = dict(options=dict(use_resolution_binning=False)) if family == 'pixart' else {}
    a, b = gen(pipe, steps=2, **more), gen(tmp_path/'m', steps=2, **more)
    assert a.random([0], rng(0)) == b.random([0], rng(0)) and a.fingerprint == b.fingerprint


def copied(saved, tmp_path): return shutil.copytree(saved, tmp_path/'copy')


@pytest.mark.parametrize('part, key', [('unet', 'conv_in.bias'), ('vae', 'quant_conv.weight'), ('text_encoder', 'final_layer_norm.weight'), ('safety_checker', 'visual_projection.weight')])
def test_missing_weights_are_an_error(saved, tmp_path, part, key):
    d = copied(saved, tmp_path)
    file = next((d/part).glob('*.safetensors'))
    w = load_file(file)
    key = next(k for k in w if k.endswith(key))
    save_file({k: v for k, v in w.items() if k != key}, file, metadata=dict(format='pt'))
    with pytest.raises(ValueError, match='must have all (its )?weights'): gen(d).check(.5)
    save_file(w | {key: torch.cat([w[key], w[key]])}, file, metadata=dict(format='pt'))
    with pytest.raises(ValueError, match='shape'): gen(d).check(.5)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match='files that can be read'): gen(d).check(.5)
    file.unlink()
    with pytest.raises(ModelMissing, match=f"the weights of its part '{part}'"): gen(d).check(.5)
    if part == 'safety_checker': gen(d, safety='off').check(.5)  # it is not wanted


@pytest.mark.parametrize('part', ['tokenizer', 'scheduler', 'unet', 'feature_extractor'])
def test_missing_parts_are_an_error(saved, tmp_path, part):
    d = copied(saved, tmp_path)
    shutil.rmtree(d/part)
    with pytest.raises(ModelMissing, match=f"must have its part '{part}'"): gen(d).check(.5)


def test_other_models_are_refused(saved, tmp_path):
    d = copied(saved, tmp_path)
    index = json.loads((d/'model_index.json').read_text())
    for name in ('DDPMPipeline', 'WanPipeline', 'Nonsense'):
        (d/'model_index.json').write_text(json.dumps(index | dict(_class_name=name)))
        with pytest.raises(ValueError, match=rf'model \({name}\) must be of a family that AutoPipelineForText2Image knows'): gen(d).check(.5)
    (d/'model_index.json').write_text('{')
    with pytest.raises(ValueError, match='must be JSON'): gen(d).check(.5)


def test_a_single_file_that_is_not_whole(sd, saved, tmp_path):
    f = tmp_path/'one.safetensors'
    tiny_images.single_file(sd, f)
    w = load_file(f)
    save_file({k: v for k, v in w.items() if k != 'model.diffusion_model.out.2.bias'}, f)
    with pytest.raises(ValueError, match='must have all its weights'): gen(f, config=saved).check(.5)
    f.write_bytes(b'x'*50)
    with pytest.raises(ValueError, match='files that can be read'): gen(f, config=saved).check(.5)
    with pytest.raises(ModelMissing, match='config'): gen(f, config=tmp_path/'no').check(.5)
    (tmp_path/'one.ckpt').write_bytes(b'')
    with pytest.raises(ValueError, match='other files may hold code'): gen(tmp_path/'one.ckpt').check(.5)


def test_half_precision_files(saved, make, tmp_path):
    d = tmp_path/'half'
    with quiet():
        make(fresh=True, least=None).to(dtype=torch.float16).save_pretrained(d, variant='fp16')
    assert [*d.rglob('*.fp16.safetensors')]
    with pytest.raises(ModelMissing, match="variant 'fp16' takes them"): gen(d).check(.5)
    a = gen(d, variant='fp16', steps=1).random([0], rng(0))
    assert a.data.shape == (1, 16, 16, 3)
    with pytest.raises(ValueError, match='fp16'): gen(saved, variant='fp16').check(.5)


def test_missing_models_say_what_to_do(tmp_path, monkeypatch, sd, no_network):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    with quiet(), pytest.raises(ModelMissing, match='hf download nobody/nothing-here --local-dir FOLDER'): hub_folder('nobody/nothing-here')
    g = gen('nobody/nothing-here')      # making one asks for nothing
    with pytest.raises(ModelMissing, match='HF_HUB_OFFLINE'): g.check(.5)
    for name in ('a/b/c', './x', tmp_path/'x', 'x.safetensors', tmp_path/'x.safetensors'):
        with pytest.raises(ModelMissing, match='that exists'): find_pipeline(name)
    with pytest.raises(ModelMissing, match='model_index.json'): find_pipeline(tmp_path)
    tiny_images.single_file(sd, tmp_path/'one.safetensors')
    with pytest.raises(ModelMissing, match='give FOLDER as config'): gen(tmp_path/'one.safetensors').check(.5)


def test_hub_names_come_from_the_cache(saved, monkeypatch):
    asked = []
    monkeypatch.setattr('diffusers.DiffusionPipeline.download', lambda repo, variant, local_files_only: asked.append((repo, variant, local_files_only)) or str(saved))
    gen('somebody/model', steps=2).check(.5)
    assert asked == [('somebody/model', None, True)]


def test_what_the_cache_lacks_is_downloaded(saved, tmp_path, monkeypatch):
    d, asked = copied(saved, tmp_path), []
    shutil.rmtree(d/'unet')
    monkeypatch.delenv('HF_HUB_OFFLINE', raising=False)
    monkeypatch.setattr('diffusers.DiffusionPipeline.download', lambda repo, variant, local_files_only: asked.append(local_files_only) or str(d if local_files_only else saved))
    gen('somebody/model', steps=2).check(.5)
    assert asked == [True, False]


def test_missing_packages_name_the_extra(monkeypatch, saved):
    for p in ('diffusers', 'torch', 'transformers'):
        with monkeypatch.context() as m:
            m.setitem(sys.modules, p, None)
            with pytest.raises(ImportError, match=r"pip install 'pe_nb\[images\]'"): gen(saved).check(.5)


def test_loading_leaves_the_global_generator(saved):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    open_pipeline(saved, 'float32')
    assert torch.equal(before, torch.random.get_rng_state())


def test_bfloat16_is_close(saved):
    a, b = (gen(saved, dtype=d, steps=4) for d in ('float32', 'bfloat16'))
    assert all(p.dtype == torch.bfloat16 for p in b.opened_model().pipes[0].unet.parameters())
    assert 0 < np.abs(a.random([0]*4, rng(0)).data.astype(int) - b.random([0]*4, rng(0)).data).mean() < 12


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_on_a_gpu(saved):
    "The noise is drawn on the CPU: the same images, but for the arithmetic, whatever the batch."
    cpu, *others = (gen(saved, device=d, dtype=t, batch_size=b).random(np.zeros(5, int), rng(0)).data.astype(int) for d, t, b in (('cpu', None, 8), ('cuda', 'float32', 8), ('cuda', 'float32', 2), ('cuda', None, 8), ('cuda', 'float16', 3)))
    assert all(np.abs(x - cpu).mean() < most for x, most in zip(others, (1, 1, 12, 4)))
    g = gen(saved, device=None)
    assert g.opened_model().dtype == 'bfloat16' and {p.device.type for p in g.pipes[1].unet.parameters()} == {'cuda'}
    assert g.vary(parents(3), .5, rng(0)).data.shape == (3, 16, 16, 3)


# ---- fingerprint, costs ----

def test_fingerprint_changes_with_everything_that_counts(make, sd):
    moved = make(fresh=True)
    moved.unet.conv_in.bias.data[0] += 1e-6
    base = dict(prompts=dict(a='x'))
    f = lambda model=sd, **kw: gen(model, **base | kw).fingerprint
    kinds = [f(), f(moved), f(make(seed=1)), f(make(scheduler='PNDM')), f(make(least=None)), f(make('sdxl')), f(prompts=dict(a='y')), f(prompts=dict(a=['x', 'y'])), f(prompts=dict(b='x')), f(steps=5), f(guidance=2.), f(size=24),
             f(size_out=8), f(batch_size=3), f(safety='off'), f(redraws=1), f(options=dict(negative_prompt='z'))]
    assert len(set(kinds)) == len(kinds) and f() == kinds[0] and json.loads(kinds[0].removeprefix('TextToImage '))['steps'] == 4
    assert pipeline_digest(sd) == pipeline_digest(make(fresh=True))


def test_costs_are_what_a_run_takes(sd):
    from pe_nb.evolution import Settings
    from pe_nb.runs import planned_calls
    g = gen(sd, dict(a='x', b='y'), steps=6)
    s = Settings(generations=2, samples=6, degree=[None, .9, dict(strength=.4, steps=5)], threshold=0., lookahead=2, seed=1)
    costs, labels = g.costs(planned_calls(s, g.label_names)), np.array([0, 0, 0, 1, 1, 1])
    with Counting(sd.unet) as seen:
        r = g.random(labels, rng(0))
        for degree in (.9, .9, .9, *[dict(strength=.4, steps=5)]*3): g.vary(r, degree, rng(0))
    assert costs.images == (6, 36) and sum(costs.steps) == 6*6 + 18*5 + 18*2 == sum(seen)//2    # guidance takes each step twice
    assert '42 images' in repr(costs) and '162 steps' in repr(costs)


# ---- memory ----

class Full:
    "A pipeline for which there is room for only so many images."
    def __init__(self, pipe, room): self.pipe, self.room, self.seen = pipe, room, []
    def __call__(self, **kw):
        self.seen.append(len(kw['prompt']))
        if len(kw['prompt']) > self.room: raise torch.OutOfMemoryError('full')
        return self.pipe(**kw)


def test_batch_is_halved_once_with_a_warning(sd):
    want, g = gen(sd, batch_size=6).random(np.zeros(8, int), rng(0)), gen(sd, batch_size=6)
    stated = g.fingerprint
    pipes = g.pipes
    g.pipes = full = [Full(p, 3) for p in pipes]
    with pytest.warns(UserWarning, match='batch_size is 3'): got = g.random(np.zeros(8, int), rng(0))
    assert same(got, want) and full[0].seen == [6, 3, 3, 2] and g.batch_given == 6
    assert g.vary(got, .5, rng(0)).data.shape == got.data.shape     # silent now: warnings are errors here
    g.pipes = [Full(p, 2) for p in pipes]
    with pytest.raises(MemoryError, match=r'batch_size \(3\) must be smaller'): g.random(np.zeros(8, int), rng(0))
    one = gen(sd, batch_size=1).opened_model()
    one.pipes = [Full(p, 0) for p in one.pipes]
    with pytest.raises(MemoryError, match=r'batch_size \(1\)'): one.random([0], rng(0))
    assert json.loads(stated.removeprefix('TextToImage '))['batch_size'] == 6


# ---- in a run ----

def test_a_run_from_a_schedule_of_degrees(sd, tmp_path):
    from pe_nb.embeddings.images import Pixels
    from pe_nb.evolution import Settings
    from pe_nb.release import Budget, SeededNoise
    from pe_nb.runs import synthesize
    names = ('cat', 'dog')
    private = Records.images(rng(0).integers(0, 256, (20, 8, 8, 3)).astype(np.uint8), np.arange(20) % 2, names)
    maker = lambda b: gen(sd, dict(cat=['a cat', 'a kitten'], dog='a dog'), size_out=8, batch_size=b)
    run = lambda where, d, b=3: synthesize(private, maker(b), Pixels(), Settings(generations=2, samples=6, degree=d, threshold=0., lookahead=1, seed=1), Budget(epsilon=5., delta=1e-3), where, noise=SeededNoise(1), report=False).records()
    one, two = (run(tmp_path/k, [None, 1., dict(strength=.5, steps=6, guidance=2.)]) for k in '12')
    assert one == two and one.data.shape == (6, 8, 8, 3) and set(one.extra['prompt'].tolist()) <= {'a cat', 'a kitten', 'a dog'}
    assert all((p == 'a dog') == (l == 1) for p, l in zip(one.extra['prompt'].tolist(), one.labels))
    with pytest.raises(ValueError, match='strength'): run(tmp_path/'bad', [None, 1., 0.])
    assert not list((tmp_path/'bad').glob('releases/*'))  # refused before anything private was read


def test_in_a_mixture(sd):
    from pe_nb.generators.mixture import Mixture
    g = Mixture(dict(one=gen(sd, dict(a='x')), two=gen(sd, dict(a='y'), steps=2)))
    r = g.random(np.zeros(4, int), rng(0))
    assert sorted(r.extra['prompt'].tolist()) == ['x', 'x', 'y', 'y'] and len(g.vary(r, .5, rng(1))) == 4
