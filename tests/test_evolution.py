"""The loop: agrees with a plain transcription of Algorithm 1, refuses before it reads, and nothing private gets out but through releases."""
import math
import numpy as np
import pytest
from pe_nb.evolution import Settings, evolve, identity, label_counts, more, planned_events, random_population, schedule, steps, stream
from pe_nb.records import Records
from pe_nb.release import Budget, Ledger, SeededNoise
from pe_nb.selection import apportion

NAMES = ('a', 'b')

class Points:
    "Records are images of two grey pixels; the variation adds a rounded normal step."
    label_names, fingerprint = NAMES, 'Points()'
    def __init__(self): self.calls = []
    def make(self, xy, labels): return Records.images(np.clip(np.rint(xy), 0, 255).astype(np.uint8).reshape(-1, 1, 2, 1), labels, NAMES)
    def random(self, labels, rng):
        self.calls.append(('random', len(labels)))
        return self.make(rng.uniform(0, 255, (len(labels), 2)), labels)
    def vary(self, parents, degree, rng):
        self.calls.append(('vary', len(parents)))
        return self.make(parents.data.reshape(-1, 2) + rng.normal(0, degree, (len(parents), 2)), parents.labels)
    def check(self, degree):
        if degree is not None and degree < 0: raise ValueError(f"degree ({degree}) must be at least 0")

def flat(records): return records.data.reshape(len(records), 2).astype(np.float32)

def private(n=60, seed=0):
    rng = np.random.default_rng(seed)
    return Points().make(rng.normal([60, 180], 20, (n, 2)), rng.integers(0, 2, n))

BASE = dict(generations=3, samples=10, degree=8., threshold=1., seed=5)
BUDGET = Budget(epsilon=5., delta=1e-4)

def run(data, settings, budget=BUDGET, noise=None, **kw): return list(evolve(data, kw.pop('generator', Points()), flat, settings, budget, noise=noise or SeededNoise(2), **kw))

# ------------------------------------------------------------------ Algorithm 1, transcribed

def transcribed(data, s, budget, noise):
    "Algorithm 1 as plainly as possible: brute-force votes in float64, one label at a time."
    gen, plan = Points(), steps(s)
    counts = np.stack([apportion(np.ones(2), p.samples) for p in plan])
    labels = np.repeat([0, 1], counts[0])
    first = gen.random(labels, stream(s.seed, 0, 'random'))
    pop = Records.concat([first] + [gen.vary(first, plan[0].degree, stream(s.seed, 0, 'initial', j)) for j in range(s.initial_folds)])
    out, events = [pop], planned_events(s, budget)
    for p in plan[1:]:
        emb = [flat(pop)] if not p.lookahead or s.lookahead_self else []
        emb += [flat(gen.vary(pop, p.degree, stream(s.seed, p.t, 'lookahead', j))) for j in range(p.lookahead)]
        e = np.mean(emb, 0, dtype=np.float64).astype(np.float32).astype(np.float64)
        votes = np.zeros(len(pop), np.int64)
        for x, l in zip(flat(data).astype(np.float64), data.labels):
            best = sorted((((x - e[j])**2).sum(), j) for j in np.flatnonzero(pop.labels == l))
            seen = []
            for d, j in best:
                if not any((e[j] == e[i]).all() for i in seen): seen.append(j)
                if len(seen) == s.neighbours: break
            for j in seen: votes[j] += 1
        noisy = noise(votes, events[p.t - 1].scale, p.t).astype(np.float64)
        rng, chosen = stream(s.seed, p.t, 'select'), []
        for l in (0, 1):
            here = np.flatnonzero(pop.labels == l)
            w = np.maximum(noisy[here], p.threshold) - p.threshold
            if p.selection == 'rank': pick = np.argsort(-(w if p.threshold > 0 else noisy[here]), kind='stable')[:counts[p.t][l]]
            else: pick = rng.choice(len(here), counts[p.t][l], p=w/w.sum() if w.sum() else np.full(len(here), 1/len(here)))
            chosen += here[pick].tolist()
        parents = pop[np.array(chosen)]
        pop = Records.concat(([parents] if p.keep_parents else []) + [gen.vary(parents, p.degree, stream(s.seed, p.t, 'vary', j)) for j in range(p.folds)])
        out.append(pop)
    return out

