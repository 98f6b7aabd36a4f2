"Votes against a brute-force oracle, the sensitivity as a property, and every way to take the fast path off its road."
import math, re, subprocess, sys, threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from pe_nb import voting
from pe_nb.release import Votes, reveal
from pe_nb.rows import unit_rows
from pe_nb.voting import GRID, lookahead_embedding, neighbours, pair_scores, vote, vote_labels

METRICS = ('l2', 'cosine', 'ip')
show = lambda votes: reveal(votes, public_data=True)

# The oracle: plain Python floats, one pair at a time, nothing shared with the module.

def halves(a):
    while len(a) > 1:
        h = len(a)//2
        a = [p + q for p, q in zip(a[:h], a[len(a) - h:])] + a[h:len(a) - h]
    return a[0]

def unit(a):
    length = math.sqrt(halves([v*v for v in a]))
    return [v/length for v in a] if length > 0 else a

def score(a, b, metric):
    if metric == 'ip': return -halves([p*q for p, q in zip(a, b)])
    return halves([(p - q)*(p - q) for p, q in zip(a, b)])

def oracle(x, s, xl, sl, k, metric):
    "List of the synthetic indices that each private record votes for, ascending."
    given = [[float(v) for v in np.float32(row)] for row in s]
    first = {}
    for j, (row, l) in enumerate(zip(given, sl)): first.setdefault((int(l), tuple(v + 0. for v in row)), j)
    ready = unit if metric == 'cosine' else lambda a: a
    own = {}
    for (l, _), j in first.items(): own.setdefault(l, []).append((j, ready(given[j])))
    out = []
    for row, l in zip(x, xl):
        a = ready([float(v) for v in np.float32(row)])
        out.append(sorted(j for _, j in sorted((score(a, b, metric), j) for j, b in own.get(int(l), []))[:k]))
    return out

def as_lists(near): return [[j for j in row if j >= 0] for row in near.tolist()]

# Awkward inputs, by name: private and synthetic embeddings.

def cases():
    r = np.random.default_rng(0)
    f = lambda a: np.asarray(a).astype(np.float32)
    g = lambda n, d: r.standard_normal((n, d))
    axes = np.r_[np.eye(40), -np.eye(40)]
    s16 = f(g(30, 16))
    tight = lambda n: f(1e4 + 1e-3*g(n, 768))
    clusters = lambda n: f(r.integers(0, 4, (n, 1))*50 + 1e-3*g(n, 24))
    return {
        'cloud': (f(g(50, 16)), s16),
        'one dimension': (f(g(60, 1)), f(g(40, 1))),
        'line of integers': (f(r.integers(-5, 6, (60, 1))), f(r.integers(-5, 6, (40, 1)))),
        'tight cluster far away': (tight(12), tight(20)),
        'tight clusters far apart': (clusters(50), clusters(40)),
        'bits': (f(r.integers(0, 2, (60, 6))), f(r.integers(0, 2, (50, 6)))),
        'the same vectors on both sides': (s16, s16),
        'copies of copies': (f(g(40, 8)), f(np.repeat(g(5, 8), 8, 0)[r.permutation(40)])),
        'all synthetic records equal': (f(g(20, 4)), np.ones((30, 4), 'f4')),
        'midpoints': (f((s16[:-1] + s16[1:])/2), s16),
        'huge': (f(1e25*g(40, 5)), f(1e25*g(30, 5))),
        'largest floats': (f(3.4e38*r.uniform(-1, 1, (30, 3))), f(3.4e38*r.uniform(-1, 1, (20, 3)))),
        'tiny': (f(1e-25*g(40, 5)), f(1e-25*g(30, 5))),
        'subnormal': (f(1e-43*g(40, 5)), f(1e-43*g(30, 5))),
        'private scale 1e20 above': (f(1e20*g(40, 6)), f(g(30, 6))),
        'private scale 1e20 below': (f(1e-20*g(40, 6)), f(g(30, 6))),
        'one synthetic outlier': (f(g(40, 6)), f(np.r_[1e18*np.ones((1, 6)), g(30, 6)])),
        'mixed scales': (f(g(40, 6)*10.**r.integers(-20, 18, (40, 1))), f(g(40, 6)*10.**r.integers(-20, 18, (40, 1)))),
        'zeros ask a cross-polytope': (np.zeros((70, 40), 'f4'), f(axes)),
        'zero vectors on both sides': (f(np.r_[np.zeros((3, 4)), g(20, 4)]), f(np.r_[g(10, 4), np.zeros((2, 4)), g(5, 4)])),
        'negative zeros': (f(g(20, 3)), f(np.r_[[[0, 1, 0], [-0., 1, -0.]], g(10, 3)])),
        'one synthetic record': (f(g(20, 3)), f(g(1, 3))),
        'one private record': (f(g(1, 16)), s16),
        'parallel vectors': (f(g(20, 4)), f(np.outer([1, 2, 3, 5, 7, 1/3], g(1, 4)))),
        'float16': (g(30, 7).astype('f2'), g(20, 7).astype('f2')),
        'float64': (g(30, 7), g(20, 7)),
    }
