"""Votes cannot leak, noise is the stated distribution, the ledger cannot be overdrawn, changed or replayed."""
import copy, io, json, math, os, pickle, shutil
from dataclasses import replace
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import chi2
from pe_nb.accounting import Event, epsilon
from pe_nb.release import (Budget, BudgetExceeded, Ledger, Release, SecureNoise, SeededNoise, Votes, discrete_gaussian, load_release, plan_events, reveal,
                           save_release, statement_text, upward, write_atomic)

COUNTS = np.array([7, 0, 123456, 3], np.int64)
EVENTS = tuple(Event(noise_multiplier=4.) for _ in range(3))
BUDGET = Budget(noise_multiplier=4., delta=1e-5)

def files(folder): return sorted(p for p in os.listdir(folder) if p != '.lock')

def ledger(**kw): return Ledger(BUDGET, EVENTS, **{'noise': SeededNoise(3), **kw})

@pytest.mark.parametrize('leak', [pickle.dumps, copy.copy, copy.deepcopy, np.asarray, np.array, list, iter, lambda v: v[0], lambda v: np.save(io.BytesIO(), v),
                                  lambda v: np.add(v, 1), lambda v: np.concatenate([v, v]), lambda v: json.dumps(v), lambda v: sum(v)])
def test_votes_refuse_every_door(leak):
    with pytest.raises(TypeError): leak(Votes(COUNTS))

def test_votes_show_nothing():
    v = Votes(COUNTS)
    assert '123456' not in repr(v) + str(v) + f'{v}' and len(v) == 4 and not hasattr(v, '__dict__')
    with pytest.raises(ValueError, match='public_data'): reveal(v, public_data=False)
    assert np.array_equal(reveal(v, public_data=True), COUNTS)

@pytest.mark.parametrize('bad', [np.zeros(3), np.zeros((2, 2), np.int64), np.zeros(3, np.int32)])
def test_votes_are_one_dimensional_int64(bad):
    with pytest.raises(ValueError, match='int64'): Votes(bad)

# ------------------------------------------------------------------ noise

def fits(draws, s):
    "p-value of a chi-square test of integer draws against the discrete Gaussian of parameter s."
    x = np.arange(-int(6*s + 8), int(6*s + 9))
    p = np.exp(-x.astype(float)**2/(2*s*s)); p /= p.sum()
    n = np.array([(draws == v).sum() for v in x])
    cut = np.searchsorted(np.cumsum(p)*len(draws), 20)
    group = np.clip(np.arange(len(x)), cut, len(x) - 1 - cut)
    e, o = np.bincount(group, p*len(draws)), np.bincount(group, n)
    e, o = e[e > 0], o[e > 0]
    return float(chi2.sf(((o - e)**2/e).sum() + (len(draws) - n.sum()), len(e) - 1))

@pytest.mark.parametrize('s', [.8, 3., 25.])
@pytest.mark.parametrize('source', ['secure', 'seeded'])
def test_noise_is_the_discrete_gaussian(source, s):
    n = 40_000
    draws = (SecureNoise() if source == 'secure' else SeededNoise(11))(np.zeros(n, np.int64), s, 1)
    x = np.arange(-400, 401)
    p = np.exp(-x.astype(float)**2/(2*s*s)); p /= p.sum()
    var = (p*x**2).sum()
    assert draws.dtype == np.int64
    assert abs(draws.mean()) < 6*math.sqrt(var/n)
    assert abs(draws.var()/var - 1) < 6*math.sqrt(2.1/n)
    for lag in (1, 2, 7): assert abs(np.corrcoef(draws[:-lag], draws[lag:])[0, 1]) < 6/math.sqrt(n)
    assert fits(draws, s) > 1e-8

def test_the_fit_can_fail():
    "A rounded normal, and noise 5 % too small, are told from the discrete Gaussian."
    rng = np.random.default_rng(0)
    assert fits(np.rint(rng.normal(0, .8, 40_000)).astype(np.int64), .8) < 1e-8
    assert fits(discrete_gaussian(40_000, .95*3, rng), 3.) < 1e-8

def test_noise_adds_to_the_counts():
    big = np.full(500, 2**40, np.int64)
    for noise in (SecureNoise(), SeededNoise(0)): assert np.abs(noise(big, 2., 1) - 2**40).max() < 40

def test_secure_noise_ignores_global_seeds():
    "Nobody who knows a seed can subtract the noise."
    out = []
    for _ in range(2):
        np.random.seed(0)
        out.append(SecureNoise()(np.zeros(200, np.int64), 50.))
    assert not np.array_equal(*out)

