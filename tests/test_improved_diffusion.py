"improved-diffusion checkpoints: the converted network computes what the published architecture computes; nothing is dropped in silence."
import math

import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('diffusers')
from torch import nn  # noqa: E402

from pe_nb.generators.diffusion import Diffusion, open_folder, parts_of  # noqa: E402
from pe_nb.generators.improved_diffusion import architecture, convert, levels_of, load_improved, renamed, save_folder, set_heads, split_attention  # noqa: E402


pytestmark = pytest.mark.usefixtures('one_thread')


# ---- the architecture of Nichol and Dhariwal (arXiv 2102.09672, appendix A; attention and blocks as in arXiv 2105.05233, section 3), from its description ----

class Res(nn.Module):
    "BigGAN-like residual block: the time embedding scales and shifts the second normalisation."
    def __init__(self, a, b, emb, scale_shift=True):
        super().__init__()
        self.scale_shift = scale_shift
        self.in_layers = nn.Sequential(nn.GroupNorm(32, a), nn.SiLU(), nn.Conv2d(a, b, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, 2*b if scale_shift else b))
        self.out_layers = nn.Sequential(nn.GroupNorm(32, b), nn.SiLU(), nn.Identity(), nn.Conv2d(b, b, 3, padding=1))
        if a != b: self.skip_connection = nn.Conv2d(a, b, 1)

    def forward(self, x, emb):
        h, e = self.in_layers(x), self.emb_layers(emb)[..., None, None]
        if self.scale_shift:
            scale, shift = e.chunk(2, dim=1)
            h = self.out_layers[0](h)*(1 + scale) + shift
            for layer in self.out_layers[1:]: h = layer(h)
        else: h = self.out_layers(h + e)
        return h + (self.skip_connection(x) if hasattr(self, 'skip_connection') else x)


class Att(nn.Module):
    "Attention between pixels; each head's queries, keys and values stand together in the rows of one matrix."
    def __init__(self, c, heads):
        super().__init__()
        self.heads, self.norm, self.qkv, self.proj_out = heads, nn.GroupNorm(32, c), nn.Conv1d(c, 3*c, 1), nn.Conv1d(c, c, 1)

    def forward(self, x, emb):
        n, c, d = len(x), x.shape[1], x.shape[1]//self.heads
        z, out = self.qkv(self.norm(x).reshape(n, c, -1)), []
        for k in range(self.heads):  # head by head, slowly
            q, key, v = z[:, 3*d*k:3*d*k + d], z[:, 3*d*k + d:3*d*k + 2*d], z[:, 3*d*k + 2*d:3*d*(k + 1)]
            weight = torch.softmax(q.transpose(1, 2)@key/math.sqrt(d), dim=-1)  # (n, to, from)
            out.append(v@weight.transpose(1, 2))
        return x + self.proj_out(torch.cat(out, 1)).reshape(x.shape)


class Down(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.op = nn.Conv2d(c, c, 3, stride=2, padding=1)
    def forward(self, x, emb): return self.op(x)


class Up(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)
    def forward(self, x, emb): return self.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3))


class First(nn.Conv2d):
    def forward(self, x, emb): return super().forward(x)


class Published(nn.Module):
    def __init__(self, width=32, mult=(1, 2, 3, 4), blocks=2, attended=(2, 3), heads=4, classes=11, image=3, out=6, scale_shift=True):
        super().__init__()
        self.width, emb = width, 4*width
        self.time_embed = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        if classes: self.label_emb = nn.Embedding(classes, emb)
        res = lambda a, b: Res(a, b, emb, scale_shift)
        down, skips, c = [[First(image, width, 3, padding=1)]], [width], width
        for level, m in enumerate(mult):
            for _ in range(blocks):
                down.append([res(c, m*width)] + [Att(m*width, heads)]*(level in attended))
                c = m*width
                skips.append(c)
            if level + 1 < len(mult):
                down.append([Down(c)])
                skips.append(c)
        self.input_blocks = nn.ModuleList(nn.ModuleList(b) for b in down)
        self.middle_block = nn.ModuleList([res(c, c), Att(c, heads), res(c, c)])
        up = []
        for level in reversed(range(len(mult))):
            for j in range(blocks + 1):
                b = [res(c + skips.pop(), mult[level]*width)]
                c = mult[level]*width
                if level in attended: b.append(Att(c, heads))
                if level > 0 and j == blocks: b.append(Up(c))
                up.append(nn.ModuleList(b))
        self.output_blocks = nn.ModuleList(up)
        self.out = nn.Sequential(nn.GroupNorm(32, c), nn.SiLU(), nn.Conv2d(c, out, 3, padding=1))
        g = torch.Generator().manual_seed(0)
        for p in self.parameters():  # no unit scales and no zeros: each weight must count
            spread = 1/math.sqrt(math.prod(p.shape[1:])) if p.ndim > 1 else .3
            p.data = torch.randn(p.shape, generator=g)*spread
        for m in self.modules():
            if isinstance(m, nn.GroupNorm): m.weight.data += 1
            if isinstance(m, Att): m.qkv.weight.data *= 1.5

    def forward(self, x, t, y=None):
        half = self.width//2
        angle = t[:, None].float()*torch.exp(-math.log(10000)*torch.arange(half)/half)
        emb = self.time_embed(torch.cat([angle.cos(), angle.sin()], 1))
        if y is not None: emb = emb + self.label_emb(y)
        kept = []
        for b in self.input_blocks:
            for layer in b: x = layer(x, emb)
            kept.append(x)
        for layer in self.middle_block: x = layer(x, emb)
        for b in self.output_blocks:
            x = torch.cat([x, kept.pop()], 1)
            for layer in b: x = layer(x, emb)
        return self.out(x)


