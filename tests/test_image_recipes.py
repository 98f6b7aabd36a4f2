"Image recipes: every number against the literal values of the papers' scripts, what they spend, and the generators that take them."
import math

import numpy as np
import pytest

from pe_nb import Budget, Settings, plan
from pe_nb.accounting import Event, epsilon
from pe_nb.evolution import planned_events, steps
from pe_nb.generators.fonts import Fonts
from pe_nb.generators.image_recipes import BENCH, DEGREES, EXPERIMENTS, NOTES, recipe, rule, stretched, threshold_of
from pe_nb.generators.pool import Pool
from pe_nb.data.image_sets import NAMES, SIZES
from pe_nb.records import Records

# Typed a second time, from the digests of the scripts: N, T, degrees, threshold, noise, delta, resolution of the embedding, loader, records.
CIFAR = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40]
SKIPS = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30]
STRENGTH = [1.0, .98, .96, .94, .92, .88, .84, .80, .76, .72, .68, .64, .60, .56, .52, .48, .44, .40]
PAPER1 = {
    'cifar10': (50000, 20, CIFAR, 10, 7.0710678, 1e-5, 32, 'cifar10', 50000), 'cifar10_unconditional': (50000, 20, CIFAR, 10, 7.0710678, 1e-5, 32, 'cifar10', 50000),
    'camelyon17': (302436, 29, [dict(skip=s, respacing='ddim10' if i < 19 else '40') for i, s in enumerate(SKIPS)], 4, 2.8284271, 3e-6, 64, 'camelyon17', 302436),
    'cats': (200, 17, STRENGTH, 2, 2, 1e-3, 512, 'cats', 200), 'cookie': (100, 17, STRENGTH, 2, 2, 1e-3, 512, 'cats', 100), 'doudou': (100, 17, STRENGTH, 2, 2, 1e-3, 512, 'cats', 100)}
PAPER3 = {
    'mnist': (60000, 4, 1.666e-6, 1.0644, 8.2379, 55000, 5000), 'celeba_avatar': (60000, 7, 5.80e-7, 1.4563, 11.4703, 145064, 17706),
    'celeba_digiface': (60000, 6, 5.80e-7, 1.3482, 10.6194, 145064, 17706)}


def spent(noise, T, delta): return epsilon([Event(noise_multiplier=noise, mechanism='continuous')]*T, delta)


# ---- paper 1 ----

@pytest.mark.parametrize('variant', ['paper', 'library', 'script'])
@pytest.mark.parametrize('name', PAPER1)
def test_paper_1(name, variant):
    N, T, degrees, H, noise, delta, res, loader, records = PAPER1[name]
    r = recipe(name, variant=variant)
    if (name, variant) == ('camelyon17', 'script'): T, degrees, noise = 19, [dict(skip=s, respacing='ddim10') for s in [0]*5 + [1]*5 + [2]*5 + [3]*5], 2.1793
    s = r['settings']
    assert (s['samples'], s['generations'], s['degree'], s['threshold']) == (N, T, degrees, H)
    assert (s['lookahead'], s['selection'], s['neighbours'], s['metric'], s['proportions']) == (8, 'sample', 1, 'l2', 'uniform') and 'noise_weight' not in s
    assert r['budget'] == dict(noise_multiplier=pytest.approx(noise, abs=1e-7), delta=delta)
    assert r['embedding'] == dict(res=res) and r['data']['set'] == loader and r['data']['records'] == records and r['data']['held_out'] == 0
    p = plan(Settings(**s), Budget(**r['budget']))
    assert p.random_calls == N and p.variation_calls == N*T*9 and set(p.rows) == {N}


def test_what_the_settings_spend():
    "The papers' epsilons, from the recipe's own noise; ours, for discrete noise, may be smaller but is an upper bound of what is drawn."
    for name, variant, want in (('cifar10', 'paper', 2.594), ('camelyon17', 'paper', 9.921), ('camelyon17', 'script', 10.534), ('cats', 'paper', 7.890), ('cookie', 'script', 7.890)):
        r = recipe(name, variant=variant)
        assert spent(r['budget']['noise_multiplier'], r['settings']['generations'], r['budget']['delta']) == pytest.approx(want, abs=6e-4)
        ours = plan(Settings(**r['settings']), Budget(**r['budget'])).epsilon[-1]
        assert want*.99 < ours < want*1.002
    script = recipe('camelyon17', variant='script')['budget']
    assert spent(script['noise_multiplier'], 11, script['delta']) == pytest.approx(7.585, abs=6e-4)
    assert spent(2., 13, 1e-3) == pytest.approx(6.619, abs=6e-4)
    p = plan(Settings(**(r := recipe('cifar10'))['settings']), Budget(**r['budget']))
    assert p.random_calls + p.variation_calls == 9_050_000


