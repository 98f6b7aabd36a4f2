"""Quality of private digits: mean and spread over 3 seeds, at several epsilons, beside what bounds it from below and above.

Private: 1,400 scikit-learn digits; judge: 397 held-out real ones; a logistic regression on raw pixels is trained on synthetic digits only.
The noise is seeded here so that the table can be made again; nothing of it is for release.
"""
import json, math, time
from pathlib import Path
import numpy as np
from pe_nb.data.images import digits
from pe_nb.evolution import evolve
from pe_nb.metrics.downstream import train_on_synthetic
from pe_nb.quickstart import budget, judge, parts, settings
from pe_nb.release import SeededNoise

SEEDS, EPSILONS = (0, 1, 2), (.5, 1., 2., 4., math.inf)

def one(epsilon, seed):
    "First and last generation of one run: {metric: (first, last)}."
    fonts, embedding = parts()
    b = budget(epsilon)
    look, t = judge(digits('test')), time.perf_counter()
    gs = list(evolve(digits('train'), fonts, embedding, settings(seed, b), b, noise=SeededNoise(1000 + seed) if epsilon < math.inf else None))
    seconds = time.perf_counter() - t
    first, last = look(gs[0]), look(gs[-1])
    return {**{k: (float(first[k]), float(last[k])) for k in first}, 'seconds': (0., seconds), 'epsilon': (0., gs[-1].epsilon)}

def main():
    rows = []
    for epsilon in EPSILONS:
        runs = [one(epsilon, s) for s in SEEDS]
        row = dict(epsilon=epsilon if epsilon < math.inf else 'infinity')
        for k in ('accuracy', 'frechet'):
            for i, when in enumerate(('first', 'last')):
                v = [r[k][i] for r in runs]
                row[f'{k}_{when}'] = f'{np.mean(v):.3f} ± {np.std(v, ddof=1):.3f}'
        row['seconds'] = round(float(np.mean([r['seconds'][1] for r in runs])), 1)
        rows.append(row)
        print(row, flush=True)
    ceiling = float(train_on_synthetic(digits('train'), digits('test'))['accuracy'])
    print('trained on the real private digits (not private):', round(ceiling, 3))
    Path(__file__).with_name('results.json').write_text(json.dumps(dict(rows=rows, real=round(ceiling, 4)), indent=1, ensure_ascii=False) + '\n')

if __name__ == '__main__': main()
