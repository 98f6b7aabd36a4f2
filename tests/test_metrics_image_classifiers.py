"Networks for small images and their training: published sizes, slow versions beside the fast ones, choices, seeds, bad input, faults."
import copy
import math
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch')
from torch import nn  # noqa: E402

from pe_nb.metrics import image_classifiers as ic  # noqa: E402
from pe_nb.metrics.fine_tune import check_training, seeded  # noqa: E402
from pe_nb.metrics.image_classifiers import (QUICK, Average, confusion, even_batches, held_out, label_parts, log_loss, one_epoch, probabilities,  # noqa: E402
                                             train_classifier, train_on_each)
from pe_nb.metrics.image_networks import NETWORKS, affine, inputs, parameter_count, quick_cnn, resnet, resnext, shifts, wide_resnet  # noqa: E402
from pe_nb.records import Records  # noqa: E402

pytestmark = pytest.mark.usefixtures('one_thread', 'no_network')

CPU = torch.device('cpu')
NAMES = ('bar', 'box', 'dot')
MNIST = Path(__file__).resolve().parents[2]/'shared'/'data'/'mnist'


def shapes(n, seed, side=8, channels=1):
    "A bar, a box or a dot somewhere, with noise."
    rng = np.random.default_rng(seed)
    labels, x = rng.integers(3, size=n), rng.integers(0, 60, (n, side, side, channels))
    for i, (row, col) in enumerate(rng.integers(1, side - 4, (n, 2))):
        if labels[i] == 0: x[i, :, col] += 150
        elif labels[i] == 1: x[i, row:row + 3, col:col + 3] += 150
        else: x[i, row, col] += 150
    return Records.images(x.astype(np.uint8), labels, NAMES)


TRAIN, VAL, TEST = shapes(240, 0), shapes(60, 1), shapes(60, 2)
FAST = dict(model='cnn', seeds=(0,), epochs=2, batch=32, lr=.01, device='cpu')


def run(train=TRAIN, test=TEST, val=VAL, **more): return train_classifier(train, test, val, **FAST | more)
def no_norm(channels, size, classes): return nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4*size[0]*size[1], classes))
def plain_amp(): return torch.autocast('cpu', enabled=False)


# --- networks

@pytest.mark.parametrize('make, settings, published', [
    (wide_resnet, {}, 36.5), (wide_resnet, dict(depth=40, widen=4), 8.9), (wide_resnet, dict(depth=16, widen=8), 11.0), (wide_resnet, dict(depth=40, widen=1), .6),
    (resnet, dict(depth=20), .27), (resnet, dict(depth=56), .85), (resnet, dict(depth=110), 1.7), (resnext, dict(depth=29, widen=4), 34.4)])
def test_as_many_parameters_as_published_for_cifar10(make, settings, published):
    assert abs(parameter_count(make(3, (32, 32), 10, **settings))/1e6 - published) < .051


