"""Quality of private tables at epsilon 1: mean and standard deviation over 5 seeds, for the paper's settings and ours, beside real data.

    python bench/tables/run.py                    # everything, about an hour and a half on two cores; experiments whose data is not here are skipped
    python bench/tables/run.py xor mnist          # some experiments; the others keep their figures in results.json

All figures are of test rows, looked at once with settings and classifiers that were chosen on validation rows (XOR, SCM: on other draws of the simulation); the validation figures are kept beside them.
Class shares are public, as in the paper. The noise is seeded so that the table can be made again; nothing of it is for release.
"""
import os
for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ[name] = '1'

import json, multiprocessing, sys, time
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent))
import numpy as np
from pe_nb.data.simulated import xor, scm
from pe_nb.data.tables import adult, artificial_characters, bundled, mnist_table, person_activity, split
from pe_nb.embeddings.tables import TableEmbedding
from pe_nb.evolution import Settings, evolve
from pe_nb.generators.table_recipes import ADULT_SPIKES, recipe
from pe_nb.generators.tables import Tables, example, tab_pe
from pe_nb.metrics.tables import wsd
from pe_nb.metrics.tabular_models import train_on_synthetic_table
from pe_nb.records import Records, Schema
from pe_nb.release import Budget, SeededNoise

DATA, RESULTS, SEEDS = Path(__file__).resolve().parents[3]/'shared'/'data', Path(__file__).with_name('results.json'), range(5)

# ---- classifiers beyond the ones with a name ----

def kernel(seed):
    "Support vector machine with a Gaussian kernel, for numbers from 0 to 1."
    from sklearn.svm import SVC
    return SVC(C=3, gamma=8.)

class Voter:
    "A margin as a probability, so that the area under the curve can be taken."
    def __init__(self, model, most=6000): self.model, self.most = model, most
    def fit(self, x, y):
        rows = np.random.default_rng(0).permutation(len(x))[:self.most]
        self.model.fit(x[rows], y[rows]); self.classes_ = self.model.classes_
        return self
    def predict_proba(self, x):
        p = 1/(1 + np.exp(-np.clip(self.model.decision_function(x), -30, 30)))
        return np.column_stack([1 - p, p])

def kernel_voter(seed): return Voter(kernel(seed))

def neighbours(seed):
    "The nearest synthetic row decides."
    from sklearn.neighbors import KNeighborsClassifier
    return KNeighborsClassifier(1)

def gaussians(seed):
    "One Gaussian per class, its covariance mixed with a multiple of the identity."
    from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
    return QuadraticDiscriminantAnalysis(reg_param=.05)

MODELS = dict(kernel=kernel_voter, neighbours=neighbours, gaussians=gaussians)

# ---- the experiments: data, variants, classifiers, distances ----

def shares(r): return [int(c) for c in r.label_counts]

def plain(private, settings): return dict(settings=settings | dict(proportions=shares(private)), generator=Tables(private.schema), embedding=TableEmbedding(private.schema))

def question_mark(r):
    "A missing category as a category '?' of its own, as in the paper's files: its label codes know no missing value."
    cols = tuple(replace(c, categories=c.categories + ('?',), nullable=False) if c.nullable else c for c in r.schema.columns)
    f = r.frame()
    for c in r.schema.columns:
        if c.nullable: f[c.name] = f[c.name].astype(object).where(f[c.name].notna(), '?')
    return Records.table(f, Schema(cols, labels=r.schema.labels))

def xor_parts(d, seed):
    "A draw of the simulation for each seed: the paper does not give its files."
    return split(xor(d, seed=1000 + seed), seed=seed)

def xor_variants(private): return dict(paper=plain(private, example('xor', 'paper', samples=2000, generations=20)), consistent=plain(private, recipe('xor')))

def scm_variants(private): return {v: plain(private, recipe('scm', v)) for v in ('paper', 'consistent')}

def folder(name):
    if not (DATA/name).exists(): raise FileNotFoundError(f'the data folder {name} is not here; it belongs at ../shared/data beside the repository')
    return DATA/name