def test_seeded_noise_never_reuses_a_stream():
    z = np.zeros(50, np.int64)
    draws = [SeededNoise(s)(z, 20., i).tobytes() for s in (1, 2) for i in (1, 2, 3)]
    assert len(set(draws)) == 6 and draws[0] == SeededNoise(1)(z, 20., 1).tobytes()

@given(st.floats(.05, 1e9))
@settings(deadline=None, max_examples=40)
def test_seeded_noise_over_the_whole_range(s):
    d = discrete_gaussian(400, s, np.random.default_rng(0))
    assert d.shape == (400,) and d.dtype == np.int64 and np.abs(d).max() <= 9*s + 1

# ------------------------------------------------------------------ budget

@pytest.mark.parametrize('kw, message', [
    (dict(epsilon=1, delta=0), 'delta (0) must'), (dict(epsilon=1, delta=1), 'delta (1) must'), (dict(delta=.1), 'epsilon (None) must'),
    (dict(epsilon=1, noise_multiplier=1, delta=.1), 'epsilon (1) must'), (dict(epsilon=-1, delta=.1), 'epsilon (-1) must'), (dict(epsilon=math.nan, delta=.1), 'epsilon (nan) must'),
    (dict(epsilon=math.inf, delta=.1), 'epsilon (inf) must'), (dict(epsilon=1, delta=.1, non_private=True), 'epsilon (1) must'), (dict(noise_multiplier=0, delta=.1), 'noise_multiplier (0) must'),
    (dict(epsilon='1', delta=.1), "epsilon ('1') must be a number"), (dict(epsilon=True, delta=.1), 'epsilon (True) must be a number'),
    (dict(epsilon=1, delta=.1, adjacency='swap'), "adjacency ('swap') must"), (dict(epsilon=1, delta=.1, unit='user'), "unit ('user') must")])
def test_budget_refuses(kw, message):
    with pytest.raises(ValueError) as e: Budget(**kw)
    assert message in str(e.value)

@given(eps=st.floats(.05, 20), T=st.integers(1, 12), k=st.integers(1, 5), adj=st.sampled_from(['add_remove', 'replace_one']), seed=st.integers(0, 9), grid=st.sampled_from([0, 2**20]))
@settings(deadline=None, max_examples=15)
def test_a_plan_never_exceeds_its_target(eps, T, k, adj, seed, grid):
    w = np.random.default_rng(seed).uniform(.5, 2, T)
    b = Budget(epsilon=eps, delta=1e-5, adjacency=adj)
    events = plan_events(b, w, [1] + [1 if grid else k]*(T - 1), grid)
    spent = epsilon(events, 1e-5)
    assert spent <= eps and spent > .9*eps
    assert np.allclose([e.noise_multiplier/x for e, x in zip(events, w)], events[0].noise_multiplier/w[0])

def test_a_run_without_privacy_is_named_as_such():
    b = Budget(epsilon=math.inf, delta=1e-5, non_private=True)
    l = Ledger(b, plan_events(b, [1, 1]))
    r = l.release(1, lambda: Votes(COUNTS))
    assert np.array_equal(r.values, COUNTS) and not r.secure
    s = l.statement()
    assert s['epsilon'] == math.inf and not s['for_release'] and statement_text(s).startswith('NOT PRIVATE')

# ------------------------------------------------------------------ ledger

def test_ledger_keeps_to_the_plan():
    l = ledger()
    with pytest.raises(ValueError, match='must follow'): l.release(2, lambda: Votes(COUNTS))
    with pytest.raises(TypeError, match='must be Votes'): l.release(1, lambda: COUNTS)
    with pytest.raises(BudgetExceeded, match='k=2'): l.release(1, lambda: Votes(COUNTS, k=2))
    with pytest.raises(BudgetExceeded, match='grid=8'): l.release(1, lambda: Votes(COUNTS, grid=8))
    for i in (1, 2, 3): l.release(i, lambda: Votes(COUNTS))
    with pytest.raises(BudgetExceeded, match='within the plan'): l.release(4, lambda: Votes(COUNTS))
    assert [r.index for r in l.releases] == [1, 2, 3]

def test_a_release_is_made_once():
    calls, l = [], ledger()
    def votes(): calls.append(1); return Votes(COUNTS)
    a, b = l.release(1, votes), l.release(1, votes)
    assert a is b and len(calls) == 1 and not a.values.flags.writeable

def test_failed_votes_spend_nothing(tmp_path):
    l = ledger(folder=tmp_path)
    with pytest.raises(ZeroDivisionError): l.release(1, lambda: 1/0)
    assert len(l) == 0 and files(tmp_path) == [] and l.statement()['epsilon'] == 0