def test_layers_are_those_of_dpimagebench():
    def convolutions(m): return [c for c in m.modules() if isinstance(c, nn.Conv2d)]
    deep = convolutions(resnet(1, (28, 28), 10))
    assert sum(c.kernel_size == (3, 3) for c in deep) == 163 and [c.out_channels for c in deep if c.kernel_size == (1, 1)] == [32, 64]
    assert parameter_count(resnet(3, (32, 32), 10)) == 3*16*9 + 32 + 27*2*9*16*16 + 27*2*32 + sum(
        (w//2*w*9 + 53*w*w*9 + 27*2*2*w) + (w//2*w + 2*w) for w in (32, 64)) + 650
    wide = wide_resnet(1, (28, 28), 10)
    assert [m.p for m in wide.modules() if isinstance(m, nn.Dropout)] == [.3]*12 and sum(c.kernel_size == (3, 3) for c in convolutions(wide)) == 25
    grouped = resnext(1, (28, 28), 10)
    assert [c.in_channels//c.groups for c in convolutions(grouped) if c.groups > 1] == [64]*2 + [128]*2 + [256]*2 and {c.groups for c in convolutions(grouped)} == {1, 8}
    assert [c.out_channels for c in convolutions(grouped) if c.stride == (2, 2)] == [1024, 1280, 2048, 2560] and grouped[-1].in_features == 2560
    assert not [m for m in grouped.modules() if isinstance(m, nn.Dropout)]
    assert [m.p for m in resnext(1, (28, 28), 10, depth=11, widen=1, dropout=.3).modules() if isinstance(m, nn.Dropout)] == [.3]*3


@pytest.mark.parametrize('make', [lambda *a: wide_resnet(*a, depth=10, widen=1), lambda *a: resnet(*a, depth=8), lambda *a: resnext(*a, depth=11, widen=1, cardinality=2), quick_cnn])
@pytest.mark.parametrize('channels, size', [(1, (8, 8)), (1, (28, 28)), (3, (32, 32)), (3, (64, 48)), (4, (29, 31))])
def test_shapes_and_gradients(make, channels, size):
    model = make(channels, size, 7)
    x = torch.rand(3, channels, *size, generator=torch.Generator().manual_seed(0))*2 - 1
    out = model(x)
    out.logsumexp(1).sum().backward()
    assert out.shape == (3, 7) and torch.isfinite(out).all() and all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    alone = torch.cat([model.eval()(row[None]) for row in x])
    assert torch.allclose(alone, model(x), atol=1e-4)  # in eval mode an image's figures do not depend on the batch


def test_a_wide_block_by_hand():
    with seeded(0, CPU): model = wide_resnet(1, (8, 8), 2, depth=10, widen=2, dropout=0.).eval()
    x = torch.rand(2, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    block, f = model[1], nn.functional
    def norm(h): return torch.relu(h/math.sqrt(1 + 1e-5))  # fresh statistics: mean 0, variance 1
    z = norm(x)
    first, second = [m for m in block.body if isinstance(m, nn.Conv2d)]
    slow = f.conv2d(norm(f.conv2d(z, first.weight, padding=1)), second.weight, padding=1) + f.conv2d(z, block.shortcut.weight)
    assert torch.allclose(block(x), slow, atol=1e-5)


def test_quick_is_small(): assert parameter_count(quick_cnn(1, (28, 28), 10)) <= 300_000 and parameter_count(quick_cnn(3, (64, 64), 10)) <= 300_000


@pytest.mark.parametrize('make, args, settings, wrong', [
    (quick_cnn, (0, (28, 28), 10), {}, 'channels (0)'), (quick_cnn, (1, 28, 10), {}, 'size (28)'), (quick_cnn, (1, (28, 7), 10), {}, 'width (7)'), (resnet, (1, (28, 28), 1), {}, 'classes (1)'),
    (resnet, (1, (28, 28), 10), dict(depth=2), 'depth (2)'), (resnet, (1, (28, 28), 10), dict(depth=165), 'depth (165) must be 6n + 2'), (wide_resnet, (1, (28, 28), 10), dict(depth=27), 'depth (27)'),
    (wide_resnet, (1, (28, 28), 10), dict(widen=0), 'widen (0)'), (wide_resnet, (1, (28, 28), 10), dict(dropout=1.), 'dropout (1.0)'), (resnext, (1, (28, 28), 10), dict(cardinality=1.5), 'cardinality (1.5)'),
    (resnext, (1, (28, 28), 10), dict(depth=10), 'depth (10)'), (quick_cnn, (1, (28, 28), 10), dict(widths=(1, 2)), 'widths ((1, 2))')])
def test_bad_networks(make, args, settings, wrong):
    with pytest.raises(ValueError) as e: make(*args, **settings)
    assert str(e.value).startswith(wrong)


# --- what they see

def test_inputs_are_the_pixels():
    r = shapes(5, 3, channels=3)
    x = inputs(torch.tensor(r.data), np.array([4, 0]))
    assert x.is_contiguous(memory_format=torch.channels_last) and np.allclose(x.numpy(), r.data[[4, 0]].transpose(0, 3, 1, 2)/255*2 - 1, atol=1e-6)


def test_shifts_by_brute_force():
    x = torch.rand(40, 2, 6, 9, generator=torch.Generator().manual_seed(0))
    y = shifts(2)(x, torch.Generator().manual_seed(1))
    seen = set()
    for a, b in zip(x.numpy(), y.numpy()):
        padded = np.pad(a, ((0, 0), (2, 2), (2, 2)), 'edge')
        found = [(i, j) for i in range(5) for j in range(5) if np.array_equal(padded[:, i:i + 6, j:j + 9], b)]
        assert len(found) == 1
        seen |= set(found)
    assert len(seen) > 12 and {i for i, _ in seen} == {j for _, j in seen} == set(range(5))


def test_affine_by_brute_force():
    x = torch.zeros(30, 1, 21, 31)
    x[:, :, 8:13, 10:21] = 1
    assert torch.allclose(affine(0, 0, 0, 0)(x, torch.Generator()), x, atol=1e-5)
    def centre(y): return np.array([[(g*i).sum()/g.sum() for i in np.indices(g.shape)] for g in y[:, 0].numpy()])
    moved = centre(affine(.1, 0, 0, 0)(x, torch.Generator().manual_seed(0))) - centre(x)
    assert (np.abs(moved) < np.array([21, 31])*.1 + .1).all() and (np.abs(moved).max(0) > np.array([21, 31])*.08).all()
    turned = affine(0, 40., 0, 0)(x, torch.Generator().manual_seed(0))  # an even turn keeps the area, also where height and width differ
    assert torch.allclose(turned.sum((1, 2, 3)), x.sum((1, 2, 3)), rtol=.04) and not torch.allclose(turned, x, atol=.2)
    assert torch.allclose(affine(.3, 90, .3, .3, True)(torch.full((9, 1, 8, 8), .3), torch.Generator()), torch.tensor(.3))  # no dark corners
    half = torch.cat([torch.zeros(64, 1, 8, 4), torch.ones(64, 1, 8, 4)], 3)
    assert 20 < (affine(0, 0, 0, 0, True)(half, torch.Generator().manual_seed(0))[:, 0, 0, 0] > .5).sum() < 44


def test_augmented_images_keep_their_labels():
    flat = Records.images(np.repeat(np.array([20, 120, 220], np.uint8), 20)[:, None, None, None]*np.ones((1, 8, 8, 1), np.uint8), np.repeat([0, 1, 2], 20), NAMES)
    def keeps(x, generator):
        y = affine(.2, 90, .3, .3)(x, generator)
        assert torch.allclose(y, x, atol=1e-5)
        return y
    one, two = run(flat, augment=keeps), run(flat)
    assert all(math.isclose(a['loss'], b['loss'], rel_tol=1e-3) for a, b in zip(one.runs[0].history, two.runs[0].history))
    assert run(augment='shift').runs[0].history != run(augment='affine').runs[0].history != run().runs[0].history


# --- averages, batches, gradients

def small():
    with seeded(0, CPU): return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3*36, 3))


@pytest.mark.parametrize('buffers', ['average', 'model'])
@pytest.mark.parametrize('rate', [0., .6, .9999])
def test_average_by_brute_force(rate, buffers):
    model, rng = small(), torch.Generator().manual_seed(0)
    average, slow = Average(model, rate, buffers), {k: v.double().clone() for k, v in model.state_dict().items()}
    for n in range(1, 41):
        with torch.no_grad():
            for p in model.parameters(): p += torch.randn(p.shape, generator=rng)
        model.train()(torch.randn(4, 1, 8, 8, generator=rng))
        average.update(model)
        d = min(rate, (1 + n)/(10 + n))
        for k, v in model.state_dict().items():
            keep = 0 if 'num_batches' in k or 'running' in k and buffers == 'model' else d
            slow[k] = keep*slow[k] + (1 - keep)*v.double()
    for k, v in average.model.state_dict().items(): assert torch.allclose(v.double(), slow[k], atol=1e-5), k
    assert average.n == 40 and not average.model.training and int(average.model[1].num_batches_tracked) == 40
    assert all(not p.requires_grad for p in average.model.parameters()) and all(p.requires_grad for p in model.parameters())


def test_recalibrated_statistics_by_brute_force():
    model = small()
    average, batches = Average(model, .9, 'recalibrate'), list(torch.randn(5, 8, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    average.recalibrate(batches)
    seen = [average.model[0](x) for x in batches]
    assert torch.allclose(average.model[1].running_mean, torch.stack([s.mean((0, 2, 3)) for s in seen]).mean(0), atol=1e-5)
    assert torch.allclose(average.model[1].running_var, torch.stack([s.transpose(0, 1).flatten(1).var(1) for s in seen]).mean(0), atol=1e-5)
    assert not average.model.training and average.model[1].momentum == .1


@pytest.mark.parametrize('n, batch', [(1, 5), (5, 5), (257, 256), (1003, 256), (7, 3)])
def test_batches_are_even(n, batch):
    parts = even_batches(n, batch, np.random.default_rng(0))
    assert sorted(np.concatenate(parts)) == list(range(n)) and len(parts) == math.ceil(n/batch)
    assert max(map(len, parts)) <= batch and max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize('splits', [2, 3, 5])
def test_accumulated_gradients_are_those_of_the_batch(splits):
    images, labels = torch.tensor(TRAIN.data[:23]), torch.tensor(TRAIN.labels[:23])
    with seeded(0, CPU): start = no_norm(1, (8, 8), 3)
    def one(s):
        model = copy.deepcopy(start)
        average, optimizer = Average(model, .9), torch.optim.SGD(model.parameters(), 1.)  # a step of 1 shows the gradient itself
        figures = one_epoch(model, average, optimizer, images, labels, [np.arange(23)], s, lambda x: x, plain_amp)
        assert average.n == 1
        return figures, list(model.parameters())
    (figures, whole), (same, parts) = one(1), one(splits)
    assert np.allclose(figures, same, atol=1e-6) and all(torch.allclose(a, b, atol=1e-6) for a, b in zip(whole, parts))
    loss = nn.functional.cross_entropy(start(inputs(images, np.arange(23))), labels)
    slow = torch.autograd.grad(loss, list(start.parameters()))
    assert math.isclose(figures[0], float(loss.detach()), rel_tol=1e-5) and all(torch.allclose(a - g, b, atol=1e-5) for a, g, b in zip(start.parameters(), slow, whole))


def test_a_training_by_hand():
    "Two epochs, each two batches: Adam, the falling rate and the average, written out."
    data, labels = torch.tensor(TRAIN.data[:40]), torch.tensor(TRAIN.labels[:40])
    with seeded(5, CPU): model = no_norm(1, (8, 8), 3)
    optimizer, rng, average, n = torch.optim.Adam(model.parameters(), .02), np.random.default_rng(5), copy.deepcopy(model), 0
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, .5)
    for _ in range(2):
        for rows in even_batches(40, 20, rng):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data[rows].permute(0, 3, 1, 2)/255*2 - 1), labels[rows]).backward()
            optimizer.step()
            n += 1
            d = min(.9, (1 + n)/(10 + n))
            with torch.no_grad():
                for a, p in zip(average.parameters(), model.parameters()): a.copy_(d*a + (1 - d)*p)
        schedule.step()
    out = run(TRAIN[:40], model=no_norm, seeds=(5,), epochs=2, batch=20, lr=.02, step=1, gamma=.5, ema=.9, choose='last')
    p = average(inputs(torch.tensor(TEST.data), np.arange(60))).softmax(1).detach().numpy().astype(float)
    assert math.isclose(out['loss'].value, -np.log(p[np.arange(60), TEST.labels]).mean(), rel_tol=1e-4)
    assert math.isclose(out['accuracy'].value, (p.argmax(1) == TEST.labels).mean())


def test_probabilities_do_not_depend_on_the_batch():
    model, images = quick_cnn(1, (8, 8), 3).eval(), torch.tensor(TEST.data)
    alone, together = (probabilities(model, images, b, plain_amp) for b in (1, 64))
    assert np.allclose(alone, together, atol=1e-6) and np.allclose(alone.sum(1), 1, atol=1e-6) and alone.dtype == np.float64
    assert math.isclose(log_loss(np.array([[.5, .5], [1., 0.]]), np.array([0, 1])), (math.log(2) - math.log(np.finfo(np.float32).tiny))/2)


def test_held_out_and_parts():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 3], [100, 7, 1]))
    out = held_out(labels, .2, np.random.default_rng(1))
    assert np.bincount(labels[out], minlength=4).tolist() == [20, 1, 0, 0]
    assert held_out(np.zeros(2, int), .999, np.random.default_rng(0)).sum() == 1 and not held_out(np.arange(3), .5, np.random.default_rng(0)).any()
    parts = label_parts(labels, 4, np.random.default_rng(1))
    assert sorted(np.concatenate(parts)) == list(range(108)) and {len(p) for p in parts} == {27}
    assert np.ptp([np.bincount(labels[p], minlength=4) for p in parts], axis=0).max() <= 1
    assert (label_parts(labels, 1, np.random.default_rng(1))[0] == np.arange(108)).all()