CASES = cases()

@pytest.fixture
def no_proof(monkeypatch):
    "No proof succeeds: the rule decides every pair."
    monkeypatch.setattr(voting._Scores, 'margin', lambda self, norm2: np.full(len(norm2), np.inf))

PATHS = {
    'as it comes': {}, 'float64 only': dict(tiers=('float64',)), 'float32 only': dict(tiers=('float32',)),
    'one thread': dict(threads=1), 'three threads, least memory': dict(threads=3, memory_mb=None),
}

def run(x, s, xl, sl, memory_mb=512, **how):
    if memory_mb is None: memory_mb = voting._row_bytes(*s.shape, np.float64)/2**20
    return neighbours(x, s, xl, sl, memory_mb=memory_mb, **how)

@pytest.mark.parametrize('name', CASES)
def test_every_path_agrees_with_the_oracle(name):
    x, s = CASES[name]
    r = np.random.default_rng(1)
    one = np.zeros(len(x), int), np.zeros(len(s), int)
    two = r.integers(0, 3, len(x)), r.integers(1, 4, len(s)) # label 0 has voters only, label 3 candidates only
    with np.errstate(all='raise'):
        for labels, ks in ((one, (1, 3)), (two, (2,))):
            for k in ks:
                for metric in METRICS:
                    want = oracle(x, s, *labels, k, metric)
                    for path, how in PATHS.items():
                        assert as_lists(run(x, s, *labels, k=k, metric=metric, **how)) == want, (path, metric, k)

@pytest.mark.parametrize('name', CASES)
def test_the_rule_alone_agrees_with_the_oracle(name, no_proof):
    x, s = CASES[name]
    one = np.zeros(len(x), int), np.zeros(len(s), int)
    for metric in METRICS:
        assert as_lists(run(x, s, *one, k=2, metric=metric)) == oracle(x, s, *one, 2, metric)

def test_the_cases_reach_every_road():
    tally, single = {}, {}
    for x, s in CASES.values():
        neighbours(x, s, np.zeros(len(x), int), np.zeros(len(s), int), tally=tally)
        neighbours(x, s, np.zeros(len(x), int), np.zeros(len(s), int), tiers=('float64',), tally=single)
    assert min(tally[f'{t} {how}'] for t in ('float32', 'float64') for how in ('proof', 'rule')) >= 0
    assert tally['float32 proof'] > 100 and tally['float32 rule'] > 100 and tally['float64 rule'] > 50 and single['float64 proof'] > 100

