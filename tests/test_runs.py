"""Run folders: resumed, refused, opened, planned, reported, exported; and nothing private in them."""
import csv, html, subprocess, sys, warnings
import numpy as np
import pytest
from pe_nb.evolution import Settings, evolve, more, planned_events
from pe_nb.exchange import from_csv, from_datasets, from_parquet
from pe_nb.folders import from_image_folder
from pe_nb.records import Column, Records, Schema
from pe_nb.release import Budget, Ledger, SecureNoise, SeededNoise
from pe_nb.runs import Covered, FolderLock, Run, check_duplicates, differences, plan, planned_calls, synthesize
from pe_nb.unlimited import apart
from crash_driver import Flat, Points, PRIVATE, contents

BASE = dict(generations=3, samples=8, degree=6., seed=4)
BUDGET = Budget(epsilon=4., delta=1e-3)

def go(folder, private=PRIVATE, generator=None, budget=BUDGET, noise=None, report=False, watchers=(), embedding=None, clients=None, **kw):
    return synthesize(private, generator or Points(), embedding or Flat(), Settings(**{**BASE, **kw}), budget, folder, noise=noise or SeededNoise(7), report=report, watchers=watchers, clients=clients)

# ------------------------------------------------------------------ resuming

class Mortal(Points):
    "Dies at variation call number `at`."
    def __init__(self, at): self.at = at
    def vary(self, *args):
        self.at -= 1
        if self.at == 0: raise ConnectionError('gone')
        return super().vary(*args)

@pytest.mark.parametrize('kw', [{}, dict(lookahead=2, folds=2, keep_parents=True), dict(proportions='private', initial_folds=1)], ids=str)
def test_resume_after_every_failing_call(tmp_path, kw):
    "Whatever call fails, the resumed run has the bytes of an unbroken one, and finished generations are not made again."
    whole, at = go(tmp_path/'whole', **kw), 0
    while True:
        at += 1
        try: go(tmp_path/f'{at}', generator=Mortal(at), **kw)
        except ConnectionError: pass
        else: break
        done = Run(tmp_path/f'{at}').last
        gen = Counting()
        assert contents(go(tmp_path/f'{at}', generator=gen, **kw).folder) == contents(whole.folder)
        assert gen.randoms == (done < 0)
    assert at > 3

class Counting(Points):
    randoms = 0
    def random(self, *args): self.randoms += 1; return super().random(*args)

def test_a_finished_run_does_nothing(tmp_path):
    class Dead(Points):
        def random(self, *a): raise AssertionError
        vary = random
    class Blindfold:
        fingerprint = 'Flat()'
        def __call__(self, r): raise AssertionError
    before = contents(go(tmp_path/'r').folder)
    assert contents(go(tmp_path/'r', generator=Dead(), embedding=Blindfold()).folder) == before

class Renamed(Points): fingerprint = 'Points(2)'
class Renamed2(Flat): fingerprint = 'Flat(2)'

@pytest.mark.parametrize('change, message', [
    (dict(budget=Budget(epsilon=4.5, delta=1e-3)), 'budget.epsilon was 4.0, is 4.5'), (dict(budget=Budget(epsilon=4., delta=1e-4)), 'budget.delta was 0.001, is 0.0001'),
    (dict(budget=Budget(epsilon=4., delta=1e-3, adjacency='replace_one')), "budget.adjacency was 'add_remove', is 'replace_one'"), (dict(generations=4), 'settings.generations was 3, is 4'),
    (dict(budget=Budget(epsilon=4., delta=1e-3, unit='client'), clients=np.arange(40)), "budget.unit was 'record', is 'client'"),
    (dict(samples=9), 'settings.steps[0].samples was 8, is 9'), (dict(degree=[6., 6., 6., 5.]), 'settings.steps[3].degree was 6.0, is 5.0'), (dict(seed=5), 'settings.seed was 4, is 5'),
    (dict(noise=SeededNoise(8)), 'noise was'), (dict(noise=SecureNoise()), 'noise was'), (dict(generator=Renamed()), "generator was 'Points()', is 'Points(2)'"),
    (dict(embedding=Renamed2()), "embedding was 'Flat()', is 'Flat(2)'"), (dict(noise_weight=[1., 1., 2., 1.]), 'noise_weight was 1.0, is 2.0')], ids=lambda v: v if isinstance(v, str) else '')
def test_resuming_under_other_settings_is_refused(tmp_path, change, message):
    with pytest.raises(ConnectionError): go(tmp_path/'r', generator=Mortal(2))
    before = contents(tmp_path/'r')
    with pytest.raises(ValueError) as e: go(tmp_path/'r', **change)
    assert message in str(e.value) and contents(tmp_path/'r') == before

def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path/'precious.txt').write_text('x')
    with pytest.raises(ValueError, match='must be empty or hold a run; it holds precious.txt'): go(tmp_path)
    with pytest.raises(ValueError, match='must hold a run'): Run(tmp_path)