# --- what comes out

def test_planted_shapes_are_learned_and_noise_is_not():
    noise = Records.images(TRAIN.data, np.random.default_rng(5).permutation(TRAIN.labels), NAMES)
    good, bad = run(epochs=6), run(noise, epochs=6)
    assert good['accuracy'].value > .95 and good['macro_f1'].value > .95 and .1 < bad['accuracy'].value < .7
    assert all(m.private for m in good.values()) and not any(m.private for m in run(private=False).values())


@pytest.mark.parametrize('model', ['wrn', 'resnet', 'resnext'])
def test_the_large_networks_by_name(model, monkeypatch):
    thin = dict(wrn=dict(depth=10, widen=1), resnet=dict(depth=8), resnext=dict(depth=11, widen=1, cardinality=1))[model]
    made = NETWORKS[model]
    monkeypatch.setitem(NETWORKS, model, lambda *a: made(*a, **thin))  # the named one, thinner
    out = run(TRAIN[:120], TEST[:30], VAL[:30], model=model, epochs=4, batch=12, lr=.003)
    assert out.runs[0].history[-1]['train_accuracy'] > .7 and out.runs[0].history[-1]['loss'] < .7*out.runs[0].history[0]['loss']


def test_figures_agree_with_sklearn_and_with_each_other():
    from sklearn.metrics import f1_score
    out = run(seeds=(0, 1, 7), epochs=3)
    assert [r.seed for r in out.runs] == [0, 1, 7] and out['accuracy'].seeds == 3 and len(out.each) == 3
    for r, e in zip(out.runs, out.each):
        truth, guess = np.repeat(np.indices((3, 3)).reshape(2, -1), r.confusion.ravel(), axis=1)
        assert (np.bincount(truth, minlength=3) == TEST.label_counts).all() and not r.confusion.flags.writeable
        assert math.isclose(e['accuracy'], (truth == guess).mean()) and math.isclose(e['macro_f1'], f1_score(truth, guess, average='macro', labels=np.union1d(truth, guess)))
        assert math.isclose(e['accuracy/dot'], r.confusion[2, 2]/r.confusion[2].sum())
        assert r.epoch == 1 + int(np.argmax([h['accuracy'] for h in r.history])) == e['epoch'] and len(r.history) == 3
        assert math.isclose(e['validation/accuracy'], r.history[r.epoch - 1]['accuracy'])
    values = [e['accuracy'] for e in out.each]
    assert math.isclose(out['accuracy'].value, np.mean(values)) and math.isclose(out['accuracy'].spread, np.std(values), abs_tol=1e-12)
    assert (confusion(np.array([0, 0, 2]), np.array([0, 1, 2]), 3) == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]).all()


