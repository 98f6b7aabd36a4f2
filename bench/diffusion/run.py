"""Time per image of the diffusion generator, against the bare pipelines of diffusers: `python bench/diffusion/run.py [rounds]`.

Both take the same steps with the same network in the same batch, in turns, on one thread; a figure is the median over rounds of CPU seconds, the ratio the median of the rounds' ratios.
"""
import json, os
os.environ.setdefault('OMP_NUM_THREADS', '1')
import statistics, sys, time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from pe_nb.generators.diffusion import Diffusion

STEPS = 10
MODELS = dict(small=(64, dict(sample_size=16, block_out_channels=(16, 32), norm_num_groups=8)), larger=(8, dict(sample_size=32, block_out_channels=(32, 64), norm_num_groups=16)))

def network(sample_size, block_out_channels, norm_num_groups):
    torch.manual_seed(0)
    return UNet2DModel(sample_size, 3, 3, block_out_channels=block_out_channels, layers_per_block=1, down_block_types=('DownBlock2D', 'AttnDownBlock2D'), up_block_types=('AttnUpBlock2D', 'UpBlock2D'),
                       norm_num_groups=norm_num_groups, attention_head_dim=16).eval()

def seconds(f):
    t = time.process_time()
    f()
    return time.process_time() - t

def main(rounds=9):
    torch.set_num_threads(1)
    rows = []
    for name, (n, kw) in MODELS.items():
        net = network(**kw)
        for sampler, scheduler, kind in (('ddim', DDIMScheduler(1000), DDIMPipeline), ('ddpm', DDPMScheduler(1000), DDPMPipeline)):
            pipe = kind(net, scheduler)
            pipe.set_progress_bar_config(disable=True)
            g = Diffusion(net, scheduler, respacing=f'ddim{STEPS}', sampler=sampler, batch_size=n, device='cpu').opened_model()
            labels, rng = np.zeros(n, int), np.random.default_rng(0)
            parents = g.random(labels, rng)
            ways = dict(pipeline=lambda: pipe(n, num_inference_steps=STEPS, output_type='np'), random=lambda: g.random(labels, rng), vary=lambda: g.vary(parents, 0, rng))
            taken = {k: [] for k in ways}
            for r in range(rounds):
                for k in np.roll(list(ways), r)[::1 if r % 2 else -1]: taken[k].append(seconds(ways[k]))
            ratio = lambda k: statistics.median(a/b for a, b in zip(taken[k], taken['pipeline']))
            rows.append(dict(network=name, batch=n, parameters=sum(p.numel() for p in net.parameters()), size=kw['sample_size'], sampler=sampler, pipeline_ms=round(1000*statistics.median(taken['pipeline'])/n, 3),
                             random_ratio=round(ratio('random'), 3), vary_ratio=round(ratio('vary'), 3), worst=round(max(a/b for k in ('random', 'vary') for a, b in zip(taken[k], taken['pipeline'])), 3)))
            print(rows[-1], flush=True)
    print(f"{'network':8} {'sampler':8} {'pipeline, ms/image':>18} {'random':>8} {'vary':>8}")
    for r in rows: print(f"{r['network']:8} {r['sampler']:8} {r['pipeline_ms']:18} {r['random_ratio']:8} {r['vary_ratio']:8}")
    Path(__file__).with_name('results.json').write_text(json.dumps(dict(steps=STEPS, rounds=rounds, torch=torch.__version__, rows=rows), indent=1) + '\n')
    assert all(r[k] <= 1.05 for r in rows for k in ('random_ratio', 'vary_ratio')), 'the claim is 5 %'

if __name__ == '__main__': main(*map(int, sys.argv[1:]))
