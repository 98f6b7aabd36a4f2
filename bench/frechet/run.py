"""The distances between large sets of features: the Fréchet distance against the usual ways, precision and recall, and the kernel distance.

    python bench/frechet/run.py [--rounds 3] [--threads 2] [--skip-sqrtm] [--skip-sets]

The ways take turns in one process on the same number of threads; the best wall time of each counts. The matrix square roots at 2,048 dimensions run once. Sets run once, in a process each.
"""
import argparse, json, os, subprocess, sys, time
from pathlib import Path

THREADS = next((sys.argv[i + 1] for i, a in enumerate(sys.argv[:-1]) if a == '--threads'), '2')
for k in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ[k] = THREADS

import numpy as np
from scipy.linalg import eigh, eigvalsh, sqrtm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
from pe_nb.metrics.frechet import frechet_moments

def timed(f):
    wall, cpu = time.perf_counter(), time.process_time()
    out = f()
    return dict(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu), out

def by_sqrtm(m1, s1, m2, s2):
    "clean-fid's formula: a matrix square root of the product, its real part where rounding made it complex."
    return ((m1 - m2)**2).sum() + np.trace(s1) + np.trace(s2) - 2*np.trace(sqrtm(s1 @ s2)).real

def by_eigh(m1, s1, m2, s2):
    "The best of the usual ways: a symmetric root, and the eigenvalues of a symmetric product."
    w, v = eigh(s1)
    root = (v*np.sqrt(np.maximum(w, 0))) @ v.T
    return ((m1 - m2)**2).sum() + np.trace(s1) + np.trace(s2) - 2*np.sqrt(np.maximum(eigvalsh(root @ s2 @ root), 0)).sum()

