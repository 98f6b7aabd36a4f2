"Selection by all releases: the weights are the minimum they claim to be, cells follow the vote, and a resumed run selects the same."
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.optimize import minimize
from pe_nb.accounting import Event
from pe_nb.consistent import Past, cells, consistent, first_weights, fit_weights, halvings, spread
from pe_nb.evolution import Settings, evolve, planned_events, remembers, steps
from pe_nb.records import Records, load_records
from pe_nb.release import Budget, Ledger, Release, SeededNoise, Votes
from pe_nb.runs import synthesize
from pe_nb.rows import distinct
from pe_nb.voting import vote

BUDGET = Budget(epsilon=2., delta=1e-5)


def release(values, noise=3., grid=0, k=1):
    return Release(index=1, purpose='votes', values=np.asarray(values, np.int64), event=Event(noise_multiplier=noise, grid=grid, k=k), noise='', secure=False, run='', previous='')


def past(seed, m, labels=2, noise=3., d=2):
    rng = np.random.default_rng(seed)
    lab = np.sort(rng.integers(0, labels, m)); lab[:labels] = np.arange(labels)
    return Past(rng.random((m, d)).astype(np.float32), np.sort(lab), release(np.rint(rng.normal(20, 20, m)), noise))


def logs(a, start, levels):
    "log w of the shifts `a`, all levels in a row."
    ends = np.cumsum([g.max() + 1 for g in levels])
    return np.log(start) + sum(x[g] for x, g in zip(np.split(a, ends[:-1]), levels))


def loss(a, where, votes, scales, start, levels, prior):
    "The formula of the notebook, written down once more."
    w, out = np.exp(logs(a, start, levels)), 0.
    for b, v, s in zip(where, votes, scales):
        for j in range(len(v)): out += (v[j] - sum(w[i]*(b[i] == j).sum() for i in range(len(w))))**2/(2*s*s)
    return out + (a**2).sum()/(2*prior**2)


def shifts_of(w, start, levels, prior):
    "The smallest shifts that give these weights."
    m = np.concatenate([np.eye(g.max() + 1)[g] for g in levels], axis=1)
    return m.T @ np.linalg.pinv(m @ m.T) @ (np.log(w) - np.log(start))


@pytest.mark.parametrize('seed, k, prior', [(0, 1, 1.), (1, 1, .3), (2, 2, .7), (3, 3, 2.)])
def test_weights_are_the_minimum(seed, k, prior):
    "Against a general minimiser of the formula."
    history = [past(seed + 10*t, 6, 1) for t in range(3)]
    e, lab = history[-1].embeddings, history[-1].labels
    levels = halvings(e, lab)
    args = [cells(e, lab, p, k) for p in history], [p.release.votes for p in history], [p.scale for p in history], first_weights(history, lab, k), levels
    zero = np.zeros(sum(g.max() + 1 for g in levels))
    best = minimize(loss, zero, (*args, prior), tol=1e-10, options=dict(maxiter=2000)).fun
    at = lambda sweeps: loss(shifts_of(fit_weights(*args, prior, sweeps), args[3], levels, prior), *args, prior)
    assert at(2000) <= best + 1e-3*max(1, abs(best)), (at(2000), best)
    assert at(6) - best < (.05 if k == 1 else .35)*(loss(zero, *args, prior) - best)  # six sweeps get 95 % of the way; with several votes a record, two thirds


