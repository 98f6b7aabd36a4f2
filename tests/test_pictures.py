"""Pictures of runs: what they show is released and right, whatever the labels, sizes and settings; files are whole and stay where they belong."""
import subprocess, sys
from types import SimpleNamespace
import numpy as np
import pytest
from hypothesis import given, settings as hypo, strategies as st
from pe_nb.evolution import Settings
from pe_nb.listings import family_list, voted_list
from pe_nb.pictures import album, ancestors, curves, extremes, family, grid, lookahead, places, thinned, voted, votes_on
from pe_nb.records import Column, Records, Schema
from pe_nb.release import Budget, SeededNoise
from pe_nb.runs import Covered, Run, synthesize
from pe_nb.sheets import Picture, drawable, fitted, strip

HOSTILE = ('../../x', r'$\frac$', 'a\nb', '名前 😀', '', '..', 'a/b', 'a?b', 'CON', 'ordinary')
BUDGET = Budget(epsilon=4., delta=1e-3)

class Dots:
    "One-colour images of any shape; the colour is what varies."
    def __init__(self, label_names=('a', 'b'), shape=(2, 3, 1), say='Dots'): self.label_names, self.shape, self.fingerprint, self.asked = tuple(label_names), shape, f'{say} {{"shape": {list(shape)}}}', []
    def make(self, v, labels):
        x = np.clip(np.rint(v), 0, 255).astype(np.uint8)
        return Records.images(np.broadcast_to(x[:, None, None, None], (len(x), *self.shape)).copy(), labels, self.label_names)
    def random(self, labels, rng): return self.make(rng.uniform(0, 255, len(labels)), labels)
    def vary(self, parents, degree, rng):
        self.asked.append(self.make(parents.data.reshape(len(parents), -1)[:, 0] + rng.normal(0, degree, len(parents)), parents.labels))
        return self.asked[-1]

class Level:
    fingerprint = 'Level()'
    def __call__(self, r): return r.data.reshape(len(r), -1)[:, :1].astype(np.float32)

def private_of(gen, n=60, seed=0):
    rng = np.random.default_rng(seed)
    return gen.make(rng.normal(90, 20, n), np.arange(n) % len(gen.label_names))

def go(folder, gen=None, private=None, noise=None, budget=BUDGET, watchers=(), clients=None, **kw):
    gen = gen or Dots()
    s = Settings(**{**dict(generations=3, samples=10, degree=6., seed=4), **kw})
    return synthesize(private_of(gen) if private is None else private, gen, Level(), s, budget, folder, noise=noise or SeededNoise(7), report=False, watchers=watchers, clients=clients)

def texts(picture): return [t.get_text() for a in picture.figure.axes for t in a.texts]
def shown_votes(picture): return [t for t in texts(picture) if t[:1] in '+-' and t[1:].replace('.', '', 1).isdigit()]
def drawn(picture): return len(picture.ax.images)
def image_bytes(p): return p._repr_png_()

@pytest.fixture(scope='module')
def kept(tmp_path_factory):
    "A run whose parents stay, with variations of random records, lookahead and a private number."
    gen = Dots()
    run = go(tmp_path_factory.mktemp('kept')/'run', gen, keep_parents=True, folds=2, initial_folds=1, lookahead=3, watchers=[lambda g: {'mean': Covered(g.records.data.mean()), 'secret': 7.25 + g.t}])
    return SimpleNamespace(run=run, gen=gen)

# ------------------------------------------------------------------ released values only

class Blind:
    "Noise that forgets the votes: what comes out cannot depend on them."
    name, secure = 'blind', False
    def __call__(self, counts, scale, index): return np.random.default_rng(index).integers(-5, 20, len(counts))

def test_nothing_private_is_drawn(tmp_path):
    "With noise that ignores the votes, unrelated private data sets give the same pictures."
    gen = Dots()
    a, b = (go(tmp_path/n/'run', gen, d, Blind(), watchers=[lambda g: {'mean': Covered(g.records.data.mean())}], lookahead=2)
            for n, d in (('a', private_of(gen)), ('b', private_of(gen, 7, 3))))
    for f in (grid, family, voted, curves): assert image_bytes(f(a)) == image_bytes(f(b)), f.__name__
    assert image_bytes(voted(a, generator=gen)) == image_bytes(voted(b, generator=gen))

