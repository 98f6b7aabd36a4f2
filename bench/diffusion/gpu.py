"""Images per second of paper 1's 270M network on a GPU: `python bench/diffusion/gpu.py [batch] [rounds]`.

Random weights; the same batch and steps for every way, in the same process. float32 is plain: no TF32, the memory as it comes.
"""
import json, statistics, sys, time, warnings
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from pe_nb.generators.diffusion import Diffusion
from pe_nb.generators.improved_diffusion import set_heads

STEPS = 10

def network():
    "The architecture of imagenet64_cond_270M_250K.pt, noise alone predicted."
    torch.manual_seed(0)
    net = UNet2DModel(sample_size=64, in_channels=3, out_channels=3, layers_per_block=3, block_out_channels=(192, 384, 576, 768),
                      down_block_types=('DownBlock2D', 'DownBlock2D', 'AttnDownBlock2D', 'AttnDownBlock2D'), up_block_types=('AttnUpBlock2D', 'AttnUpBlock2D', 'UpBlock2D', 'UpBlock2D'), num_class_embeds=1000,
                      resnet_time_scale_shift='scale_shift', attn_norm_num_groups=32, attention_head_dim=192, flip_sin_to_cos=True, freq_shift=0, norm_eps=1e-5, norm_num_groups=32, downsample_padding=1)
    return set_heads(net, 4).eval()

def seconds(f):
    torch.cuda.synchronize()
    t = time.perf_counter()
    f()
    torch.cuda.synchronize()
    return time.perf_counter() - t

def main(batch=256, rounds=3):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    net, scheduler, rows = network(), DDIMScheduler(4000, beta_schedule='squaredcos_cap_v2'), []
    labels, rng = np.zeros(batch, np.int64), np.random.default_rng(0)
    def timed(name, f, first):
        taken = [seconds(f) for _ in range(rounds)]
        rows.append(dict(way=name, images_per_second=round(batch/statistics.median(taken), 2), slowest=round(batch/max(taken), 2), first_call_s=round(first, 1)))
        print(rows[-1], flush=True)
    for name, kw in (('float32', dict(dtype='float32')), ('float16, channels_last', dict(dtype='float16')), ('bfloat16, channels_last', dict(dtype='bfloat16')),
                     ('bfloat16, channels_last, compiled', dict(dtype='bfloat16', compiled=True))):
        g = Diffusion(net, scheduler, respacing=f'ddim{STEPS}', batch_size=batch, device='cuda', **kw).opened_model()
        if name == 'float32': g.net.to(memory_format=torch.contiguous_format)
        f = lambda: g.random(labels, rng)
        timed(name, f, seconds(f))
        if kw['dtype'] == 'float16':  # the pipeline cannot give bfloat16 back
            pipe = DDIMPipeline(g.net, scheduler)
            pipe.set_progress_bar_config(disable=True)
            g.net.forward = lambda *a, **k: UNet2DModel.forward(g.net, *a, class_labels=torch.zeros(batch, dtype=torch.long, device='cuda'), **k)
            f = lambda: pipe(batch, num_inference_steps=STEPS, output_type='np')
            timed('the bare DDIMPipeline, float16, channels_last', f, seconds(f))
        g = f = None
        torch.cuda.empty_cache()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, batch {batch}, {STEPS} steps, {sum(p.numel() for p in net.parameters())/1e6:.1f} M parameters")
    Path(__file__).with_name('gpu.json').write_text(json.dumps(dict(device=torch.cuda.get_device_name(), torch=torch.__version__, batch=batch, steps=STEPS, rounds=rounds, rows=rows), indent=1) + '\n')

if __name__ == '__main__':
    warnings.simplefilter('ignore')
    main(*map(int, sys.argv[1:]))