@pytest.mark.parametrize('val', [VAL, None])
def test_the_test_set_chooses_nothing(val):
    other = Records.images(TEST.data, (TEST.labels + 1) % 3, NAMES)
    a, b = run(val=val, epochs=4), run(val=val, epochs=4, test=other)
    assert a.runs[0].history == b.runs[0].history and a.runs[0].epoch == b.runs[0].epoch
    assert (a.runs[0].confusion.sum(0) == b.runs[0].confusion.sum(0)).all()  # the same predictions, counted against other labels
    assert a['accuracy'].value != b['accuracy'].value


@pytest.mark.parametrize('val', [VAL, None])
def test_every_set_is_read_as_often_as_said(val):
    seen = []
    def watched(channels, size, classes):
        model = quick_cnn(channels, size, classes)
        def note(module, x): seen.append((module.training, np.rint((x[0][:, 0].numpy() + 1)*127.5).astype(np.uint8)))
        model.register_forward_pre_hook(note)
        return model
    out = run(val=val, epochs=3, model=watched, buffers='average')  # 'recalibrate' reads the training images once more
    def times(records, training): return {sum(int((x == image[..., 0]).all((1, 2)).sum()) for t, x in seen if t == training) for image in records.data[:20]}
    assert times(TEST, False) == {1} and times(TEST, True) == {0}
    if val is not None: assert times(VAL, False) == {3} and times(VAL, True) == {0} and times(TRAIN, True) == {3} and times(TRAIN, False) == {0}
    else: assert times(TRAIN, True) | times(TRAIN, False) == {0, 3} and times(VAL, False) == {0}
    assert len(out.runs[0].history) == 3