def test_votes_are_the_released_ones(tmp_path):
    "All votes of a label are drawn, in order, and they are those of the release, not the clean ones."
    clean = []
    class Spy(SeededNoise):
        def __call__(self, counts, scale, index): clean.append(counts.copy()); return super().__call__(counts, scale, index)
    run = go(tmp_path/'run', noise=Spy(7))
    for t in range(3):
        g, votes = run.generation(t), run.ledger.releases[t].votes
        here = votes[g.records.labels == 1]
        want = sorted(here, reverse=True)
        assert shown_votes(voted(run, 5, t, 'b')) == [f'{v:+.0f}' for v in want]
        assert shown_votes(voted(run, 2, t, 'b')) == [f'{v:+.0f}' for v in want[:2] + want[::-1][:2]]
        assert sorted(clean[t][g.records.labels == 1]) != sorted(here)
    assert image_bytes(voted(run)) == image_bytes(voted(run, t=2)) and votes_on(run, 3) is None

def test_private_numbers_are_the_owners(kept, tmp_path):
    run = kept.run
    shown, owners = curves(run), curves(run, owner=True)
    assert not shown.private and owners.private and '10.2' in texts(owners) and '10.2' not in texts(shown)
    assert any('NOT PRIVATE' in t for t in texts(owners)) and not any('NOT PRIVATE' in t or 'secret' in t for t in texts(shown))
    assert any('secret * not private' == a.get_title(loc='left') for a in owners.figure.axes)
    with pytest.raises(ValueError, match='touched real data: owner=True draws it'): curves(run, 'secret')
    with pytest.raises(ValueError, match='noted were epsilon, mean'): curves(run, 'fid')
    for bad in (run.folder/'c.png', run.folder/'pictures'/'c.png', run.folder/'not_private'/'..'/'c.png'):
        with pytest.raises(ValueError, match='must be below not_private/'): owners.save(bad)
    assert not (run.folder/'c.png').exists()
    assert owners.save(tmp_path/'mine.png').exists() and owners.save(run.folder/'not_private'/'c.png').exists()
    assert curves({'one': run, 'two': run}, owner=True).private

# ------------------------------------------------------------------ family

@pytest.mark.parametrize('kw', [{}, dict(keep_parents=True, folds=2), dict(initial_folds=2), dict(keep_parents=[False, True, False, True], initial_folds=1, folds=[1, 2, 1, 1])], ids=str)
def test_ancestors_are_those_of_the_generations(tmp_path, kw):
    run = go(tmp_path/'run', **kw)
    last, gs = run.generation(-1), [run.generation(t) for t in range(4)]
    levels = ancestors(run, np.arange(len(last.records)))
    assert len(levels) == 4 + bool(kw.get('initial_folds')) and levels[-1].votes is None
    for i in range(len(last.records)):
        row = i
        for g, level in zip(gs[::-1], levels[::-1]):
            assert level.rows[i] == row and level.records[[i]] == g.records[[row]]
            if g.t < 3: assert level.votes[i] == run.ledger.releases[g.t].votes[row]
            if g.t and level.stayed[i]: assert np.array_equal(gs[g.t - 1].records.data[g.parents[row]], g.records.data[row])
            assert level.stayed[i] == (g.folds[row] == -1 and (g.t > 0 or len(levels) == 5))
            if g.t: row = g.parents[row]
        if len(levels) == 5: assert levels[0].rows[i] == (gs[0].parents[row] if gs[0].parents[row] >= 0 else row) and gs[0].parents[levels[0].rows[i]] == -1

