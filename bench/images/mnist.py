"""MNIST as in paper 3: private digits drawn with fonts, judged by a network that has seen synthetic digits only.

55,000 MNIST digits are private, 5,000 more chose every setting, the 10,000 test digits are read at the end. Noise is seeded here so that the
tables can be made again; nothing of it is for release. Finished runs are in mnist.json and are not made again: delete the file to start over.

    python bench/images/mnist.py            what is missing of: ours at epsilon 1 and 10, three seeds each; the paper's schedule; real digits
    python bench/images/mnist.py time       the run of seed 0 at epsilon 1 alone, and its seconds
    python bench/images/mnist.py try        the same with a network that is scored on the 5,000 digits: for changing settings; writes nothing
    python bench/images/mnist.py table      what was measured, for README.md
"""
import argparse, json, math, os, time
from contextlib import nullcontext
from pathlib import Path
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from pe_nb.accounting import calibrate
from pe_nb.data.image_sets import mnist
from pe_nb.data.images import hash_order
from pe_nb.embeddings.images import Edges, Pixels
from pe_nb.evolution import Settings, evolve
from pe_nb.generators.fonts import Fonts
from pe_nb.generators.image_recipes import recipe
from pe_nb.metrics.downstream import pixel_rows, predictions
from pe_nb.metrics.frechet import frechet_records
from pe_nb.metrics.fine_tune import seeded
from pe_nb.metrics.image_classifiers import AUGMENT, built, probabilities, train_network
from pe_nb.records import Records
from pe_nb.release import Budget, SeededNoise

RESULTS = Path(__file__).with_name('mnist.json')
SHARED = Path(__file__).resolve().parents[3]/'shared'/'data'
SPLIT, N = 'pe_nb mnist 0', 55_000
SEEDS, EPSILONS = (0, 1, 2), (1., 10.)
NETWORK = dict(epochs=6, lr=.003, batch=128, splits=1, step=2, gamma=.3, ema=.999, augment=AUGMENT['affine'], buffers='average')

def halves(data):
    "The private 55,000 and the 5,000 of MNIST's training digits that choose settings; test digits are not read."
    digits, order = mnist('train', data/'mnist', complete=True), hash_order(60_000, SPLIT)
    return digits[np.sort(order[:N])], digits[np.sort(order[N:])]

def budget(epsilon): return Budget(epsilon=epsilon, delta=1/(N*math.log(N)))

# ---- two settings ----

EDGES = Edges(cell=4, pixels=0)
RANGES = dict(stroke=(-1., 1.2), rotation=(-25., 25.), shear=(-.4, .9), scale_x=(.5, 1.4), bend=(-.5, .5), waist=(-.4, .4), tilt=(-.4, .4), shift_x=(-.3, .3), shift_y=(-.6, .6))

def schedule(epsilon, seed):
    "Settings that were chosen on the 5,000 digits, at epsilon 1."
    T, k, b = 6, 8, budget(epsilon)
    shares = [.3*.7**max(0, t - 1) for t in range(T + 1)]  # of each range
    degree = [dict(font=s) | {p: round(s*(high - low), 4) for p, (low, high) in RANGES.items()} for s in shares]
    return Settings(generations=T, samples=[10_000]*T + [20_000], degree=degree, neighbours=k, lookahead=8, seed=seed,
                    threshold=round(.5*calibrate(b.epsilon, b.delta, T)*math.sqrt(k), 1))

def ours(data, epsilon, seed):
    "Our generator, embedding and settings."
    return Fonts(folder=data/'fonts', size_of='box', size=(20., 20.), **RANGES), EDGES, schedule(epsilon, seed)

def papers(data, epsilon, seed):
    "The paper's generator and schedule, with other fonts, and edges in the place of Inception."
    r = recipe('mnist', epsilon, seed=seed)
    return Fonts(folder=data/'fonts', **r['generator']), EDGES, Settings(**r['settings'])

# ---- one run ----

def generations(private, parts, epsilon, seed):
    "All generations of a run, and its seconds."
    fonts, embedding, settings = parts
    start = time.perf_counter()
    made = list(evolve(private, fonts, embedding, settings, budget(epsilon), noise=SeededNoise(1000 + seed)))
    return made, time.perf_counter() - start

def judged(records, sets, seed):
    "Accuracies in percent on each set of real digits: a network that sees `records` only and keeps its last epoch, and a logistic regression on pixels."
    start, cpu = time.perf_counter(), torch.device('cpu')
    images = lambda r: torch.tensor(r.data)
    with seeded(seed, cpu):
        network, *_ = train_network(lambda: built('cnn', (28, 28, 1), 10, cpu), dict(train=(images(records), torch.tensor(records.labels))), seed, cpu, None, **NETWORK)
        right = {name: (probabilities(network, images(r), 1000, nullcontext).argmax(1) == r.labels).mean() for name, r in sets.items()}
    out = dict(images=len(records), network_seconds=round(time.perf_counter() - start), **{f'network_{k}': percent(v) for k, v in right.items()})
    real = Records.concat(list(sets.values()))
    hits = predictions(records, real, lambda seed: LogisticRegression(C=.01, max_iter=10_000), seed, pixel_rows) == real.labels
    return out | {f'logistic_{k}': percent(h.mean()) for k, h in zip(sets, np.split(hits, np.cumsum([len(r) for r in sets.values()])[:-1]))}