def test_the_chosen_epoch_is_the_one_that_is_tested(monkeypatch):
    kept, real = [], ic.probabilities
    def noted(model, images, *rest):
        kept.append((len(images), {k: v.clone() for k, v in model.state_dict().items()}))
        return real(model, images, *rest)
    monkeypatch.setattr(ic, 'probabilities', noted)
    hard = Records.images(VAL.data[:9], np.random.default_rng(0).integers(3, size=9), NAMES)
    out = run(val=hard, test=TEST[:50], epochs=6)
    *epochs, (n, tested) = kept
    assert n == 50 and [m for m, _ in epochs] == [9]*6 and out.runs[0].epoch < 6
    assert all(torch.equal(tested[k], v) for k, v in epochs[out.runs[0].epoch - 1][1].items())
    assert not all(torch.equal(tested[k], v) for k, v in epochs[-1][1].items())
    kept.clear()
    last = run(val=hard, test=TEST[:50], epochs=6, choose='last')
    assert len(kept) == 1 and last.runs[0].epoch == 6 and 'accuracy' not in last.runs[0].history[0] and 'validation/accuracy' not in last


# --- seeds and state

def test_seeds_repeat_and_nothing_global_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    def drops(*a): return quick_cnn(*a, dropout=.3)
    more = dict(augment='affine', model=drops, val=None)
    before, threads, numpy_state = torch.get_rng_state(), torch.get_num_threads(), np.random.get_state()[1].copy()
    flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    a = run(**more)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    moved = torch.get_rng_state()
    b, c = run(**more), run(**more, seeds=(1,))
    assert torch.equal(torch.get_rng_state(), moved) and torch.get_num_threads() == threads
    assert a.runs[0].history == b.runs[0].history != c.runs[0].history and a.each == b.each
    both = run(**more, seeds=(1, 0))
    assert both.runs[1].history == a.runs[0].history and both.each == (c.each[0], a.each[0])  # a seed's figures do not depend on its neighbours
    with pytest.raises(ValueError, match=r'lr \(1e\+30\) must be lower'): run(**more, lr=1e30)
    assert torch.equal(torch.get_rng_state(), moved) and (np.random.get_state()[1] == numpy_state).all()
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == flags and not list(tmp_path.iterdir())