def brute_halvings(e, labels):
    "Halves of halves, one group at a time, as sets."
    found = []
    def cut(rows):
        found.append(frozenset(rows))
        if len(rows) == 1: return
        x = e[rows].astype(np.float64)
        d = int(np.argmax(x.var(0)))
        by = sorted(rows, key=lambda i: (float(e[i, d]), i))
        cut(by[:len(by)//2]); cut(by[len(by)//2:])
    for l in set(labels.tolist()): cut([i for i in range(len(e)) if labels[i] == l])
    return set(found)


@pytest.mark.parametrize('seed, m, labels', [(0, 1, 1), (1, 7, 2), (2, 40, 3), (3, 33, 1)])
def test_halvings_by_hand(seed, m, labels):
    p = past(seed, max(m, labels), labels)
    levels = halvings(p.embeddings, p.labels)
    assert {frozenset(np.flatnonzero(g == x).tolist()) for g in levels for x in np.unique(g)} == brute_halvings(p.embeddings, p.labels)
    for a, b in zip(levels, levels[1:]): assert all(len(np.unique(a[b == x])) == 1 for x in np.unique(b))  # each level cuts the one before
    assert len(np.unique(levels[-1])) == len(p.labels)


def test_without_noise_the_votes_come_back():
    "Exact votes on the candidates themselves: the weights are these votes."
    p = Past(np.array([[0.], [1], [2], [3]], np.float32), np.zeros(4, np.int64), release([40, 10, 0, 50], noise=0.))
    w = fit_weights([cells(p.embeddings, p.labels, p)], [p.release.votes], [p.scale], first_weights([p], p.labels), halvings(p.embeddings, p.labels), sweeps=300)
    assert np.abs(w - [40, 10, 0, 50]).max() < .5


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.floats(-1e6, 1e6), st.sampled_from([0., 1e-6, .5, 100., 1e6]))
@settings(deadline=None, max_examples=80)
def test_always_answers(seed, m, labels, generations, k, size, noise):
    "Any votes, any noise, few candidates, duplicates: the wanted number of parents of each label, and finite weights."
    rng = np.random.default_rng(seed)
    m, history = m + labels, []
    for t in range(generations):
        lab = np.sort(np.concatenate([np.arange(labels), rng.integers(0, labels, m - labels)]))
        history.append(Past(rng.integers(0, 3, (m, 2)).astype(np.float32), lab, release(np.rint(rng.standard_normal(m)*size), noise, k=k)))
    counts = rng.integers(0, 9, labels)
    chosen = consistent(history, counts, np.random.default_rng(seed), k)
    assert chosen.dtype == np.int64 and np.array_equal(history[-1].labels[chosen], np.repeat(np.arange(labels), counts))
    assert np.isin(chosen, distinct(np.column_stack([history[-1].labels, history[-1].embeddings]))[0]).all()


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(0, 60))
@settings(deadline=None, max_examples=100)
def test_spread_rounds_each_share(seed, m, n):
    rng = np.random.default_rng(seed)
    w = rng.exponential(size=m)*(rng.random(m) < .7)
    w[rng.integers(m)] += 1e-3
    got = np.bincount(spread(w, n, rng), minlength=m)
    assert got.sum() == n and np.abs(got - n*w/w.sum()).max() < 1 + 1e-9 and (got[w == 0] == 0).all()


def test_spread_is_right_on_average():
    w = np.array([.2, 0, 1.7, 3.1, .4])
    mean = np.mean([np.bincount(spread(w, 7, np.random.default_rng(s)), minlength=5) for s in range(4000)], axis=0)
    assert np.abs(mean - 7*w/w.sum()).max() < .04


@pytest.mark.parametrize('metric', ['l2', 'cosine', 'ip'])
@pytest.mark.parametrize('k', [1, 3])
def test_cells_are_where_a_record_would_vote(metric, k):
    "Each candidate in turn is the only private record: its votes fall into its cells."
    p, c = past(5, 40), past(6, 25)
    where = cells(c.embeddings, c.labels, p, k, metric)
    for i in range(len(c.labels)):
        voted = vote(c.embeddings[i:i + 1], p.embeddings, c.labels[i:i + 1], p.labels, k=k, metric=metric)
        assert np.array_equal(np.flatnonzero(voted._counts), np.sort(where[i][where[i] >= 0]))


def test_only_releases_are_accepted():
    with pytest.raises(TypeError, match='must be a Release'): Past(np.zeros((2, 1), np.float32), np.zeros(2, np.int64), Votes(np.array([1, 2])))
    with pytest.raises(ValueError, match='as many as the bins'): Past(np.zeros((2, 1), np.float32), np.zeros(2, np.int64), release([1, 2, 3]))


def test_client_votes_are_read_in_votes():
    p = Past(np.zeros((1, 1), np.float32), np.zeros(1, np.int64), release([3*2**20], noise=5., grid=2**20))
    assert p.scale == 5. and p.release.votes[0] == 3.


def test_more_releases_help():
    "Five times the same candidates under noise: the weights of all are nearer to the truth than those of the last."
    gaps = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        e, lab, truth = rng.random((30, 1)).astype(np.float32), np.zeros(30, np.int64), rng.multinomial(600, rng.dirichlet(np.full(30, .3)))
        history = [Past(e, lab, release(truth + np.rint(rng.normal(0, 20, 30)), 20.)) for _ in range(5)]
        gaps.append([np.abs(fit_weights([cells(e, lab, p) for p in h], [p.release.votes for p in h], [p.scale for p in h], first_weights(h, lab), halvings(e, lab)) - truth).sum() for h in (history[-1:], history)])
    one, five = np.mean(gaps, axis=0)
    assert five < .75*one, (one, five)


