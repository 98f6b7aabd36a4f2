"""Tab-PE's speed: CPU seconds at the Artificial Characters settings, and time and memory at up to 1,000,000 private rows.

    python bench/tables_speed/run.py               # both parts
    python bench/tables_speed/run.py characters    # one part; the other keeps its figures in results.json
    python bench/tables_speed/run.py large         # or: large 50000 100000, other numbers of private rows, printed and not kept

characters: 7,152 private rows, 10 labels, 1,000 rows a generation, 14 private generations (the reference's schedule of 15 entries), folds 3 with kept parents in the
second stage; no metrics; one thread on one core. The generator steps as the reference does (uniform steps, nearest rounding) and the embedding has its weights. Timers sit around the parts.

large: 125,000 to 1,000,000 private rows, 12 numbers and 8 categories, 2 labels, 5,000 rows a generation, 15 private generations of the paper's two-stage recipe; two cores.
Every size is a process of its own, so that its peak memory is its own. Needs matplotlib for the plot scaling.png. The table in README.md is rewritten.
"""
import os, sys
CORES = 2 if sys.argv[1:2] == ['--rows'] else 1
for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ[name] = str(CORES)
if hasattr(os, 'sched_setaffinity') and sys.argv[1:2] in (['--rows'], ['--characters']): os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-CORES:])  # our own thread pools too

import json, resource, subprocess, time
from pathlib import Path
import numpy as np
import pandas as pd
import pe_nb.evolution as evolution
from pe_nb.embeddings.tables import TableEmbedding
from pe_nb.evolution import Settings, evolve
from pe_nb.generators.tables import Tables, example, tab_pe
from pe_nb.records import Column, Records, Schema
from pe_nb.release import Budget, SecureNoise, SeededNoise

DATA = Path(__file__).resolve().parents[3]/'shared'/'data'/'artificial_characters'
RESULTS, PLOT = (Path(__file__).with_name(f) for f in ('results.json', 'scaling.png'))
README, BEGIN, END = Path(__file__).with_name('README.md'), '<!-- many rows: written by run.py -->', '<!-- end of many rows -->'
SIZES = 125_000, 250_000, 500_000, 1_000_000
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

def characters():
    "The part about Artificial Characters, as a dict."
    private = load()
    evolution.vote, evolution.planned_events = timed('vote', evolution.vote), timed('calibration', evolution.planned_events)
    cold = one(private, 0, SeededNoise(0))
    SecureNoise()(np.zeros(10, np.int64), 3.)
    out = dict(private_rows=len(private), reference_cpu_s=REFERENCE, target_cpu_s=REFERENCE/10, first_run_with_imports_cpu_s=cold['total'])
    for name, noise in (('seeded', SeededNoise), ('secure', lambda seed: SecureNoise())):
        runs = [one(private, s, noise(s)) for s in range(1, 6)]
        out[name] = {k: float(np.median([r[k] for r in runs])) for k in runs[0]} | dict(totals=[r['total'] for r in runs])
    out['seeded_ratio'], out['secure_ratio'] = (REFERENCE/out[k]['total'] for k in ('seeded', 'secure'))
    return out

# ---- many rows ----

def big_table(n):
    "A private table of n rows, from arrays of numbers and small codes; no column ever holds objects."
    rng, columns, label = np.random.default_rng(0), {}, np.arange(n) % 2
    numeric = [Column(f'x{i}', 'float', low=-4., high=4.) if i < 8 else Column(f'x{i}', 'integer', low=-400, high=400) for i in range(12)]
    coded = [Column(f'c{i}', 'categorical', tuple(map(str, range(2 + i + (i == 7))))) for i in range(8)]
    common = rng.normal(size=n) + label  # what the numbers of a row share: they are correlated, and differ by label
    for i, c in enumerate(numeric):
        v = np.clip(.5*common + rng.normal(size=n)*(1 + i % 3)/2, -4, 4)
        columns[c.name] = v if c.kind == 'float' else np.rint(100*v).astype(np.int64)
    for i, c in enumerate(coded):
        codes = (rng.random(n)**(1 + label)*len(c.categories)).astype(np.int8)
        columns[c.name] = pd.Categorical.from_codes(codes, categories=list(c.categories))
    return Records.table(pd.DataFrame(columns), Schema((*numeric, *coded), labels=(Column('y', 'boolean'),)), label)

