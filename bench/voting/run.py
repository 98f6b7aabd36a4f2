"""Voting: speed against the plain matrix product and bare faiss, and peak memory.

    python bench/voting/run.py [--rounds 7] [--skip-memory]

Peers run in turn with ours in every round of one process, all on the same number of threads; the best time of each counts.
"""
import argparse, json, os, subprocess, sys, time
from pathlib import Path
import faiss
import numpy as np
from pe_nb.voting import neighbours, vote

HERE = Path(__file__).resolve().parent
SHAPES = [(20_000, 5_000, 768), (7_152, 1_000, 16), (20_000, 5_000, 64), (5_000, 10_000, 2_048)]

def timed(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start

def speed(n, m, d, rounds):
    "Best times of the product alone, bare faiss (no proof, float32), and the whole vote."
    r = np.random.default_rng(0)
    x, s, out = r.standard_normal((n, d), dtype='f4'), r.standard_normal((m, d), dtype='f4'), np.empty((n, m), 'f4')
    xl, sl = np.zeros(n, int), np.zeros(m, int)
    index = faiss.IndexFlatL2(d); index.add(s)
    runs = {'product': lambda: np.matmul(x, s.T, out=out), 'faiss.knn': lambda: faiss.knn(x, s, 1),
            'IndexFlatL2': lambda: index.search(x, 1), 'vote': lambda: vote(x, s, xl, sl),
            'vote k=5': lambda: vote(x, s, xl, sl, k=5), 'vote cosine': lambda: vote(x, s, xl, sl, metric='cosine')}
    best = dict.fromkeys(runs, np.inf)
    for _ in range(rounds if n*m*d > 1e9 else 20*rounds):
        for name, f in runs.items():
            best[name] = min(best[name], timed(f))
    tally = {}
    neighbours(x, s, xl, sl, tally=tally)
    return {'shape': [n, m, d], 'seconds': {k: round(v, 5) for k, v in best.items()},
            'share of the product rate': {k: round(best['product']/best[k], 3) for k in runs if k != 'product'},
            'times faster than bare faiss': round(min(best['faiss.knn'], best['IndexFlatL2'])/best['vote'], 2),
            'proven by the float32 product': round(tally['float32 proof']/n, 4)}

PEAK = '''
import resource, sys, time
import numpy as np
n, m, d = 1_000_000, 5_000, 384
r = np.random.default_rng(0)
x = np.empty((n, d), 'f4')
for lo in range(0, n, 10_000): r.standard_normal(out=x[lo:lo + 10_000], dtype='f4')
s = r.standard_normal((m, d), dtype='f4')
start = time.perf_counter()
if sys.argv[1] == 'faiss':
    import faiss
    np.bincount(faiss.knn(x, s, 1)[1][:, 0], minlength=m)
else:
    from pe_nb.voting import vote
    vote(x, s, np.zeros(n, np.int64), np.zeros(m, np.int64), memory_mb=float(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20, time.perf_counter() - start)
'''

def memory():
    "Peak resident memory, in GiB, of a vote of 1,000,000 x 5,000 x 384, inputs (1.44 GiB) included, each in a process of its own."
    out = []
    for how in ('512', '32', 'faiss'):
        done = subprocess.run([sys.executable, '-c', PEAK, how], capture_output=True, text=True, check=True, cwd=HERE.parents[1])
        peak, seconds = map(float, done.stdout.split())
        name = 'bare faiss.knn' if how == 'faiss' else f'vote, memory_mb={how}'
        out.append({'how': name, 'peak GiB': round(peak, 2), 'seconds': round(seconds, 1)})
    return out

def table(head, rows): return '\n'.join('| ' + ' | '.join(map(str, r)) + ' |' for r in [head, ['---']*len(head), *rows])

def line(r):
    share = r['share of the product rate']
    bare = max(share['faiss.knn'], share['IndexFlatL2'])
    return [' x '.join(f'{v:,}' for v in r['shape']), *(f'{share[k]:.0%}' for k in ('vote', 'vote k=5', 'vote cosine')), f'{bare:.0%}',
            f"{r['times faster than bare faiss']} times as fast", f"{r['proven by the float32 product']:.1%}"]

def main():
    p = argparse.ArgumentParser(); p.add_argument('--rounds', type=int, default=7); p.add_argument('--skip-memory', action='store_true')
    a = p.parse_args()
    rows = [speed(*shape, a.rounds) for shape in SHAPES]
    print(table(['private x synthetic x dim', 'vote', 'vote, k=5', 'vote, cosine', 'bare faiss', 'vote against faiss', 'proven by float32'], map(line, rows)))
    peak = [] if a.skip_memory else memory()
    if peak: print(); print(table(['1,000,000 x 5,000 x 384', 'peak, GiB', 's'], [r.values() for r in peak]))
    result = {'cores': len(os.sched_getaffinity(0)), 'rounds': a.rounds, 'speed': rows, 'memory': peak}
    (HERE/'results.json').write_text(json.dumps(result, indent=1) + '\n')

if __name__ == '__main__': main()
