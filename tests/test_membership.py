"""Membership audit of the whole loop: the epsilon that an attacker can prove stays under the epsilon that is claimed, and a broken mechanism is caught.

Two neighbouring data sets, with and without one canary; the attacker knows everything else and sees every release. Many runs with the seeded sampler
give true and false positive rates; Clopper-Pearson turns them into a lower bound on epsilon that holds with 99.9 % confidence.
"""
import math
import numpy as np
from scipy.stats import beta
from pe_nb.evolution import Settings, evolve, planned_events
from pe_nb.records import Records
from pe_nb.release import Budget, Ledger, SeededNoise

DELTA, RUNS, CONFIDENCE = 1e-2, 2500, .999
SETTINGS = Settings(generations=2, samples=6, selection='rank', seed=0)
BUDGET = Budget(epsilon=1.5, delta=DELTA)

class Still:
    "Six fixed records, never varied: the loop only reorders them, so the attacker knows which bin the canary votes for."
    label_names, fingerprint = ('',), 'Still()'
    def random(self, labels, rng): return Records.images(np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)*40, labels, ('',))
    def vary(self, parents, degree, rng): return parents

class Flat:
    fingerprint = 'Flat()'
    def __call__(self, r): return r.data.reshape(len(r), 1).astype(np.float32)

def data(values): return Records.images(np.array(values, np.uint8).reshape(-1, 1, 1, 1), np.zeros(len(values), np.int64), ('',))
WITHOUT = [0, 40, 41, 120, 80, 80]
CANARY = 201

class HalfNoise(SeededNoise):
    "A deliberately broken mechanism: half the noise that the event pays for."
    def __call__(self, counts, scale, index): return super().__call__(counts, scale/2, index)

def scores(values, noise, first):
    "One score per run: the released votes of the canary's bin, summed over the generations."
    out, private, events = np.zeros(RUNS), data(values), planned_events(SETTINGS, BUDGET)
    for i in range(RUNS):
        before = None
        for g in evolve(private, Still(), Flat(), SETTINGS, BUDGET, ledger=Ledger(BUDGET, events, noise=noise(first + i))):
            if g.release is not None: out[i] += g.release.votes[np.flatnonzero(before.records.data.ravel() == 200)[0]]
            before = g
    return out

def lower_bound(absent, present):
    "Proven epsilon: threshold chosen on the first third of the runs, rates measured on the rest, confidence split over both rates and both directions."
    cut, alpha = RUNS//3, (1 - CONFIDENCE)/4
    def low(k, n): return beta.ppf(alpha, k, n - k + 1) if k else 0.
    def high(k, n): return beta.ppf(1 - alpha, k + 1, n - k) if k < n else 1.
    def bound(a, p, t):
        tp, fp, n, m = int((p >= t).sum()), int((a >= t).sum()), len(p), len(a)
        tn, fn = m - fp, n - tp
        best = [math.log((low(x, nx) - DELTA)/high(y, ny)) if low(x, nx) > DELTA else 0. for x, nx, y, ny in ((tp, n, fp, m), (tn, m, fn, n))]
        return max(0., *best)
    t = max(np.unique(np.concatenate([absent[:cut], present[:cut]])), key=lambda t: bound(absent[:cut], present[:cut], t))
    return bound(absent[cut:], present[cut:], t)

def audited(noise): return lower_bound(scores(WITHOUT, noise, 10_000), scores(WITHOUT + [CANARY], noise, 500_000))

def test_the_proven_epsilon_stays_under_the_claim():
    eps = audited(SeededNoise)
    assert .3 < eps <= BUDGET.epsilon, 'a bound near 0 would mean that the audit sees nothing'

def test_a_broken_mechanism_is_caught(): assert audited(HalfNoise) > BUDGET.epsilon