def test_ledger_survives_on_disk(tmp_path):
    l = ledger(folder=tmp_path, run='abc')
    made = [l.release(i, lambda: Votes(COUNTS)) for i in (1, 2)]
    again = ledger(folder=tmp_path, run='abc')
    assert [r.digest for r in again.releases] == [r.digest for r in made] and np.allclose(again.spent(), l.spent())
    assert again.release(3, lambda: Votes(COUNTS)).previous == made[1].digest

def three(tmp_path, **kw):
    l = ledger(folder=tmp_path, **kw)
    for i in (1, 2, 3): l.release(i, lambda: Votes(COUNTS))
    return tmp_path

def test_ledger_refuses_other_hands(tmp_path):
    a, b = three(tmp_path/'a'), three(tmp_path/'b', noise=SeededNoise(4))
    with pytest.raises(ValueError, match='settings differ'): ledger(folder=a, run='other')
    with pytest.raises(ValueError, match='planned event'): Ledger(BUDGET, [replace(e, noise_multiplier=5.) for e in EVENTS], folder=a)
    with pytest.raises(ValueError, match='planned event'): Ledger(BUDGET, EVENTS[:2], folder=a)
    shutil.copy(b/'0002.npz', a/'0002.npz')
    with pytest.raises(ValueError, match='was replaced'): ledger(folder=a)
    (b/'0002.npz').unlink()
    with pytest.raises(ValueError, match='without a gap'): ledger(folder=b)

