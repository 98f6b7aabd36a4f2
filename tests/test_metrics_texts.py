"Lengths, diversity and vocabulary against slow second versions; copies against all pairs and all runs; planted copies in real reviews."
import copy, math, pickle, traceback
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from pe_nb.metrics.copies import Corpus, common, copies, mixed, nearest, plain, shared_runs, suffix_ranks
from pe_nb.metrics.frechet import Metric
from pe_nb.metrics.texts import as_texts, distinct, diversity, length_metrics, lengths, plot_lengths, self_bleu, text_metrics, vocabulary_metrics, words
from pe_nb.records import Records

DATA = Path(__file__).resolve().parents[2]/'shared'/'data'
rng = lambda s=0: np.random.default_rng(s)
small_texts = st.lists(st.lists(st.sampled_from(['a', 'b', 'c', 'd']), max_size=12).map(' '.join), min_size=1, max_size=8)
ODD = ['', ' ', '\n\t', '🙂🙂 ok', 'שלום עולם', 'naïve cafe\u0301', '{} ${x} <|endoftext|>', 'x'*10_000, 'a '*5000]

def yelp(n, file='val'):
    path = DATA/'yelp'/f'{file}.csv'
    if not path.exists(): pytest.skip(f'the Yelp reviews ({path.name}) are not here')
    import pandas as pd
    return pd.read_csv(path, nrows=n).text.tolist()


# ---- lengths ----

def test_lengths_and_their_distance():
    a, b = ['x y z', '', 'w'], ['x y', 'x y z w']
    assert lengths(a).tolist() == [3, 0, 1] and lengths(Records.texts(a)).tolist() == [3, 0, 1] and lengths(a, len).tolist() == [5, 0, 1]
    m = length_metrics(a, b)
    p, q = np.repeat([0, 1, 3], 2), np.repeat([2, 4], 3)                # as many of both: pair them in order
    assert np.isclose(m['length/wasserstein'].value, np.abs(p - q).mean())
    assert m['length/empty'].value == 1/3 and m['length/median/real'].value == 3 and np.isclose(m['length/std'].value, np.std([3, 0, 1]))
    assert all(isinstance(v, Metric) and v.name == k for k, v in m.items())
    assert [k for k, v in m.items() if not v.private] == [f'length/{k}' for k in ('mean', 'std', 'empty', '5%', 'median', '95%')]
    assert not any(v.private for v in length_metrics(a, b, private=False).values())

def test_tokenizer_counts():
    class Tokenizer:
        def encode(self, s, add_special_tokens): return list(s) + [0]*add_special_tokens
    assert lengths(['abc', ''], Tokenizer()).tolist() == [3, 0]

def test_plot_shows_shares_and_cuts_long_texts():
    import matplotlib
    matplotlib.use('agg')
    import matplotlib.pyplot as plt
    fig = plot_lengths({'0': ['a b']*3, '1': ['a '*5000], '2': ['']}, ['x']*7, bins=10, most=20, columns=2)
    assert [ax.get_title() for ax in fig.axes] == ['0', '1', '2', ''] and not fig.axes[3].get_visible()
    for ax in fig.axes[:3]:
        total = [sum(r.get_height() for r in c) for c in ax.containers]
        assert np.allclose(total, [1, 1])
    assert fig.axes[1].containers[1][-1].get_height() == 1
    plt.close(fig)
    with pytest.raises(ValueError, match='generations'): plot_lengths({})


# ---- diversity ----

def slow_bleu(texts, n):
    "Sentence BLEU of each against all others, from its definition."
    tokens, out = [words(t) for t in texts], []
    for i, c in enumerate(tokens):
        refs, logs = [t for j, t in enumerate(tokens) if j != i], 0.
        gram = lambda t, k: Counter(tuple(t[x:x + k]) for x in range(len(t) - k + 1))
        for k in range(1, n + 1):
            hits = sum(min(v, max(gram(r, k)[g] for r in refs)) for g, v in gram(c, k).items())
            if k == 1 and not hits: logs = -math.inf
            logs += math.log((hits or .1)/max(len(c) - k + 1, 1))/n
        r = min((len(t) for t in refs), key=lambda m: (abs(m - len(c)), m))
        out.append(0. if logs == -math.inf else math.exp(logs + (0 if len(c) >= r else 1 - r/len(c))))
    return out