def test_bad_input_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match='degree'): go(tmp_path/'r', degree=[1., 2.])
    with pytest.raises(TypeError, match='watchers'): go(tmp_path/'r', watchers=print)
    assert not (tmp_path/'r').exists()

def test_two_processes_cannot_share_a_folder(tmp_path):
    tmp_path.joinpath('r').mkdir()
    with FolderLock(tmp_path/'r'):
        with pytest.raises(RuntimeError, match='must not be in use'): go(tmp_path/'r')
    code = 'import sys, time; from pe_nb.runs import FolderLock\nwith FolderLock(sys.argv[1]): print("held", flush=True); time.sleep(60)'
    p = subprocess.Popen([sys.executable, '-c', code, str(tmp_path/'r')], stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == 'held\n'
    with pytest.raises(RuntimeError, match='must not be in use'): go(tmp_path/'r')
    p.kill(); p.wait(); p.stdout.close()
    assert go(tmp_path/'r').finished

# ------------------------------------------------------------------ watchers and notes

def mean(g): return {'mean': Covered(g.records.data.mean())}
def private_thing(g): return {'gap': abs(g.records.data.mean() - PRIVATE.data.mean())}

def test_secure_runs_resume_on_their_releases(tmp_path):
    "With the cryptographic source: what was released before the failure is what the finished run holds."
    with pytest.raises(ConnectionError): go(tmp_path/'r', generator=Mortal(3), noise=SecureNoise())
    before = {p.name: p.read_bytes() for p in (tmp_path/'r'/'releases').glob('*.npz')}
    r = go(tmp_path/'r', noise=SecureNoise())
    assert len(before) == 3 and all((r.folder/'releases'/n).read_bytes() == b for n, b in before.items()) and r.statement['for_release']

def test_watching_changes_nothing(tmp_path):
    def greedy(g):
        np.random.seed(0); np.random.random(100)
        with pytest.raises(ValueError): g.records.labels[0] = 9
        return {'n': float(len(g.records))}
    a, b = go(tmp_path/'a'), go(tmp_path/'b', watchers=[mean, greedy, private_thing])
    plain = {k: v for k, v in contents(b.folder).items() if not k.startswith(('metrics', 'not_private'))}
    assert plain == {k: v for k, v in contents(a.folder).items() if not k.startswith('metrics')}

def test_numbers_that_touched_real_data_are_kept_apart(tmp_path):
    r = go(tmp_path/'r', watchers=[mean, private_thing])
    with open(r.folder/'metrics.csv', newline='') as f: rows = list(csv.DictReader(f))
    assert {x['metric'] for x in rows} == {'epsilon', 'mean'} and len(rows) == 8
    with open(r.folder/'not_private/metrics.csv', newline='') as f: assert {x['metric'] for x in csv.DictReader(f)} == {'gap'}
    assert len(r.metrics) == 12 and [m['covered_by_epsilon'] for m in r.metrics if m['metric'] == 'gap'] == ['no']*4

def test_private_numbers_stay_in_their_folder(tmp_path):
    "A number that touched real data is in no file outside `not_private/`, pictures included."
    def secret(value): return lambda g: {'secret': value}
    a, b = go(tmp_path/'a'/'run', report=True, watchers=[secret(123.25)]), go(tmp_path/'b'/'run', report=True, watchers=[secret(77.5)])
    shared = {k for k in contents(a.folder) if not k.startswith('not_private')}
    assert {k: contents(a.folder)[k] for k in shared} == {k: contents(b.folder)[k] for k in shared} and {'report.html', 'picture.png', 'metrics.csv'} <= shared
    assert '123.2' in (a.folder/'not_private/report.html').read_text() and '123.2' in a._repr_html_()

def test_watchers_cannot_pose_as_the_ledger(tmp_path):
    for bad in ({'epsilon': 0.}, {'a': 'b'}, {'a': [1, 2]}):
        with pytest.raises(ValueError, match='watcher result'): go(tmp_path/f'{len(list(tmp_path.iterdir()))}', watchers=[lambda g: bad])

def test_a_start_that_made_nothing_claims_nothing(tmp_path):
    class Broken(Points):
        def random(self, *a): raise ConnectionError
    with pytest.raises(ConnectionError): go(tmp_path/'r', generator=Broken())
    assert go(tmp_path/'r', seed=9).finished

def test_epsilon_of_generation_0_counts_the_labels(tmp_path):
    r = go(tmp_path/'r', proportions='private')
    assert r.generation(0).epsilon == r.ledger.spent()[0] == r.metrics[0]['value'] > 0
    card = (r.export(tmp_path/'out')/'README.md').read_text()
    assert 'One of the releases is the label proportions' in card and 'the label proportions' not in card.split('Assumed public')[1]

def test_a_failing_watcher_loses_nothing(tmp_path):
    def fragile(g):
        if g.t == 2: raise RuntimeError('no')
        return mean(g)
    with pytest.raises(RuntimeError): go(tmp_path/'r', watchers=[fragile])
    assert Run(tmp_path/'r').last == 2
    again = go(tmp_path/'r', watchers=[mean])
    assert contents(again.folder) == contents(go(tmp_path/'w', watchers=[mean]).folder)

def test_a_watcher_must_return_numbers(tmp_path):
    with pytest.raises(TypeError, match='must return a dict'): go(tmp_path/'r', watchers=[lambda g: 3.])

# ------------------------------------------------------------------ nothing private on disk

class Blind:
    name, secure = 'blind', False
    def __call__(self, counts, scale, index): return np.random.default_rng(index).integers(-5, 20, len(counts))

def test_the_folder_does_not_depend_on_private_data(tmp_path):
    "With noise that ignores the votes, the folders of two unrelated private data sets are equal, report and pictures included; `not_private/` is the exception."
    other = Points().make(np.full((7, 2), 3.), np.zeros(7, np.int64))
    def watch(g): return {**mean(g)}
    a = go(tmp_path/'a'/'run', PRIVATE, noise=Blind(), report=True, watchers=[watch], proportions='private')
    b = go(tmp_path/'b'/'run', other, noise=Blind(), report=True, watchers=[watch], proportions='private')
    assert contents(a.folder) == contents(b.folder)
    c = go(tmp_path/'c'/'run', other, noise=Blind(), watchers=[private_thing])
    assert any(k.startswith('not_private') for k in contents(c.folder))

def test_no_clean_votes_on_disk(tmp_path):
    "Every integer array in every file of the run is compared with the clean votes."
    seen = []
    class Spy(SeededNoise):
        def __call__(self, counts, scale, index): seen.append(counts.copy()); return super().__call__(counts, scale, index)
    r = go(tmp_path/'r', noise=Spy(7), keep_parents=True)
    arrays = []
    for p in r.folder.rglob('*.npz'):
        with np.load(p, allow_pickle=False) as z: arrays += [z[k] for k in z.files]
    assert len(seen) == 3 and len(arrays) > 10
    for c in seen: assert not any(a.shape == c.shape and np.array_equal(a, c) for a in arrays)

def test_a_run_says_nothing_by_itself(tmp_path, capfd, caplog):
    "No log line, no print: the number of private records, or anything else, cannot slip out that way."
    with caplog.at_level(0): go(tmp_path/'r', noise=SecureNoise(), report=True)
    assert capfd.readouterr() == ('', '') and [r for r in caplog.records if r.name.startswith('pe_nb')] == []

def test_files_hold_no_pickle(tmp_path):
    r = go(tmp_path/'r')
    for p in r.folder.rglob('*.npz'):
        with np.load(p, allow_pickle=False) as z: assert all(z[k].dtype != object for k in z.files)

def test_a_release_taken_from_another_run_is_refused(tmp_path):
    a, b = go(tmp_path/'a'), go(tmp_path/'b', seed=5)
    (a.folder/'releases/0001.npz').write_bytes((b.folder/'releases/0001.npz').read_bytes())
    with pytest.raises(ValueError, match='settings differ'): Run(a.folder)

# ------------------------------------------------------------------ plan

@pytest.mark.parametrize('kw', [{}, dict(lookahead=3), dict(folds=2, keep_parents=True, initial_folds=2, lookahead=[0, 1, 0, 2]), dict(samples=[12, 10, 8, 6], folds=[1, 1, 3, 2])], ids=str)
def test_plan_says_what_the_run_does(kw):
    class Meter(Points):
        randoms, varied, calls = 0, 0, ()
        def note(self, *call): self.calls += (call[:2] + (np.bincount(call[2], minlength=len(self.label_names)).tolist(),),)
        def random(self, labels, rng): self.randoms += len(labels); self.note('random', None, labels); return super().random(labels, rng)
        def vary(self, parents, degree, rng): self.varied += len(parents); self.note('vary', degree, parents.labels); return super().vary(parents, degree, rng)
    s, m = Settings(**{**BASE, **kw}), Meter()
    p = plan(s, BUDGET, m, record_bytes=2)
    l = Ledger(BUDGET, planned_events(s, BUDGET), noise=SeededNoise(0))
    gs = list(evolve(PRIVATE, m, Flat(), s, BUDGET, ledger=l))
    assert (p.random_calls, p.variation_calls, p.rows) == (m.randoms, m.varied, tuple(len(g.records) for g in gs))
    assert len(p.events) == len(l) and np.array_equal(p.epsilon, l.spent()) and p.bytes > 0 and 'API calls' in repr(p)
    assert m.calls == tuple((api, degree, n.tolist()) for api, degree, n in planned_calls(s, m.label_names))
    m.costs = lambda calls: f'{len(calls)} calls cost nothing'
    assert repr(p) in repr(plan(s, BUDGET, m, record_bytes=2)) and f'{len(m.calls)} calls cost nothing' in repr(plan(s, BUDGET, m, record_bytes=2))

def test_plan_reads_no_private_data(): assert plan(Settings(**BASE), BUDGET).bytes is None

# ------------------------------------------------------------------ duplicates

def test_duplicates_warn_with_the_group_epsilon():
    d = Records.concat([PRIVATE[:20], PRIVATE[:1], PRIVATE[:1]])
    with pytest.warns(UserWarning, match='OWNER ONLY'): found = check_duplicates(d, Settings(**BASE), BUDGET)
    assert found['largest'] == 3 and found['groups'] == 1 and found['epsilon'] > 2.5*4
    rng = np.random.default_rng(0)
    unique = Points().make(rng.permutation(65536)[:50, None]//np.array([256, 1]) % 256, np.zeros(50, np.int64))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        one = check_duplicates(unique, Settings(**BASE), BUDGET)
    assert one['largest'] == 1 and one['groups'] == 0 and one['epsilon'] <= 4.001

# ------------------------------------------------------------------ texts and tables, hostile strings

HOSTILE = ['<script>alert(1)</script>', '../../etc', '${oc.env:HOME}', '{}', '"; DROP', 'naïve\nline', '', '名前 😀']

class Words:
    label_names, fingerprint = ('<b>x</b>', '../y'), 'Words()'
    def make(self, i, labels): return Records.texts([HOSTILE[j] for j in i], labels, self.label_names, extra={'i': i})
    def random(self, labels, rng): return self.make(rng.integers(0, len(HOSTILE), len(labels)), labels)
    def vary(self, parents, degree, rng): return self.make((parents.extra['i'] + rng.integers(0, 2, len(parents))) % len(HOSTILE), parents.labels)

class Lengths:
    fingerprint = 'Lengths()'
    def __call__(self, r): return np.array([[len(str(t)), len(str(t).encode())] for t in r.data], np.float32).reshape(len(r), 2)

def words_run(folder, **kw): return go(folder, Words().make(np.arange(40) % 8, np.arange(40) % 2), Words(), embedding=Lengths(), **kw)

def test_texts_run_resume_and_report(tmp_path):
    r = words_run(tmp_path/'r', report=True)
    page = (r.folder/'report.html').read_text()
    assert '<script>' not in page and '<b>x</b>' not in page and html.escape('<b>x</b>') in page
    assert r.records().extra['i'].dtype == np.int64 and set(r.records().data.tolist()) <= set(HOSTILE)
    assert not any('..' in p.name or '\n' in p.name for p in tmp_path.rglob('*'))

SCHEMA = Schema((Column('colour', 'categorical', categories=('red', 'blue')), Column('size', 'integer', low=0, high=9)))

class Rows:
    label_names, fingerprint = ('no', 'yes'), 'Rows()'
    def make(self, c, s, labels):
        import pandas as pd
        return Records.table(pd.DataFrame({'colour': np.array(['red', 'blue'])[c], 'size': s}), SCHEMA, labels, self.label_names)
    def random(self, labels, rng): return self.make(rng.integers(0, 2, len(labels)), rng.integers(0, 10, len(labels)), labels)
    def vary(self, parents, degree, rng):
        d = parents.data
        return self.make((d['colour'] == 'blue').to_numpy().astype(int), np.clip(d['size'].to_numpy() + rng.integers(-1, 2, len(d)), 0, 9), parents.labels)

class TableEmbedding:
    fingerprint = 'TableEmbedding()'
    def __call__(self, r): return np.stack([(r.data['colour'] == 'blue').to_numpy(float), r.data['size'].to_numpy()/9], 1).astype(np.float32).reshape(len(r), 2)

def test_tables_run_and_resume(tmp_path):
    rng = np.random.default_rng(0)
    data = Rows().make(rng.integers(0, 2, 30), rng.integers(3, 6, 30), rng.integers(0, 2, 30))
    r = go(tmp_path/'r', data, Rows(), embedding=TableEmbedding(), report=True)
    assert contents(go(tmp_path/'r', data, Rows(), embedding=TableEmbedding()).folder) == contents(r.folder)
    assert list(r.records().data.columns) == ['colour', 'size'] and '<td>' in (r.folder/'report.html').read_text()

# ------------------------------------------------------------------ more samples

class Watched(Points):
    "Keeps what it is asked for, and can die at call number `dies`."
    def __init__(self, dies=0): self.calls, self.dies = [], dies
    def vary(self, parents, degree, rng):
        self.calls.append((parents, degree))
        if len(self.calls) == self.dies: raise ConnectionError('gone')
        return super().vary(parents, degree, rng)

def test_more_is_free_and_varies_the_final_records(tmp_path):
    r = go(tmp_path/'r', degree=[6., 6., 6., 0.])
    before, statement, gen = contents(r.folder), r.statement, Watched()
    m = r.more(43, gen)
    assert gen.calls == [] and m.n == 43 and m.parts == 6
    made = m.records()
    assert [len(p) for p, _ in gen.calls] == [8]*5 + [3] and {d for _, d in gen.calls} == {0.}
    assert np.array_equal(made.data, r.records().data[m.parents]) and np.array_equal(made.labels, r.records().labels[m.parents]) and not made.extra
    assert set(np.bincount(m.parents, minlength=8)) == {5, 6} and m.label_counts.tolist() == made.label_counts.tolist()
    assert Run(r.folder).statement == statement and contents(r.folder) == before and statement['epsilon'] <= 4
    assert 'No further privacy cost. (4, 0.001)-differential privacy' in repr(m)

def test_more_is_determined_by_its_arguments(tmp_path):
    r = go(tmp_path/'r', samples=8, keep_parents=True)
    m = r.more(50, Points())
    all_at_once = m.records()
    assert Run(r.folder).more(50, Points()).records() == all_at_once == Records.concat([m.part(j) for j in range(m.parts)]) == Records.concat(list(m))
    assert r.more(80, Points()).records()[:48] == all_at_once[:48] and m.part(2) == all_at_once[32:48]
    others = [r.more(50, Points(), **kw).records().fingerprint for kw in (dict(seed=9), dict(degree=1.), dict(which='selected'), dict(batch=7))]
    assert len({all_at_once.fingerprint, *others}) == 5 and r.more(50, Points(), seed=4).records() == all_at_once
    np.random.seed(1)
    assert m.records() == all_at_once
    assert not np.array_equal(r.more(16, Points()).records().data[np.argsort(r.more(16, Points()).parents)], r.records().data)

def test_more_has_streams_of_its_own(tmp_path):
    "No part repeats the steps of another part, of the run, or of `evolution.more`; no round repeats the order of another."
    class Steps(Points):
        drawn = []
        def vary(self, parents, degree, rng): self.drawn.append(rng.bit_generator.state['state']['state']); return super().vary(parents, degree, rng)
    gen = Steps()
    m = go(tmp_path/'r', generator=gen, folds=2, lookahead=1, initial_folds=1).more(40, gen)
    m.records(); more(gen, m.source, 5, 1., seed=4)
    assert len(set(gen.drawn)) == len(gen.drawn) == 1 + 3*3 + 3 + 1
    assert len({tuple(m.rows(j)) for j in range(2)}) == 2 and len({tuple(m.parents[i*16:i*16 + 16]) for i in range(2)}) == 2

@pytest.mark.parametrize('which, t', [('all', -1), ('selected', -2), ('variations', -1), ('one_variation', -1)])
def test_more_varies_what_was_asked_for(tmp_path, which, t):
    r = go(tmp_path/'r', folds=2)
    gen = Watched()
    m = r.more(30, gen, degree=0., which=which)
    made, source = m.records(), r.records(which)
    assert m.source == source and np.array_equal(made.data, source.data[m.parents])
    if which == 'selected': assert {x.tobytes() for x in made.data} <= {x.tobytes() for x in r.generation(t).records.data}

@pytest.mark.parametrize('n, batch', [(1, None), (3, 1), (8, 8), (100, 3), (100, 1000), (17, 16)])
def test_more_uses_parents_evenly_in_any_parts(tmp_path, n, batch):
    m = go(tmp_path/'r').more(n, gen := Watched(), batch=batch)
    assert len(m.records()) == n and max(len(p) for p, _ in gen.calls) <= (batch or 8) and len(gen.calls) == m.parts
    uses = np.bincount(m.parents, minlength=8)
    assert uses.max() - uses.min() <= 1 and np.array_equal(np.concatenate([m.rows(j) for j in range(m.parts)]), m.parents)
    labels = m.source.labels[m.parents]
    share = m.source.label_counts/8
    assert all(np.abs(np.bincount(labels[:i], minlength=2) - i*share).max() < 2 for i in range(1, n + 1))
    with pytest.raises(IndexError, match='part .* must be 0 to'): m.part(m.parts)

def test_more_refuses_another_generator(tmp_path):
    r = go(tmp_path/'r')
    with pytest.raises(ValueError, match=r"generator \(Renamed\) must be that of the run: was 'Points\(\)', is 'Points\(2\)'"): r.more(5, Renamed())
    assert len(r.more(5, Renamed(), another_generator=True).records()) == 5
    class Other(Points): label_names = ('a', 'c')
    with pytest.raises(ValueError, match='label_names'): r.more(5, Other(), another_generator=True)

def test_fingerprints_are_told_apart_by_setting():
    assert apart('A {"x": 1, "y": [2]}', 'A {"x": 1, "y": [2]}') == '' and apart('A {"x": 1, "y": [2]}', 'A {"x": 1, "y": [3]}') == 'y was [2], is [3]'
    assert apart('A {"x": 1}', 'B {"x": 1}') == "class was 'A', is 'B'" and apart('A(1)', 'A {"x": 1}') == """was 'A(1)', is 'A {"x": 1}'"""
    assert apart('A {"x": null}', 'A {}') and apart('A 1', 'A 2') and len(apart('A', 'B'*5000)) < 200

@pytest.mark.parametrize('kw, message', [(dict(n=0), 'n .0. must'), (dict(n=2.5), 'n .2.5. must'), (dict(n=True), 'n .True. must'), (dict(seed=-1), 'seed .-1. must'), (dict(batch=0), 'batch .0. must'),
                                         (dict(which='best'), "which .'best'. must be one of"), (dict(degree=-1.), 'degree')], ids=str)
def test_more_is_refused_before_any_call(tmp_path, kw, message):
    class Checked(Watched):
        def check(self, degree):
            if degree < 0: raise ValueError(f'degree ({degree}) must be at least 0')
    gen = Checked()
    r = go(tmp_path/'r')
    with pytest.raises(ValueError, match=message): r.more(**{**dict(n=5, generator=gen), **kw})
    with pytest.raises(TypeError, match='method vary'): r.more(5, object())
    assert gen.calls == []

def test_more_says_what_it_costs(tmp_path):
    class Paid(Points):
        def costs(self, calls): return [(api, degree, n.tolist()) for api, degree, n in calls]
    r = go(tmp_path/'r', Points().make(np.full((30, 2), 90.), np.arange(30) % 2))
    m = r.more(20, Paid())
    assert [(a, d, sum(n)) for a, d, n in m.costs] == [('vary', 6., 8), ('vary', 6., 8), ('vary', 6., 4)] and 'vary' in repr(m) and r.more(20, Points()).costs is None

def test_a_bad_answer_to_more_is_refused(tmp_path):
    class Lazy(Points):
        def vary(self, *a): return super().vary(*a)[1:]
    with pytest.raises(ValueError, match='one record for each'): go(tmp_path/'r').more(20, Lazy()).records()

@pytest.mark.parametrize('how', ['parquet', 'csv', 'datasets', 'images'])
def test_more_in_a_folder(tmp_path, how):
    "Parts that read back as the samples, a card with the statement of the run, and an export that goes on where it was stopped."
    r, fresh = (words_run(tmp_path/'r'), Words) if how == 'csv' else (go(tmp_path/'r'), Points)
    class Fails(fresh):
        left = 2
        def vary(self, *a):
            self.left -= 1
            if self.left < 0: raise ConnectionError
            return super().vary(*a)
    with pytest.raises(ConnectionError): r.more(30, Fails()).export(tmp_path/'o', how)
    out = r.more(30, Fails()).export(tmp_path/'o', how)      # two of four parts are there: two calls are enough
    whole = r.more(30, fresh()).export(tmp_path/'w', how)
    assert {k: v for k, v in contents(out).items() if how != 'datasets' or not k.endswith('.json')} == {k: v for k, v in contents(whole).items() if how != 'datasets' or not k.endswith('.json')}
    parts, names = sorted((out/'data').iterdir()), r.info['label_names']
    assert [p.stem for p in parts] == ['0000', '0001', '0002', '0003']
    if how == 'parquet': back = [from_parquet(p, image='image', label='label', label_names=names, channels=1) for p in parts]
    elif how == 'csv': back = [from_csv(p, text='text', label='label', label_names=names) for p in parts]
    elif how == 'images': back = [from_image_folder(p) for p in parts]
    else: back = [from_datasets(sys.modules['datasets'].load_from_disk(str(p)), image='image', label='label', label_names=names, channels=1) for p in parts]
    assert Records.concat(back) == r.more(30, fresh()).records().without_extra()
    if how == 'csv': assert (out/'data'/'0000.csv').read_text(encoding='utf-8').startswith('"text","label"\n') and 'i' in r.records().extra
    card = (out/'README.md').read_text(encoding='utf-8')
    for word in ('30 synthetic records', '(4, 0.001)-differential privacy', 'NOT FOR RELEASE', 'no further privacy cost', 'data/0000', r.records().fingerprint): assert word in card, word

@pytest.mark.parametrize('how', ['parquet', 'images'])
def test_more_parts_are_whole_or_absent(tmp_path, monkeypatch, how):
    "A write that fails in the middle of the second part leaves one part, and the next call makes the rest."
    import pe_nb.unlimited as unlimited
    m, (suffix, write), calls = go(tmp_path/'r').more(20, Points()), unlimited._WRITERS[how], []
    def failing(records, path):
        calls.append(path)
        write(records, path)
        if len(calls) == 3: raise OSError('disk full')  # the first call is the trial without records
    monkeypatch.setitem(unlimited._WRITERS, how, (suffix, failing))
    with pytest.raises(OSError, match='disk full'): m.export(tmp_path/'o', how)
    assert [p.name for p in sorted((tmp_path/'o'/'data').iterdir()) if not p.name.startswith('.tmp-')] == [f'0000{suffix}']
    assert contents(m.export(tmp_path/'o', how)) == contents(m.export(tmp_path/'w', how)) and not list(tmp_path.rglob('.tmp-*'))

def test_more_is_not_written_over_something_else(tmp_path):
    r = go(tmp_path/'r')
    out = r.more(20, Points()).export(tmp_path/'o')
    before = contents(out)
    for other in (r.more(21, Points()), r.more(20, Points(), seed=1), r.more(20, Points(), degree=1.), go(tmp_path/'s'/'r', seed=5).more(20, Points(), seed=4)):
        with pytest.raises(ValueError, match='must be new or empty, or hold a part of this very export'): other.export(out)
    with pytest.raises(ValueError, match='this very export'): r.more(20, Points()).export(out, 'images')
    with pytest.raises(ValueError, match='this very export'): r.more(20, Points()).export(r.folder)
    assert contents(out) == before and contents(r.more(20, Points()).export(out)) == before
    gen = Watched()
    with pytest.raises(ValueError, match="how .'xml'. must"): r.more(5, gen).export(tmp_path/'x', 'xml')
    with pytest.raises(ValueError, match='CSV'): r.more(5, gen).export(tmp_path/'x', 'csv')
    with pytest.raises(ValueError, match='must be images'): words_run(tmp_path/'t').more(5, Words()).export(tmp_path/'x', 'images')
    assert gen.calls == [] and not (tmp_path/'x').exists()

def test_more_of_tables_and_of_unfinished_runs(tmp_path):
    rng = np.random.default_rng(0)
    data = Rows().make(rng.integers(0, 2, 30), rng.integers(3, 6, 30), rng.integers(0, 2, 30))
    m = go(tmp_path/'t', data, Rows(), embedding=TableEmbedding()).more(50, Rows())
    assert m.records().schema == SCHEMA and (m.export(tmp_path/'o', 'csv')/'data'/'0000.csv').exists()
    with pytest.raises(ConnectionError): go(tmp_path/'r', generator=Mortal(2))
    half = Run(tmp_path/'r')
    assert half.last == 1 and half.more(5, Points()).source == half.records() and len(half.more(5, Points()).records()) == 5
    class Broken(Points):
        def random(self, *a): raise ConnectionError
    with pytest.raises(ConnectionError): go(tmp_path/'e', generator=Broken())
    with pytest.raises(IndexError, match='before the first one was written'): Run(tmp_path/'e').more(5, Points())

def test_more_depends_on_nothing_private(tmp_path):
    other = Points().make(np.full((7, 2), 3.), np.zeros(7, np.int64))
    a, b = go(tmp_path/'a'/'run', PRIVATE, noise=Blind()), go(tmp_path/'b'/'run', other, noise=Blind())
    assert contents(a.more(30, Points()).export(tmp_path/'x')) == contents(b.more(30, Points()).export(tmp_path/'y'))

# ------------------------------------------------------------------ reading and exporting

def test_run_reads_without_writing(tmp_path):
    r = go(tmp_path/'r', keep_parents=True, folds=2)
    before = {p: p.stat().st_mtime_ns for p in r.folder.rglob('*')}
    again = Run(r.folder)
    assert again.finished and len(again.records()) == 24 and len(again.records('selected')) == 8 and len(again.records('variations')) == 16
    assert again.generation(-1).t == 3 and again.generation(0).release is None and again.generation(2).epsilon == pytest.approx(again.ledger.spent()[1])
    assert 'NOT FOR RELEASE' in repr(again) and again._repr_html_().startswith('<p')
    with pytest.raises(IndexError, match='must be a generation on disk'): again.generation(7)
    with pytest.raises(ValueError, match='which'): again.records('best')
    assert {p: p.stat().st_mtime_ns for p in r.folder.rglob('*')} == before
    assert len(again.records('one_variation')) == 8 and again.records('selected', 0) == again.generation(0).records
    dropped = go(tmp_path/'s')
    g, old = dropped.generation(-1), dropped.generation(-2)
    assert dropped.records('selected') == old.records[g.parents] and dropped.records('one_variation') == g.records
    with pytest.raises(ValueError, match='this population has none'): dropped.records('variations', 0)

@pytest.mark.parametrize('how', ['parquet', 'csv', 'datasets', 'images'])
def test_export_holds_the_data_alone(tmp_path, how):
    r = words_run(tmp_path/'r') if how == 'csv' else go(tmp_path/'r')
    out = r.export(tmp_path/'out', how)
    card = (out/'README.md').read_text(encoding='utf-8')
    for word in ('differential privacy', 'add_remove', 'delta', 'releases', 'NOT FOR RELEASE', 'Assumed public', 'bias', 'duplicated', 'Do not take one for an observation'):
        assert word in card or word in card.replace('(4, 0.001)-differential privacy', 'differential privacy'), word
    names = {p.name for p in out.rglob('*')}
    assert not any(w in n for n in names for w in ('release', 'vote', 'parent', 'metric', 'generation'))
    if how == 'parquet':
        import pyarrow.parquet as pq
        assert not [c for c in pq.read_table(out/'data.parquet').column_names if 'pe_' in c or 'parent' in c]

def test_export_refuses(tmp_path):
    r = go(tmp_path/'r')
    for how, message in (('xml', 'how'), ('csv', 'images take')):
        with pytest.raises(ValueError, match=message): r.export(tmp_path/'o', how)
    with pytest.raises(ValueError, match='kind image'): words_run(tmp_path/'w').export(tmp_path/'o', 'images')
    with pytest.raises(ValueError, match='new or empty'): r.export(tmp_path/'r')
    assert not (tmp_path/'o').exists()

def test_export_without_datasets_says_what_to_install(tmp_path, monkeypatch):
    r = go(tmp_path/'r')
    monkeypatch.setitem(sys.modules, 'datasets', None)
    with pytest.raises(ImportError, match=r"pip install 'pe_nb\[images\]'"): r.export(tmp_path/'o', 'datasets')
    assert not (tmp_path/'o').exists()

def test_one_number_is_one_setting(tmp_path):
    "4 and 4.0 are the same budget, 6 and 6.0 the same degree."
    with pytest.raises(ConnectionError): go(tmp_path/'r', generator=Mortal(2), budget=Budget(epsilon=4, delta=1e-3), degree=6, threshold=1)
    assert go(tmp_path/'r', degree=6., threshold=1.).finished

def test_a_last_digit_of_calibration_does_not_end_a_run(tmp_path, monkeypatch):
    import pe_nb.release as release
    with pytest.raises(ConnectionError): go(tmp_path/'r', generator=Mortal(2))
    release._calibrate.cache_clear()
    real = release.calibrate
    monkeypatch.setattr(release, 'calibrate', lambda *a, **k: float(np.nextafter(real(*a, **k), 9e9)))
    try: assert go(tmp_path/'r').finished
    finally: release._calibrate.cache_clear()

def test_a_folder_without_run_json_is_not_taken_over(tmp_path):
    with pytest.raises(ConnectionError): go(tmp_path/'r', generator=Mortal(1))
    (tmp_path/'r'/'run.json').unlink()
    with pytest.raises(ValueError, match='must be empty or hold a run'): go(tmp_path/'r', seed=99)

def test_private_and_synthetic_kinds_must_agree(tmp_path):
    "Before the private embedding is computed, so that no private text reaches an error message."
    with pytest.raises(ValueError, match='of the kind of the private ones'): go(tmp_path/'r', Records.texts(['secret']*4, [0, 1, 0, 1], ('a', 'b')))

def test_watchers_are_checked_and_kept(tmp_path):
    for bad in (5, [1]):
        with pytest.raises(TypeError, match='watchers'): go(tmp_path/'r', watchers=bad)
    assert len([m for m in go(tmp_path/'r', watchers=(w for w in [mean])).metrics if m['metric'] == 'mean']) == 4

def test_report_survives_odd_names(tmp_path):
    assert 'frac' in (go(tmp_path/'r', report=True, watchers=[lambda g: {r'a $\frac$': Covered(1.)}]).folder/'report.html').read_text()

def test_duplicates_with_missing_values_are_found():
    import pandas as pd
    schema = Schema((Column('f', 'float', low=0., high=1., nullable=True), Column('i', 'integer', low=0, high=9, nullable=True)))
    d = Records.table(pd.DataFrame({'f': [np.nan]*5, 'i': pd.array([None]*5, 'Int64')}), schema)
    with pytest.warns(UserWarning, match='OWNER ONLY'): assert check_duplicates(d, Settings(**BASE), BUDGET)['largest'] == 5

def test_an_empty_run_says_so(tmp_path):
    class Broken(Points):
        def random(self, *a): raise ConnectionError
    with pytest.raises(ConnectionError): go(tmp_path/'r', generator=Broken())
    with pytest.raises(IndexError, match='before the first one was written'): Run(tmp_path/'r').records()

def test_statement_follows_the_releases_not_the_plan(tmp_path):
    with pytest.raises(ConnectionError): go(tmp_path/'r', generator=Mortal(2))
    s = Run(tmp_path/'r').statement
    assert s['releases'] == 2 and s['planned_releases'] == 3 and 0 < s['epsilon'] < 4

def test_differences_are_readable():
    assert differences({'a': [1, {'b': 2}], 'c': 1}, {'a': [1, {'b': 3}], 'd': 1}) == ['a[1].b was 2, is 3', 'c was 1, is None', 'd was None, is 1']
    assert differences([1], [1, 2], 'x') == ['x had 1 entries, has 2']