def test_every_damage_is_noticed(tmp_path):
    "Cut the file at many lengths, and flip a byte of the values or the head: it does not load, or loads as what it was."
    r = ledger().release(1, lambda: Votes(np.arange(50)))
    save_release(r, tmp_path/'r.npz')
    raw = (tmp_path/'r.npz').read_bytes()
    for cut in range(0, len(raw), max(1, len(raw)//60)):
        (tmp_path/'cut.npz').write_bytes(raw[:cut])
        with pytest.raises(ValueError, match='must be complete'): load_release(tmp_path/'cut.npz')
    for at in range(0, len(raw), max(1, len(raw)//200)):
        (tmp_path/'flip.npz').write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at+1:])
        try: ok = load_release(tmp_path/'flip.npz').digest == r.digest
        except ValueError: ok = True
        assert ok, at

def test_edited_values_do_not_load(tmp_path):
    r = ledger().release(1, lambda: Votes(COUNTS))
    save_release(r, tmp_path/'r.npz')
    with np.load(tmp_path/'r.npz') as z: parts = dict(z)
    np.savez(tmp_path/'r.npz', **{**parts, 'values': parts['values'] + 1})
    with pytest.raises(ValueError, match='must match its digest'): load_release(tmp_path/'r.npz')

def test_release_files_hold_no_pickle(tmp_path):
    class Trap:
        def __reduce__(self): return os.system, ('false',)
    np.savez(tmp_path/'r.npz', values=np.array([Trap()], dtype=object), head=np.array('{}'), digest=np.array(''))
    with pytest.raises(ValueError, match='must be complete'): load_release(tmp_path/'r.npz')

def test_interrupted_writes(tmp_path):
    "A complete temporary file is the release; an incomplete one is nothing."
    r = ledger().release(1, lambda: Votes(COUNTS))
    save_release(r, tmp_path/'.tmp-0001.npz')
    l = ledger(folder=tmp_path, recover=False)
    assert len(l) == 0 and (tmp_path/'.tmp-0001.npz').exists()
    l = ledger(folder=tmp_path)
    assert l.releases[0].digest == r.digest and files(tmp_path) == ['0001.npz']
    raw = (tmp_path/'0001.npz').read_bytes()
    (tmp_path/'.tmp-0002.npz').write_bytes(raw[:len(raw)//2])
    assert len(ledger(folder=tmp_path)) == 1 and files(tmp_path) == ['0001.npz']

def test_one_writer_at_a_time(tmp_path):
    "A second ledger on the same folder cannot release while the first one's votes are computed; afterwards it reads what the first one wrote."
    a, b, tried = ledger(folder=tmp_path, noise=SecureNoise()), ledger(folder=tmp_path, noise=SecureNoise()), []
    def slow():
        with pytest.raises(RuntimeError, match='must not be in use'): b.release(1, lambda: Votes(COUNTS))
        with pytest.raises(RuntimeError, match='must not be in use'): ledger(folder=tmp_path)
        tried.append(1)
        return Votes(COUNTS)
    first = a.release(1, slow)
    assert tried and b.release(1, lambda: 1/0).digest == first.digest

def test_an_interrupted_write_is_finished_by_the_same_ledger(tmp_path, monkeypatch):
    l = ledger(folder=tmp_path, noise=SecureNoise())
    with monkeypatch.context() as m:
        def stop(*a): raise KeyboardInterrupt
        m.setattr(os, 'replace', stop)
        with pytest.raises(KeyboardInterrupt): l.release(1, lambda: Votes(COUNTS))
    drawn = load_release(tmp_path/'.tmp-0001.npz').digest
    assert l.release(1, lambda: 1/0).digest == drawn

def test_a_ledger_promises_only_what_its_events_give():
    b = Budget(epsilon=1., delta=1e-3)
    events = plan_events(b, [1, 1])
    with pytest.raises(ValueError, match='adjacency'): Ledger(Budget(epsilon=1., delta=1e-3, adjacency='replace_one'), events)
    with pytest.raises(ValueError, match='grid'): Ledger(Budget(epsilon=1., delta=1e-3, unit='client'), events)
    with pytest.raises(BudgetExceeded, match='must stay within'): Ledger(Budget(epsilon=.5, delta=1e-3), events)
    for m in (1e20, 1e-9): 
        huge = Budget(noise_multiplier=m, delta=1e-6)
        with pytest.raises(ValueError, match='noise scale'): Ledger(huge, plan_events(huge, [1]))
    for bad in (SecureNoise, 3, lambda c, s, i: c):
        with pytest.raises(TypeError, match='noise'): Ledger(b, events, noise=bad)

@pytest.mark.parametrize('wrong', [lambda c: c[:-1], lambda c: c + .5, lambda c: list(c)])
def test_a_bad_noise_source_writes_nothing(tmp_path, wrong):
    class Bad(SeededNoise):
        def __call__(self, counts, scale, index=0): return wrong(counts)
    l = ledger(folder=tmp_path, noise=Bad(0))
    with pytest.raises(ValueError, match='one int64 per bin'): l.release(1, lambda: Votes(COUNTS))
    assert files(tmp_path) == []

def test_purpose_and_number_are_checked():
    l = ledger()
    l.release(1, lambda: Votes(COUNTS))
    with pytest.raises(ValueError, match='purpose'): l.release(1, None, 'labels')
    for i in (0, -1):
        with pytest.raises(ValueError, match='at least 1'): l.release(i, None)

def test_votes_cannot_be_relabelled():
    v = Votes(COUNTS, k=5)
    with pytest.raises(AttributeError): v.k = 1

def test_write_atomic_keeps_the_old_file_when_writing_fails(tmp_path):
    write_atomic(tmp_path/'x', lambda t: t.write_text('old'))
    def fail(t): t.write_text('half'); raise OSError('disk full')
    with pytest.raises(OSError): write_atomic(tmp_path/'x', fail)
    assert (tmp_path/'x').read_text() == 'old'

def test_statement_says_everything():
    l = Ledger(Budget(epsilon=1., delta=1e-5, adjacency='replace_one', unit='client'), plan_events(Budget(epsilon=1., delta=1e-5, adjacency='replace_one', unit='client'), [1, 1], grid=2**20))
    for i in (1, 2): l.release(i, lambda: Votes(COUNTS, grid=2**20))
    s, text = l.statement(), statement_text(l.statement())
    assert s['for_release'] and s['epsilon'] <= 1 and 'replacing all records of one client' in text and '2 releases' in text and 'cryptographic' in text
    seeded = ledger()
    assert statement_text(seeded.statement()).startswith('Nothing that depends on the private data')
    seeded.release(1, lambda: Votes(COUNTS))
    assert 'NOT FOR RELEASE' in statement_text(seeded.statement())

@given(st.floats(1e-12, 1e6), st.integers(1, 6))
@settings(deadline=None, max_examples=200)
def test_printed_bounds_are_bounds(x, digits):
    assert x <= float(upward(x, digits)) <= x*(1 + 1.01*10**(1 - digits))

def test_a_release_on_disk_is_never_drawn_again(tmp_path, monkeypatch):
    "Interrupted after the rename and before the ledger noted it: the next call reads the file."
    l, calls = ledger(folder=tmp_path, noise=SecureNoise()), []
    class Stop(list):
        def append(self, r): raise KeyboardInterrupt
    l.releases = Stop()
    with pytest.raises(KeyboardInterrupt): l.release(1, lambda: Votes(COUNTS))
    on_disk = load_release(tmp_path/'0001.npz').digest
    l.releases = []
    assert l.release(1, lambda: calls.append(1)).digest == on_disk and calls == []

def test_release_scale_of_client_votes():
    r = Release(index=1, purpose='votes', values=np.array([2**20, -2**19]), event=Event(noise_multiplier=1., grid=2**20), noise='', secure=False, run='', previous='')
    assert np.array_equal(r.votes, [1., -.5])