@pytest.mark.parametrize('broken', ['no margin', 'margin without dimension', 'no centring'])
def test_a_smaller_margin_is_caught(broken, monkeypatch):
    "The oracle would notice a wrong bound: with none, float32 picks wrong winners on clusters far apart."
    r = np.random.default_rng(5)
    x, s = ((r.integers(0, 3, (n, 1))*50 + 1e-3*r.standard_normal((n, 24))).astype('f4') for n in (200, 60))
    one = np.zeros(len(x), int), np.zeros(len(s), int)
    want = oracle(x, s, *one, 1, 'l2')
    assert as_lists(neighbours(*(x, s), *one)) == want
    if broken == 'no margin': monkeypatch.setattr(voting._Scores, 'margin', lambda self, norm2: np.zeros(len(norm2)))
    elif broken == 'margin without dimension':
        old = voting._Scores.margin
        monkeypatch.setattr(voting._Scores, 'margin', lambda self, norm2: old(self, norm2)/1e4)
    else:
        init = voting._Scores.__init__
        def uncentred(self, s, metric, dtype):
            init(self, s, metric, dtype)
            self.far, self.bias = self.far*1e-6, self.bias*1e-6 # as if the vectors were short
        monkeypatch.setattr(voting._Scores, '__init__', uncentred)
    assert as_lists(neighbours(*(x, s), *one)) != want

@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.parametrize('metric', METRICS)
@pytest.mark.parametrize('name', [n for n in CASES if n not in ('float64', 'float16')])
def test_scores_lie_within_their_margin(name, metric, dtype):
    "The bound itself, in exact arithmetic: two scores differ from the true difference by at most the margin."
    x, s = CASES[name]
    rows = lambda a: voting._vectors(a, np.arange(len(a))[:8], metric)
    a, b = rows(x), rows(s)
    q, v = np.empty((len(a), len(b)), dtype), np.ones((len(a), b.shape[1] + 1), dtype)
    with np.errstate(all='ignore'): margin = voting._fill(voting._Scores(b, metric, dtype), a, v, q)
    exact = lambda row: [Fraction(float(e)) for e in row]
    for i, p in enumerate(map(exact, a[:4])):
        if not np.isfinite(margin[i]): continue
        if metric == 'ip': t = [-sum(e*f for e, f in zip(p, exact(row))) for row in b]
        else: t = [sum((e - f)**2 for e, f in zip(p, exact(row)))/2 for row in b]
        off = [Fraction(float(c)) - e for c, e in zip(q[i], t)]
        assert max(off) - min(off) <= Fraction(margin[i])

@pytest.mark.parametrize('name', ['cloud', 'tight cluster far away', 'midpoints', 'mixed scales', 'huge', 'bits'])
def test_the_rule_is_the_nearest_in_exact_arithmetic(name):
    x, s = CASES[name]
    x, s = x[:6], s[:20]
    near = neighbours(x, s, np.zeros(len(x), int), np.zeros(len(s), int))[:, 0]
    for row, j in zip(x, near):
        d = [sum((Fraction(float(a)) - Fraction(float(b)))**2 for a, b in zip(row, t)) for t in s]
        assert d[j] <= min(d)*(1 + Fraction(1, 2**45))

# One record, one client: the sensitivity as a property

finite = st.sampled_from([-2., -1., -.0, 0., 1., 2., .5, 1e-3, 1e20, 1e-30, 3.]) | st.floats(-4, 4, width=32)

@st.composite
def worlds(draw):
    d, n, m = draw(st.integers(1, 4)), draw(st.integers(1, 12)), draw(st.integers(1, 12))
    seed, offset = draw(st.integers(0, 10**6)), draw(st.sampled_from([0., 0., 1e4]))
    r = np.random.default_rng(seed)
    pool = np.array(draw(st.lists(st.lists(finite, min_size=d, max_size=d), min_size=1, max_size=6)))
    pick = lambda n: (pool[r.integers(0, len(pool), n)] + offset + r.choice([0, 0, 1e-3], (n, 1))*r.standard_normal((n, d))).astype('f4')
    L = draw(st.integers(1, 3))
    return dict(x=pick(n), s=pick(m), xl=r.integers(0, L + 1, n), sl=r.integers(0, L, m), clients=r.integers(-2, 3, n),
                k=draw(st.integers(1, 5)), metric=draw(st.sampled_from(METRICS)), i=int(r.integers(n)))

