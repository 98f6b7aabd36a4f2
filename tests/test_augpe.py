"Aug-PE (paper 2) as its authors' code runs it, label by label, against the one loop of this package."
import numpy as np
import pytest

from pe_nb.evolution import Settings, evolve, planned_events, stream
from pe_nb.records import Records
from pe_nb.release import Budget, Ledger, SeededNoise

NAMES = ('food', 'cars', 'law')
BUDGET = Budget(epsilon=4., delta=1e-4)


class Points:
    "Texts that are points on a line; a variation moves one by chance."
    label_names, fingerprint = NAMES, 'Points()'
    def random(self, labels, rng): return self.make(rng.normal(0, 3, len(labels)), labels)
    def vary(self, parents, degree, rng): return self.make(where(parents) + degree*rng.normal(0, 1, len(parents)), parents.labels)
    def make(self, x, labels): return Records.texts([f'at {v:.6f}' for v in x], labels, NAMES)


def where(records): return np.array([float(s[3:]) for s in records.data.tolist()])

class Line:
    fingerprint = 'Line()'
    def __call__(self, records): return where(records)[:, None].astype(np.float32)


def private(n=400, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    return Records.texts([f'at {v:.6f}' for v in rng.normal([-2, 0, 2], .3, (n, 3))[np.arange(n), labels]], labels, NAMES)


def votes(x, s):
    "Each number in `x` votes for the nearest in `s`, the first of equals."
    d = np.abs(np.float32(x)[:, None].astype(float) - np.float32(s)[None].astype(float))
    return np.bincount(d.argmin(1), minlength=len(s))


def aug_pe(data, g, *, n, L, init_L, T, degree, keep, mode, seed, releases):
    "The authors' loop: pools per label, L - 1 variations beside the selected, or L variations alone. Noise is what the releases say."
    labels = np.repeat(np.arange(3), n)
    seeds = g.random(labels, stream(seed, 0, 'random'))
    pool = Records.concat([seeds] + [g.vary(seeds, degree[0], stream(seed, 0, 'initial', j)) for j in range(init_L - 1)])
    history = []
    for t in range(1, T + 1):
        clean, rng, chosen = np.zeros(len(pool), np.int64), stream(seed, t, 'select'), []
        for c in range(3): clean[pool.labels == c] = votes(where(data[data.labels == c]), where(pool[pool.labels == c]))
        noisy = releases[t - 1].votes
        assert np.abs(noisy - clean).max() < 12*releases[t - 1].event.noise_multiplier and np.corrcoef(noisy, clean)[0, 1] > .5
        for c in range(3):
            here = np.flatnonzero(pool.labels == c)
            count = np.maximum(noisy[here], 0).astype(float)
            if mode == 'rank': chosen.append(here[sorted(range(len(here)), key=lambda i: (-noisy[here][i], i))[:n[c]]])
            else: chosen.append(rng.choice(here, n[c], p=count/count.sum()))
        selected = pool[np.concatenate(chosen)]
        varied = [g.vary(selected, degree[t], stream(seed, t, 'vary', j)) for j in range(L - 1 if keep else L)]
        pool = Records.concat(([selected] if keep else []) + varied)
        history.append((selected, pool))
    return history


@pytest.mark.parametrize('mode', ['rank', 'sample'])
@pytest.mark.parametrize('L, init_L, keep', [(1, 1, False), (4, 4, True), (7, 7, True), (4, 1, True), (3, 2, False)])
def test_the_loop_is_the_authors(mode, L, init_L, keep):
    data, g, T, degree = private(), Points(), 3, (1., .5, .3, .1)
    n = np.array([20, 20, 20])
    folds = L - 1 if keep else L
    s = Settings(generations=T, samples=60, degree=degree, selection=mode, folds=folds, keep_parents=keep, initial_folds=init_L - 1, seed=5)
    l = Ledger(BUDGET, planned_events(s, BUDGET), noise=SeededNoise(3))
    made = list(evolve(data, g, Line(), s, BUDGET, ledger=l))
    paper = aug_pe(data, g, n=n, L=L, init_L=init_L, T=T, degree=degree, keep=keep, mode=mode, seed=5, releases=[x.release for x in made[1:]])
    assert len(made[0].records) == 60*init_L
    for before, got, (selected, pool) in zip(made, made[1:], paper):
        assert got.records == pool
        own = got.selected if keep else before.records[got.parents[got.folds == 0]]
        assert own == selected and len(pool) == 60*L


def test_lookahead_is_the_mean_of_variations_with_or_without_the_record():
    from pe_nb.evolution import embed_population, random_population, steps
    g, line = Points(), Line()
    for self_too in (False, True):
        s = Settings(generations=1, samples=30, degree=.5, lookahead=4, lookahead_self=self_too, seed=2)
        first = random_population(g, [10, 10, 10], 0, .5, 2)
        got = embed_population(g, line, first, steps(s)[1], s)
        varied = [where(g.vary(first.records, .5, stream(2, 1, 'lookahead', j))) for j in range(4)]
        want = np.mean(np.float32(varied + [where(first.records)]*self_too), 0)
        assert np.allclose(got[:, 0], want, atol=1e-6)


def test_a_label_without_share_is_carried_by_nobody():
    "G12: a label whose share is 0 has no record, in any generation."
    s = Settings(generations=2, samples=12, degree=.1, selection='rank', folds=2, keep_parents=True, proportions=(.5, 0, .5))
    l = Ledger(BUDGET, planned_events(s, BUDGET), noise=SeededNoise(0))
    for g in evolve(private(), Points(), Line(), s, BUDGET, ledger=l): assert g.records.label_counts[1] == 0 and g.records.label_counts[[0, 2]].min() > 0
