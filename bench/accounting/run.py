"""Epsilon after each of 100 releases: pe_nb against dp-accounting, in one run. Writes results.json beside this file and prints the table."""
import json
import time
import warnings
from pathlib import Path

import numpy as np

from pe_nb.accounting import Event, calibrate, epsilon_curve

with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    import dp_accounting as dpa
    from dp_accounting.pld import privacy_loss_distribution as P

T, DELTA = 100, 1e-5
SCHEDULES = dict(equal=np.full(T, 12.), different=np.linspace(20, 8, T))

def timed(f, repeats=3):
    "Best time of a few runs, and the result."
    best, out = np.inf, None
    for _ in range(repeats):
        start = time.perf_counter()
        out = f()
        best = min(best, time.perf_counter() - start)
    return best, out

def ours(sigmas, mechanism): return epsilon_curve([Event(noise_multiplier=float(s), mechanism=mechanism) for s in sigmas], DELTA)

def theirs_discrete(sigmas):
    "Discrete: connect the dots at its default interval, composed step by step, epsilon read after each step."
    out, total = [], None
    for s in sigmas:
        law = P.from_discrete_gaussian_mechanism(float(s), use_connect_dots=True)
        total = law if total is None else total.compose(law)
        out.append(total.get_epsilon_for_delta(DELTA))
    return np.array(out)

def theirs_continuous(sigmas):
    "Continuous: its PLDAccountant, one event more at each step."
    accountant, out = dpa.pld.PLDAccountant(dpa.NeighboringRelation.ADD_OR_REMOVE_ONE), []
    for s in sigmas:
        accountant.compose(dpa.GaussianDpEvent(float(s)))
        out.append(accountant.get_epsilon(DELTA))
    return np.array(out)

def theirs_calibrate():
    return dpa.calibrate_dp_mechanism(lambda: dpa.pld.PLDAccountant(), lambda s: dpa.SelfComposedDpEvent(dpa.GaussianDpEvent(s), 10), 1.0, DELTA)

rows = []
for mechanism, peer, name in (('discrete', theirs_discrete, 'PLD, connect the dots'), ('continuous', theirs_continuous, 'PLDAccountant')):
    for schedule, sigmas in SCHEDULES.items():
        mine, a = timed(lambda: ours(sigmas, mechanism), 5)
        other, b = timed(lambda: peer(sigmas), 1)
        rows.append(dict(task=f'curve over {T} releases', mechanism=mechanism, noise=schedule, seconds=round(mine, 4), peer=f'dp-accounting {name}',
                         peer_seconds=round(other, 2), ratio=round(other/mine, 1), largest_relative_difference=float(f'{np.abs(a/b - 1).max():.1e}')))
mine, a = timed(lambda: calibrate(1., DELTA, 10), 5)
other, b = timed(theirs_calibrate, 1)
rows.append(dict(task='calibrate, 10 releases', mechanism='discrete', noise='equal', seconds=round(mine, 4), peer='dp-accounting calibrate_dp_mechanism (continuous)',
                 peer_seconds=round(other, 2), ratio=round(other/mine, 1), largest_relative_difference=float(f'{abs(a/b - 1):.1e}')))
Path(__file__).with_name('results.json').write_text(json.dumps(rows, indent=1) + '\n')
print('| task | mechanism | noise | pe_nb (s) | peer | peer (s) | ratio | largest difference |\n|---|---|---|---|---|---|---|---|')
for r in rows: print('| ' + ' | '.join(str(v) for v in r.values()) + ' |')