@hypo(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_trees_are_drawn_without_collisions(depth, n, seed):
    "Different records of one level are a line apart, and the order never changes, so no two lines cross."
    rng = np.random.default_rng(seed)
    label_of_root, rows = rng.integers(0, 3, 4), [rng.integers(0, 4, n)]
    for _ in range(depth):
        size, up = 8, None
        children = {p: rng.permutation(size)[:3] + 10*p for p in np.unique(rows[-1])}
        up = np.array([rng.choice(children[p]) for p in rows[-1]])
        rows.append(up)
    labels = label_of_root[rows[0]]
    lines = places([SimpleNamespace(rows=r, records=SimpleNamespace(labels=labels)) for r in rows])
    for r, y in zip(rows, lines):
        heights = [y[r == v] for v in np.unique(r)]
        assert all((h == h[0]).all() for h in heights) and all(np.isclose(y[r == v], lines[-1][r == v].mean()).all() for v in np.unique(r))
        tops = sorted(h[0] for h in heights)
        if r is not rows[-1]: assert all(b - a >= 1 - 1e-9 for a, b in zip(tops, tops[1:]))
    order = np.argsort(lines[-1], kind='stable')
    assert all((np.diff(y[order]) >= -1e-9).all() for y in lines)

def test_thinned_levels_remember_who_stayed(kept):
    levels = ancestors(kept.run, np.arange(30))
    two = thinned(levels, 2)
    assert [l.t for l in two] == [0, 3] and np.array_equal(two[1].stayed, np.all([l.stayed for l in levels[1:]], 0))
    assert [l.heading for l in thinned(levels, 9)] == [l.heading for l in levels] and all(np.array_equal(a.stayed, b.stayed) for a, b in zip(thinned(levels, 9), levels))

def test_family_draws_every_ancestor_once(kept):
    levels = ancestors(kept.run, [0, 7, 12, 29])
    assert drawn(family(kept.run, rows=[29, 0, 7, 12])) == sum(len(np.unique(l.rows)) for l in levels)
    p = family(kept.run, rows=[0])
    said = [t.split('\n') for t in texts(p) if t.startswith('generation')]
    assert [a for a, _ in said] == ['generation 0', 'generation 0', 'generation 1', 'generation 2', 'generation 3'] and [b for _, b in said][:2] == ['random', 'epsilon 0']
    assert sum(t.startswith('generation') for t in texts(family(kept.run, rows=[0], most=2))) == 2
    for bad in ([], [30], [-1], [.5]):
        with pytest.raises(ValueError, match='must be rows of the last population, 0 to 29'): family(kept.run, rows=bad)

# ------------------------------------------------------------------ votes and lookahead

@hypo(max_examples=100, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=0, max_size=12), st.integers(1, 8), st.integers(0, 99))
def test_extremes(votes, m, seed):
    votes = np.array(votes, np.float64)
    here = np.flatnonzero(np.random.default_rng(seed).random(len(votes)) < .7)
    top, low = extremes(votes, here, m)
    assert len(top) == min(m, len(here)) and len(low) == min(m, len(here) - len(top)) and not set(top) & set(low) and {*top, *low} <= set(here)
    rest = [i for i in here if i not in top]
    assert list(votes[top]) == sorted(votes[here], reverse=True)[:m] and list(votes[low]) == sorted(votes[rest])[:m]

@pytest.mark.parametrize('kw', [dict(lookahead=3), dict(lookahead=2, lookahead_self=True, keep_parents=True, initial_folds=1), dict(lookahead=[0, 2, 0, 1], degree=[9., 6., 4., 2.], proportions='private')], ids=str)
def test_lookahead_is_that_of_the_run(tmp_path, kw):
    "The variations made again are, bit for bit, those that the run asked the generator for."
    gen = Dots()
    run, calls = go(tmp_path/'run', gen, **kw), list(gen.asked)
    at, counts, s = kw.get('initial_folds', 0), kw['lookahead'], Settings(generations=3, samples=10)
    for t in range(3):
        n = counts[t + 1] if isinstance(counts, list) else counts
        again = lookahead(Run(run.folder), t, np.arange(len(run.generation(t).records)), Dots())
        assert len(again) == n and all(a == b for a, b in zip(again, calls[at:at + n]))
        if n: assert lookahead(run, t, [3, 1], Dots())[0] == calls[at][[3, 1]]
        at += n + s.folds
    assert at == len(calls)

