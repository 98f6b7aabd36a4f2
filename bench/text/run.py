"""Private Evolution on texts: real Yelp reviews with a skewed public pool, and docstrings with the small language model.

    python bench/text/run.py [yelp] [docstrings]

Prints the tables and writes results.json. Noise is repeatable (SeededNoise), so nothing here is for release.
"""
import json, math, sys
from pathlib import Path
import numpy as np
from pe_nb.data.docstrings import private_docstrings, topic_rules, versions
from pe_nb.data.text_sets import YELP
from pe_nb.data.texts import texts_csv
from pe_nb.embeddings.texts import SentenceEmbedding, minilm_path
from pe_nb.evolution import Settings, evolve, planned_events
from pe_nb.generators.pool import Pool
from pe_nb.generators.prompts import Prompt
from pe_nb.generators.text import Text
from pe_nb.llms.huggingface import HFChat
from pe_nb.llms.small_lm import RANDOM, RANDOM_ARGUMENTS, VARY, VARY_ARGUMENTS, small_lm
from pe_nb.metrics.downstream import train_on_synthetic
from pe_nb.metrics.frechet import frechet
from pe_nb.metrics.mauve import mauve
from pe_nb.records import Records
from pe_nb.release import Budget, Ledger, SeededNoise

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2]/'shared'/'data'
SEEDS = (10, 11, 12)  # settings were chosen on 0, 1, 2

class Remembered:
    "An embedding that computes each text once."
    def __init__(self, embedding): self.embedding, self.known = embedding, {}
    @property
    def fingerprint(self): return self.embedding.fingerprint
    def __call__(self, records):
        new = [t for t in dict.fromkeys(records.data.tolist()) if t not in self.known]
        if new: self.known.update(zip(new, self.embedding(Records.texts(new))))
        return np.stack([self.known[t] for t in records.data.tolist()])

def run(private, generator, embedding, settings, epsilon, seed):
    "All generations of a run."
    b = Budget(epsilon=epsilon, delta=1/(len(private)*math.log(len(private))), **(dict(non_private=True) if epsilon == math.inf else {}))
    return list(evolve(private, generator, embedding, settings, b, ledger=Ledger(b, planned_events(settings, b), noise=SeededNoise(seed))))

def score(records, real, embedding):
    "What the claims are about, against real texts."
    x, y = embedding(records), embedding(real)
    return dict(mauve=mauve(x, y)['mauve'].value, frechet=frechet(x, y), accuracy=train_on_synthetic(records, real, features=embedding)['accuracy'].value,
                different=len(set(records.data.tolist()))/len(records))

def summary(rows):
    "Mean and standard deviation over seeds, per measure."
    return {k: (float(np.mean([r[k] for r in rows])), float(np.std([r[k] for r in rows], ddof=1))) for k in rows[0]}

def table(name, results, digits=dict(mauve=3, frechet=4, accuracy=3, different=2)):
    keys = list(next(iter(results.values())))
    print(f"\n{name}\n| | {' | '.join(keys)} |\n| --- |{' ---: |'*len(keys)}")
    for row, values in results.items(): print(f"| {row} | {' | '.join(f'{m:.{digits.get(k, 3)}f} ± {s:.{digits.get(k, 3)}f}' for k, (m, s) in values.items())} |")

# ---- Yelp: what voting makes of a skewed pool ----

def skewed(pool, stars, seed, size=1500, power=1.2):
    "Rows of a pool whose mixture is wrong on purpose: rare categories and bad reviews are favoured."
    w = (1/pool.label_counts**power)[pool.labels]*np.array([1, 1, .6, .3, .15])[stars]
    return np.sort(np.random.default_rng(seed).choice(len(pool), size, replace=False, p=w/w.sum()))

EVOLVED = dict(generations=5, samples=[500]*6, degree=[1, 50, 30, 20, 10, 1], selection='consistent', prior=.1, folds=[2]*5 + [1], keep_parents=[True]*5 + [False], proportions='private')
PAPER = dict(generations=10, samples=500, degree=[1] + [50]*10, selection='rank', folds=[3]*10 + [0], initial_folds=0, keep_parents=True, proportions='private')