@pytest.mark.parametrize('kw', [
    {}, dict(selection='rank'), dict(folds=2, keep_parents=True, selection='rank', threshold=0.), dict(lookahead=3), dict(lookahead=2, lookahead_self=True, initial_folds=2), dict(neighbours=3),
    dict(selection=['sample', 'sample', 'rank', 'rank'], folds=[1, 1, 2, 3], keep_parents=[False, False, True, True], samples=[12, 10, 8, 8], degree=[9., 9., 4., 1.]),
    dict(degree=lambda t: 20/(t + 1), noise_weight=[1, 2., 1., .5])], ids=str)
def test_the_loop_is_algorithm_1(kw):
    s, data = Settings(**{**BASE, **kw}), private()
    got, want = run(data, s), transcribed(data, s, BUDGET, SeededNoise(2))
    assert [g.records.fingerprint for g in got] == [w.fingerprint for w in want]

def test_genealogy():
    s = Settings(**{**BASE, 'folds': 2, 'keep_parents': True, 'initial_folds': 1, 'selection': 'rank', 'degree': 0.})
    gs = run(private(), s)
    assert gs[0].parents.tolist() == [-1]*10 + list(range(10)) and gs[0].folds.tolist() == [-1]*10 + [0]*10
    for before, g in zip(gs, gs[1:]):
        assert len(g.records) == 30 and g.folds.tolist() == [-1]*10 + [0]*10 + [1]*10
        assert np.array_equal(before.records.data[g.parents], g.records.data) and np.array_equal(before.records.labels[g.parents], g.records.labels)
        assert len(g.selected) == 10 and len(g.release.values) == len(before.records)

def test_epsilon_grows_to_the_budget_and_not_beyond():
    gs = run(private(), Settings(**BASE))
    eps = [g.epsilon for g in gs]
    assert eps[0] == 0 and eps == sorted(eps) and 4.5 < eps[-1] <= 5

def test_restart_in_the_middle():
    s, data = Settings(**BASE), private()
    whole = run(data, s)
    for t in range(4):
        l = Ledger(BUDGET, planned_events(s, BUDGET), noise=SeededNoise(2))
        head = [g for g, _ in zip(evolve(data, Points(), flat, s, BUDGET, ledger=l), range(t + 1))]
        tail = list(evolve(data, Points(), flat, s, BUDGET, ledger=l, start=head[-1]))
        assert [g.records.fingerprint for g in head + tail] == [g.records.fingerprint for g in whole]

# ------------------------------------------------------------------ nothing private gets out

class Blind:
    "Noise that forgets the votes: what comes out cannot depend on them."
    name, secure = 'blind', False
    def __call__(self, counts, scale, index): return np.random.default_rng(index).integers(-5, 20, len(counts))

def everything(gs): return [(g.t, g.records.fingerprint, g.parents.tolist(), g.folds.tolist(), g.epsilon, None if g.release is None else g.release.digest) for g in gs]

@pytest.mark.parametrize('kw', [{}, dict(folds=2, keep_parents=True), dict(lookahead=2), dict(proportions=[3, 1]), dict(proportions='private')], ids=str)
def test_nothing_but_the_release_depends_on_the_private_data(kw):
    "With noise that ignores the votes, three very different private data sets give the same run, label counts included."
    s = Settings(**{**BASE, **kw})
    sets = [private(60), private(7, 3), Points().make(np.zeros((5, 2)), np.zeros(5, np.int64)), private(60)[:0]]
    runs = [everything(run(d, s, noise=Blind())) for d in sets]
    assert all(r == runs[0] for r in runs)

def test_the_leak_test_can_fail():
    assert everything(run(private(60), Settings(**BASE))) != everything(run(private(59, 1), Settings(**BASE)))