def test_lookahead_needs_the_generator_of_the_run(kept):
    with pytest.raises(ValueError, match=r"must be that of the run: class was 'Dots', is 'Spots'"): voted(kept.run, generator=Dots(say='Spots'))
    with pytest.raises(ValueError, match='must be that of the run: shape was'): lookahead(kept.run, 0, [0], Dots(shape=(3, 3, 1)))
    with pytest.raises(ValueError, match='label_names'): lookahead(kept.run, 0, [0], Dots(('x', 'y')))
    with pytest.raises(TypeError, match='method vary'): lookahead(kept.run, 0, [0], object())

def test_voted_draws_the_variations(kept):
    with_them, without = voted(kept.run, 2, generator=kept.gen), voted(kept.run, 2)
    assert drawn(without) == 2*2*2 and drawn(with_them) == drawn(without)*4 and drawn(voted(kept.run, 2, generator=kept.gen, most=1)) == drawn(without)*2
    assert shown_votes(without) == shown_votes(with_them)
    foot = ' '.join(texts(without))
    assert 'mean of 3 variations of it' in foot and 'not stored' in foot and '1 of them stand' in ' '.join(texts(voted(kept.run, 2, generator=kept.gen, most=1)))
    with pytest.raises(ValueError, match='t .3. must be a generation that was voted on, 0 to 2'): voted(kept.run, t=3)

# ------------------------------------------------------------------ grid

def test_grid_draws_the_samples(kept):
    run = kept.run
    assert drawn(grid(run)) == 4*2 and drawn(grid(run, generations=2)) == 2 and drawn(grid(run, generations=[0, -1], labels='b')) == 2
    assert image_bytes(grid(run, generations=-1)) == image_bytes(grid(run, generations=3)) and image_bytes(grid(run)) != image_bytes(grid(run, seed=1))
    x = grid(run, 30, generations=3, labels='a', size=.03).ax.images[0].get_array()
    h, w = run.records().data.shape[1:3]
    cells = np.asarray(x)[:, ::w + 1][0]
    want = run.records().data[run.records().labels == 0][:, 0, 0, 0]
    assert x.shape == (h, 15*(w + 1) - 1) and list(cells) == list(want)
    for bad in (4, -5):
        with pytest.raises(IndexError, match='must be a generation on disk'): grid(run, generations=bad)

@pytest.mark.parametrize('name, bad', [('per_label', 0), ('per_label', 2.5), ('most', True), ('most_labels', -1), ('size', 0), ('size', float('nan')), ('size', 'x')])
def test_bad_sizes_are_named(kept, name, bad):
    with pytest.raises(ValueError, match=rf'{name} \(.*\) must be'): grid(kept.run, **{name: bad})
    if name != 'per_label':
        with pytest.raises(ValueError, match=rf'{name} \(.*\) must be'): voted(kept.run, **{name: bad})
    with pytest.raises(ValueError, match=rf'{name} \(.*\) must be'): family(kept.run, **{name: bad})

# ------------------------------------------------------------------ texts and tables

SAID = ['<script>alert(1)</script>', '${x}', '{}', 'naïve\nline', '', '名前 😀', 'plain', '"quoted" & more']

class Words:
    label_names, fingerprint = ('<b>x</b>', '../y'), 'Words()'
    def make(self, i, labels): return Records.texts([SAID[j] for j in i], labels, self.label_names, extra={'i': i})
    def random(self, labels, rng): return self.make(rng.integers(0, len(SAID), len(labels)), labels)
    def vary(self, parents, degree, rng): return self.make((parents.extra['i'] + rng.integers(0, 3, len(parents))) % len(SAID), parents.labels)

class Lengths:
    fingerprint = 'Lengths()'
    def __call__(self, r): return np.array([[len(t), len(t.encode())] for t in r.data.tolist()], np.float32).reshape(len(r), 2)

def words_run(folder, **kw):
    return synthesize(Words().make(np.arange(40) % 8, np.arange(40) % 2), Words(), Lengths(), Settings(**{**dict(generations=2, samples=12, seed=2, lookahead=2, keep_parents=True), **kw}), BUDGET, folder, noise=SeededNoise(1), report=False)