@settings(deadline=None, max_examples=80)
@given(small_texts.filter(lambda t: len(t) > 1), st.integers(1, 5))
def test_self_bleu_is_the_definition(texts, n): assert np.allclose(self_bleu(texts, n, sample=None), slow_bleu(texts, n))

def test_self_bleu_of_known_sets():
    assert np.allclose(self_bleu(['a b c d e']*3), 1) and not self_bleu(['a b', 'c d', 'e f']).any()
    texts = [f'{i} b c {i}' for i in range(50)]
    assert len(self_bleu(texts, sample=10)) == 10 and np.array_equal(self_bleu(texts, sample=10, seed=1), self_bleu(texts, sample=10, seed=1))

@settings(deadline=None, max_examples=40)
@given(small_texts, st.integers(1, 4))
def test_distinct_is_the_definition(texts, n):
    all_grams = [tuple(t[i:i + n]) for t in map(words, texts) for i in range(len(t) - n + 1)]
    assert distinct(texts, n) == (len(set(all_grams))/len(all_grams) if all_grams else 0)

def test_diversity_draws_and_marks():
    texts = [f'{i % 17} b c {i % 5} {i}' for i in range(60)]
    m = diversity(texts, sample=20, seeds=(0, 1, 2))
    assert m['self-bleu'].seeds == 3 and m['self-bleu'].spread > 0 and not m['self-bleu'].private
    assert diversity(texts, sample=None, seeds=(0, 1))['distinct-1'].seeds == 1 and diversity(texts, private=True)['distinct-2'].private
    t = text_metrics(texts, texts[:25], sample=20)
    assert t['distinct-1/real'].private and not t['distinct-1'].private and {'length/wasserstein', 'vocabulary/jaccard', 'self-bleu/real'} <= t.keys()

def test_vocabulary():
    m = {k: v.value for k, v in vocabulary_metrics(['A a b'], ['a c c c', 'D']).items()}
    assert m == {'vocabulary/jaccard': 1/4, 'vocabulary/reached': 1/5, 'vocabulary/known': 2/3}

def test_odd_texts_are_counted():
    found = text_metrics(ODD, ODD)
    assert all(np.isfinite(v.value) for v in found.values()) and found['length/wasserstein'].value == 0 and found['vocabulary/jaccard'].value == 1
    assert copies(ODD, ODD).synthetic.exact.tolist() == [bool(plain(t)) for t in ODD]

def test_real_reviews_differ_from_a_template():
    real, other = yelp(300), [f'The food is great and the service is great, number {i}.' for i in range(300)]
    good, bad = text_metrics(real[150:], real[:150], private=False), text_metrics(other, real[:150], private=False)
    assert good['length/wasserstein'].value < bad['length/wasserstein'].value/3 and good['self-bleu'].value < .4 < bad['self-bleu'].value
    assert good['vocabulary/jaccard'].value > 5*bad['vocabulary/jaccard'].value

def test_topic_accuracy_on_real_news():
    path = DATA/'agnews'/'official_test_7600.csv'
    if not path.exists(): pytest.skip(f'AG News ({path.name}) is not here')
    import pandas as pd
    from sklearn.feature_extraction.text import HashingVectorizer
    from pe_nb.metrics.downstream import train_on_synthetic
    frame = pd.read_csv(path)
    column = next(c for c in frame.columns if c != 'text')
    names, ids = np.unique(frame[column].astype(str), return_inverse=True)
    pick = rng().permutation(len(frame))
    r = Records.texts(frame.text.to_numpy()[pick[:900]], ids[pick[:900]], names.tolist())
    features = lambda r: HashingVectorizer(n_features=2**9).transform(r.data.tolist()).toarray()
    from threadpoolctl import threadpool_limits
    with threadpool_limits(1): good = train_on_synthetic(r[:600], r[600:], features=features)
    with threadpool_limits(1): wrong = train_on_synthetic(Records.texts(r.data[:600], rng().permutation(r.labels[:600]), r.label_names), r[600:], features=features)
    assert good['accuracy'].value > .5 > .4 > wrong['accuracy'].value