def test_generations_hold_no_clean_votes():
    "The columns of a generation are these and no others, and the release differs from the clean votes."
    s, data = Settings(**{**BASE, 'keep_parents': True}), private()
    seen = []
    class Spy(SeededNoise):
        def __call__(self, counts, scale, index): seen.append(counts.copy()); return super().__call__(counts, scale, index)
    gs = run(data, s, noise=Spy(2))
    assert set(vars(gs[-1])) == {'t', 'records', 'parents', 'folds', 'release', 'epsilon'} and not gs[-1].records.extra
    assert all(not np.array_equal(c, g.release.values) for c, g in zip(seen, gs[1:]))

def test_private_proportions_are_a_charged_release():
    s = Settings(**{**BASE, 'proportions': 'private', 'samples': 40, 'noise_weight': [.05, 1, 1, 1]})
    data = Points().make(np.full((400, 2), 100), np.repeat([0, 1], [300, 100]))
    l = Ledger(BUDGET, planned_events(s, BUDGET), noise=SeededNoise(1))
    gs = list(evolve(data, Points(), flat, s, BUDGET, ledger=l))
    assert [r.purpose for r in l.releases] == ['labels', 'votes', 'votes', 'votes'] and l.statement()['epsilon'] <= 5
    assert gs[0].epsilon == l.spent()[0] > 0 and gs[-1].epsilon == l.statement()['epsilon'] and abs(np.bincount(gs[-1].records.labels)[0] - 30) <= 2

# ------------------------------------------------------------------ refused before anything happens

class Untouchable:
    fingerprint = 'Untouchable()'
    def __call__(self, records): raise AssertionError('the embedding was called')

BAD = [(dict(degree=[1., 2.]), 'degree (2 entries) must have 4'), (dict(samples=[5]*5), 'samples (5 entries) must have 4'), (dict(samples=0), 'samples of generation 0 (0) must'),
       (dict(samples=[5, 5, 5, 2.5]), 'samples of generation 3 (2.5) must'), (dict(folds=-1), 'folds of generation 0 (-1) must'), (dict(folds=0), 'would be empty'), (dict(lookahead=True), 'lookahead of generation 0 (True)'),
       (dict(selection='best'), "selection ('best') must"), (dict(threshold=-1.), 'threshold (-1.0) must'), (dict(threshold=math.nan), 'threshold (nan) must'), (dict(threshold=10**400), 'must be a finite number'), (dict(metric='l3'), "metric ('l3') must"),
       (dict(neighbours=0), 'neighbours (0) must'), (dict(generations=0), 'generations (0) must'), (dict(generations=-1), 'generations (-1) must'), (dict(generations=2.), 'generations (2.0) must'), (dict(seed=-1), 'seed (-1) must'),
       (dict(keep_parents=1), 'keep_parents of generation 0 (1) must'), (dict(degree=object()), 'must be plain data'), (dict(degree=[1., 1., 1., -1.]), 'degree (-1.0) must'), (dict(noise_weight=0.), 'noise_weight of generation 0 (0.0)'),
       (dict(proportions=[1, 1, 1]), 'proportions ((3,)) must'), (dict(proportions=[1, -1]), 'shares'), (dict(proportions=[1, 1e-9]), 'would get none'), (dict(proportions='guess'), "proportions ('guess') must"), (dict(proportions={'a': 1}), "proportions (['a']) must name"),
       (dict(samples=1), 'would get none'), (dict(public_only=True), 'generations (3) must'), (dict(initial_folds=-1), 'initial_folds (-1) must'), (dict(generations=0, public_only=True, proportions='private'), "proportions ('private') must be public")]

@pytest.mark.parametrize('kw, message', BAD, ids=[m for _, m in BAD])
def test_bad_settings_fail_before_any_call(kw, message):
    gen = Points()
    with pytest.raises(ValueError) as e: evolve(private(), gen, Untouchable(), Settings(**{**BASE, **kw}), BUDGET)
    assert message in str(e.value) and gen.calls == []