def test_texts_are_listed_by_their_released_votes(tmp_path):
    run = words_run(tmp_path/'r')
    g, votes = run.generation(1), votes_on(run, 1)
    page, here = voted_list(run, 2, labels='../y'), np.flatnonzero(g.records.labels == 1)
    order = here[np.argsort(-votes[here], kind='stable')]
    want = [('most', i) for i in order[:2]] + [('least', i) for i in order[::-1][:2]]
    assert page.rows == [('../y', side, f'{votes[i]:+.0f}', g.records.data[i]) for side, i in want]
    ahead = voted_list(run, 2, labels='../y', generator=Words())
    again = lookahead(run, 1, [i for _, i in want], Words())
    assert [r[4:] for r in ahead.rows] == [(again[0].data[n], again[1].data[n]) for n in range(4)] and [r[:4] for r in ahead.rows] == page.rows
    with pytest.raises(ValueError, match='must be that of the run'): voted_list(run, generator=type('Other', (Words,), dict(fingerprint='Other()'))())
    whole = voted_list(run, 20)
    for p in (whole, family_list(run, [0, 23])):
        assert '<script>' not in p._repr_html_() and '<b>x' not in p._repr_html_() and 'differential privacy' in p._repr_html_()
    assert len(whole.rows) == len(g.records) and whole.save(tmp_path/'x'/'p.html').read_text(encoding='utf-8').endswith(whole.html)
    with pytest.raises(ValueError, match='must end in .html'): whole.save(tmp_path/'p.txt')

def test_families_of_texts(tmp_path):
    run = words_run(tmp_path/'r', initial_folds=1)
    levels, page = ancestors(run, [3, 20]), family_list(run, [3, 20])
    assert [r[4] for r in page.rows] == [l.records.data[i] for i in range(2) for l in levels] and len(levels) == 4
    assert [r[3] == 'kept as it was' for r in page.rows] == [bool(l.stayed[i]) for i in range(2) for l in levels]
    assert [r[2] for r in page.rows] == ['' if l.votes is None else f'{l.votes[i]:+.0f}' for i in range(2) for l in levels]
    for bad in ([], [24], [-1], [.5], [[1]], 3):
        with pytest.raises(ValueError, match='must be rows of the last population, 0 to 23'): family_list(run, bad)

def test_rows_of_tables_are_listed(tmp_path):
    import pandas as pd
    schema = Schema((Column('colour', 'categorical', categories=('red', 'blue')), Column('size', 'integer', low=0, high=9, nullable=True)))
    class Rows:
        label_names, fingerprint = ('no', 'yes'), 'Rows()'
        def make(self, s, labels): return Records.table(pd.DataFrame({'colour': np.array(['red', 'blue'])[s % 2], 'size': pd.array([None if v == 9 else v for v in s.tolist()], 'Int64')}), schema, labels, self.label_names)
        def random(self, labels, rng): return self.make(rng.integers(0, 10, len(labels)), labels)
        def vary(self, parents, degree, rng): return self.make(parents.data['size'].fillna(9).to_numpy(int), parents.labels)
    class Sizes:
        fingerprint = 'Sizes()'
        def __call__(self, r): return r.data['size'].fillna(9).to_numpy(np.float32)[:, None]
    run = synthesize(Rows().make(np.arange(30) % 10, np.arange(30) % 2), Rows(), Sizes(), Settings(generations=1, samples=20), BUDGET, tmp_path/'t', noise=SeededNoise(1), report=False)
    cells = {r[3] for r in voted_list(run, 10).rows}
    assert cells == {f"colour: {c}; size: {'' if gone else s}" for c, s, gone in zip(*(run.generation(0).records.data[k].tolist() for k in ('colour', 'size')), run.generation(0).records.data['size'].isna())}
    assert len(family_list(run).rows) == 2

def test_listings_refuse_images(kept):
    for f in (voted_list, family_list):
        with pytest.raises(ValueError, match='must be a run on texts or tables'): f(kept.run)

# ------------------------------------------------------------------ any image, any label, any run

@pytest.mark.parametrize('shape', [(1, 1, 1), (8, 8, 2), (28, 20, 3), (5, 60, 4), (300, 200, 3), (130, 130, 1)], ids=str)
def test_any_image(tmp_path, shape):
    gen = Dots(shape=shape)
    run = go(tmp_path/'run', gen, generations=1, samples=4, lookahead=1)
    for p in (grid(run, 2), family(run, 1), voted(run, 1), voted(run, 1, generator=gen)):
        assert image_bytes(p)[:4] == b'\x89PNG' and p.width < 9 and p.height < 6 and drawn(p)
    small, inch = fitted(run.records().data, .4)
    assert max(small.shape[1:3]) <= 80 and .25 < inch*max(small.shape[1:3]) <= .55 and small.shape[3] == shape[2]
    assert strip(run.records().data[:3], 3, .4)[0].shape[0] == small.shape[1]