def test_progress_and_half_precision():
    said = []
    out = run(seeds=(0, 3), progress=said.append, dtype='bfloat16', splits=2)
    assert [(d['seed'], d['epoch'], d['epochs']) for d in said] == [(0, 1, 2), (0, 2, 2), (3, 1, 2), (3, 2, 2)]
    assert all(set(d) == {'seed', 'epoch', 'epochs', 'loss', 'train_accuracy', 'accuracy', 'val_loss'} for d in said)
    assert out.runs[1].history[1]['accuracy'] == said[3]['accuracy']


@pytest.mark.parametrize('buffers', ['average', 'recalibrate', 'model'])
def test_each_way_with_the_statistics_learns(buffers): assert run(buffers=buffers, epochs=6)['accuracy'].value > .9


# --- ensembles and several sets

def test_an_ensemble_averages_probabilities(monkeypatch):
    kept, real = [], ic.probabilities
    def noted(model, images, *rest):
        out = real(model, images, *rest)
        if len(images) == 50: kept.append(out)
        return out
    monkeypatch.setattr(ic, 'probabilities', noted)
    out = run(test=TEST[:50], parts=3, seeds=(4, 9), epochs=3)
    assert len(kept) == 6 == len(out.runs) and len({r.seed for r in out.runs}) == 6
    for i, e in enumerate(out.each):
        p = np.mean(kept[3*i:3*i + 3], axis=0)
        assert math.isclose(e['accuracy'], (p.argmax(1) == TEST.labels[:50]).mean())
        assert math.isclose(e['member_accuracy'], np.mean([(q.argmax(1) == TEST.labels[:50]).mean() for q in kept[3*i:3*i + 3]]))
    assert run(test=TEST[:50], parts=3, seeds=(9,), epochs=3).each[0] == out.each[1]
    assert 'member_accuracy' not in run()