def percent(x): return round(100*float(x), 2)

def one(private, sets, parts, epsilon, seed):
    "A run, its figures by generation, and its accuracies: the first population, all of the last, and its parents."
    made, seconds = generations(private, parts, epsilon, seed)
    assert made[-1].epsilon <= epsilon
    steps = [dict(t=g.t, epsilon=round(g.epsilon, 4), images=len(g.records), frechet=round(float(frechet_records(g.records, sets['test'], Pixels())), 3)) for g in made]
    kept = made[-2].records[made[-1].parents]  # a parent as often as it was drawn
    return dict(seconds=round(seconds), generations=steps, first=judged(made[0].records, sets, seed), all=judged(made[-1].records, sets, seed), selected=judged(kept, sets, seed))

# ---- all of them ----

def tasks():
    "(name, parts, epsilon, seed) of every run."
    return [*(('ours', ours, e, s) for e in EPSILONS for s in SEEDS), *(('paper', papers, e, 0) for e in EPSILONS)]

def summary(found):
    "Mean and standard deviation over seeds of one setting."
    out = dict(seeds=len(found), seconds=round(float(np.mean([f['seconds'] for f in found]))))
    for when in ('first', 'all', 'selected'):
        for k in (k for k in found[0][when] if '_val' in k or '_test' in k):
            v = [f[when][k] for f in found]
            out[f'{when}_{k}'] = [round(float(x), 2) for x in (np.mean(v), np.std(v, ddof=min(1, len(v) - 1)))]
    for when, i in (('first', 0), ('last', -1)): out[f'{when}_frechet'] = round(float(np.mean([f['generations'][i]['frechet'] for f in found])), 2)
    return out

def save(found):
    "Everything measured, and the means."
    groups = {}
    for key, value in found['runs'].items(): groups.setdefault(key.rsplit(', seed', 1)[0], []).append(value)
    found['means'] = {k: summary(v) for k, v in groups.items()}
    RESULTS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')

def table(found):
    "The means as markdown, for README.md."
    say = lambda m, k: f'{m[k][0]:.1f}' + (f' ± {m[k][1]:.1f}' if m['seeds'] > 1 else '')
    columns = [(w, k) for k in ('network', 'logistic') for w in ('first', 'all', 'selected')]
    lines = ['| setting | ' + ' | '.join(f"{k}, {dict(first='generation 0', all='all', selected='parents')[w]}" for w, k in columns) + ' | network, all, validation | Fréchet of pixels, generation 0 to last | seconds |',
             '| --- |' + ' ---: |'*(len(columns) + 3)]
    for name, m in found['means'].items():
        tests = ' | '.join(say(m, f'{w}_{k}_test') for w, k in columns)
        lines.append(f"| {name} | {tests} | {say(m, 'all_network_val')} | {m['first_frechet']:.2f} to {m['last_frechet']:.2f} | {m['seconds']} |")
    if 'real' in found: lines.append(f"| real digits, not private | | {found['real']['network_test']:.1f} | | | {found['real']['logistic_test']:.1f} | | {found['real']['network_val']:.1f} | | |")
    return '\n'.join(lines)

def main():
    "What the first argument says."
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('what', nargs='?', default='all', choices=('all', 'time', 'try', 'table'))
    a.add_argument('--data', type=Path, default=SHARED, help='folder with mnist/ and fonts/')
    a = a.parse_args()
    found = json.loads(RESULTS.read_text(encoding='utf-8')) if RESULTS.exists() else dict(runs={})
    if a.what == 'table': return print(table(found))
    if not (a.data/'mnist'/'train.npz').is_file(): raise SystemExit(f'--data ({a.data}) must hold mnist/train.npz, mnist/test.npz and fonts/: nothing measured')
    private, val = halves(a.data)
    if a.what in ('time', 'try'):
        made, seconds = generations(private, ours(a.data, 1., 0), 1., 0)
        print(made[-1], f'{seconds:.0f} seconds on {os.cpu_count()} cores', flush=True)
        if a.what == 'try': return print(judged(made[-1].records, dict(val=val), 0))
        return save(found | dict(time=dict(seconds=round(seconds), cores=os.cpu_count())))
    sets = dict(val=val, test=mnist('test', a.data/'mnist', complete=True))
    for name, parts, epsilon, seed in tasks():
        if (key := f'{name}, epsilon {epsilon:g}, seed {seed}') in found['runs']: continue
        found['runs'][key] = one(private, sets, parts(a.data, epsilon, seed), epsilon, seed)
        print(key, {k: found['runs'][key][k] for k in ('seconds', 'all')}, flush=True)
        save(found)
    if 'real' not in found: save(found | dict(real=judged(private, sets, 0)))

if __name__ == '__main__': main()