def test_hundreds_of_labels_are_bounded(tmp_path):
    names = [f'class {i} of many, with a long name' for i in range(300)]
    run = go(tmp_path/'run', Dots(names), generations=1, samples=300)
    for p in (grid(run), family(run), voted(run)):
        assert p.width < 12 and p.height < 16 and drawn(p) < 200
        assert any('of 300 labels are shown' in t for t in texts(p))
    assert drawn(grid(run, labels=names[250:252])) == 2*2
    assert len([p for p in album(run, most_labels=3) if p.name.startswith('voted-')]) == 3

def test_hostile_labels(tmp_path):
    "No label leads out of the folder, breaks a picture, or is read as a formula; warnings are errors here."
    run = go(tmp_path/'home'/'run', Dots(HOSTILE), generations=2, samples=30)
    files = album(run, tmp_path/'home'/'album')
    assert len(files) == 3 + len(HOSTILE) == len({f.name for f in files}) and all(f.parent == tmp_path/'home'/'album'/'pictures' for f in files)
    assert {p.relative_to(tmp_path).parts[0] for p in tmp_path.rglob('*.png')} == {'home'}
    assert set(texts(grid(run))) >= {r'$\frac$', '../../x', 'a b', drawable(HOSTILE[3])} and '名' not in drawable(HOSTILE[3]) and drawable('x'*50, 10) == 'xxxxxxxxx…'
    with pytest.raises(ValueError, match='must be among the 10 label names'): grid(run, labels=['nobody'])

def test_album_keeps_private_numbers_apart(kept, tmp_path):
    files = album(kept.run, tmp_path/'album', generator=kept.gen, kind='pdf')
    assert [f.relative_to(tmp_path/'album').as_posix() for f in files] == ['pictures/grid.pdf', 'pictures/family.pdf', 'pictures/curves.pdf', 'pictures/voted-0-a.pdf', 'pictures/voted-1-b.pdf', 'not_private/curves.pdf']
    assert all(f.read_bytes()[:5] == b'%PDF-' for f in files) and not list(tmp_path.rglob('.tmp-*'))