def yelp():
    "One half private (the file of 5,000 validation reviews), one half the public pool (the 5,000 test reviews), epsilon 1."
    if not (DATA/'yelp').exists(): return print('skipped: the Yelp reviews (../shared/data/yelp/val.csv and test.csv) are not beside the repository')
    categories = dict(business_category=YELP['business_category'])
    private, public = (texts_csv(DATA/'yelp'/f'{f}.csv', labels=categories).records for f in ('val', 'test'))
    stars = texts_csv(DATA/'yelp'/'test.csv', labels=dict(review_stars=YELP['review_stars'])).records.labels
    embedding, rows, n = Remembered(SentenceEmbedding(minilm_path())), {}, EVOLVED['samples'][-1]
    vectors = embedding(public)
    for seed in SEEDS:
        rng, keep = np.random.default_rng([seed, 1]), skewed(public, stars, seed)
        pool = public[keep]
        generator, draw = Pool(pool, embedding, embeddings=vectors[keep]), lambda r: r[rng.choice(len(r), n, replace=False)]
        found = {'drawn from the whole public half (real against real)': draw(public), 'uniform draw from the skewed pool': draw(pool)}
        for epsilon, name in ((1., 'epsilon 1'), (math.inf, 'without privacy')):
            for how, s in (('evolved', EVOLVED), ("evolved, the paper's selection", PAPER)):
                last = run(private, generator, embedding, Settings(seed=seed, **s), epsilon, seed)[-1]
                found[f'{how}, {name}'] = last.records
        for k, r in found.items(): rows.setdefault(k, []).append(score(r, private, embedding))
        print(seed, {k: {m: round(x, 4) for m, x in v[-1].items()} for k, v in rows.items()}, flush=True)
    return {k: summary(v) for k, v in rows.items()}

# ---- docstrings: a language model that never saw the private kind of text ----

DOCSTRINGS = dict(generations=4, samples=[1280] + [320]*4, degree=[.5, .4, .4, .3, .3], selection='rank', folds=[2]*4 + [0], keep_parents=True)

def docstrings():
    "Sentences of SciPy and scikit-learn, 8 topics, the small language model, epsilon 4; the same topics' test sentences measure."
    private, test = private_docstrings(split='train'), private_docstrings(split='test')
    print(len(private.records), 'private,', len(test.records), 'test;', versions())
    embedding, rows = Remembered(SentenceEmbedding(minilm_path())), {}
    generator = Text(HFChat(small_lm()), Prompt(RANDOM, rules=topic_rules()), VARY, private.records.label_names, private.label_values, random_arguments=RANDOM_ARGUMENTS, vary_arguments=VARY_ARGUMENTS)
    for seed in SEEDS:
        for epsilon, name in ((4., 'epsilon 4'), (math.inf, 'without privacy')):
            made = run(private.records, generator, embedding, Settings(seed=seed, **DOCSTRINGS), epsilon, seed)
            if epsilon == 4:
                first, each = made[0].records, DOCSTRINGS['samples'][-1]//len(test.records.label_names)
                rows.setdefault('generation 0: the random API, as many', []).append(score(first[np.concatenate([np.flatnonzero(first.labels == l)[:each] for l in range(len(first.label_names))])], test.records, embedding))
            rows.setdefault(f'generation {made[-1].t}, {name}', []).append(score(made[-1].records, test.records, embedding))
        real = private.records[np.sort(np.random.default_rng(seed).choice(len(private.records), DOCSTRINGS['samples'][-1], replace=False))]
        rows.setdefault('private sentences themselves, as many', []).append(score(real, test.records, embedding))
        print(seed, {k: {m: round(x, 4) for m, x in v[-1].items()} for k, v in rows.items()}, flush=True)
    print(generator.report)
    first, last = rows['generation 0: the random API, as many'], rows['generation 4, epsilon 4']
    rows['change, epsilon 4, of the same seed'] = [{k: b[k] - a[k] for k in a} for a, b in zip(first, last)]
    return {k: summary(v) for k, v in rows.items()}

PARTS = dict(yelp=yelp, docstrings=docstrings)

def main(args):
    path = HERE/'results.json'
    results = json.loads(path.read_text()) if path.exists() else {}
    if bad := [a for a in args if a not in PARTS]: sys.exit(f"part ({', '.join(bad)}) must be one of {', '.join(PARTS)}")
    for name in args or PARTS:
        found = PARTS[name]()
        if not found: continue
        results[name] = found
        table(name, results[name])
        path.write_text(json.dumps(results, indent=1) + '\n')

if __name__ == '__main__': main(sys.argv[1:])