# ---- copies ----

def corpora(*texts):
    ids = {}
    out = [Corpus(t, ids) for t in texts]
    return *out, mixed(ids)

def slow_runs(a, b, n):
    "Every run of every length."
    share, longest = [], []
    for t in map(plain, a):
        has = lambda k, i: any(t[i:i + k] == u[j:j + k] for u in map(plain, b) for j in range(len(u) - k + 1))
        first = [has(n, i) for i in range(len(t) - n + 1)]
        share.append(np.mean(first) if first else math.nan)
        longest.append(max([k for k in range(n, len(t) + 1) for i in range(len(t) - k + 1) if has(k, i)], default=0))
    return share, longest

@settings(deadline=None, max_examples=80)
@given(small_texts, small_texts, st.integers(1, 4))
def test_shared_runs_are_the_definition(a, b, n):
    share, longest, where = shared_runs(*corpora(a, b), n)
    want, size = slow_runs(a, b, n)
    assert np.allclose(share, want, equal_nan=True) and longest.tolist() == size
    for t, k, j in zip(a, size, where.tolist()):
        assert (j >= 0) == (k > 0)
        if k: assert slow_runs([t], [b[j]], n)[1] == [k]              # the text named has the run

@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=9), min_size=2, max_size=6))
def test_common_stretches(parts):
    left = np.concatenate([np.arange(len(p), 0, -1) for p in parts])
    flat = np.concatenate(parts)
    ranks = suffix_ranks(flat, left)
    i, j = (x.ravel() for x in np.mgrid[:len(flat), :len(flat)])
    def slow(x, y):
        n = 0
        while n < min(left[x], left[y]) and flat[x + n] == flat[y + n]: n += 1
        return n
    assert common(ranks, left, i, j).tolist() == [slow(x, y) for x, y in zip(i, j)]
    rest = [flat[x:x + left[x]].tolist() for x in range(len(flat))]
    order = np.argsort(ranks[-1], kind='stable')
    assert [rest[x] for x in order] == sorted(rest)

@settings(deadline=None, max_examples=80)
@given(small_texts, small_texts, st.integers(1, 4), st.integers(1, 4))
def test_nearest_is_the_definition(a, b, n, step):
    def groups(t):
        w = plain(t)
        return {tuple(w[i:i + n]) for i in range(len(w) - n + 1)} or ({tuple(w)} if w else set())
    similarity = lambda s, t: len(groups(s) & groups(t))/max(len(groups(s) | groups(t)), 1)
    best, where = nearest(*corpora(a, b), n, step=step)
    for t, s, j in zip(a, best, where.tolist()):
        every = [similarity(t, u) for u in b]
        assert np.isclose(s, max(every)) and j == (int(np.argmax(every)) if max(every) else -1)

def test_planted_copies_among_real_reviews():
    every = yelp(900)
    secret, held, fakes = every[:300], every[300:600], every[600:]
    assert 'exact' not in repr(copies(fakes, secret)).split('longest')[1]
    quiet = copies(fakes, secret, held)
    fakes = list(fakes)
    fakes[10] = '  ' + secret[4].upper().replace(',', ' ;  ')
    fakes[20] = fakes[20] + ' ' + ' '.join(secret[40].split()[:30])
    w = secret[80].split(); w[::6] = ['zzz']*len(w[::6]); fakes[30] = ' '.join(w)
    loud = copies(fakes, secret, held)
    assert not quiet.synthetic.exact.any() and loud.synthetic.exact.nonzero()[0].tolist() == [10] and loud.synthetic.run_of[10] == 4
    assert loud.synthetic.run[20] >= 30 and loud.synthetic.run_of[20] == 40
    assert loud.synthetic.nearest[30] == 80 and loud.synthetic.similarity[30] > 2*loud.holdout.similarity.max()
    assert set(loud.worst(2).tolist()) == {10, 20} and loud.metrics['longest run'].value > 2*loud.metrics['longest run/holdout'].value
    assert quiet.metrics['runs of 8'].value < .01 and quiet.metrics['similarity/max'].value < .5

