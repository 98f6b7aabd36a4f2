"Diffusion: steps against the library's schedulers and a second writing, degrees, batches, classes, folders, bad input."
import json
import math
import sys

import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('diffusers')
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DModel  # noqa: E402

from pe_nb.generators.diffusion import Diffusion, ModelMissing, Noise, Steps, ddim, ddpm, find_model, hub_folder, open_folder, parts_of, spaced  # noqa: E402
from pe_nb.generators.improved_diffusion import load_improved  # noqa: E402
from pe_nb.records import Records  # noqa: E402

ONE = np.zeros(1, int)


pytestmark = pytest.mark.usefixtures('one_thread')


def unet(channels=3, out=None, classes=None, seed=0, **kw):
    torch.manual_seed(seed)
    return UNet2DModel(8, channels, out or channels, block_out_channels=(8, 16), layers_per_block=1, down_block_types=('DownBlock2D', 'AttnDownBlock2D'),
                       up_block_types=('AttnUpBlock2D', 'UpBlock2D'), norm_num_groups=4, attention_head_dim=8, num_class_embeds=classes, **kw)


class Known(torch.nn.Module):
    "A perfect denoiser of one image (per class): its answer is the noise in what it sees. Stands in for a trained network."
    def __init__(self, scheduler, images, channels=3, learned=False):
        super().__init__()
        self.weight, self.images, self.levels, self.learned, self.calls = torch.nn.Parameter(torch.zeros(1)), images, scheduler.alphas_cumprod, learned, []
        self.config = Config(sample_size=8, in_channels=channels, out_channels=channels*(1 + learned), num_class_embeds=None if len(images) == 1 else len(images), class_embed_type=None)

    dtype = torch.float32

    def forward(self, x, t, class_labels=None, return_dict=True):
        self.calls.append((int(t), len(x)))
        a = self.levels[int(t)]
        clean = self.images[class_labels if class_labels is not None else torch.zeros(len(x), dtype=int)]
        out = (x - a.sqrt()*clean)/(1 - a).sqrt()
        return (torch.cat([out, torch.zeros_like(out)], 1) if self.learned else out,)


class Config(dict):
    def __getattr__(self, k):
        if k not in self: raise AttributeError(k)
        return self[k]


SETTINGS = dict(beta_schedule='squaredcos_cap_v2')


def same(a, b, most=1):
    "Equal but for the last bit of a pixel."
    return np.abs(a.data.astype(int) - b.data.astype(int)).max(initial=0) <= most


# ---- which steps ----

def slow_spacing(total, text):
    "improved-diffusion's rule, from its description: fractional strides rounded within sections, or one integer stride."
    if text.startswith('ddim'): return next(list(range(0, total, s)) for s in range(1, total + 1) if len(range(0, total, s)) == int(text[4:]))
    parts, out, start = [int(p) for p in text.split(',')], [], 0
    for i, n in enumerate(parts):
        size = total//len(parts) + (1 if i < total % len(parts) else 0)
        stride, at = (size - 1)/(n - 1) if n > 1 else 1, 0.
        for _ in range(n):
            out.append(start + round(at))
            at += stride
        start += size
    return out


@pytest.mark.parametrize('total, text', [(4000, '100'), (4000, 'ddim10'), (4000, '40'), (1000, 'ddim30'), (1000, '999'), (10, '1'), (10, '10'), (10, '1,2,3'), (4000, '10,10,20'), (7, '4,3'), (1000, '250')])
def test_spacing(total, text):
    got = spaced(total, text)
    assert got.tolist() == slow_spacing(total, text)
    assert (np.diff(got) > 0).all() and got[0] == 0 and got[-1] < total


def test_spacing_of_all_steps(): assert spaced(7, '').tolist() == list(range(7)) and spaced(7, 7).tolist() == list(range(7)) and spaced(9, 3).tolist() == [0, 4, 8]


@pytest.mark.parametrize('bad', ['0', '-1', 'ddim0', 'ddim', 'ddimx', '1001', 'ten', '5,', '600,600', 2.5, True, None, 'ddim600'])
def test_bad_spacing(bad):
    with pytest.raises(ValueError, match='respacing'): spaced(1000, bad)


