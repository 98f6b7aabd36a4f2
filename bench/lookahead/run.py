"""What lookahead costs beside its variations: `python bench/lookahead/run.py [rounds]`.

One way is `embed_population` with a lookahead of 8. The other makes the same 8 variations of the population and embeds each, and does nothing else. They take turns on one thread;
a ratio is the median over rounds of the ratios of CPU seconds. A single ratio is uncertain by more than the claim, so the part that lookahead adds, the mean of arrays that are there, is also timed alone. Memory is what Python and numpy hold at most (tracemalloc), in runs of their own.
"""
import json, os
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
import statistics, sys, time, tracemalloc
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DModel

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from pe_nb.embeddings.images import Edges, Pixels
from pe_nb.evolution import Generation, Settings, embed_population, steps, stream
from pe_nb.generators.diffusion import Diffusion
from pe_nb.generators.fonts import Fonts
from pe_nb.voting import lookahead_embedding

DEPTH = 8

def tiny_diffusion():
    torch.manual_seed(0)
    net = UNet2DModel(16, 3, 3, block_out_channels=(16, 32), layers_per_block=1, down_block_types=('DownBlock2D', 'AttnDownBlock2D'), up_block_types=('AttnUpBlock2D', 'UpBlock2D'),
                      norm_num_groups=8, attention_head_dim=16).eval()
    return Diffusion(net, DDIMScheduler(1000), respacing='ddim4', batch_size=32, device='cpu').opened_model()

FONT = dict(font=.3, size=3, rotation=6, stroke=1)
CASES = {'fonts, 28 x 28, edges': (Fonts, Edges(), FONT, 1000), 'fonts, 28 x 28, pixels': (Fonts, Pixels(), FONT, 4000), 'diffusion, 16 x 16, pixels': (tiny_diffusion, Pixels(), 0, 32)}

def population(generator, n, degree, depth=DEPTH):
    "(the population, the step, the settings) of a first generation."
    s = Settings(generations=1, samples=n, degree=degree, lookahead=[0, depth], seed=3)
    labels = np.arange(n) % len(generator.label_names)
    records = generator.random(labels, np.random.default_rng(0))
    return Generation(t=0, records=records, parents=np.full(n, -1), folds=np.full(n, -1)), steps(s, generator)[1], s

def bare(generator, embedding, before, step, s, keep=False):
    "The variations and their embeddings; kept, or dropped at once."
    kept = []
    for j in range(step.lookahead):
        v = generator.vary(before.records, step.degree, stream(s.seed, step.t, 'lookahead', j))
        e = embedding(v)
        if keep: kept.append((v, e))
    return np.mean([e for _, e in kept], 0) if keep else None

def seconds(f):
    t = time.process_time()
    f()
    return time.process_time() - t

def peak(f):
    tracemalloc.start()
    f()
    out = tracemalloc.get_traced_memory()[1]/2**20
    tracemalloc.stop()
    return round(out, 1)

class Counted:
    "A generator that counts what it is asked for."
    def __init__(self, generator): self.generator, self.calls = generator, []
    def __getattr__(self, k): return getattr(self.generator, k)
    def vary(self, parents, degree, rng):
        self.calls.append(len(parents))
        return self.generator.vary(parents, degree, rng)

def main(rounds=9):
    torch.set_num_threads(1)
    rows = []
    for name, (make, embedding, degree, n) in CASES.items():
        g = make()
        at = population(g, n, degree)
        counted = Counted(g)
        same = np.allclose(embed_population(counted, embedding, *at), bare(g, embedding, *at, keep=True), atol=1e-5)
        assert same and counted.calls == [n]*DEPTH, 'one variation of each record for each lookahead, and their mean'
        made = [embedding(g.vary(at[0].records, degree, np.random.default_rng(j))) for j in range(DEPTH)]
        ways, taken = {'mean': lambda: lookahead_embedding(made), 'lookahead': lambda: embed_population(g, embedding, *at), 'bare': lambda: bare(g, embedding, *at)}, {}
        for r in range(rounds):
            for k in list(ways)[::1 if r % 2 else -1]: taken.setdefault(k, []).append(seconds(ways[k]))
        alone = statistics.median(taken['mean'])/statistics.median(taken['bare'])
        ratios = [a/b for a, b in zip(taken['lookahead'], taken['bare'])]
        held = {'one': peak(lambda: embed_population(g, embedding, *population(g, n, degree, 1))), 'eight': peak(lambda: embed_population(g, embedding, *population(g, n, degree))),
                'eight, all kept': peak(lambda: bare(g, embedding, *population(g, n, degree), keep=True))}
        held['the sum'] = round(8*embedding(at[0].records).size/2**20, 1)
        rows.append(dict(what=name, records=n, calls=len(counted.calls), seconds=round(statistics.median(taken['bare']), 3), ratio=round(statistics.median(ratios), 4), mean_alone=round(alone, 4), worst=round(max(ratios), 3), peak_mb=held))
        print(rows[-1], flush=True)
    Path(__file__).with_name('results.json').write_text(json.dumps(dict(lookahead=DEPTH, rounds=rounds, load=round(os.getloadavg()[0], 1), rows=rows), indent=1) + '\n')
    print('within 3 %:', {r['what']: r['mean_alone'] <= .03 for r in rows})
    assert all(r['mean_alone'] <= .03 for r in rows if 'diffusion' in r['what']), 'the claim is 3 %'
    assert all(r['peak_mb']['eight'] <= r['peak_mb']['one'] + r['peak_mb']['the sum'] + 1 for r in rows), 'the claim is that eight need no more than one and the running sum'

if __name__ == '__main__': main(*map(int, sys.argv[1:]))