def large(n):
    "One run at n private rows: seconds of each generation, peak memory of the process."
    t = time.perf_counter()
    private, settings = big_table(n), Settings(**tab_pe(5000, 15), seed=0)
    out, marks, cpu = dict(rows=n, columns=len(private.schema.names), table_s=time.perf_counter() - t), [time.perf_counter()], time.process_time()
    out['peak_gib_table'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20
    generator, embedding = Tables(private.schema), TableEmbedding(private.schema)
    for g in evolve(private, generator, embedding, settings, Budget(epsilon=1., delta=1/(n*np.log(n))), noise=SeededNoise(0)): marks.append(time.perf_counter())
    assert g.t == 15 and out['columns'] == 20 and len(private.label_names) == 2
    steps = np.diff(marks)
    return out | dict(run_s=marks[-1] - marks[0], run_cpu_s=time.process_time() - cpu, generation_s=(marks[-1] - marks[0])/15, generation_cpu_s=(time.process_time() - cpu)/15,
                      first_stage_s=float(np.median(steps[2:6])), second_stage_s=float(np.median(steps[8:])), synthetic_rows=len(g.records), selected=len(g.selected),
                      peak_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20, steps=steps.tolist())

def line(x, y):
    "Least squares: intercept, slope, share of the variance explained."
    slope, start = np.polyfit(x, y, 1)
    return dict(start=float(start), slope=float(slope), r2=float(1 - np.sum((y - start - slope*x)**2)/np.sum((y - np.mean(y))**2)))

def scaling(runs):
    "The fitted lines."
    x = np.array([r['rows'] for r in runs])/1e6
    return {k: line(x, np.array([r[k] for r in runs])) for k in ('generation_s', 'generation_cpu_s', 'first_stage_s', 'second_stage_s')}

def plot(runs, fits):
    "Seconds and CPU seconds per generation over private rows, with the fitted lines."
    from pe_nb.reports import new_figure, png
    fig, x = new_figure(4.6, 2.8), np.array([r['rows'] for r in runs])/1e6
    ax = fig.subplots()
    for key, what, color in (('generation_s', 's', 'tab:blue'), ('generation_cpu_s', 'CPU s', 'tab:orange')):
        f = fits[key]
        ax.plot(x, [r[key] for r in runs], 'o', ms=5, color=color)
        ax.plot([0, x.max()], [f['start'], f['start'] + f['slope']*x.max()], '-', lw=1, color=color, label=f"{formula(f)} {what}, $R^2$ = {f['r2']:.4f}")
    ax.set(xlabel='private rows x (millions)', ylabel='per generation', xlim=(0, None), ylim=(0, None))
    ax.legend(fontsize=7, frameon=False)
    PLOT.write_bytes(png(fig))

def formula(f): return f"{f['slope']:.2f} x {'-' if f['start'] < 0 else '+'} {abs(f['start']):.2f}"

def say(part):
    "Rewrites the measured part of README.md about many rows."
    f = part['fits']
    head = ['| private rows | seconds per generation | CPU seconds per generation | whole run, s | peak memory, GiB | of that, the private table and imports |', '| ---: | ---: | ---: | ---: | ---: | ---: |']
    rows = [f"| {r['rows']:,} | {r['generation_s']:.2f} | {r['generation_cpu_s']:.2f} | {r['run_s']:.0f} | {r['peak_gib']:.2f} | {r['peak_gib_table']:.2f} |" for r in part['runs']]
    note = f"Fitted lines, x in millions of private rows: {formula(f['generation_s'])} seconds (R^2 {f['generation_s']['r2']:.4f}) and {formula(f['generation_cpu_s'])} CPU seconds (R^2 {f['generation_cpu_s']['r2']:.4f})."
    if any(r['run_s'] > 1.1*r['run_cpu_s'] for r in part['runs']): note += ' Other processes kept both cores busy during these runs, so the seconds are too long and scattered; the CPU seconds are not.'
    old = README.read_text(encoding='utf-8')
    before, after = old[:old.index(BEGIN) + len(BEGIN)], old[old.index(END):]
    README.write_text('\n'.join([before, '', *head, *rows, '', note, '', after]), encoding='utf-8')

# ---- parts in processes of their own ----

def child(*args):
    "What this script, called with `args`, prints."
    done = subprocess.run([sys.executable, __file__, *map(str, args)], capture_output=True, text=True)
    if done.returncode: sys.exit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1], parse_float=lambda x: round(float(x), 4))

def main(args):
    if args[:1] == ['--rows']: return print(json.dumps(large(int(args[1]))))
    if args == ['--characters']: return print(json.dumps(characters()))
    if args and args[0] not in ('characters', 'large') or args[:1] == ['characters'] and args[1:]: sys.exit(__doc__)
    out = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if args[:1] != ['large']:
        if DATA.exists(): out = child('--characters') | {k: v for k, v in out.items() if k == 'large'}
        elif args: sys.exit('skipped: the data folder artificial_characters is not here; it belongs at ../shared/data beside the repository')
        else: print('skipped: characters: the data folder artificial_characters is not here; it belongs at ../shared/data beside the repository')
    if args[:1] != ['characters']:
        runs = []
        for n in [int(v) for v in args[1:]] or SIZES:
            runs.append(child('--rows', n))
            print({k: v for k, v in runs[-1].items() if k != 'steps'}, flush=True)
        out['large'] = dict(runs=runs, fits=json.loads(json.dumps(scaling(runs)), parse_float=lambda x: round(float(x), 5)) if len(runs) > 1 else {})
        if args[1:]: return print(json.dumps(out['large']['fits']))
        plot(runs, out['large']['fits'])
        say(out['large'])
    RESULTS.write_text(json.dumps(out, indent=1) + '\n')
    print(json.dumps(out, indent=1))

if __name__ == '__main__': main(sys.argv[1:])