def characters_parts(seed): return tuple(artificial_characters(s, path=folder('artificial_characters'), bounds='paper') for s in ('train', 'val', 'test'))

def named_variants(name, *variants): return lambda private: {v: plain(private, recipe(name, v)) for v in variants}

def reference(private, name):
    "The released example: uniform steps, rounding that freezes small ranges, its weights."
    return dict(settings=recipe(name, 'reference') | dict(proportions=shares(private)), generator=Tables(private.schema, step='uniform', rounding='nearest'), embedding=TableEmbedding(private.schema, 'reference'))

def characters_variants(private):
    return dict(reference=reference(private, 'artificial_characters')) | named_variants('artificial_characters', 'paper', 'consistent')(private)

def adult_parts(seed): return split(question_mark(Records.concat([adult(s, path=folder('adult')) for s in ('train', 'test')])), (70, 15, 15), seed=0)

def adult_variants(private):
    "Ours: the spikes of capital gain and loss are public knowledge (most people have neither), numbers weigh more and move half as far, class shares are paid for."
    ours = dict(settings=recipe('adult', 'spikes'), generator=Tables(private.schema, spikes=ADULT_SPIKES), embedding=TableEmbedding(private.schema, numeric=3., spikes=ADULT_SPIKES))
    return dict(paper=plain(private, recipe('adult', 'paper')), spikes=ours)

def breast_parts(seed): return split(bundled('breast_cancer', 'all'), (70, 15, 15), seed=seed)

def person_parts(seed):
    "The paper's training file is not public in the shared data: its validation file is private here, halves of its test file validate and test."
    private, rest = (person_activity(s, path=folder('person_activity')) for s in ('val', 'test'))
    val, test = split(rest, (50, 50), seed=0)
    return private, val, test

def mnist_parts(seed):
    p = np.random.default_rng(123).permutation(60000)
    train = mnist_table(folder('mnist'), 'train')
    return train[np.sort(p[5000:])], train[np.sort(p[:5000])], mnist_table(folder('mnist'), 'test')

def mnist_variants(private):
    from sites import Sites, settings
    paper = plain(private, tab_pe(300, 100, sampling=30, folds=20))
    return dict(paper=paper, sites=dict(settings=settings(), generator=Sites(private.schema), embedding=TableEmbedding(private.schema)))

EXPERIMENTS = {f'xor-{d}': dict(parts=lambda seed, d=d: xor_parts(d, seed), variants=xor_variants, models=('xgboost', 'kernel', 'neighbours'), score='auc') for d in range(1, 8)}
EXPERIMENTS |= {f'scm-{p}': dict(parts=lambda seed, p=p: split(scm(p, seed=seed), seed=seed), variants=scm_variants, models=('xgboost', 'hist_gradient', 'logistic'), ks=(1, 3)) for p in ('tree', 'nn', 'rff')}
EXPERIMENTS |= dict(
    artificial_characters=dict(parts=characters_parts, variants=characters_variants, models=('xgboost', 'hist_gradient'), ks=(5, 6, 7)),
    adult=dict(parts=adult_parts, variants=adult_variants, models=('xgboost', 'hist_gradient', 'logistic'), ks=(1, 2, 3)),
    breast_cancer=dict(parts=breast_parts, variants=named_variants('breast_cancer', 'paper', 'consistent'), models=('xgboost', 'logistic'), ks=(1, 2)),
    person_activity=dict(parts=person_parts, variants=named_variants('person_activity', 'paper', 'consistent'), models=('xgboost', 'hist_gradient'), ks=(5,)),
    mnist=dict(parts=mnist_parts, variants=mnist_variants, models=('logistic', 'neighbours', 'gaussians')))

# ---- one run, and the table ----

def synthetic(private, variant, seed):
    "The rows of one run, the epsilon it spent, its CPU seconds."
    n, t = len(private), time.process_time()
    for g in evolve(private, variant['generator'], variant['embedding'], Settings(**variant['settings'], seed=seed), Budget(epsilon=1., delta=1/(n*np.log(n))), noise=SeededNoise(1000 + seed)): pass
    return g, time.process_time() - t