def inputs(size, image=3, classes=11, n=2):
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, image, size, size, generator=g), torch.randint(0, 4000, (n,), generator=g), torch.randint(0, classes, (n,), generator=g) if classes else None


def gap(unet, model, size, image=3, classes=11):
    x, t, y = inputs(size, image, classes)
    with torch.no_grad(): a, b = unet(x, t, class_labels=y).sample, model(x, t, y)
    return float((a - b).norm()/b.norm())


@pytest.mark.parametrize('kw, size', [
    (dict(), 32),                                                            # the published proportions: 1, 2, 3, 4, attention at the two lowest
    (dict(mult=(1, 2, 3, 4), blocks=3, classes=None, out=3), 16),
    (dict(mult=(1, 2, 2, 2), attended=(1, 2), blocks=1), 16),                # the models of 32 x 32
    (dict(mult=(1, 2), attended=(), blocks=1, image=1, out=2, classes=10), 8),
    (dict(mult=(1, 2), attended=(1,), blocks=2, scale_shift=False), 8),
    (dict(width=96, mult=(1, 2), attended=(0, 1), blocks=1, heads=2), 8),
])
def test_converted_network_computes_the_same(kw, size):
    model = Published(**kw)
    unet = convert(model.state_dict(), heads=kw.get('heads', 4), image_size=size)
    image, classes = kw.get('image', 3), kw.get('classes', 11)
    assert gap(unet, model, size, image, classes) < 1e-5
    if kw.get('attended', True): assert gap(set_heads(unet, 1), model, size, image, classes) > 1e-2  # the test would see the wrong heads


def test_published_settings_are_those_of_the_270m_model():
    "192 channels, three blocks, thousand classes: shapes only, no memory."
    with torch.device('meta'): state = {k: torch.empty(v, device='meta') for k, v in shapes(192, (1, 2, 3, 4), 3, (2, 3), 1000).items()}
    a = architecture(state)
    assert a['block_out_channels'] == (192, 384, 576, 768) and a['layers_per_block'] == 3 and a['num_class_embeds'] == 1000 and a['out_channels'] == 6
    assert a['down_block_types'] == ('DownBlock2D', 'DownBlock2D', 'AttnDownBlock2D', 'AttnDownBlock2D')
    assert a['resnet_time_scale_shift'] == 'scale_shift' and a['sample_size'] == 64
    new = renamed(state)
    from diffusers import UNet2DModel
    with torch.device('meta'): want = {k: v.shape for k, v in UNet2DModel(**a).state_dict().items()}
    assert {k: v.shape for k, v in new.items()} == want
    assert 269e6 < sum(math.prod(s) for s in want.values()) < 275e6


