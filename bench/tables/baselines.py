"""AIM and MST at epsilon 1 and delta 1/(n ln n) on the schema that Tab-PE gets: accuracy of classifiers that saw synthetic rows only, seconds, peak memory.

    python bench/tables/baselines.py artificial_characters --methods aim --tune 4 8 16 32    # bins by validation accuracy, one run each; then the test set
    python bench/tables/baselines.py artificial_characters --methods mst --tune 8 16 32 64
    python bench/tables/baselines.py xor-3 --methods aim --tune 4 8 16 --set queries=4
    python bench/tables/baselines.py xor-3 --methods mst --tune 8
    python bench/tables/baselines.py adult --methods mst
    python bench/tables/baselines.py adult --methods aim --seeds 1 --set queries=2 rounds=16 max_size=8

Needs the extras baselines and tables. Every run is a process of its own on one thread. The synthetic rows go to runs/baselines/DATA_METHOD_SEED.csv, the figures to bench/tables/baselines.json,
beside those of other data sets and methods that are there already. The noise cannot be repeated, so the figures move a little from run to run; a seed sets the numbers within bins and the classifier.
"""
import os
ONE = dict(OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1', MKL_NUM_THREADS='1', POLARS_MAX_THREADS='1', JAX_PLATFORMS='cpu', XLA_FLAGS='--xla_cpu_multi_thread_eigen=false')
os.environ.update(ONE)

import argparse, json, resource, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
DATA, OUT, RESULTS = ROOT.parent/'shared'/'data', ROOT/'runs'/'baselines', Path(__file__).with_name('baselines.json')
MODELS = 'xgboost', 'hist_gradient'

def load(name, bounds):
    "(private, validation, test). Adult has no validation rows: there, the first 10,000 private rows stand in for them."
    if name.startswith('xor-'):
        from pe_nb.data.simulated import xor
        from pe_nb.data.tables import split
        return split(xor(int(name[4:])))
    from pe_nb.data import tables
    if not (DATA/name).exists(): sys.exit(f'skipped: the data folder {name} is not here; it belongs at ../shared/data beside the repository')
    read = getattr(tables, name)
    part = lambda s: read(s, path=DATA/name, bounds=bounds)
    private = part('train')
    return private, part('val') if (DATA/name/'val.csv').exists() else private[:10_000], part('test')

def child(job):
    "One run; its figures as a dict."
    import logging
    import numpy as np
    from pe_nb.data.baselines import marginals
    from pe_nb.metrics.tabular_models import train_on_synthetic_table
    logging.getLogger('opendp').setLevel(logging.ERROR)
    private, val, test = load(job['data'], job['bounds'])
    wall, cpu = time.perf_counter(), time.process_time()
    bins = {c.name: job['bins'] for c in private.schema.columns if not c.coded} | job['starts'] if job['starts'] else job['bins']
    synthetic, said = marginals(private, job['method'], epsilon=1., delta=1/(len(private)*np.log(len(private))), bins=bins, rng=np.random.default_rng(job['seed']), **job['options'])
    out = dict(seed=job['seed'], bins=job['bins'], options=job['options'], rows=len(synthetic), seconds=time.perf_counter() - wall, cpu_s=time.process_time() - cpu,
               peak_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20, measured=len(said['measured']), packages=said['packages'], rho=said['rho'], rho_spent=said['rho_spent'])
    real = val if job['on'] == 'val' else test
    for model in MODELS:
        got = train_on_synthetic_table(synthetic, real, model, seeds=(job['seed'],), n_jobs=1, private=False)
        out[model] = {k: float(got[k]) for k in ('accuracy', 'macro_f1', 'auc') if k in got}
    if job['on'] == 'test':
        OUT.mkdir(parents=True, exist_ok=True)
        synthetic.frame().to_csv(OUT/f"{job['data']}_{job['method']}_{job['seed']}.csv", index=False)
    return out

def run(job, limit):
    "One run in a process of its own; None if it took too long."
    try: done = subprocess.run([sys.executable, __file__, '--child', json.dumps(job)], capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired: print(job, f'took more than {limit} s', flush=True); return None
    if done.returncode: sys.exit(done.stdout + done.stderr)
    out = json.loads(done.stdout.splitlines()[-1], parse_float=lambda x: float(f'{float(x):.6g}'))
    print(job['data'], job['method'], job['on'], {k: out[k] for k in ('seed', 'bins', 'rows', 'seconds', 'cpu_s', 'peak_gib', 'measured')}, *(f"{m} {out[m]['accuracy']:.4f}" for m in MODELS), flush=True)
    return out

def summary(runs):
    "Mean and standard deviation over the seeds."
    import numpy as np
    cols = {m: [r[m]['accuracy'] for r in runs] for m in MODELS} | {k: [r[k] for r in runs] for k in ('seconds', 'cpu_s', 'peak_gib')}
    return {k: dict(mean=round(float(np.mean(v)), 4), sd=round(float(np.std(v, ddof=len(v) > 1)), 4)) for k, v in cols.items()}

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('data', help='artificial_characters, adult, or xor-D')
    p.add_argument('--methods', nargs='+', default=['aim', 'mst'], choices=['aim', 'mst'])
    p.add_argument('--seeds', type=int, default=3)
    p.add_argument('--bins', type=int, default=32)
    p.add_argument('--tune', type=int, nargs='+', help='numbers of bins to choose from, by XGBoost accuracy on validation rows')
    p.add_argument('--starts', type=json.loads, default={}, help="JSON: where the bins of a column start after the first, as {\"capital-gain\": [1, 1000, 10000]}")
    p.add_argument('--bounds', default='paper', choices=['paper', 'public'])
    p.add_argument('--limit', type=float, default=1800, help='seconds that a run may take')
    p.add_argument('--set', nargs='*', default=[], metavar='NAME=VALUE', help="fields of opendp's AIM or MST, and iters: steps of each fit")
    a = p.parse_args()
    options = {k: json.loads(v) for k, v in (x.split('=') for x in a.set)}
    for method in a.methods:
        job, tuned = dict(data=a.data, method=method, seed=0, bins=a.bins, options=options, bounds=a.bounds, starts=a.starts, on='val'), {}
        for bins in a.tune or ():
            got = run(job | dict(bins=bins, seed=100), a.limit)
            if got: tuned[bins] = {m: got[m]['accuracy'] for m in MODELS} | dict(seconds=got['seconds'])
        if tuned: job['bins'] = max(tuned, key=lambda b: tuned[b]['xgboost'])
        runs = [r for s in range(a.seeds) if (r := run(job | dict(seed=s, on='test'), a.limit))]
        if not runs: continue
        all_ = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        all_.setdefault(a.data, {})[method] = dict(bins=job['bins'], bounds=a.bounds, options=options, **({'starts': a.starts} if a.starts else {}), tuned_on_validation=tuned, summary=summary(runs), runs=runs)
        RESULTS.write_text(json.dumps(all_, indent=1) + '\n')
        print(json.dumps(all_[a.data][method]['summary']), flush=True)

if __name__ == '__main__': print(json.dumps(child(json.loads(sys.argv[2])))) if sys.argv[1:2] == ['--child'] else main()