def test_the_rule():
    r = recipe('cifar10', t=10)
    assert r['budget']['noise_multiplier'] == pytest.approx(14.142, abs=1e-3) and r['settings']['threshold'] == 20
    assert spent(r['budget']['noise_multiplier'], 7, 1e-5) == pytest.approx(.674, abs=6e-4)
    for name, t in (('cifar10', 5), ('camelyon17', 2)):
        a, b = recipe(name), recipe(name, t=t)
        assert a == b and threshold_of(a['budget']['noise_multiplier']) == pytest.approx(a['settings']['threshold'])
    assert recipe('cats')['settings']['threshold'] != pytest.approx(threshold_of(2.)) and threshold_of(0.) == 0
    for t in (.1, 3, 7.5): assert rule(t) == dict(noise_multiplier=pytest.approx(t*2**.5), threshold=2*t)


def test_generators_of_paper_1():
    assert EXPERIMENTS['cifar10']['labels'] == NAMES['cifar10'] and EXPERIMENTS['camelyon17']['labels'] == NAMES['camelyon17'] and EXPERIMENTS['cats']['labels'] == NAMES['cats']
    for name, respacing, labels in (('cifar10', '100', 10), ('cifar10_unconditional', '100', 1), ('camelyon17', 'ddim10', 2)):
        r = recipe(name)
        g = r['generator']
        assert (g['respacing'], g['sampler'], g['exact'], len(g['label_names'])) == (respacing, 'ddim', True, labels) and r['model'].endswith('imagenet64_cond_270M_250K.pt')
        assert g['improved'] == dict(heads=4, image_size=64, steps=4000, schedule='cosine')
    assert recipe('cifar10_unconditional')['data']['arguments'] == dict(split='train', labels=False)
    r = recipe('cats')
    assert r['generator']['prompts'] == dict(cookie='A photo of ragdoll cat', doudou='A photo of ragdoll cat') and r['model'] == 'CompVis/stable-diffusion-v1-4'
    assert recipe('doudou')['generator']['label_names'] == ('doudou',) and recipe('doudou')['data']['arguments']['cat'] == 'doudou'


def test_degrees_go_through_a_diffusion_model(one_thread):
    "The schedules, on a tiny network with 4,000 noise levels as the paper's has."
    torch, diffusers = pytest.importorskip('torch'), pytest.importorskip('diffusers')
    from pe_nb.generators.diffusion import Diffusion
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(8, 3, 3, block_out_channels=(8, 16), layers_per_block=1, down_block_types=('DownBlock2D', 'DownBlock2D'), up_block_types=('UpBlock2D', 'UpBlock2D'), norm_num_groups=4, num_class_embeds=5)
    noise = diffusers.DDPMScheduler(4000, beta_schedule='squaredcos_cap_v2')
    for name, variant in (('cifar10', 'paper'), ('cifar10_unconditional', 'paper'), ('camelyon17', 'paper'), ('camelyon17', 'script')):
        r = recipe(name, variant=variant)
        d = Diffusion(net, noise, **r['generator'])
        steps(Settings(**r['settings']), d)
        assert len(d.plan(r['settings']['degree'][0])[0]) == (100 if 'cifar' in name else 10)
        last, skip = d.plan(r['settings']['degree'][-1])
        assert (len(last), skip) == {'cifar10': (100, 40), 'camelyon17': (40, 30)}.get(name.split('_')[0], None) or variant == 'script' and (len(last), skip) == (10, 3)
        first = d.random(np.zeros(2, int), np.random.default_rng(0))
        if name == 'camelyon17': assert d.vary(first, r['settings']['degree'][-1], np.random.default_rng(1)).data.shape == (2, 8, 8, 3)


# ---- paper 3 ----

@pytest.mark.parametrize('name', PAPER3)
def test_paper_3(name):
    N, T, delta, ten, one, records, held = PAPER3[name]
    r = recipe(name)
    s = r['settings']
    assert (s['samples'], s['generations'], s['threshold'], s['lookahead'], s['selection']) == (N, T, 1, 8, 'sample')
    assert r['budget'] == dict(epsilon=10., delta=1/(records*math.log(records))) and r['budget']['delta'] == pytest.approx(delta, rel=1e-3)
    assert (r['data']['records'], r['data']['held_out']) == (records, held) and records + held == SIZES[r['data']['set']]['train']
    for e, want in ((10., ten), (1., one)):
        free = recipe(name, e, proportions='uniform')
        events = planned_events(Settings(**free['settings']), Budget(**free['budget']))
        assert len(events) == T and events[0].noise_multiplier == pytest.approx(want, rel=.02 if e == 10 else 3e-4)  # theirs is continuous noise
        assert spent(want, T, free['budget']['delta']) == pytest.approx(e, rel=2e-4)
        paid = recipe(name, e)
        events = planned_events(Settings(**paid['settings']), Budget(**paid['budget']))
        assert len(events) == T + 1 and events[0].noise_multiplier == pytest.approx(10*events[1].noise_multiplier)
        assert epsilon(events, paid['budget']['delta']) <= e