def test_several_sets_are_checked_before_any_is_trained():
    done = []
    sets = {'all': TRAIN, 'selected': TRAIN[:100]}
    out = train_on_each(sets, TEST, VAL, progress=done.append, **FAST)
    assert list(out) == ['all', 'selected'] and out['all'].each == run().each and len(done) == 4
    done.clear()
    with pytest.raises(ValueError, match='images of synthetic'): train_on_each(sets | {'other': shapes(9, 0, 9)}, TEST, VAL, progress=done.append, **FAST)
    with pytest.raises(ValueError, match=r'sets \(list\)'): train_on_each([TRAIN], TEST, **FAST)
    assert not done


# --- bad input and faults

OTHER = Records.images(TRAIN.data, TRAIN.labels, NAMES[::-1])


@pytest.mark.parametrize('wrong, change', [
    ('label_names of synthetic', dict(train=OTHER)), ('label_names of val', dict(val=OTHER)), ('images of synthetic (height, width, channels (9, 9, 1))', dict(train=shapes(9, 0, 9))),
    ('images of val (height, width, channels (8, 8, 3))', dict(val=shapes(9, 0, 8, 3))), ('test (0 records)', dict(test=TEST[:0])), ('synthetic (0 records)', dict(train=TRAIN[:0])),
    ('val (0 records)', dict(val=VAL[:0])), ('val must not be the test set', dict(val=TEST)), ("test ('text')", dict(test=Records.texts(['a'], [0], NAMES))), ("synthetic ('ndarray')", dict(train=TRAIN.data)),
    ('epochs (0)', dict(epochs=0)), ('epochs (1.5)', dict(epochs=1.5)), ('lr (nan)', dict(lr=math.nan)), ('batch (0)', dict(batch=0)), ('splits (0)', dict(splits=0)), ('splits (17) must leave', dict(splits=17)), ('augment ([', dict(augment=['shift'])),
    ('step (0)', dict(step=0)), ('gamma (0)', dict(gamma=0)), ('gamma (2)', dict(gamma=2)), ('ema (1)', dict(ema=1)), ('ema (True)', dict(ema=True)), ('seeds (())', dict(seeds=())), ('seeds ((1, 1))', dict(seeds=(1, 1))),
    ('augment (', dict(augment='rotate')), ("buffers ('none')", dict(buffers='none')), ("choose ('test')", dict(choose='test')), ('holdout (0)', dict(holdout=0)), ('holdout (1.5)', dict(holdout=1.5)),
    ('parts (0)', dict(parts=0)), ("dtype ('half')", dict(dtype='half')), ("device ('abacus')", dict(device='abacus')), ('progress (1)', dict(progress=1)), ("model ('vgg')", dict(model='vgg')), ('model (3)', dict(model=3)),
    ('model must give (n, 3)', dict(model=lambda c, s, k: quick_cnn(c, s, k + 1))), ('model (str) must make', dict(model=lambda c, s, k: 'x')), ('height (6)', dict(train=shapes(9, 0, 6), test=shapes(9, 1, 6), val=shapes(9, 2, 6)))])
def test_refused_before_training(wrong, change, monkeypatch):
    def never(*a): raise AssertionError('something was trained')
    monkeypatch.setattr(ic, 'one_epoch', never)
    with pytest.raises(ValueError) as e: run(**change)
    assert str(e.value).startswith(wrong)


