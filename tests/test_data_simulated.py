"Simulated tables: parity, balance, bounds by construction, slow second implementations, and how hard they are."
import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from pe_nb.data import simulated
from pe_nb.data.simulated import ACTIVATIONS, PRIORS, WORLDS, causal_rows, nn_prior, random_graph, rff_prior, scm, tree_prior, xor
from pe_nb.data.tables import split
from pe_nb.generators.tables import Tables


# ---- XOR ----

@pytest.mark.parametrize('d', range(1, 8))
@pytest.mark.parametrize('n', [1, 2, 7, 4000])
def test_xor_is_the_papers_definition(d, n):
    r = xor(d, n, seed=3)
    x = r.data.to_numpy()
    assert len(r) == n and r.schema.names == tuple(f'x{i}' for i in range(1, d + 1)) and r.label_names == ('0',
        '1') and r.schema.label_columns == ('y',)
    assert [int(sum(v > 0 for v in row) % 2 == 1) for row in x] == r.labels.tolist()
    assert r.label_counts.tolist() == [n - n//2, n//2] and (x != 0).all() and abs(x).max() <= 10
    assert {(c.kind, c.low, c.high, c.nullable) for c in r.schema.columns} == {('float', -10., 10., False)}


def test_xor_columns_are_uniform_and_any_two_of_three_are_independent_of_the_label():
    r = xor(3, 40_000)
    x = r.data.to_numpy()
    for i in range(3): assert stats.kstest(x[:, i], stats.uniform(-10, 20).cdf).pvalue > 1e-4
    for i, j in itertools.combinations(range(3), 2):
        cells = np.zeros((4, 2))
        np.add.at(cells, (2*(x[:, i] > 0) + (x[:, j] > 0), r.labels), 1)
        assert stats.chi2_contingency(cells).pvalue > 1e-4                                   # the pair says nothing
        assert stats.spearmanr(x[:, i], x[:, j]).pvalue > 1e-4
        for label in (0, 1): assert stats.spearmanr(x[r.labels == label, i], x[r.labels == label, j]).pvalue > 1e-4
    assert stats.kstest(abs(x[:, 2]), abs(x[:, 0])).pvalue > 1e-4     # the column whose sign was set is like the others
    assert abs(np.corrcoef(np.arange(len(r)), r.labels)[0, 1]) < .02
    assert abs((r.labels[1:] == r.labels[:-1]).mean() - .5) < .02     # labels come in no order


def test_xor_default_is_the_papers_size_and_seeds_differ():
    r = xor(2)
    assert len(r) == 50_000 and [len(p) for p in split(r)] == [35_000, 7500, 7500]
    assert xor(2, 100) == xor(2, 100) and xor(2, 100, 1) != xor(2, 100, 2)
    assert not np.isin(xor(2, 100).data.to_numpy(), xor(3, 100).data.to_numpy()).any()


@pytest.mark.parametrize('kw,text', [(dict(d=0), 'd'), (dict(d=2.), 'd'), (dict(d=True), 'd'), (dict(d=2, n=-1), 'n'),
    (dict(d=2, n='5'), 'n'), (dict(d=2, seed=-1), 'seed'), (dict(d=2, seed=.5), 'seed')])
def test_xor_refuses(kw, text):
    with pytest.raises(ValueError, match=f'^{text} .* must be an integer of at least'): xor(**kw)


def test_no_rows():
    assert len(xor(2, 0)) == 0 and len(scm('nn', 0)) == 0


# ---- graphs ----

@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('d', [1, 2, 7, 20])
def test_graph_has_no_circle_and_rows_lie_in_bounds(d, seed):
    g = random_graph(d, np.random.default_rng(seed))
    assert len(g.parents) == len(g.weights) == len(g.activations) == 2*d and len(set(g.seen)) == len(g.seen) == d
    for j, (p, w) in enumerate(zip(g.parents, g.weights)): assert len(p) == len(w) == len(set(p.tolist())) <= 3 and all(i < j for i in p)
    x = causal_rows(g, 500, np.random.default_rng(0))
    assert x.shape == (500, d) and abs(x).max() <= 1 and x.std(0).min() > 0


def test_causal_rows_against_a_slow_version():
    g = random_graph(5, np.random.default_rng(2))
    x, rng = causal_rows(g, 50, np.random.default_rng(9)), np.random.default_rng(9)
    noise = [rng.standard_normal(50) for _ in g.parents]
    for row in range(50):
        v = []
        for j, (p, w, kind) in enumerate(zip(g.parents, g.weights, g.activations)):
            u = sum(v[i]*a for i, a in zip(p, w)) + g.noise*noise[j][row] if len(p) else noise[j][row]
            v.append(dict(tanh=np.tanh, sin=np.sin, bump=lambda u: 2*np.exp(-u**2) - 1)[kind](u))
        assert np.allclose(x[row], [v[j] for j in g.seen])


def test_activations_stay_within_bounds():
    u = np.concatenate([np.linspace(-1e3, 1e3, 10_001), [0, 1e100, -1e100]])
    for f in ACTIVATIONS.values(): assert abs(f(u)).max() <= 1


# ---- label functions ----

def test_tree_is_a_tree():
    "Each leaf is a box; a row's value is that of its box; both sides of each cut are used; against a walk row by row."
    ref = np.random.default_rng(0).uniform(-1, 1, (4000, 3))
    f = tree_prior(ref, np.random.default_rng(1), depth=4)
    v = f(ref)
    assert len(set(v)) == 16 and min(np.unique(v, return_counts=True)[1]) > 4000*.25**4/2
    for value in set(v):                                                                    # rows between two rows of a box are in the box
        box = ref[v == value]
        low, high = box.min(0), box.max(0)
        assert (f(np.random.default_rng(2).uniform(low, high, (200, 3))) == value).all()
    assert np.array_equal(f(ref[::-1]), v[::-1]) and np.array_equal(np.concatenate([f(r[None]) for r in ref[:50]]), v[:50])


def test_tree_grows_where_no_row_is():
    f = tree_prior(np.zeros((3, 2)), np.random.default_rng(0), depth=6)
    assert f(np.ones((2, 2))).shape == (2,) and len(set(f(np.random.default_rng(1).normal(size=(100, 2))))) > 1


@pytest.mark.parametrize('prior', [nn_prior, rff_prior])
def test_smooth_functions(prior):
    ref = np.random.default_rng(0).normal(3, 2, (2000, 4))
    f = prior(ref, np.random.default_rng(1))
    x = ref[:100]
    assert abs(f(x + 1e-7) - f(x)).max() < 1e-4 and f(x).std() > .05
    assert np.allclose(f(x), np.concatenate([f(r[None]) for r in x]))
    g = prior(ref*10 + 5, np.random.default_rng(1))                                         # units of the columns do not matter
    assert np.allclose(f(x), g(x*10 + 5))


def test_waves_have_the_length_that_was_asked_for():
    "Random Fourier features: covariance exp(-r^2 / (2 length^2)) times waves / 2."
    ref = np.random.default_rng(0).normal(size=(2000, 1))
    x = (np.array([[0.], [1.], [2.]])*ref.std() + ref.mean())
    v = np.array([rff_prior(ref, np.random.default_rng(s), 64, 1.5)(x) for s in range(1500)])
    want = 32*np.exp(-np.subtract.outer(np.arange(3), np.arange(3))**2/(2*1.5**2))
    assert abs(v.T@v/len(v) - want).max() < 4


# ---- the tables ----

@pytest.mark.parametrize('prior', PRIORS)
def test_scm_is_reproducible_and_known_by_its_world(prior):
    r = scm(prior, 2000)
    assert r == scm(prior, 2000, 0, WORLDS[prior]) and r != scm(prior, 2000, 1) and r != scm(prior, 2000, world=99)
    x = r.data.to_numpy()
    assert x.shape == (2000, PRIORS[prior][1]) and abs(x).max() <= 1 and {(c.low, c.high) for c in r.schema.columns} == {(-1., 1.)}
    assert abs(r.labels.mean() - .5) < .06 and r.schema.label_names == ('0', '1')
    rows = Tables(r.schema, r.label_names).random(np.zeros(10, np.int64), np.random.default_rng(0))
    assert rows.schema == r.schema                                                           # a generator can use it as it is


@pytest.mark.parametrize('prior', PRIORS)
def test_another_seed_draws_rows_of_the_same_world(prior):
    "The same function gives the labels: a classifier trained on the rows of one seed works on another's."
    a, b, other = scm(prior, 4000), scm(prior, 4000, 1), scm(prior, 4000, 0, 99)
    with threadpool_limits(1): m = HistGradientBoostingClassifier(random_state=0, max_iter=30).fit(a.data, a.labels)
    assert m.score(b.data, b.labels) > max(.6, m.score(other.data, other.labels) + .03)
    assert abs(a.data.mean() - b.data.mean()).max() < .06


@pytest.mark.parametrize('prior,bound,one', [('tree', .8141, .676), ('nn', .9658, .879), ('rff', .8112, .632)])
def test_tables_are_as_hard_as_the_papers(prior, bound, one):
    "Paper 4, Table 5 (upper bound) and Figure 13 (depth 1): within two and three points."
    train, _, test = split(scm(prior))
    with threadpool_limits(1):
        default = HistGradientBoostingClassifier(random_state=0, early_stopping=False).fit(train.data, train.labels).score(test.data,
            test.labels)
        single = HistGradientBoostingClassifier(random_state=0, early_stopping=False, max_depth=1).fit(train.data,
            train.labels).score(test.data, test.labels)
    assert abs(default - bound) < .02 and abs(single - one) < .03, (default, single)


@pytest.mark.parametrize('kw,text', [(dict(prior='gp'), "prior .* must be one of 'tree', 'nn', 'rff'"), (dict(prior=None), 'prior'),
    (dict(prior='nn', n=-1), 'n .* must be'),
                                     (dict(prior='nn', seed=1.5), 'seed .* must be'), (dict(prior='nn', world=-1), 'world .* must be'),
                                     (dict(prior='nn', world=True), 'world')])
def test_scm_refuses(kw, text):
    with pytest.raises(ValueError, match=text): scm(**kw)


def test_nothing_global_is_touched():
    before = np.random.get_state()[1].copy()
    xor(3, 50); scm('tree', 50)
    assert (np.random.get_state()[1] == before).all() and not hasattr(simulated, 'rng')