def figures(rows, parts, e, seed, at='', near=True):
    "Classifiers on validation and test rows; distances to test rows, if wanted."
    out, (val, test) = {at + k: {} for k in ('validation', 'test')}, parts
    for m in e['models']:
        got = train_on_synthetic_table(rows, test, MODELS.get(m, m), seeds=(seed,), validation=val, n_jobs=1)
        for k in ('accuracy', 'macro_f1', 'auc'):
            out[at + 'test'][f'{m}/{k}'] = float(got[k])
            out[at + 'validation'][f'{m}/{k}'] = float(got[f'validation/{k}'])
    for k in e.get('ks', ()) if near else (): out[at + 'test'][f'wsd/{k}'] = float(wsd(rows, test, k, seed=seed, coding='label', most=60))
    return out

def job(task):
    "Everything of one experiment, variant and seed."
    name, which, seed = task
    e = EXPERIMENTS[name]
    private, val, test = e['parts'](seed)
    if which == 'real':
        few = private[np.sort(np.random.default_rng(seed).permutation(len(private))[:10_000])]
        return task, dict(rows=len(few)) | figures(few, (val, test), e, seed)
    g, cpu = synthetic(private, e['variants'](private)[which], seed)
    sets = {'': g.records} | ({'selected ': g.selected} if len(g.selected) not in (0, len(g.records)) else {})
    out = dict(rows=len(g.records), cpu_s=cpu, epsilon=g.epsilon)
    for at, rows in sets.items(): out |= figures(rows, (val, test), e, seed, at, near=at == list(sets)[-1])  # distances of the selected rows, as in the paper
    return task, out

def tasks(names):
    "What there is to do; experiments without their data are left out, and said."
    for name in names:
        try: private = EXPERIMENTS[name]['parts'](0)[0]
        except FileNotFoundError as e: print(f'skipped: {name}: {e}'); continue
        yield from ((name, v, s) for v in (*EXPERIMENTS[name]['variants'](private), 'real') for s in SEEDS)

def summary(runs):
    "Mean, standard deviation and values of each figure."
    out = {}
    for r in runs:
        for k, v in r.items():
            for name, x in ((f'{k} {n}', x) for n, x in v.items()) if isinstance(v, dict) else ((k, v),): out.setdefault(name, []).append(x)
    return {k: dict(mean=round(float(np.mean(v)), 5), sd=round(float(np.std(v, ddof=1)), 5), values=[round(float(x), 5) for x in v]) for k, v in out.items()}

def chosen(variant, e):
    "The classifier and the rows ('selected' or all) with the best validation score; the result card of a variant."
    score = e.get('score', 'accuracy')
    best = max((k for k in variant if 'validation' in k and k.endswith('/' + score)), key=lambda k: variant[k]['mean'])
    return dict(chosen=best.replace('validation ', ''), score=variant[best.replace('validation', 'test')]['mean'], sd=variant[best.replace('validation', 'test')]['sd'])

def main(args):
    names = [n for a in args or ['xor', 'scm', *EXPERIMENTS] for n in EXPERIMENTS if n == a or n.startswith(a + '-')]
    names = list(dict.fromkeys(names))
    all_ = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    runs, todo = {}, list(tasks(names))
    with multiprocessing.get_context('spawn').Pool(2, maxtasksperchild=5) as pool:
        for (name, which, seed), r in pool.imap(job, todo):
            runs.setdefault((name, which), []).append(r)
            if len(runs[name, which]) < len(SEEDS): continue
            card = summary(runs[name, which])
            all_.setdefault(name, {})[which] = card | (chosen(card, EXPERIMENTS[name]) if which != 'real' else {})
            RESULTS.write_text(json.dumps(all_, indent=1) + '\n')
            print(name, which, {k: v for k, v in all_[name][which].items() if k in ('chosen', 'score', 'sd')} or {k: v['mean'] for k, v in card.items()}, flush=True)

if __name__ == '__main__': main(sys.argv[1:])