@settings(deadline=None, max_examples=250)
@given(worlds())
def test_one_record_changes_exactly_its_own_votes(w):
    x, s, xl, sl, k, metric, i = (w[a] for a in ('x', 's', 'xl', 'sl', 'k', 'metric', 'i'))
    rest = np.arange(len(x)) != i
    full, less, own = (show(vote(x[on], s, xl[on], sl, k=k, metric=metric)) for on in (slice(None), rest, [i]))
    change = full - less
    assert (change == own).all()
    assert change.min() >= 0 and change.max() <= 1 and (change**2).sum() <= k
    assert own.sum() == min(k, len({row.tobytes() for row in s[sl == xl[i]] + np.float32(0)}))

@settings(deadline=None, max_examples=150)
@given(worlds())
def test_one_client_changes_at_most_its_length(w):
    x, s, xl, sl, clients, k, metric = (w[a] for a in ('x', 's', 'xl', 'sl', 'clients', 'k', 'metric'))
    rest = clients != clients[w['i']]
    count = lambda on: show(vote(x[on], s, xl[on], sl, k=k, metric=metric, clients=clients[on]))
    change = count(slice(None)) - count(rest)
    assert (change == count(~rest)).all() and change.min() >= 0
    length2 = sum(int(c)**2 for c in change)
    assert length2 <= GRID**2                                              # in integers, over all labels together
    votes = as_lists(neighbours(x[~rest], s, xl[~rest], sl, k=k, metric=metric))
    v = np.bincount(np.array(sum(votes, []), int), minlength=len(s)).tolist()
    n2 = sum(a*a for a in v)
    assert change.tolist() == [math.isqrt(GRID**2*a*a//n2) if a else 0 for a in v]

@settings(deadline=None, max_examples=60)
@given(worlds(), st.randoms(use_true_random=False))
def test_order_of_records_does_not_matter(w, random):
    p = np.array(random.sample(range(len(w['x'])), len(w['x'])), int)
    for clients in (None, w['clients']):
        def count(p):
            who = None if clients is None else clients[p]
            return show(vote(w['x'][p], w['s'], w['xl'][p], w['sl'], k=w['k'], metric=w['metric'], clients=who))
        assert (count(p) == count(np.arange(len(p)))).all()

def test_a_client_is_bounded_over_all_labels():
    "One client with a record in each of 4 labels: length 1, not 2."
    x, labels = np.eye(4, dtype='f4'), np.arange(4)
    counts = show(vote(x, x, labels, labels, clients=np.zeros(4, int)))
    assert counts.tolist() == [GRID//2]*4
    votes = vote(x, x, labels, labels, k=3, clients=np.arange(4))
    assert (votes.k, votes.grid) == (3, GRID) and show(votes).tolist() == [GRID]*4

@pytest.mark.parametrize('sizes', [[5000], [4096, 1], [2047, 2047, 1], [1]*9, [3, 4]])
def test_client_rounding_is_exact_for_large_votes(sizes):
    near = np.repeat(np.arange(len(sizes)), sizes)[:, None]
    got = voting._client_counts(near, np.full(len(near), 7), len(sizes)).tolist()
    n2 = sum(a*a for a in sizes)
    assert got == [math.isqrt(GRID**2*a*a//n2) for a in sizes] and sum(a*a for a in got) <= GRID**2

# A record's votes depend on nothing else

def test_pair_scores_are_the_same_bits_in_any_batch():
    r = np.random.default_rng(2)
    for d in (1, 2, 3, 7, 16, 100, 768, 1023):
        a, b = (r.standard_normal((50, d)).astype('f4') for _ in range(2))
        for metric in ('l2', 'ip'):
            batch = pair_scores(a, b, metric)
            for i in range(50): assert pair_scores(a[i:i + 1], b[i:i + 1], metric)[0] == batch[i] == score(a[i].tolist(), b[i].tolist(), metric)
        alone = np.concatenate([unit_rows(row[None]) for row in a])
        assert (alone == unit_rows(a)).all() and alone[0].tolist() == unit(a[0].tolist())

def test_plain_faiss_depends_on_the_batch_and_we_do_not():
    faiss = pytest.importorskip('faiss')
    r = np.random.default_rng(0)
    x, s = ((1e3 + 1e-2*r.standard_normal((n, 64))).astype('f4') for n in (2000, 400))
    batch = faiss.knn(x, s, 1)[1][:, 0]
    alone = np.concatenate([faiss.knn(row[None], s, 1)[1][:, 0] for row in x])
    assert (batch != alone).any(), 'the failure that this module exists for is gone; say so in the notebook'
    zeros, zs = np.zeros(2000, int), np.zeros(400, int)
    ours = neighbours(x, s, zeros, zs)[:, 0]
    assert (ours[1:] == neighbours(x[1:], s, zeros[1:], zs)[:, 0]).all()
    assert all(neighbours(x[i:i + 1], s, [0], zs)[0, 0] == ours[i] for i in range(0, 2000, 10))

def test_batches_threads_and_memory_do_not_matter():
    r = np.random.default_rng(4)
    x = np.repeat((r.integers(0, 3, (400, 1))*30 + 1e-2*r.standard_normal((400, 20))).astype('f4'), 2, 0)
    s = (r.integers(0, 3, (150, 1))*30 + 1e-2*r.standard_normal((150, 20))).astype('f4')
    xl, sl = r.integers(0, 2, 800), r.integers(0, 2, 150)
    want = neighbours(x, s, xl, sl, k=2)
    for how in (dict(threads=1), dict(threads=7), dict(memory_mb=.1), dict(memory_mb=3, threads=2), dict(tiers=('float64',))):
        assert (neighbours(x, s, xl, sl, k=2, **how) == want).all()
    for size in (1, 7, 300):
        parts = [neighbours(x[i:i + size], s, xl[i:i + size], sl, k=2) for i in range(0, 140 if size == 1 else 800, size)]
        assert (np.concatenate(parts) == want[:sum(map(len, parts))]).all()

def test_two_votes_at_once():
    r = np.random.default_rng(6)
    x, s = r.standard_normal((3000, 32)).astype('f4'), r.standard_normal((400, 32)).astype('f4')
    want, got = neighbours(x, s, np.zeros(3000, int), np.zeros(400, int)), [None]*4
    def job(i): got[i] = neighbours(x, s, np.zeros(3000, int), np.zeros(400, int), threads=2)
    jobs = [threading.Thread(target=job, args=(i,)) for i in range(4)]
    for j in jobs: j.start()
    for j in jobs: j.join()
    assert all((g == want).all() for g in got)

def test_inputs_are_only_read(tmp_path):
    r = np.random.default_rng(7)
    np.save(tmp_path/'x.npy', r.standard_normal((700, 9)).astype('f4'))
    x, s = np.load(tmp_path/'x.npy', mmap_mode='r'), r.standard_normal((50, 9)).astype('f4')
    xl, sl = r.integers(0, 3, 700), r.integers(0, 3, 50)
    copies = [np.array(a) for a in (x, s, xl, sl)]
    for a in (s, xl, sl): a.setflags(write=False)
    for metric in METRICS:
        strided = neighbours(np.asfortranarray(copies[0]), np.repeat(s, 2, 0)[::2], xl, sl, k=2, metric=metric)
        assert (neighbours(x, s, xl, sl, k=2, metric=metric) == strided).all()
    assert all((np.array(a) == b).all() for a, b in zip((x, s, xl, sl), copies))

MEMORY = '''
import resource, sys
import numpy as np
from pe_nb.voting import vote
r = np.random.default_rng(0)
x, s = r.standard_normal((60_000, 32), dtype='f4'), r.standard_normal((3000, 32), dtype='f4')
small = vote(x[:100], s[:100], np.zeros(100, int), np.zeros(100, int), threads=2, memory_mb=8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
vote(x, s, np.zeros(len(x), int), np.zeros(len(s), int), k=2, threads=2, memory_mb=float(sys.argv[1]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)/1024)
'''

def test_memory_is_bounded_by_the_argument():
    "All scores at once would take 687 MiB."
    pytest.importorskip('resource')
    if sys.platform == 'darwin': pytest.skip('ru_maxrss counts bytes there')
    root = Path(__file__).resolve().parents[1]
    for mb in (4, 24):
        done = subprocess.run([sys.executable, '-c', MEMORY, str(mb)], capture_output=True, text=True, cwd=root, check=True)
        assert float(done.stdout) < mb + 16, done.stdout # 16: result, labels in order, copies of the synthetic side, BLAS's buffers

# What is defined for odd input

def test_more_neighbours_than_candidates():
    s = np.array([[0.], [1], [1], [5]], 'f4')
    near = neighbours(np.array([[.9], [7]], 'f4'), s, [0, 0], [0]*4, k=10)
    assert as_lists(near) == [[0, 1, 3]]*2
    assert show(vote(np.array([[.9], [7]], 'f4'), s, [0, 0], [0]*4, k=10)).tolist() == [2, 2, 0, 2]

def test_labels_without_a_counterpart():
    x, s = np.zeros((3, 2), 'f4'), np.ones((2, 2), 'f4')
    votes = vote(x, s, [0, 9, -4], [0, 5])
    assert show(votes).tolist() == [1, 0] and isinstance(votes, Votes) and show(votes).dtype == np.int64
    assert show(vote(x, s, [7, 7, 7], [0, 5], clients=[1, 1, 2])).tolist() == [0, 0]

def test_no_private_record():
    s = np.ones((3, 2), 'f4')
    for clients in (None, []): assert show(vote(np.empty((0, 2), 'f4'), s, [], [0, 0, 1], clients=clients)).tolist() == [0, 0, 0]

def test_private_duplicates_each_vote_once():
    s = np.random.default_rng(0).standard_normal((5, 3)).astype('f4')
    counts = show(vote(np.repeat(s[2:3], 50, 0), s, np.zeros(50, int), np.zeros(5, int)))
    assert counts.tolist() == [0, 0, 50, 0, 0]

def test_copies_vote_for_the_first_of_their_label():
    s = np.ones((6, 3), 'f4')
    assert show(vote(np.zeros((4, 3), 'f4'), s, [1, 1, 0, 0], [1, 0, 0, 1, 0, 1])).tolist() == [2, 2, 0, 0, 0, 0]

X, S, XL, SL = np.ones((6, 3), 'f4'), np.ones((4, 3), 'f4'), np.zeros(6, int), np.zeros(4, int)
with_value = lambda a, v: np.where(np.arange(a.size).reshape(a.shape) == 5, v, a).astype(np.float32)
WRONG = {
    "metric ('L2') must be one of l2, cosine, ip": dict(metric='L2'),
    'k (0) must be an integer of at least 1': dict(k=0),
    'k (1.0) must be': dict(k=1.), 'k (True) must be': dict(k=True),
    'threads (0) must be an integer': dict(threads=0),
    'memory_mb (0) must be a number of at least': dict(memory_mb=0),
    'memory_mb (nan) must be': dict(memory_mb=float('nan')), "memory_mb ('1') must be": dict(memory_mb='1'),
    'private_embeddings must be finite': dict(private_embeddings=with_value(X, np.nan)),
    'private_embeddings must be finite in float32': dict(private_embeddings=X.astype(float)*1e39),
    'synthetic_embeddings must be finite': dict(synthetic_embeddings=with_value(S, -np.inf)),
    'private_embeddings (int64, 2-d) must be': dict(private_embeddings=X.astype(int)),
    'synthetic_embeddings (object, 2-d) must be': dict(synthetic_embeddings=S.astype(object)),
    'private_embeddings (float32, 1-d) must be': dict(private_embeddings=X[0]),
    'synthetic_embeddings (0 rows) must have at least one row': dict(synthetic_embeddings=S[:0], synthetic_labels=SL[:0]),
    'private_embeddings (2 columns) must have as many columns as synthetic_embeddings (3)': dict(private_embeddings=X[:, :2]),
    'private_embeddings must have at least one column': dict(private_embeddings=X[:, :0]),
    'private_labels must be a 1-d array of integers': dict(private_labels=XL[1:]),
    'private_labels must be': dict(private_labels=XL*1.),
    'synthetic_labels must be a 1-d array': dict(synthetic_labels=np.zeros((4, 1), int)),
    'synthetic_labels must be': dict(synthetic_labels=list('abcd')),
    'clients must be a 1-d array of integers, one for each row of private_embeddings': dict(clients=XL[1:]),
    'clients must be': dict(clients=list('abcdef')),
}

@pytest.mark.parametrize('message', WRONG)
def test_bad_arguments_are_refused_before_any_search(message, monkeypatch):
    def never(*args, **kwargs): raise AssertionError('searched')
    monkeypatch.setattr(voting, '_search', never)
    args = dict(private_embeddings=X, synthetic_embeddings=S, private_labels=XL, synthetic_labels=SL) | WRONG[message]
    with pytest.raises(ValueError, match=re.escape(message)) as e: vote(**args)
    if message.startswith('private'): assert not re.search(r'\b[56]\b|nan|inf\b', str(e.value)) # neither how many private records nor which

# Label counts and lookahead

def test_vote_labels():
    assert show(vote_labels([0, 2, 2, 2], 4)).tolist() == [1, 0, 3, 0]
    votes = vote_labels(np.array([0, 2, 2, 2, 1]), 3, clients=np.array([0, 0, 0, 0, 8]))
    assert show(votes).tolist() == [math.isqrt(GRID**2//10), GRID, math.isqrt(GRID**2*9//10)] and (votes.k, votes.grid) == (1, GRID)
    assert show(vote_labels([], 2)).tolist() == [0, 0]
    for bad in ([0, 3], [-1, 0], [.5, 1]):
        with pytest.raises(ValueError, match='labels must'): vote_labels(bad, 3)
    with pytest.raises(ValueError, match='clients must'): vote_labels([0, 1], 3, clients=[1])

def test_lookahead_is_a_mean_in_float64():
    r = np.random.default_rng(0)
    own, v = r.standard_normal((50, 7)).astype('f4'), r.standard_normal((4, 50, 7)).astype('f4')
    want = (v[0].astype(float) + v[1] + v[2] + v[3])/4
    got = lookahead_embedding(v)
    assert got.dtype == np.float32 and (got == want.astype('f4')).all()
    assert (got == lookahead_embedding(list(v))).all() and (got == lookahead_embedding(a for a in v)).all()
    assert (lookahead_embedding(v, own) == ((own.astype(float) + v[0] + v[1] + v[2] + v[3])/5).astype('f4')).all()
    assert (lookahead_embedding([], own) == own).all()
    assert all((lookahead_embedding(v[:, i:i + 1])[0] == got[i]).all() for i in range(50)) # a function of that record alone
    before = own.copy(); lookahead_embedding([own], own); assert (own == before).all()

def test_lookahead_refuses():
    a = np.ones((3, 2), 'f4')
    with pytest.raises(ValueError, match='at least one array'): lookahead_embedding([])
    with pytest.raises(ValueError, match='must all have the shape'): lookahead_embedding([a, a[:2]])
    with pytest.raises(ValueError, match='must all have the shape'): lookahead_embedding([a[:, :1]], a)
    with pytest.raises(ValueError, match='variations must be finite'): lookahead_embedding([a*np.nan])
