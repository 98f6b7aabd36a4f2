"""Private digits through a diffusion model: `python bench/images/digits.py [seeds]`.

1,400 handwritten digits vote at epsilon 1 and 10, three seeds each; the generator is the shipped diffusion model, with its classes known or (as in paper 1) drawn at random, or the font renderer it learned from.
Noise is seeded, so that the table can be made again: nothing of it is for release. All figures are against the 397 held-out digits and not private.
"""
import json, math, os, sys, time
os.environ.setdefault('OMP_NUM_THREADS', '1')
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from pe_nb.accounting import calibrate
from pe_nb.data.images import digits
from pe_nb.embeddings.images import Edges, Pixels, Resized
from pe_nb.evolution import Settings, evolve
from pe_nb.generators.diffusion import Diffusion
from pe_nb.generators.digits_diffusion import NAMES, digits_diffusion
from pe_nb.generators.fonts import Fonts
from pe_nb.metrics.downstream import train_on_synthetic
from pe_nb.metrics.frechet import frechet_records
from pe_nb.release import Budget, SeededNoise

T, K, N, LAST = 5, 4, 400, 800
SKIP = [0, 2, 4, 5, 6, 7]  # of ten steps
RANGES = dict(size=(15., 28.), rotation=(-25., 25.), stroke=(-.8, 1.2), shear=(-.6, 1.), scale_x=(.5, 1.5), bend=(-.5, .5), waist=(-.5, .5), tilt=(-.5, .5), shift_x=(-.5, .5), shift_y=(-.5, .5))
DEGREE = dict(font=.2, size=3., rotation=10., stroke=.4, shear=.32, scale_x=.2, bend=.2, waist=.2, tilt=.2, shift_x=.2, shift_y=.2)
MODEL = dict(label_names=NAMES, respacing='ddim10', batch_size=100, device='cpu')
WAYS = {'diffusion, classes known': (lambda: Diffusion(digits_diffusion(), classes={n: i for i, n in enumerate(NAMES)}, **MODEL), SKIP),
        'diffusion, classes at random': (lambda: Diffusion(digits_diffusion(), **MODEL), SKIP),
        'font renderer': (lambda: Fonts(height=28, width=28, size_of='height', supersample=2, **RANGES), DEGREE)}

def look(records, test):
    "Fréchet distance of blurred pixels, and accuracy of a logistic regression."
    return dict(frechet=round(float(frechet_records(records, test, Resized(Pixels(), 8))), 3), accuracy=round(float(train_on_synthetic(records, test)['accuracy']), 4))

def one(way, epsilon, seed, private, test):
    "A run, measured at generation 0 and at the end."
    make, degree = WAYS[way]
    b = Budget(epsilon=epsilon, delta=1/(len(private)*math.log(len(private))))
    s = Settings(generations=T, samples=[N]*T + [LAST], degree=degree, threshold=round(calibrate(b.epsilon, b.delta, T)*math.sqrt(K), 1), neighbours=K, seed=seed)
    start, out, before = time.time(), [], None
    for g in evolve(private, make(), Resized(Edges(), 8), s, b, noise=SeededNoise(seed)):
        if g.t in (0, T): out.append(look(g.records, test))
        if g.t < T: before = g
    chosen = look(before.records[g.parents], test)  # whom the last release selected, before they are varied
    return dict(way=way, epsilon=epsilon, seed=seed, first=out[0], last=out[1], selected=chosen, seconds=round(time.time() - start))

def main(seeds=3):
    torch.set_num_threads(1)
    private, test = digits('train', 28), digits('test', 28)
    rows = []
    for way in WAYS:
        for epsilon in (1., 10.):
            for seed in range(seeds):
                rows.append(one(way, epsilon, seed, private, test))
                print(rows[-1], flush=True)
    say = lambda v: f'{np.mean(v):.3f} ± {np.std(v, ddof=1):.3f}' if len(v) > 1 else f'{v[0]:.3f}'
    print('| generator | epsilon | Fréchet, generation 0 | final | accuracy, generation 0 | final | final, selected |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |')
    for way in WAYS:
        for epsilon in (1., 10.):
            r = [r for r in rows if (r['way'], r['epsilon']) == (way, epsilon)]
            pick = lambda when, what: [x[when][what] for x in r]
            print(f"| {way} | {epsilon:g} | " + ' | '.join(say(pick(*k)) for k in (('first', 'frechet'), ('last', 'frechet'), ('first', 'accuracy'), ('last', 'accuracy'), ('selected', 'accuracy'))) + ' |')
            if 'diffusion' in way and seeds > 1:
                assert np.mean(pick('last', 'frechet')) <= .5*np.mean(pick('first', 'frechet')), 'the claim is half'
                assert np.mean(pick('last', 'accuracy')) >= np.mean(pick('first', 'accuracy')) + .2, 'the claim is 20 points'
    limit = look(private, test)
    print('the private digits themselves:', limit)
    Path(__file__).with_name('digits.json').write_text(json.dumps(dict(settings=dict(T=T, k=K, samples=N, last=LAST, skip=SKIP, respacing='ddim10'), torch=torch.__version__, real=limit, rows=rows), indent=1) + '\n')

if __name__ == '__main__': main(*map(int, sys.argv[1:]))