def test_same_with_small_blocks(monkeypatch):
    a, b = ['one two three four', 'five six'], ['zero one two three', 'five six seven', 'one two three four']
    best, where = nearest(*corpora(a, b), 2)
    again = nearest(*corpora(a, b), 2, step=1)
    assert np.array_equal(best, again[0]) and np.array_equal(where, again[1])

SECRET = ['the password of Aurelia Quintblatt is swordfish and nothing else matters today', 'her account number ends in four two']

def test_never_shows_private_texts():
    c = copies(['the password of aurelia quintblatt is swordfish and nothing', 'harmless words'], SECRET, ['some other real text', 'and one more'])
    shown = [repr(c), str(c), c._repr_html_(), f'{c.metrics}', c.show(2).replace('the password of aurelia quintblatt is swordfish and nothing', '')]
    assert not any(w in s.lower() for s in shown for w in ('swordfish', 'quintblatt', 'account'))
    assert 'Quintblatt' in c.show(1, show_private=True) and c.private and all(m.private for m in c.metrics.values())
    assert c._repr_html_().startswith('<pre>')
    for f in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match='must not be pickled'): f(c)

def test_holdout_is_drawn_to_the_same_number():
    texts = [f'text {i} of many texts' for i in range(40)]
    c = copies(texts[:10], texts[10:20], texts[20:], seed=3)
    assert len(c.holdout.run) == len(c.synthetic.run) == 10
    assert repr(c) == repr(copies(texts[:10], texts[10:20], texts[20:], seed=3)) and 'give holdout' in repr(copies(texts, texts)) and 'give holdout' not in repr(c)
    alone = copies(texts[:10], texts[10:20])
    assert np.array_equal(alone.synthetic.similarity, c.synthetic.similarity) and np.array_equal(alone.synthetic.run, c.synthetic.run)

def test_texts_without_words_copy_nothing():
    c = copies(['', '...', 'a'], ['', '!', 'b'])
    assert not c.synthetic.exact.any() and not c.synthetic.run.any() and not c.synthetic.similarity.any() and np.isfinite([m.value for m in c.metrics.values()]).all()

def test_normalisation():
    assert plain('Ｃafé\u0301, IT’S') == plain('Café\u0301 it’s') and plain('ﬁne') == ['fine'] and plain('—!') == []

BAD = [
    (lambda: lengths([]), 'at least one'), (lambda: lengths('abc'), 'not one string'), (lambda: self_bleu(['a']), 'at least two'), (lambda: self_bleu(['a', 'b'], n=0), r'n \(0\)'),
    (lambda: distinct(['a'], True), r'n \(True\)'), (lambda: as_texts(Records.images(np.zeros((1, 2, 2, 1), np.uint8))), "kind 'image'"), (lambda: diversity(['a', 'b'], seeds=()), 'seeds'),
    (lambda: text_metrics(['a'], ['a', 'b']), 'at least two'), (lambda: lengths(['a'], 5), 'tokenizer'), (lambda: copies(['a'], ['b'], n=0), r'n \(0\)'), (lambda: copies(['a'], ['b'], group=1.5), 'group'),
    (lambda: copies([], ['b']), 'synthetic'), (lambda: copies(['a'], []), 'real'), (lambda: copies(['a'], ['b'], []), 'holdout'),
]
@pytest.mark.parametrize('call, message', BAD)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message): call()

def test_errors_hold_no_text():
    for call in (lambda: copies(['a'], [SECRET[0], None]), lambda: length_metrics(['a'], [SECRET[0], 3]), lambda: copies(['a'], [SECRET[0], '\ud800'])):
        try: call()
        except ValueError as e: assert 'Quintblatt' not in ''.join(traceback.format_exception(e)).replace(repr(SECRET), '')
        else: raise AssertionError('must be refused')