def test_renderer():
    r = recipe('mnist')
    assert [d['font'] for d in r['settings']['degree']] == [1., .8, .4, .2, 0.] and [d['size'] for d in r['settings']['degree']] == [6, 5, 4, 3, 2]
    assert [d['rotation'] for d in r['settings']['degree']] == [11, 9, 7, 5, 3] and [d['stroke'] for d in r['settings']['degree']] == [1, 1, 1, 0, 0]
    assert {d['text'] for d in r['settings']['degree']} == {0.}
    f = Fonts(**r['generator'])
    steps(Settings(**r['settings']), f)
    x = f.random(np.repeat(np.arange(10), 300), np.random.default_rng(0))
    assert x.label_names == NAMES['mnist'] and x.data.shape == (3000, 28, 28, 1)
    for k, values in (('text', range(10)), ('size', range(10, 30)), ('rotation', range(-30, 31)), ('stroke', range(3))): assert set(x.extra[k].tolist()) == set(values)
    assert abs((x.extra['text'] == x.labels).mean() - .1) < .03, 'any digit for any label'
    y = f.vary(x, r['settings']['degree'][0], np.random.default_rng(1))
    assert (y.extra['text'] == x.extra['text']).all() and np.abs(y.extra['size'] - x.extra['size']).max() == 6 and np.abs(y.extra['stroke'] - x.extra['stroke']).max() == 1
    known = Fonts(**r['generator'] | dict(texts=None, label_names=None))
    assert known.label_names == f.label_names and (known.random(np.arange(10), np.random.default_rng(0)).extra['text'] == 0).all()


def test_simulated_faces():
    assert recipe('celeba_avatar')['settings']['degree'] == [1, .8, .6, .4, .2, .1, .08, .06]
    r = recipe('celeba_digiface')
    assert r['settings']['degree'] == [1000, 1000, 500, 200, 100, 50, 20]
    assert r['data'] == dict(set='celeba', arguments=dict(split='train', attribute='Male', size=32), records=145064, held_out=17706)
    faces = Records.images(np.random.default_rng(0).integers(0, 255, (1200, 4, 4, 3)).astype(np.uint8))
    pool = Pool(faces, embeddings=faces.data.reshape(1200, -1).astype(np.float32), **r['generator'])
    steps(Settings(**r['settings']), pool)
    assert pool.label_names == ('Male_0', 'Male_1') and not pool.by_label and pool.include_self and pool.metric == 'l2'


def test_the_other_generators_take_their_arguments():
    "Avatars, Stable Diffusion and Inception, as far as they go without weights."
    pytest.importorskip('python_avatars')
    from pe_nb.embeddings.inception import Inception
    from pe_nb.generators.avatars import Avatars
    from pe_nb.generators.text_to_image import TextToImage
    r = recipe('celeba_avatar')
    a = Avatars(**r['generator'])
    steps(Settings(**r['settings']), a)
    assert (a.size, a.label_names) == (32, ('Male_0', 'Male_1'))
    r = recipe('cats')
    t = TextToImage(r['model'], **r['generator'])
    assert (t.steps_given, t.guidance_given, t.size_given, t.safety, t.label_names) == (50, 7.5, (512, 512), 'off', ('cookie', 'doudou'))
    assert [Inception(**recipe(n)['embedding']).res for n in ('cifar10', 'camelyon17', 'cats', 'mnist')] == [32, 64, 512, None]


# ---- DPImageBench ----

@pytest.mark.parametrize('name, eps, T, degrees, H, respacing, levels', [
    ('cifar10', 1., 5, [0, 2, 4, 6, 8, 10], 15, '100', 4000), ('cifar10', 10, 5, [0, 2, 4, 6, 8, 10], 2, '100', 4000),
    ('camelyon17', 1., 7, [0, 0, 0, 0, 0, 1, 1, 1], 30, 'ddim10', 4000), ('camelyon17', 10., 7, [0, 0, 0, 0, 0, 1, 1, 1], 4, 'ddim10', 4000),
    ('mnist', 1, 10, [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2], 24, '10', 100), ('mnist', 10., 11, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2], 3, '10', 4000)])