# ---- in the loop ----

class Line:
    "Records are grey pixels; a variation adds noise."
    label_names, fingerprint = ('a', 'b'), 'line'
    def make(self, x, labels): return Records.images(np.clip(np.rint(x), 0, 255).astype(np.uint8).reshape(-1, 1, 1, 1), labels, self.label_names)
    def random(self, labels, rng): return self.make(rng.uniform(0, 255, len(labels)), labels)
    def vary(self, parents, degree, rng): return self.make(parents.data.reshape(-1) + rng.normal(0, degree, len(parents)), parents.labels)


def flat(records): return records.data.reshape(len(records), -1).astype(np.float32)


def private(n=600):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    return Line().make(np.where(labels, 60, 190) + rng.normal(0, 8, n), labels)


SETTINGS = Settings(generations=5, samples=20, degree=10., selection='consistent', folds=2, keep_parents=True, seed=3)


def test_finds_the_data():
    last = list(evolve(private(), Line(), flat, SETTINGS, BUDGET, noise=SeededNoise(1)))[-1]
    x = last.records.data.reshape(-1).astype(float)
    assert abs(x[last.records.labels == 1].mean() - 60) < 12 and abs(x[last.records.labels == 0].mean() - 190) < 12


@pytest.mark.parametrize('stop', [0, 1, 3, 4])
def test_resumed_is_the_same(stop, tmp_path):
    "In memory: continued after `stop`, from the generations so far."
    ledger = lambda: Ledger(BUDGET, planned_events(SETTINGS, BUDGET), noise=SeededNoise(1))
    whole = list(evolve(private(), Line(), flat, SETTINGS, BUDGET, ledger=ledger()))
    l = ledger()
    head = [g for g, _ in zip(evolve(private(), Line(), flat, SETTINGS, BUDGET, ledger=l), range(stop + 1))]
    tail = list(evolve(private(), Line(), flat, SETTINGS, BUDGET, ledger=l, start=head[-1], before=head[:-1]))
    assert [g.records for g in head + tail] == [g.records for g in whole]
    if stop: 
        with pytest.raises(ValueError, match=f'must be the generations 0 to {stop - 1}'): evolve(private(), Line(), flat, SETTINGS, BUDGET, ledger=l, start=head[-1])


def test_resumed_from_a_folder(tmp_path):
    "A run that stopped at generation 2 ends with the same bytes."
    class Stop(Exception): pass
    def stop(g):
        if g.t == 2: raise Stop
        return {}
    run = lambda where, **k: synthesize(private(), Line(), flat, SETTINGS, BUDGET, where, noise=SeededNoise(1), report=False, **k)
    run(tmp_path/'whole')
    with pytest.raises(Stop): run(tmp_path/'broken', watchers=[stop])
    run(tmp_path/'broken')
    for f in sorted((tmp_path/'whole'/'generations').iterdir()): assert f.read_bytes() == (tmp_path/'broken'/'generations'/f.name).read_bytes(), f.name
    assert len(load_records(f)) == 60


def test_schedules_may_mix():
    s = Settings(generations=4, samples=10, degree=9., selection=['sample', 'sample', 'consistent', 'consistent', 'rank'], folds=1, keep_parents=True, lookahead=[0, 0, 0, 0, 2])
    assert remembers(steps(s)) == 3 and len(list(evolve(private(), Line(), flat, s, BUDGET, noise=SeededNoise(0)))) == 5
    assert remembers(steps(Settings(generations=2, samples=10, degree=9.))) == 0


@pytest.mark.parametrize('wrong, said', [(dict(prior=0), 'prior'), (dict(prior=True), 'prior'), (dict(prior=float('nan')), 'prior'), (dict(prior='no'), 'prior'), (dict(lookahead=1), 'lookahead of generation 1'), (dict(selection='all'), 'selection')])
def test_bad_settings_fail_before_anything(wrong, said):
    with pytest.raises(ValueError, match=said): steps(Settings(**dict(generations=2, samples=10, degree=9., selection='consistent') | wrong))


def test_clients_and_more_neighbours():
    "The other forms of the vote go through the same selection."
    p = private()
    for s, b, more in ((SETTINGS, Budget(epsilon=2., delta=1e-5, unit='client'), dict(clients=np.arange(len(p))//3)), (Settings(**{**vars(SETTINGS), 'neighbours': 3}), BUDGET, {})):
        last = list(evolve(p, Line(), flat, s, b, noise=SeededNoise(1), **more))[-1]
        assert np.bincount(last.records.labels).tolist() == [30, 30]