def test_bad_parts_fail_before_any_call():
    s, d = Settings(**BASE), private()
    cases = [((d.data, Points(), flat, s, BUDGET), TypeError, 'private'), ((d, object(), flat, s, BUDGET), TypeError, 'generator'), ((d, Points(), 3, s, BUDGET), TypeError, 'embedding'),
             ((d, Points(), flat, s, 1.), TypeError, 'budget'), ((Records.images(d.data, d.labels, ('x', 'y')), Points(), flat, s, BUDGET), ValueError, 'label_names'),
             ((d, Points(), flat, s, Budget(epsilon=1, delta=.01, unit='client')), ValueError, 'clients')]
    for args, err, word in cases:
        with pytest.raises(err, match=word): evolve(*args)
    with pytest.raises(ValueError, match='clients'): evolve(d, Points(), flat, s, BUDGET, clients=np.zeros(60, int))
    with pytest.raises(ValueError, match='start'): evolve(d, Points(), flat, s, BUDGET, start=random_population(Points(), [5, 5], 0, None, 0))
    with pytest.raises(ValueError, match='label_names'): evolve(d, type('Bare', (), dict(random=Points.random, vary=Points.vary, fingerprint='x'))(), flat, s, BUDGET)
    with pytest.raises(ValueError, match='noise'): evolve(d, Points(), flat, s, BUDGET, noise=SeededNoise(0), ledger=Ledger(BUDGET, planned_events(s, BUDGET)))

def test_zero_private_generations_by_name_only():
    gs = list(evolve(private(), Points(), Untouchable(), Settings(generations=0, samples=10, public_only=True), BUDGET))
    assert len(gs) == 1 and gs[0].epsilon == 0

@pytest.mark.parametrize('what, message', [('short', 'one record for each'), ('order', 'order of the labels'), ('type', 'must return Records'), ('kind', 'of kind image'), ('names', 'with the label names'), ('shape', 'of the shape'), ('extra', 'extra arrays')])
def test_generators_are_held_to_their_word(what, message):
    class Bad(Points):
        def vary(self, parents, degree, rng):
            r = super().vary(parents, degree, rng)
            return {'short': r[1:], 'order': r[::-1], 'type': r.data, 'kind': Records.texts(['x']*len(r), r.labels, NAMES), 'names': Records.images(r.data, r.labels, ('x', 'y')),
                    'shape': Records.images(r.data[:, :, :1], r.labels, NAMES), 'extra': r.with_extra(z=np.zeros(len(r)))}[what]
    with pytest.raises((ValueError, TypeError), match=message): run(private(), Settings(**BASE), generator=Bad())

@pytest.mark.parametrize('wrong, message', [(lambda r: Records.images(r.data, r.labels, ('x', 'y')), 'with the label names of the private ones'), (lambda r: r.with_extra(pe_parents=np.zeros(len(r))), 'begin with pe_')])
def test_the_random_api_is_held_to_its_word_before_a_release(wrong, message):
    class Bad(Points):
        def random(self, labels, rng): return wrong(super().random(labels, rng))
    l = Ledger(BUDGET, planned_events(Settings(**BASE), BUDGET), noise=SeededNoise(2))
    with pytest.raises(ValueError, match=message): list(evolve(private(), Bad(), flat, Settings(**BASE), BUDGET, ledger=l))
    assert len(l) == 0

def test_calls_are_whole_populations():
    "All labels together: one call per fold and lookahead, never one per label."
    gen = Points()
    run(private(), Settings(**{**BASE, 'lookahead': 2, 'folds': 3, 'initial_folds': 1}), generator=gen)
    assert gen.calls == [('random', 10), ('vary', 10)] + [('vary', 20)]*2 + [('vary', 10)]*3 + ([('vary', 30)]*2 + [('vary', 10)]*3)*2

# ------------------------------------------------------------------ clients, labels, randomness