def test_bench(name, eps, T, degrees, H, respacing, levels):
    r = recipe(name, eps, 'bench', records=300_000 if name == 'camelyon17' else None)
    s, g = r['settings'], r['generator']
    assert (s['samples'], s['generations'], s['degree'], s['threshold'], s['lookahead']) == (60000, T, degrees, H, 8)
    assert (g['respacing'], g['improved']['steps']) == (respacing, levels) and r['budget']['epsilon'] == eps and r['model'].endswith('.pt') and r['notes'] == NOTES['bench']
    if name == 'cifar10': assert r['budget']['delta'] == pytest.approx(2.07404851125286e-06) and r['data']['records'] == 45000
    if (name, eps) == ('cifar10', 1.): assert spent(9.107351925709143, T, r['budget']['delta']) == pytest.approx(1, abs=1e-4)


# ---- calls ----

def test_other_sizes_and_no_shared_state():
    r = recipe('cifar10', 4., records=1000, samples=30, generations=4, seed=7, threshold=2., proportions='private')
    assert (r['settings']['samples'], r['settings']['degree'], r['settings']['seed'], r['settings']['threshold']) == (30, [0, 10, 20, 30, 40], 7, 2.)
    assert r['budget'] == dict(epsilon=4., delta=1/(1000*math.log(1000))) and r['settings']['noise_weight'] == [10., 1., 1., 1., 1.]
    assert recipe('cifar10', math.inf)['budget'] == dict(epsilon=math.inf, delta=1e-5, non_private=True)
    assert recipe('mnist', math.inf)['budget']['non_private'] is True and recipe('cats', 4.)['budget'] == dict(epsilon=4., delta=1e-3)
    r['generator']['improved']['steps'] = r['settings']['degree'][0] = r['data']['arguments']['split'] = r['embedding']['res'] = 'changed'
    again = recipe('cifar10')
    assert again['generator']['improved']['steps'] == 4000 and again['settings']['degree'] == CIFAR and again['data']['arguments'] == dict(split='train') and again['embedding'] == dict(res=32)
    c = recipe('camelyon17'); c['settings']['degree'][0]['skip'] = 9
    m = recipe('mnist'); m['settings']['degree'][0]['font'] = 9; m['generator']['texts'].append('x')
    assert recipe('camelyon17')['settings']['degree'][0]['skip'] == 0 and recipe('mnist')['settings']['degree'][0]['font'] == 1. and len(recipe('mnist')['generator']['texts']) == 10
    for name in EXPERIMENTS:
        for v in ('paper', 'library', 'script'): Settings(**(r := recipe(name, variant=v, seed=1))['settings']); Budget(**r['budget'])
    with pytest.raises(TypeError): Settings(**recipe('cifar10', nonsense=1)['settings'])


@pytest.mark.parametrize('T', [1, 2, 3, 7, 20, 33])
def test_stretched(T):
    for values in DEGREES.values():
        s = stretched(values, T)
        where = [values.index(v) for v in s]
        assert len(s) == T + 1 and (s[0], s[-1]) == (values[0], values[-1]) and where == sorted(where)
        assert stretched(values, len(values) - 1) == values == stretched(values, None)


@pytest.mark.parametrize('call, what', [
    (lambda: recipe('imagenet'), 'name'), (lambda: recipe('cifar10', variant='free'), 'variant'), (lambda: recipe('cifar10', generations=0), 'generations'), (lambda: recipe('cifar10', generations=2.5), 'generations'),
    (lambda: recipe('cifar10', generations=True), 'generations'), (lambda: recipe('cifar10', records=1), 'records'), (lambda: recipe('cifar10', records=1e4), 'records'), (lambda: recipe('cifar10', t=0), 't '),
    (lambda: recipe('cifar10', t=True), 't '), (lambda: recipe('cifar10', t=math.inf), 't '), (lambda: recipe('cifar10', 1., t=5), 't '), (lambda: recipe('mnist', t=5), 't '), (lambda: recipe('cifar10', 1., 'bench', t=5), 't '),
    (lambda: recipe('cifar10', 2., 'bench'), 'epsilon'), (lambda: recipe('cifar10', None, 'bench'), 'epsilon'), (lambda: recipe('cats', 1., 'bench'), 'name'), (lambda: recipe('camelyon17', 1., 'bench'), 'records'),
    (lambda: rule(-1), 't '), (lambda: rule('5'), 't '), (lambda: threshold_of(-1.), 't ')])
def test_bad_calls(call, what):
    with pytest.raises(ValueError, match=f'^{what}'): call()


def test_bench_names_are_experiments(): assert set(BENCH) <= set(EXPERIMENTS)