@pytest.mark.parametrize('kw', [dict(proportions='private', initial_folds=1), dict(budget=Budget(epsilon=np.inf, delta=1e-3, non_private=True)),
                                dict(budget=Budget(epsilon=4., delta=1e-3, unit='client'), clients=np.arange(60) // 2)], ids=['label shares', 'no noise', 'clients'])
def test_any_budget(tmp_path, kw):
    run = go(tmp_path/'run', **kw)
    for f in (grid, family, voted, curves): assert image_bytes(f(run))
    said = ' '.join(texts(voted(run)))
    if 'clients' in kw: assert all('.' in v for v in shown_votes(voted(run))) and 'all records of one client' in said
    if kw.get('budget', BUDGET).non_private: assert 'no privacy' in said and 'NOT PRIVATE: no noise' in said

def test_unfinished_and_public_runs(tmp_path):
    class Mortal(Dots):
        def vary(self, *a): raise ConnectionError
    with pytest.raises(ConnectionError): go(tmp_path/'r', Mortal())
    run = Run(tmp_path/'r')
    assert run.last == 0 and drawn(grid(run)) == 2 and drawn(family(run)) == 6 and len(shown_votes(voted(run))) == 10
    public = synthesize(private_of(Dots()), Dots(), Level(), Settings(generations=0, samples=10, public_only=True), BUDGET, tmp_path/'p', noise=SeededNoise(1), report=False)
    assert drawn(grid(public)) == 2 and image_bytes(family(public)) and len(album(public)) == 3
    with pytest.raises(ValueError, match='must have released votes'): voted(public)
    class Broken(Dots):
        def random(self, *a): raise ConnectionError
    with pytest.raises(ConnectionError): go(tmp_path/'e', Broken())
    for f in (grid, family, voted, album):
        with pytest.raises(ValueError, match='must have a generation'): f(Run(tmp_path/'e'))
    with pytest.raises(ValueError, match='must have something to draw'): curves(Run(tmp_path/'e'))

def test_a_label_without_records(tmp_path):
    "Private label shares can leave a label with none: its row stays empty."
    gen = Dots(('a', 'b', 'gone'))
    run = go(tmp_path/'run', gen, gen.make(np.full(60, 90.), np.arange(60) % 2), proportions='private', budget=Budget(epsilon=60., delta=1e-3))
    assert (run.records().labels != 2).all()
    for f in (grid, family, voted): assert image_bytes(f(run))
    assert 'no records' in texts(voted(run))

def test_other_kinds_are_refused(tmp_path):
    run = words_run(tmp_path/'w')
    for f in (grid, family, voted, album):
        with pytest.raises(ValueError, match=r'run \(text\) must be a run on images; pe_nb.listings'): f(run)
    assert image_bytes(curves(run))

# ------------------------------------------------------------------ curves

def test_curves_are_the_noted_numbers(kept):
    p = curves(kept.run, ['epsilon', 'secret'], owner=True)
    lines = {a.get_title(loc='left').split(' *')[0]: a.lines[0].get_xydata() for a in p.figure.axes if a.lines}
    assert np.array_equal(lines['secret'], [[t, 7.25 + t] for t in range(4)]) and np.allclose(lines['epsilon'], [[t, kept.run.epsilon(t)] for t in range(4)])
    against = curves({'one': kept.run, 'two': kept.run}, 'mean', against='epsilon').figure.axes[1]
    assert len(against.lines) == 2 and np.allclose(against.lines[0].get_xdata(), [kept.run.epsilon(t) for t in range(4)])
    with pytest.raises(ValueError, match="against .'time'. must be"): curves(kept.run, against='time')
    with pytest.raises(ValueError, match='columns'): curves(kept.run, columns=0)

def test_odd_numbers_and_names(tmp_path):
    run = go(tmp_path/'run', watchers=[lambda g: {r'a $\frac$ 名': Covered(float('nan') if g.t == 1 else np.inf if g.t == 2 else g.t), 'never': Covered(np.nan)}])
    p = curves(run)
    assert image_bytes(p) and [len(a.lines) for a in p.figure.axes[1:]] == [1, 0, 1]

# ------------------------------------------------------------------ files

def test_saved_whole_and_the_same(kept, tmp_path, monkeypatch):
    p = grid(kept.run)
    for kind in ('png', 'pdf'):
        path = p.save(tmp_path/'new'/f'a.{kind}')
        before = path.read_bytes()
        assert grid(Run(kept.run.folder)).save(path).read_bytes() == before
        def broken(self, path, **kw):
            path.write_bytes(b'half')
            raise OSError('disk full')
        with monkeypatch.context() as m:
            m.setattr(type(p.figure), 'savefig', broken)
            with pytest.raises(OSError, match='disk full'): p.save(path)
        assert path.read_bytes() == before
    for bad in ('a.jpg', 'a'):
        with pytest.raises(ValueError, match='must end in .png or .pdf'): p.save(tmp_path/bad)
    assert repr(p).startswith('Picture(') and isinstance(p, Picture)

def test_pyplot_is_left_alone(kept):
    code = f"""
import sys
from pe_nb.runs import Run
from pe_nb.pictures import curves, family, grid, voted
for f in (grid, family, voted, curves): f(Run({str(kept.run.folder)!r}))._repr_png_()
print('matplotlib.pyplot' in sys.modules)
"""
    run = subprocess.run([sys.executable, '-W', 'error', '-c', code], capture_output=True, text=True)
    assert run.stdout.strip() == 'False', run.stderr

def test_drawing_writes_nothing(kept):
    before = {p: p.stat().st_mtime_ns for p in kept.run.folder.rglob('*')}
    for f in (grid, family, voted, curves): f(kept.run)._repr_png_()
    assert {p: p.stat().st_mtime_ns for p in kept.run.folder.rglob('*')} == before