def test_a_ledger_for_another_plan_is_refused(tmp_path):
    s, big = Settings(**BASE), Budget(epsilon=1e3, delta=1e-4)
    with pytest.raises(ValueError, match='must be made for this budget'): evolve(private(), Points(), flat, s, BUDGET, ledger=Ledger(big, planned_events(s, big), noise=SeededNoise(1)))
    p = Settings(**{**BASE, 'proportions': 'private'})
    with pytest.raises(ValueError, match='must be made for this budget'): evolve(private(), Points(), flat, p, BUDGET, ledger=Ledger(BUDGET, planned_events(s, BUDGET), noise=SeededNoise(1)))
    with pytest.raises(ValueError, match='which run it belongs to'): evolve(private(), Points(), flat, s, BUDGET, ledger=Ledger(BUDGET, planned_events(s, BUDGET), tmp_path, noise=SeededNoise(1)))

def test_identity_sees_defaults():
    def make(w):
        def emb(r, w=w): return flat(r)*w
        return emb
    assert identity(make(1)) != identity(make(2))

def test_client_runs():
    d, b = private(), Budget(epsilon=3., delta=1e-4, unit='client')
    gs = run(d, Settings(**BASE), b, clients=np.arange(60)//6)
    assert gs[-1].epsilon <= 3 and gs[-1].release.event.grid > 0

@pytest.mark.parametrize('shares, samples, want', [([1, 1], [4, 4], [[2, 2], [2, 2]]), ([1, 0], [3, 3], [[3, 0], [3, 0]])])
def test_label_counts(shares, samples, want): assert label_counts(shares, samples).tolist() == want

def test_label_counts_from_a_release_never_fail():
    rng = np.random.default_rng(0)
    for _ in range(300):
        L = int(rng.integers(1, 8))
        out = label_counts(np.maximum(rng.normal(0, 30, L), 0)*(rng.random(L) < .6), rng.integers(1, 30, 4), allow_loss=True)
        assert (out.min(0) > 0).sum() == (out.max(0) > 0).sum() and (out.sum(1) > 0).all()

def test_streams_are_distinct():
    draws = {stream(1, t, p, j).random() for t in range(4) for p in ('random', 'initial', 'lookahead', 'select', 'vary', 'more') for j in range(3)}
    assert len(draws) == 4*6*3

def test_global_seeds_do_not_matter():
    out = []
    for s in (1, 2):
        np.random.seed(s)
        out.append(everything(run(private(), Settings(**BASE))))
        np.random.random(s)
    assert out[0] == out[1]

def test_more_costs_nothing_and_uses_parents_evenly():
    r = private(10)
    m = more(Points(), r, 35, 0., seed=1)
    assert len(m) == 35 and set(np.unique(m.data.reshape(-1, 2), axis=0, return_counts=True)[1]) <= {3, 4}
    assert len(more(Points(), r, 0, 0.)) == 0
    with pytest.raises(ValueError, match='at least one record'): more(Points(), r[:0], 5, 0.)

def test_numpy_settings_are_settings():
    s = Settings(**{**BASE, 'samples': np.int64(10), 'generations': np.int64(3), 'degree': np.full(4, 8.), 'threshold': np.float64(1.), 'noise_weight': lambda t: np.float32(1), 'proportions': {'b': 1, 'a': 1}})
    assert everything(run(private(), s)) == everything(run(private(), Settings(**BASE)))

def test_an_embedding_that_loses_a_row_is_named():
    class Short:
        fingerprint = 'Short()'
        def __call__(self, r): return flat(r)[1:]
    with pytest.raises(ValueError, match='one row for each record'): list(evolve(private(), Points(), Short(), Settings(**BASE), BUDGET))

def test_identity():
    assert identity(Points()) == 'Points()' and identity(flat) != identity(transcribed)
    with pytest.raises(ValueError, match='fingerprint'): identity(object())
    with pytest.raises(ValueError, match='fingerprint'): identity((lambda v: lambda r: v)(1))

def test_schedules():
    assert schedule('x', (1, 2), 1) == (1, 2) and schedule('x', np.array([1, 2]), 1) == (1, 2) and schedule('x', {'a': 1}, 2) == ({'a': 1},)*3
    assert [p.samples for p in steps(Settings(generations=2, samples=lambda t: 10 + t, degree=1.))] == [10, 11, 12]