def test_one_label_name_or_too_few_images():
    one = Records.images(TRAIN.data[:9], np.zeros(9, int), ['a'])
    with pytest.raises(ValueError, match='must be at least two: there is nothing to predict'): run(one, test=one[:5], val=None)
    some = TRAIN[np.concatenate([np.flatnonzero(TRAIN.labels == k)[:2] for k in range(3)])]
    with pytest.raises(ValueError, match=r'splits \(4\) must leave at least two images'): run(some, splits=4)
    singles = TRAIN[[np.flatnonzero(TRAIN.labels == k)[0] for k in range(3)]]
    with pytest.raises(ValueError, match=r'holdout \(0.1\) must leave'): run(singles, val=None)
    assert len(run(singles).runs[0].history) == 2  # with validation images they are enough


def test_a_label_without_images_is_said_and_counts_as_wrong():
    with pytest.warns(UserWarning, match=r"no image of the labels \['dot'\]"): out = run(TRAIN[TRAIN.labels < 2], epochs=6)
    assert out['accuracy/dot'].value == 0 and out['accuracy/bar'].value > .9
    with pytest.warns(UserWarning, match=r"\['box', 'dot'\]"): out = run(TRAIN[TRAIN.labels == 0], val=None)
    assert out['accuracy/bar'].value == 1 and out['accuracy/box'].value == 0
    few = run(test=TEST[TEST.labels != 1], val=VAL[VAL.labels == 1], epochs=6)
    assert 'accuracy/box' not in few and few['accuracy'].value > .8


@pytest.mark.parametrize('error', [torch.OutOfMemoryError('CUDA out of memory'), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")])
def test_too_little_memory_says_what_to_do(error):
    class Greedy(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            if len(x) > 2: raise error
            return x.flatten(1)[:, :3]*self.w
    before = torch.backends.cudnn.deterministic
    with pytest.raises(MemoryError, match=r'splits \(2\) must be larger, or batch \(32\) smaller: the memory of cpu does not hold 16 images'): run(model=lambda *a: Greedy(), splits=2)
    assert torch.backends.cudnn.deterministic == before


def test_other_errors_of_a_model_are_its_own():
    class Broken(nn.Module):
        def forward(self, x): raise RuntimeError('mat1 and mat2 shapes cannot be multiplied')
    with pytest.raises(RuntimeError, match='mat1 and mat2'): run(model=lambda *a: Broken())


def test_without_torch_the_extra_is_named(monkeypatch):
    import sys
    from pe_nb.metrics.image_networks import packages
    packages.cache_clear()
    monkeypatch.setitem(sys.modules, 'torch', None)
    try:
        with pytest.raises(ImportError, match=r"pip install 'pe_nb\[images\]'"): run()
    finally: packages.cache_clear()


def test_defaults_are_the_protocol():
    import inspect
    d = {k: p.default for k, p in inspect.signature(train_classifier).parameters.items() if p.default is not p.empty}
    assert d | dict(model='wrn', epochs=50, lr=.01, batch=256, splits=1, step=20, gamma=.2, ema=.9999, augment=None, choose='best', private=True, parts=1) == d
    check_training(seeds=d['seeds'], epochs=QUICK['epochs'], lr=QUICK['lr'], batch=QUICK['batch'], max_tokens=3, weight_decay=0., warmup=0., dtype=None, progress=None)
    assert set(QUICK) <= set(d)


# --- real digits

@pytest.mark.skipif(not MNIST.is_dir(), reason='needs ../shared/data/mnist')
def test_mnist_from_5000_images():
    def digits(part, n):
        with np.load(MNIST/f'{part}.npz') as z: return Records.images(z['images'][:n, ..., None], z['labels'][:n], [str(i) for i in range(10)])
    start = os.times()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        out = train_classifier(digits('train', 5000), digits('test', 1000), **QUICK | dict(seeds=(0,), epochs=2, batch=64, device='cpu'))
    end = os.times()
    assert out['accuracy'].value > .95 and end.user + end.system - start.user - start.system < 60