def shapes(width, mult, blocks, attended, classes):
    "Names and shapes of a checkpoint, from a small one's names."
    small = Published(32, mult, blocks, attended, classes=None)
    out = {'label_emb.weight': (classes, 4*width)}
    for k, v in small.state_dict().items(): out[k] = tuple(s*width//32 if s >= 32 else s for s in v.shape)
    return out


SMALL = dict(mult=(1, 2), blocks=1, attended=(1,))


@pytest.mark.parametrize('change, text', [
    (lambda s: s | {'output_blocks.0.2.x.weight': torch.zeros(1)}, 'output_blocks.0.2.x.weight'),
    (lambda s: s | {'optimizer': torch.zeros(1)}, 'optimizer'),
    (lambda s: {k: v for k, v in s.items() if k != 'out.2.bias'}, 'conv_out.bias'),
    (lambda s: {k: v for k, v in s.items() if k != 'output_blocks.0.1.qkv.bias'}, 'output_blocks.0.1.qkv.bias'),
    (lambda s: {k: v for k, v in s.items() if 'middle_block' not in k}, 'middle_block.1.qkv.weight'),
    (lambda s: s | {'out.0.weight': torch.zeros(7)}, 'conv_norm_out'),
    (lambda s: s | {'time_embed.0.weight': 3}, 'dict of tensors'),
    (lambda s: {}, 'dict of tensors'),
    (lambda s: [1], 'dict of tensors'),
    (lambda s: {'a': torch.zeros(1)}, 'at least one'),
])
def test_a_checkpoint_that_does_not_fit_is_refused(change, text):
    with pytest.raises(ValueError, match=text): convert(change(Published(**SMALL).state_dict()))


def test_heads_must_divide():
    with pytest.raises(ValueError, match=r'heads \(5\) must divide the 64'): convert(Published(**SMALL).state_dict(), heads=5)
    with pytest.raises(ValueError, match=r'heads \(7\)'): set_heads(convert(Published(**SMALL).state_dict()), 7)


def test_split_attention_by_hand():
    c, heads = 6, 3
    x = torch.arange(3*c*c, dtype=torch.float32).reshape(3*c, c, 1)
    q, k, v = split_attention(x, heads)
    for h in range(heads):
        for j in range(2):
            for n, got in enumerate((q, k, v)): assert torch.equal(got[2*h + j], x[6*h + 2*n + j, :, 0])


def test_levels():
    state = Published(mult=(1, 2, 2), blocks=2, attended=()).state_dict()
    assert levels_of(state) == [[1, 2], [4, 5], [7, 8]]


# ---- files ----

@pytest.fixture
def file(tmp_path):
    model = Published(**SMALL)
    torch.save(model.state_dict(), tmp_path/'m.pt')
    return tmp_path/'m.pt', model


def test_file_and_folder_compute_the_same(file, tmp_path):
    path, model = file
    import hashlib
    unet, noise = load_improved(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest().upper(), image_size=8)
    assert gap(unet, model, 8) < 1e-5
    assert (noise.config.num_train_timesteps, noise.config.beta_schedule, noise.config.variance_type, noise.config.prediction_type) == (4000, 'squaredcos_cap_v2', 'learned_range', 'epsilon')
    folder = save_folder(unet, noise, tmp_path/'f')
    again, scheduler = open_folder(*parts_of(folder))
    assert gap(again, model, 8) < 1e-5  # four heads, although the folder's settings cannot say so
    assert scheduler.config.variance_type == 'learned_range' and len(scheduler.alphas_cumprod) == 4000
    with pytest.raises(FileExistsError): save_folder(unet, noise, folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['f', 'm.pt']
    assert Diffusion(path, improved=dict(image_size=8)).fingerprint == Diffusion(folder).fingerprint


def test_cosine_and_linear_schedules_are_the_published_ones(file):
    f = lambda t: math.cos((t + .008)/1.008*math.pi/2)**2
    beta = np.array([min(1 - f((i + 1)/4000)/f(i/4000), .999) for i in range(4000)])
    got = load_improved(file[0], image_size=8)[1].alphas_cumprod.double().numpy()
    assert np.allclose(got[:-1], np.cumprod(1 - beta)[:-1], rtol=3e-3, atol=0)
    line = load_improved(file[0], image_size=8, steps=500, schedule='linear')[1].alphas_cumprod.numpy()
    assert np.allclose(line, np.cumprod(1 - np.linspace(.0001*2, .02*2, 500)), rtol=1e-3)


def test_half_precision_checkpoints_become_float32(file):
    path, model = file
    torch.save({k: v.half() for k, v in model.state_dict().items()}, path)
    unet, _ = load_improved(path, image_size=8)
    assert {p.dtype for p in unet.parameters()} == {torch.float32} and not any(p.requires_grad for p in unet.parameters())


def test_bad_files_are_refused(file, tmp_path):
    path = file[0]
    with pytest.raises(ValueError, match='the file is damaged, or another one'): load_improved(path, sha256='0'*64)
    with pytest.raises(FileNotFoundError, match='https://.*imagenet64_cond_270M_250K.pt'): load_improved(tmp_path/'no.pt')
    with pytest.raises(ValueError, match="schedule .'square'"): load_improved(path, schedule='square')
    path.write_bytes(b'not a checkpoint')
    with pytest.raises(ValueError, match='must be a file of tensors'): load_improved(path)
    path.write_bytes(b'')
    with pytest.raises(ValueError, match='must be a file of tensors'): load_improved(path)


class Bomb:
    def __reduce__(self): return print, ('executed',)


def test_no_code_is_run_by_a_checkpoint(tmp_path, capsys):
    torch.save({'a': Bomb()}, tmp_path/'bomb.pt')
    with pytest.raises(ValueError, match='must be a file of tensors'): load_improved(tmp_path/'bomb.pt')
    assert 'executed' not in capsys.readouterr().out


def test_the_global_random_state_is_left_alone(file):
    before = torch.random.get_rng_state()
    load_improved(file[0], image_size=8)
    assert torch.equal(before, torch.random.get_rng_state())
