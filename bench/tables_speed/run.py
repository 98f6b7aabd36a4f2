"""CPU seconds of a full Tab-PE run at the Artificial Characters settings, on one thread.

7,152 private rows, 10 labels, 1,000 rows a generation, 14 private generations (the reference's schedule of 15 entries), folds 3 with kept parents in the
second stage; no metrics. The generator steps as the reference does (uniform steps, nearest rounding) and the embedding has its weights. Timers sit around the parts.
"""
import os
for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ[name] = '1'
if hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # one core: our own thread pools too

import json, sys, time
from pathlib import Path
import numpy as np
import pandas as pd
import pe_nb.evolution as evolution
from pe_nb.embeddings.tables import TableEmbedding
from pe_nb.evolution import Settings, evolve
from pe_nb.generators.tables import Tables, example
from pe_nb.records import Column, Records, Schema
from pe_nb.release import Budget, SecureNoise, SeededNoise

DATA = Path(__file__).resolve().parents[3]/'shared'/'data'/'artificial_characters'
REFERENCE = 8.1  # CPU seconds of the reference library, one thread, mean of 5 seeds; measured once, not in this run
SPENT = {}

def timed(name, f):
    "`f`, with its CPU time added to SPENT[name]."
    def call(*args, **kwargs):
        t = time.process_time()
        try: return f(*args, **kwargs)
        finally: SPENT[name] = SPENT.get(name, 0) + time.process_time() - t
    return call

def load():
    "The private records and their schema. The bounds are read off this public data set; a private table must come with its own."
    df = pd.read_csv(DATA/'train.csv')
    meta = json.loads((DATA/'metadata.json').read_text())
    whole = lambda c: c in meta['int_columns']
    kind = lambda c: ('integer', int) if whole(c) else ('float', float)
    cols = tuple(Column(c, kind(c)[0], low=kind(c)[1](df[c].min()), high=kind(c)[1](df[c].max())) for c in df.columns.drop('Class'))
    return Records.table(df.drop(columns='Class'), Schema(cols), df['Class'].to_numpy() - 1, [str(i) for i in range(1, 11)])

class Parts:
    "The generator with timers around its two methods."
    def __init__(self, g): self.g, self.random, self.vary = g, timed('generator', g.random), timed('generator', g.vary)
    def __getattr__(self, k): return getattr(self.g, k)

class Embedding:
    "The embedding with a timer."
    def __init__(self, e): self.fingerprint, self.call = e.fingerprint, timed('embedding', e)
    def __call__(self, records): return self.call(records)

def one(private, seed, noise):
    "One run: total CPU seconds, and those of the parts."
    SPENT.clear()
    settings = Settings(**example('artificial_characters', 'reference', seed=seed, proportions=[int(c) for c in private.label_counts]))
    g = Tables(private.schema, private.label_names, step='uniform', rounding='nearest')
    budget = Budget(epsilon=1., delta=1/(len(private)*np.log(len(private))))
    t = time.process_time()
    last = list(evolve(private, Parts(g), Embedding(TableEmbedding(private.schema, 'reference')), settings, budget, noise=noise))[-1]
    total = time.process_time() - t
    assert last.t == 14 and len(last.records) == 4000 and len(last.selected) == 1000
    return dict(total=total, **SPENT, rest=total - sum(SPENT.values()))

def main():
    if not DATA.exists(): sys.exit('skipped: the data folder artificial_characters is not here; it belongs at ../shared/data beside the repository')
    private = load()
    evolution.vote, evolution.planned_events = timed('vote', evolution.vote), timed('calibration', evolution.planned_events)
    cold = one(private, 0, SeededNoise(0))
    SecureNoise()(np.zeros(10, np.int64), 3.)
    out = dict(private_rows=len(private), reference_cpu_s=REFERENCE, target_cpu_s=REFERENCE/10, first_run_with_imports_cpu_s=cold['total'])
    for name, noise in (('seeded', SeededNoise), ('secure', lambda seed: SecureNoise())):
        runs = [one(private, s, noise(s)) for s in range(1, 6)]
        out[name] = {k: float(np.median([r[k] for r in runs])) for k in runs[0]} | dict(totals=[r['total'] for r in runs])
    out['seeded_ratio'], out['secure_ratio'] = (REFERENCE/out[k]['total'] for k in ('seeded', 'secure'))
    out = json.loads(json.dumps(out), parse_float=lambda x: round(float(x), 4))
    Path(__file__).with_name('results.json').write_text(json.dumps(out, indent=1) + '\n')
    print(json.dumps(out, indent=1))

if __name__ == '__main__': main()