# ---- one step ----

@pytest.mark.parametrize('kind', ['epsilon', 'sample', 'v_prediction'])
@pytest.mark.parametrize('text', ['', 'ddim50', 'ddim10'])
def test_ddim_is_the_librarys_where_strides_are_even(kind, text):
    s = DDIMScheduler(1000, prediction_type=kind, **SETTINGS)
    ours = Steps(s, text)
    s.set_timesteps(len(ours))
    g = torch.Generator().manual_seed(0)
    for i in sorted({0, 1, len(ours)//2, len(ours) - 1}):
        x, e = torch.randn(2, 3, 4, 4, generator=g), torch.randn(2, 3, 4, 4, generator=g)
        first = ours.guess(i, x, e)
        for exact in (False, True):
            want = s.step(e, int(ours.t[i]), x, use_clipped_model_output=exact).prev_sample
            assert torch.allclose(ddim(ours, i, x, first.clamp(-1, 1), first, exact), want, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize('variance', ['fixed_small', 'fixed_large', 'learned_range'])
@pytest.mark.parametrize('text', ['', '100', '7,3'])
def test_ddpm_is_the_librarys_for_any_steps(variance, text):
    s = DDPMScheduler(1000, variance_type=variance, **SETTINGS)
    ours = Steps(s, text)
    if text: s.set_timesteps(timesteps=ours.t[::-1].tolist())
    g = torch.Generator().manual_seed(0)
    for i in sorted({1, 2, len(ours)//2, len(ours) - 2}):
        x, out = torch.randn(2, 3, 4, 4, generator=g), torch.randn(2, 6 if variance == 'learned_range' else 3, 4, 4, generator=g)
        draw = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(5))
        got = ddpm(ours, i, x, ours.guess(i, x, out[:, :3]).clamp(-1, 1), out[:, 3:], lambda: draw)
        want = s.step(out, int(ours.t[i]), x, generator=torch.Generator().manual_seed(5)).prev_sample
        assert torch.allclose(got, want, atol=2e-4, rtol=2e-4)
    assert torch.equal(ddpm(ours, 0, x, x, out[:, 3:], None), (ours.prev[0]**.5*ours.beta[0]*x + (ours.a[0]/ours.prev[0])**.5*(1 - ours.prev[0])*x)/(1 - ours.a[0]))  # no noise at the end


def test_learned_variance_stays_between_its_limits():
    s = Steps(DDPMScheduler(4000, variance_type='learned_range', **SETTINGS), '100')
    for i in range(1, 100):
        low, high = (float((ddpm(s, i, torch.zeros(1, 1), torch.zeros(1, 1), torch.full((1, 1), v), lambda: torch.ones(1, 1)))) for v in (-1., 1.))
        assert math.isclose(low**2, s.posterior[i], rel_tol=1e-4) and math.isclose(high**2, s.beta[i], rel_tol=1e-4) and low <= high


def test_the_noisiest_step_must_leave_something():
    s = DDIMScheduler(100, rescale_betas_zero_snr=True)
    with pytest.raises(ValueError, match='prediction_type'): Steps(s, '')
    v = DDIMScheduler(100, rescale_betas_zero_snr=True, prediction_type='v_prediction')
    assert np.isfinite(Steps(v, '').log_high).all()
    assert Diffusion(unet(), v, respacing='5').random(ONE, np.random.default_rng(0)).data.shape == (1, 8, 8, 3)


# ---- the whole way, against the library's pipelines ----

def test_random_is_the_ddim_pipeline_with_the_same_noise(monkeypatch):
    net, s = unet(), DDIMScheduler(1000, **SETTINGS)
    got = Diffusion(net, s, respacing='ddim10', exact=False).random(np.zeros(3, int), np.random.default_rng(7))
    start = Noise(np.random.default_rng(7).integers(0, 2**63, 3), (3, 8, 8), 'cpu')()
    monkeypatch.setattr('diffusers.pipelines.ddim.pipeline_ddim.randn_tensor', lambda *a, **kw: start)
    pipe = DDIMPipeline(net.eval(), s)
    pipe.set_progress_bar_config(disable=True)
    want = pipe(3, num_inference_steps=10, output_type='np').images
    assert np.abs(got.data - want*255).max() <= .55  # rounded, not cut


def test_random_is_the_ddpm_pipeline_with_the_same_noise(monkeypatch):
    net, s = unet(), DDPMScheduler(1000, **SETTINGS)
    got = Diffusion(net, s, respacing='ddim10', sampler='ddpm').random(np.zeros(3, int), np.random.default_rng(7))
    noise = Noise(np.random.default_rng(7).integers(0, 2**63, 3), (3, 8, 8), 'cpu')
    for place in ('pipelines.ddpm.pipeline_ddpm', 'schedulers.scheduling_ddpm'): monkeypatch.setattr(f'diffusers.{place}.randn_tensor', lambda *a, **kw: noise())
    pipe = DDPMPipeline(net.eval(), s)
    pipe.set_progress_bar_config(disable=True)
    want = pipe(3, num_inference_steps=10, output_type='np').images
    assert np.abs(got.data - want*255).max() <= .55  # rounded, not cut


@pytest.mark.parametrize('sampler, learned', [('ddim', False), ('ddim', True), ('ddpm', False), ('ddpm', True)])
def test_a_perfect_denoiser_gives_its_image(sampler, learned):
    s = DDPMScheduler(1000, variance_type='learned_range' if learned else 'fixed_small', **SETTINGS)
    image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))*2 - 1
    g = Diffusion(Known(s, image, learned=learned), s, label_names=('a', 'b'), classes=dict(a=1, b=0), respacing='20', sampler=sampler)
    got = g.random(np.array([0, 1, 1]), np.random.default_rng(0))
    want = ((image + 1)*127.5).round().byte().permute(0, 2, 3, 1).numpy()[[1, 0, 0]]
    assert np.abs(got.data.astype(int) - want).max() <= 1
    assert got.extra['model_class'].tolist() == [1, 0, 0]


# ---- degrees ----

def test_degree_is_the_number_of_skipped_steps():
    s = DDPMScheduler(1000, **SETTINGS)
    g = Diffusion(Known(s, torch.zeros(1, 3, 8, 8)), s, respacing='10')
    parents = Records.images(np.full((2, 8, 8, 3), 9, np.uint8))
    for degree, steps, text in ((0, 10, '10'), (3, 7, '10'), (9, 1, '10'), (10, 0, '10'), (dict(skip=1, respacing='ddim4'), 3, 'ddim4'), (dict(skip=5), 5, '10')):
        g.opened_model().net.calls.clear()
        g.vary(parents, degree, np.random.default_rng(0))
        assert g.net.calls == [(int(t), 2) for t in spaced(1000, text)[:steps][::-1]]
    g.net.calls.clear()
    g.random(np.zeros(2, int), np.random.default_rng(0))
    assert len(g.net.calls) == 10


def test_what_the_network_sees_first_is_the_noised_parent():
    s = DDPMScheduler(1000, **SETTINGS)
    net = Known(s, torch.zeros(1, 3, 8, 8))
    g = Diffusion(net, s, respacing='10')
    seen, forward = [], g.opened_model().net.forward
    g.net.forward = lambda x, t, **kw: seen.append(x.clone()) or forward(x, t, **kw)
    parents = Records.images(np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8))
    g.vary(parents, 6, np.random.default_rng(0))
    noise = Noise(np.random.default_rng(0).integers(0, 2**63, 2), (3, 8, 8), 'cpu')()
    clean = torch.tensor(parents.data).permute(0, 3, 1, 2)/127.5 - 1
    assert torch.allclose(seen[0], s.add_noise(clean, noise, torch.tensor(int(spaced(1000, '10')[3]))), atol=1e-5)


@pytest.mark.parametrize('sampler', ['ddim', 'ddpm'])
def test_more_skipped_steps_stay_closer(sampler):
    s = DDPMScheduler(1000, **SETTINGS)
    g = Diffusion(unet(), s, respacing='20', sampler=sampler)
    rng = np.random.default_rng(0)
    parents = Records.images(rng.integers(0, 256, (24, 8, 8, 3)).astype(np.uint8))
    far = [np.abs(g.vary(parents, d, np.random.default_rng(1)).data.astype(float) - parents.data).mean() for d in (0, 10, 15, 18, 19, 20)]
    assert all(a > b for a, b in zip(far[1:], far[2:])) and far[0] > 2*far[3] and far[4] < 4 and far[5] == 0


def test_degree_0_forgets_the_parent_and_all_steps_keep_it():
    s = DDPMScheduler(1000, **SETTINGS)
    g = Diffusion(unet(), s, respacing='10')
    a, b = (Records.images(np.full((4, 8, 8, 3), v, np.uint8)) for v in (0, 255))
    x, y = (g.vary(r, 0, np.random.default_rng(0)) for r in (a, b))
    assert np.abs(x.data.astype(int) - y.data).mean() < 3  # the same noise: hardly a trace of black or white
    assert g.vary(a, 10, np.random.default_rng(0)) == a
    assert np.abs(g.vary(b, 5, np.random.default_rng(0)).data.astype(int) - g.vary(a, 5, np.random.default_rng(0)).data).mean() > 20


@pytest.mark.parametrize('degree', [-1, 11, 1.0, .5, True, None, '3', [3], dict(), dict(skip=1, steps=3), dict(respacing='5'), dict(skip=6, respacing='5'), dict(skip=1, respacing='0'), dict(skip=1, respacing=True),
                                    math.nan, np.bool_(True)])
def test_bad_degrees(degree):
    g = Diffusion(unet(), DDPMScheduler(1000), respacing='10')
    with pytest.raises(ValueError, match='degree|respacing'): g.check(degree)
    with pytest.raises(ValueError, match='degree|respacing'): g.vary(Records.images(np.zeros((1, 8, 8, 3), np.uint8)), degree, np.random.default_rng(0))


@pytest.mark.parametrize('degree', [0, 10, np.int64(3), dict(skip=0), dict(skip=5, respacing='5'), dict(skip=2, respacing=4)])
def test_good_degrees(degree): Diffusion(unet(), DDPMScheduler(1000), respacing='10').check(degree)


# ---- chance ----

@pytest.mark.parametrize('sampler', ['ddim', 'ddpm'])
def test_an_image_does_not_depend_on_its_batch(sampler):
    s, net = DDPMScheduler(1000, **SETTINGS), unet(classes=5)
    made = [Diffusion(net, s, respacing='8', sampler=sampler, batch_size=b) for b in (1, 3, 7, 64)]
    first = [g.random(np.zeros(7, int), np.random.default_rng(0)) for g in made]
    later = [g.vary(first[0], 2, np.random.default_rng(1)) for g in made]
    for rs in (first, later):
        assert all(same(r, rs[0]) and np.array_equal(r.extra['model_class'], rs[0].extra['model_class']) for r in rs)


@pytest.mark.parametrize('sampler', ['ddim', 'ddpm'])
def test_same_seed_same_images_and_no_global_generator(sampler):
    g = Diffusion(unet(classes=3), DDPMScheduler(1000), respacing='4', sampler=sampler)
    torch.manual_seed(1)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    a = g.random(np.zeros(4, int), np.random.default_rng(3))
    assert torch.equal(before[0], torch.random.get_rng_state()) and np.array_equal(before[1], np.random.get_state()[1])
    torch.manual_seed(2)
    np.random.seed(2)
    b, c = g.random(np.zeros(4, int), np.random.default_rng(3)), g.random(np.zeros(4, int), np.random.default_rng(4))
    assert a == b and a != c and len({x.tobytes() for x in a.data}) == 4
    assert g.vary(a, 1, np.random.default_rng(3)) == g.vary(a, 1, np.random.default_rng(3)) != g.vary(a, 1, np.random.default_rng(5))
    twins = g.vary(a[np.zeros(4, int)], 1, np.random.default_rng(3))
    assert len({x.tobytes() for x in twins.data}) == 4


def test_noise_is_normal_and_independent_of_the_number_of_draws():
    n = Noise(np.arange(200), (3, 8, 8), 'cpu')
    a, b = n().numpy(), n().numpy()
    assert a.dtype == np.float32 and abs(a.mean()) < .02 and abs(a.std() - 1) < .02 and abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < .02


# ---- labels and classes ----

def test_labels_and_classes_are_kept():
    g = Diffusion(unet(classes=10), DDPMScheduler(1000), label_names=('cat', 'dog'), classes=dict(cat=(1, 2, 3), dog=7), respacing='2')
    labels = np.array([0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    a = g.random(labels, np.random.default_rng(0))
    assert a.labels.tolist() == labels.tolist() and a.label_names == ('cat', 'dog') and a.extra['model_class'].dtype == np.int64
    assert set(a.extra['model_class'][labels == 0]) == {1, 2, 3} and set(a.extra['model_class'][labels == 1]) == {7}
    b = g.vary(a[::-1], 1, np.random.default_rng(1))
    assert b.labels.tolist() == labels[::-1].tolist() and np.array_equal(b.extra['model_class'], a.extra['model_class'][::-1]) and list(b.extra) == ['model_class']


def test_classes_are_uniform_whatever_the_label():
    s = DDPMScheduler(1000, **SETTINGS)
    g = Diffusion(Known(s, torch.zeros(5, 3, 8, 8)), s, label_names=('a', 'b'), respacing='1')
    n = np.bincount(g.random(np.repeat([0, 1], 1000), np.random.default_rng(0)).extra['model_class'], minlength=5)
    assert ((n - 400)**2/400).sum() < 18  # chi squared, 4 degrees of freedom: p about .001


def test_a_model_without_classes_keeps_nothing():
    g = Diffusion(unet(1), DDPMScheduler(1000), label_names=('a', 'b'), respacing='2')
    a = g.random(np.array([1, 0]), np.random.default_rng(0))
    assert a.data.shape == (2, 8, 8, 1) and a.data.dtype == np.uint8 and not a.extra and g.vary(a, 0, np.random.default_rng(0)).data.shape == (2, 8, 8, 1)


def test_classes_reach_the_network():
    net = unet(classes=3)
    net.class_embedding.weight.data *= 20
    a, b, c = (Diffusion(net, DDPMScheduler(1000), classes={'': k}, respacing='4').random(ONE, np.random.default_rng(0)) for k in (0, 1, 1))
    assert np.abs(a.data.astype(int) - b.data).mean() > 2 and np.array_equal(b.data, c.data)


@pytest.mark.parametrize('classes, text', [(dict(a=0), 'label names as keys'), (dict(a=0, b=3), 'from 0 to 2'), (dict(a=-1, b=0), 'from 0 to 2'), (dict(a=.5, b=0), 'integers'), (dict(a=[], b=0), 'integers'),
                                           (dict(a=True, b=0), 'integers'), (dict(a='x', b=0), 'integers')])
def test_bad_classes(classes, text):
    with pytest.raises(ValueError, match=text): Diffusion(unet(classes=3), DDPMScheduler(1000), label_names=('a', 'b'), classes=classes, respacing='2').check(0)


def test_classes_for_a_model_that_has_none():
    with pytest.raises(ValueError, match='the model knows none'): Diffusion(unet(), DDPMScheduler(1000), classes={'': 0}, respacing='2').check(0)


def parents(shape=(1, 8, 8, 3), names=('',), **extra): return Records.images(np.zeros(shape, np.uint8), np.zeros(shape[0], int), names, extra)


@pytest.mark.parametrize('records, text', [
    (parents((1, 8, 8, 1), model_class=[0]), '8x8x1'), (parents((1, 16, 16, 3), model_class=[0]), '16x16x3'), (parents((1, 8, 8, 4), model_class=[0]), '8x8x4'), (parents(), 'model_class'),
    (parents(model_class=[0], font=[1]), 'font'), (parents(model_class=[3]), 'from 0 to 2'), (parents(model_class=[-1]), 'from 0 to 2'), (parents(model_class=[.5]), 'integers'),
    (parents(names=('a', 'b'), model_class=[0]), 'label_names'), (Records.texts(['x']), 'Records of images'), (np.zeros((1, 8, 8, 3), np.uint8), 'Records of images')])
def test_bad_parents(records, text):
    with pytest.raises(ValueError, match=text): Diffusion(unet(classes=3), DDPMScheduler(1000), respacing='2').vary(records, 0, np.random.default_rng(0))


def test_nothing_asked_nothing_made():
    g = Diffusion(unet(classes=3), DDPMScheduler(1000), respacing='2')
    a = g.random(np.zeros(0, int), np.random.default_rng(0))
    assert a.data.shape == (0, 8, 8, 3) and len(g.vary(a, 1, np.random.default_rng(0))) == 0
    with pytest.raises(ValueError, match='label'): g.random(np.array([1]), np.random.default_rng(0))


# ---- bad settings and models ----

@pytest.mark.parametrize('kw, text', [(dict(sampler='euler'), 'sampler'), (dict(batch_size=0), 'batch_size'), (dict(batch_size=True), 'batch_size'), (dict(batch_size=2.), 'batch_size'), (dict(dtype='int8'), 'dtype'),
                                      (dict(classes=[1]), 'classes'), (dict(label_names=('a', 'a')), 'label_names')])
def test_bad_settings(kw, text):
    with pytest.raises(ValueError, match=text): Diffusion(unet(), DDPMScheduler(1000), **kw)


@pytest.mark.parametrize('net, scheduler, kw, text', [
    (unet(), None, {}, 'comes without one'), (unet(), FlowMatchEulerDiscreteScheduler(), {}, 'alphas_cumprod'), (unet(3, 4), DDPMScheduler(10), {}, '4 out'), (unet(5), DDPMScheduler(10), {}, '5 channels'),
    (unet(3, 6), DDPMScheduler(10), dict(sampler='ddpm'), 'learned_range'), (unet(), DDPMScheduler(10, variance_type='learned_range'), dict(sampler='ddpm'), 'learned_range'),
    (unet(), DDPMScheduler(10, thresholding=True), {}, 'thresholding'), (unet(), DDPMScheduler(10, variance_type='learned'), {}, 'variance_type'), (unet(class_embed_type='timestep'), DDPMScheduler(10), {}, 'class_embed_type')])
def test_models_that_will_not_do(net, scheduler, kw, text):
    with pytest.raises(ValueError, match=text): Diffusion(net, scheduler, respacing='2', **kw).check(0)


def test_size_must_be_known():
    net = unet()
    net.register_to_config(sample_size=None)
    with pytest.raises(ValueError, match='size'): Diffusion(net, DDPMScheduler(10), respacing='2').check(0)
    assert Diffusion(net, DDPMScheduler(10), respacing='2', size=(4, 6)).random(ONE, np.random.default_rng(0)).data.shape == (1, 4, 6, 3)


def test_the_callers_network_is_left_alone():
    net = unet()
    net.train()
    g = Diffusion(net, DDPMScheduler(1000), respacing='2', dtype='bfloat16')
    a = g.random(ONE, np.random.default_rng(0))
    assert net.training and net.dtype == torch.float32 and all(p.requires_grad for p in net.parameters()) and g.net.dtype == torch.bfloat16
    for p in net.parameters(): p.data += 1
    assert g.random(ONE, np.random.default_rng(0)) == a


def test_bfloat16_is_close():
    a, b = (Diffusion(unet(), DDPMScheduler(1000, **SETTINGS), respacing='10', dtype=d).random(np.zeros(4, int), np.random.default_rng(0)) for d in ('float32', 'bfloat16'))
    assert 0 < np.abs(a.data.astype(int) - b.data).mean() < 3


# ---- fingerprint, size on disk ----

def test_fingerprint_changes_with_everything_that_counts():
    net, s = unet(classes=4), DDPMScheduler(1000)
    base = dict(label_names=('a',), respacing='4')
    moved, shifted = unet(classes=4), unet(classes=4, seed=1)
    moved.conv_in.bias.data[0] += 1e-6
    kinds = [Diffusion(net, s, **base), Diffusion(moved, s, **base), Diffusion(shifted, s, **base), Diffusion(net, DDPMScheduler(1000, beta_end=.03), **base), Diffusion(net, DDPMScheduler(1000, clip_sample=False), **base),
             Diffusion(net, s, **base | dict(respacing='5')), Diffusion(net, s, **base | dict(label_names=('b',))), Diffusion(net, s, **base, classes=dict(a=1)), Diffusion(net, s, **base, classes=dict(a=2)),
             Diffusion(net, s, **base, sampler='ddpm'), Diffusion(net, s, **base, exact=False), Diffusion(net, s, **base, size=16), Diffusion(net, s, **base, dtype='bfloat16'), Diffusion(net, s, **base, batch_size=5)]
    assert len({g.fingerprint for g in kinds}) == len(kinds)
    assert Diffusion(net, s, **base).fingerprint == kinds[0].fingerprint and json.loads(kinds[0].fingerprint.removeprefix('Diffusion '))['respacing'] == '4'


def test_record_bytes(): assert Diffusion(unet(classes=4), DDPMScheduler(10)).record_bytes == 8*8*3 + 8 and Diffusion(unet(1), DDPMScheduler(10)).record_bytes == 64


# ---- memory ----

class Full:
    "A network for which there is room for only so many images."
    def __init__(self, net, room): self.net, self.room, self.seen = net, room, []
    def __call__(self, x, *a, **kw):
        self.seen.append(len(x))
        if len(x) > self.room: raise torch.OutOfMemoryError('full')
        return self.net(x, *a, **kw)


@pytest.mark.parametrize('sampler', ['ddim', 'ddpm'])
def test_batch_is_halved_once_with_a_warning(sampler):
    make = lambda: Diffusion(unet(), DDPMScheduler(1000), respacing='2', batch_size=6, sampler=sampler).opened_model()
    want, g = make().random(np.zeros(8, int), np.random.default_rng(0)), make()
    stated = g.fingerprint
    g.opened = Full(g.net, 3)
    with pytest.warns(UserWarning, match='batch_size is 3'): got = g.random(np.zeros(8, int), np.random.default_rng(0))
    assert same(got, want) and g.opened.seen[0] == 6 and set(g.opened.seen[1:]) == {3, 2} and g.fingerprint == stated
    g.random(np.zeros(8, int), np.random.default_rng(0))  # silent now: warnings are errors here
    g.opened = Full(g.net, 2)
    with pytest.raises(MemoryError, match=r'batch_size \(3\) must be smaller'): g.random(np.zeros(8, int), np.random.default_rng(0))


# ---- folders ----

def test_folders_of_both_kinds(tmp_path):
    net, s = unet(classes=3), DDIMScheduler(1000, **SETTINGS)
    DDPMPipeline(net, s).save_pretrained(tmp_path/'pipe')
    net.save_pretrained(tmp_path/'alone')
    want = Diffusion(net, DDIMScheduler(1000, **SETTINGS), respacing='4')
    for g in (Diffusion(tmp_path/'pipe', respacing='4'), Diffusion(str(tmp_path/'alone'), s, respacing='4')):
        assert g.opened is None  # nothing is read before it is needed
        assert same(g.random(np.zeros(2, int), np.random.default_rng(0)), want.random(np.zeros(2, int), np.random.default_rng(0)), 0)
    with pytest.raises(ValueError, match='comes without one'): Diffusion(tmp_path/'alone').check(0)


def test_loading_leaves_the_global_generator(tmp_path):
    unet().save_pretrained(tmp_path/'m')
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    open_folder(*parts_of(tmp_path/'m'))
    assert torch.equal(before, torch.random.get_rng_state())


def test_missing_weights_are_an_error(tmp_path):
    from safetensors.torch import load_file, save_file
    net = unet()
    net.save_pretrained(tmp_path/'m')
    file = tmp_path/'m'/'diffusion_pytorch_model.safetensors'
    w = load_file(file)
    save_file({k: v for k, v in w.items() if k != 'conv_in.bias'}, file)
    with pytest.raises(ValueError, match='conv_in.bias'): Diffusion(tmp_path/'m', DDPMScheduler(10)).check(0)
    save_file(w | {'more': torch.zeros(1)}, file)
    with pytest.raises(ValueError, match='more'): Diffusion(tmp_path/'m', DDPMScheduler(10)).check(0)
    file.unlink()
    with pytest.raises(ModelMissing, match='safetensors'): Diffusion(tmp_path/'m', DDPMScheduler(10)).check(0)


def test_other_networks_are_refused(tmp_path):
    unet().save_pretrained(tmp_path/'m')
    config = tmp_path/'m'/'config.json'
    config.write_text(config.read_text().replace('UNet2DModel', 'UNet2DConditionModel'))
    with pytest.raises(ValueError, match='UNet2DConditionModel'): Diffusion(tmp_path/'m', DDPMScheduler(10)).check(0)


def test_missing_models_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    with pytest.raises(ModelMissing, match='hf download nobody/nothing-here --local-dir FOLDER'): hub_folder('nobody/nothing-here')
    with pytest.raises(ModelMissing, match='HF_HUB_OFFLINE'): Diffusion('nobody/nothing-here').check(0)
    for name in ('a/b/c', './x', tmp_path/'x'):
        with pytest.raises(ModelMissing, match='a folder or a checkpoint that exists'): find_model(name)
    with pytest.raises(ModelMissing, match='https://'): find_model(tmp_path/'x.pt')
    Diffusion('nobody/nothing-here')  # making one asks for nothing


def test_missing_packages_name_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'diffusers', None)
    with pytest.raises(ImportError, match=r"pip install 'pe_nb\[images\]'"): Diffusion(tmp_path, DDPMScheduler(10)).check(0)
    (tmp_path/'x.pt').write_bytes(b'')
    with pytest.raises(ImportError, match=r"pip install 'pe_nb\[images\]'"): load_improved(tmp_path/'x.pt')


def test_hub_names_come_from_the_cache(tmp_path, monkeypatch):
    DDPMPipeline(unet(), DDPMScheduler(10)).save_pretrained(tmp_path/'f')
    asked = []
    monkeypatch.setattr('huggingface_hub.snapshot_download', lambda repo, local_files_only, allow_patterns: asked.append((repo, local_files_only)) or str(tmp_path/'f'))
    Diffusion('somebody/model', respacing='2').check(0)
    assert asked == [('somebody/model', True)]


# ---- in a run ----

def test_a_run_from_a_schedule_of_degrees(tmp_path):
    from pe_nb.embeddings.images import Pixels
    from pe_nb.evolution import Settings
    from pe_nb.release import Budget, SeededNoise
    from pe_nb.runs import synthesize
    names = ('a', 'b')
    private = Records.images(np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1)).astype(np.uint8), np.arange(30) % 2, names)
    make = lambda: Diffusion(unet(1, classes=3), DDPMScheduler(1000), label_names=names, respacing='ddim4', batch_size=5)
    degrees = [None, dict(skip=1, respacing='ddim4'), 2]
    shape = lambda d: Settings(generations=2, samples=8, degree=d, threshold=0., lookahead=2, seed=1)
    run = lambda where, d=degrees: synthesize(private, make(), Pixels(), shape(d), Budget(epsilon=5., delta=1e-3), where, noise=SeededNoise(1), report=False)
    one, two = (run(tmp_path/k).records() for k in '12')
    assert one == two and one.data.shape == (8, 8, 8, 1) and 'model_class' in one.extra
    with pytest.raises(ValueError, match='degree'): run(tmp_path/'bad', [None, 1, 5])
    assert not list((tmp_path/'bad').glob('releases/*'))  # refused before anything private was read