def moments(kind, d):
    "Means and covariances of two samples, and the true distance where it is known."
    g = np.random.default_rng(0)
    if kind == 'known':                            # the same eigenvectors, eigenvalues over six orders of magnitude
        q = np.linalg.qr(g.standard_normal((d, d)))[0]
        a = np.logspace(0, -6, d); b = a*(1 + .2*g.random(d))
        cov = lambda w: (lambda c: (c + c.T)/2)((q*w) @ q.T)
        shift = 1e-3*g.standard_normal(d)
        return (np.zeros(d), cov(a), shift, cov(b)), float((shift**2).sum() + ((np.sqrt(a) - np.sqrt(b))**2).sum())
    n, scale = dict(white=(5000, np.ones(d)), decaying=(5000, np.logspace(0, -3, d)), few=(d//4, np.ones(d)))[kind]
    x, y = g.standard_normal((n, d))*scale, (1.05*g.standard_normal((n, d)) + .02)*scale
    return (x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T)), None

KINDS = {'white': '5,000 records, all directions alike', 'decaying': '5,000 records, variances over six orders of magnitude', 'few': 'd/4 records: both covariances singular', 'known': 'variances over six orders, true distance known'}

def distance(kind, d, rounds, skip_sqrtm):
    m, true = moments(kind, d)
    ways = dict(ours=frechet_moments, eigh=by_eigh)
    slow = dict(sqrtm=by_sqrtm) if not skip_sqrtm else {}
    best, value = {}, {}
    for r in range(rounds):
        for name, f in (ways | (slow if r == 0 or d < 1000 else {})).items():
            t, value[name] = timed(lambda: f(*m))
            best[name] = min(best.get(name, t), t, key=lambda t: t['wall'])
    base = best['ours']
    off = lambda v: abs(value['ours'] - v)/abs(v)
    return dict(kind=kind, d=d, value=value['ours'], seconds={k: {u: round(x, 3) for u, x in t.items()} for k, t in best.items()}, times_faster={k: {u: round(t[u]/base[u], 1) for u in t} for k, t in best.items() if k != 'ours'},
                off_from={k: float(f'{off(v):.2g}') for k, v in (value | ({'truth': true} if true is not None else {})).items() if k != 'ours'},
                **({'eigh_off_from_truth': float(f"{abs(value['eigh'] - true)/true:.2g}")} if true is not None else {}))

SETS = '''
import json, resource, sys, time
import numpy as np
what, n, d = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
g, scale = np.random.default_rng(0), np.arange(1, d + 1, dtype='f4')**-.5
x, y = (g.standard_normal((n, d), dtype='f4')*scale for _ in range(2))
y *= np.float32(1.05)
import scipy.linalg
if what == 'manifold':
    from pe_nb.metrics.manifold import manifold
    run = lambda: {k: float(m) for k, m in manifold(x, y, k=5, strict=True).items()}
elif what == 'kernel':
    from pe_nb.metrics.kernel import kernel_distance
    run = lambda: dict(zip(('value', 'error'), (lambda m: (m.value, m.error))(kernel_distance(x, y))))
elif what == 'kernel subsets':
    from pe_nb.metrics.kernel import kernel_distance
    run = lambda: dict(zip(('value', 'spread'), (lambda m: (m.value, m.spread))(kernel_distance(x, y, subsets=100))))
else:
    from sklearn.metrics import pairwise_distances as pairs
    def radius(z):
        p = pairs(z, n_jobs=1)
        return np.partition(p, 5, axis=1)[:, 5]
    def run():
        rx, ry, p = radius(x), radius(y), pairs(y, x, n_jobs=1)
        return dict(precision=float((p < ry[:, None]).any(0).mean()), recall=float((p < rx).any(1).mean()), density=float((p < ry[:, None]).sum(0).mean()/5), coverage=float((p.min(1) < ry).mean()))
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
wall, cpu = time.perf_counter(), time.process_time()
out = run()
print(json.dumps(dict(what=what, rows=n, d=d, seconds=round(time.perf_counter() - wall, 2), cpu=round(time.process_time() - cpu, 2), features_mb=round(2*x.nbytes/2**20),
                      peak_above_start_mb=round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)/1024), **{k: float(f'{v:.6g}') for k, v in out.items()})))
'''

def sets(what, n, d):
    "One computation on two sets of n features, in a process of its own."
    done = subprocess.run([sys.executable, '-c', SETS, what, str(n), str(d)], capture_output=True, text=True, cwd=HERE.parents[1])
    if done.returncode: raise SystemExit(done.stderr)
    return json.loads(done.stdout)

def table(head, rows): return '\n'.join('| ' + ' | '.join(map(str, r)) + ' |' for r in [head, ['---']*len(head), *rows])

def line(r):
    s = r['seconds']
    say = lambda k: f"{s[k]['wall']:.2f} s, {r['times_faster'][k]['wall']} x" if k in s else ''
    return [r['kind'], r['d'], f"{s['ours']['wall']:.2f} s", say('sqrtm'), say('eigh'), *(r['off_from'].get(k, '') for k in ('sqrtm', 'eigh', 'truth'))]

def main():
    p = argparse.ArgumentParser()
    p.add_argument('--rounds', type=int, default=3); p.add_argument('--threads', type=int, default=2)
    p.add_argument('--skip-sqrtm', action='store_true'); p.add_argument('--skip-sets', action='store_true')
    a = p.parse_args()
    rows = []
    for d in (512, 2048):
        for kind in KINDS:
            rows.append(distance(kind, d, a.rounds, a.skip_sqrtm))
            print(json.dumps(rows[-1]), flush=True)
    print(table(['covariances', 'd', 'frechet_moments', 'sqrtm', 'eigh', 'off from sqrtm', 'off from eigh', 'off from the truth'], map(line, rows)), flush=True)
    many = json.loads((HERE/'results.json').read_text())['sets'] if a.skip_sets and (HERE/'results.json').exists() else []   # those of before are kept
    if not a.skip_sets:
        for what, d in [('manifold', 512), ('sklearn', 512), ('manifold', 2048), ('sklearn', 2048), ('kernel', 2048), ('kernel subsets', 2048)]:
            many.append(sets(what, 10_000, d))
            print(json.dumps(many[-1]), flush=True)
        print(table(['10,000 + 10,000', 'd', 's', 'CPU s', 'peak above the features, MB'], [[r['what'], r['d'], r['seconds'], r['cpu'], r['peak_above_start_mb']] for r in many]))
    result = dict(cores=len(os.sched_getaffinity(0)), threads=a.threads, rounds=a.rounds, load=round(os.getloadavg()[0], 1), kinds=KINDS, distance=rows, sets=many)
    print('times as fast as the square root at 2,048 dimensions:', {r['kind']: r['times_faster']['sqrtm']['wall'] for r in rows if r['d'] == 2048 and 'sqrtm' in r['times_faster']})
    (HERE/'results.json').write_text(json.dumps(result, indent=1) + '\n')
    big = [r for r in rows if r['d'] == 2048]
    assert all(v < 1e-6 for r in rows if r['kind'] != 'few' for v in r['off_from'].values()), 'the claim is agreement to 1e-6'
    assert all(r['seconds']['ours']['wall'] < 5 for r in big), 'the claim is 5 s on two quiet cores'
    assert all(r['seconds'] < 20 for r in many if r['what'] == 'manifold'), 'the claim is 20 s on two quiet cores'

if __name__ == '__main__': main()
