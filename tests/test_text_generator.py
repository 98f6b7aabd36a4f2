"Text generator of Aug-PE: whatever the model does, one text per record, counted, repeatable, and planned."
import re
from collections import Counter

import numpy as np
import pytest

from pe_nb.evolution import Settings, evolve
from pe_nb.generators.prompts import Prompt
from pe_nb.generators.text import ChatFailed, Text
from pe_nb.generators.text_costs import answer_length, stand_in
from pe_nb.generators.text_parts import CLEAN, CLEAN_PAPER, TOKEN, TokenBlanks, blank_words, check_clean, cleaned, shorten, words_wanted
from pe_nb.llms.cache import AnswerCache
from pe_nb.llms.chat import Answer, Chat, Prices
from pe_nb.llms.costs import Tokens
from pe_nb.records import Records
from pe_nb.release import Budget, SeededNoise
from pe_nb.runs import plan

HOSTILE = ['{}', '{sample}', '{0} {a.b} {{', '${oc.env:SECRET} $x', '<|endoftext|> [MASK] </s>', '\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd', '\u202ertl\u202c', '\U0001f600\U0001f468\u200d\U0001f373', 'खाना अच्छा', '食べ物がおいしい',
           'อาหารอร่อยมาก', "don't", '%s %d', 'a\tb\nc', '  ', '\\1']
TOKENS = Tokens()


def rng(seed=0): return np.random.default_rng(seed)


class Fake(Chat):
    "Answers by a function of (job, number of the request); counts what it is asked."
    def __init__(self, answer=None, model='fake', **kw):
        super().__init__(model, **kw)
        self.answer, self.asked, self.rounds = answer or (lambda job, i: f'text {job.key[:6]} about it'), [], 0
    async def ask(self, jobs, put):
        self.rounds += 1
        for job in jobs:
            self.asked.append(job)
            a = self.answer(job, len(self.asked) - 1)
            put(job, a if isinstance(a, Answer) else Answer(text=a, prompt_tokens=TOKENS.prompt(job.request), completion_tokens=TOKENS.count(a)))


def no(reason, **kw): return Answer(refusal=reason, **kw)
def make(chat=None, random='Write about {label}.', vary='Say again: {sample}', names=('a', 'b'), values=None, **kw): return Text(chat or Fake(), random, vary, names, values, **kw)
def parents(texts, labels=None, names=('a', 'b')):
    labels = np.zeros(len(texts), np.int64) if labels is None else labels
    return Records.texts(texts, labels, names, dict(outcome=['new']*len(texts), words_wanted=np.full(len(texts), -1)))


# ---- blanks ----

@pytest.mark.parametrize('text', HOSTILE + ['a  b', '', 'naïve\u0301 e\u0301a'])
def test_tokens_and_space_make_up_the_text(text):
    assert blank_words(text, 0, rng()) == text and ''.join(TOKEN.split(text)) == text
    assert not any(c.strip() for gap in TOKEN.split(text)[::2] for c in gap)
    assert set(blank_words(text, 1, rng())) <= set('_ \t\n')


def test_blanks_come_with_their_probability():
    text = 'one two three four. ' * 2000
    for p in (.1, .5, .9): assert abs(blank_words(text, p, rng()).count('_')/10_000 - p) < .02
    assert blank_words(text, .5, rng(1)) == blank_words(text, .5, rng(1)) != blank_words(text, .5, rng(2))


def tokenizers_bpe():
    tokenizers = pytest.importorskip('tokenizers')
    from tokenizers import decoders, models, pre_tokenizers, trainers
    t = tokenizers.Tokenizer(models.BPE())
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    t.train_from_iterator(['the food was good and the staff was friendly']*5, trainers.BpeTrainer(vocab_size=300, special_tokens=['<|endoftext|>'], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return t


class Ordinary:
    "In the manner of tiktoken: encode refuses special tokens, encode_ordinary takes them for text."
    def encode(self, s):
        if '<|endoftext|>' in s: raise ValueError('disallowed special token')
        return [ord(c) for c in s]
    def encode_ordinary(self, s): return [ord(c) for c in s]
    def decode(self, ids): return ''.join(map(chr, ids))


@pytest.mark.parametrize('kind', ['tokenizers', 'tiktoken-like'])
def test_special_tokens_in_texts_are_text(kind):
    blanks = TokenBlanks(tokenizers_bpe() if kind == 'tokenizers' else Ordinary())
    for text in HOSTILE + ['to <|endoftext|><|endoftext|> the end', '<|endoftext|>']:
        assert blanks.tokenizer.decode(blanks.ids(text)) == text  # nothing lost; a special one would be
        if kind == 'tokenizers': assert 0 not in blanks.ids(text)
        assert set(blanks(text, 1, rng())) <= {'_'} and blanks(text, 0, rng()) == text
    assert blanks.fingerprint == TokenBlanks(type(blanks.tokenizer)() if kind != 'tokenizers' else tokenizers_bpe()).fingerprint


def test_bad_tokenizers():
    class Silent(Ordinary):
        def encode_ordinary(self, s): return []
    for t in (3, lambda: 3, object()):
        with pytest.raises(ValueError, match='must have encode and decode'): TokenBlanks(t)
    with pytest.raises(ValueError, match="a token for '_'"): TokenBlanks(Silent())
    with pytest.raises(ValueError, match=r'tokenizer \(int\)'): make(tokenizer=3)


def test_a_tokenizer_is_loaded_only_for_blanks():
    def never(): raise AssertionError('loaded')
    g = make(tokenizer=never)
    g.check(None)
    assert 'Text' in g.fingerprint and len(g.vary(parents(['x']), None, rng())) == 1
    loads = []
    g = make(tokenizer=lambda: (loads.append(1), Ordinary())[1], vary='Fill: {masked_sample}')
    assert not loads
    g.check(.5)  # before the first private read
    assert loads == [1]
    g.vary(parents(['x', 'y']), .5, rng())
    assert 'Ordinary' in g.fingerprint and loads == [1]


# ---- lengths ----

def test_words_wanted_as_in_the_reference():
    for seed in range(300):
        n, std, low = seed % 60, seed % 31, 1 + seed % 25
        assert words_wanted(n, std, low, rng(seed)) == max(low, n + int(np.random.default_rng(seed).normal(loc=0, scale=std)))


def test_short_texts_never_ask_for_nothing():
    "B27: standard deviation 20, two words."
    g = make(vary='{word_count} words: {sample}', words_std=20, tokens_per_word=1.2, max_tokens=40, min_words=1)
    out = g.vary(parents(['two words']*300), None, rng())
    wanted, limits = out.extra['words_wanted'], [j.request.arguments['max_completion_tokens'] for j in g.chat.asked]
    assert wanted.min() == 1 and min(limits) == 1 and max(limits) == 40 and (wanted == 1).mean() > .3
    assert limits == [max(1, min(40, int(w*1.2))) for w in wanted]
    assert [int(j.request.messages[0][1].split()[0]) for j in g.chat.asked] == wanted.tolist()
    few = make(tokens_per_word=.01, words_std=0)
    few.vary(parents(['two words']), None, rng())
    assert few.chat.asked[0].request.arguments == dict(max_completion_tokens=1)


@pytest.mark.parametrize('text', ['', ' ', 'a b c', 'a  b\n c d', ' lead', 'x'*500, 'word '*500, 'ab '*30 + 'y'*300])
def test_shorten_against_a_slow_way(text):
    for n in (1, 2, 3, 7, 50, 1000):
        end = max([m.end() for m in list(re.finditer(r'\S+', text))[:n]], default=0)
        want = text if len(text.split()) <= n and len(text) <= max(n, 20*n) else text[:min(end, 20*n)]
        assert shorten(text, n) == want, n


# ---- cleaning ----

@pytest.mark.parametrize('answer, want', [
    ('plain', 'plain'), ('  two\n\n lines ', 'two lines'), ('"quoted"', 'quoted'), ('\u201cquoted\u201d', 'quoted'), ("'quoted'", 'quoted'), ('\u00abquoted\u00bb', 'quoted'), ('"a" and "b"', '"a" and "b"'), ('"it never ends', 'it never ends'),
    ("'twas good", "'twas good"), ('say "hi"', 'say "hi"'), ('""', ''), ('"', ''), ('" "', ''), ('', ''), ('\u00a0\u2003', ''), ('Rephrase:\nold text', ''), ('Rephrase:\n old   text\nnew text', 'new text'), ('Rephrase:\nold textbook', 'book'), ('{} ${x}', '{} ${x}'),
    ('a\ud800b', 'a\ufffdb'), ('\ud83d\ude00', '\U0001f600')])
def test_cleaning(answer, want): assert cleaned(answer, 'Rephrase:\nold text', CLEAN) == want


def test_the_last_line_is_an_echo_only_with_a_colon():
    assert cleaned('Your text of 5 words: fine', 'Blank: _\nYour text of 5 words:', CLEAN) == 'fine'
    assert cleaned('old text, but better', 'Rephrase:\nold text', CLEAN) == 'old text, but better'  # the parent's text is no echo


def test_cleaning_as_in_the_authors_code():
    assert cleaned('He said "fine" (25 words). (exactly 3 words)', '', CLEAN_PAPER) == 'He said fine.'
    assert cleaned('costs (5 dollars) in two words', '', CLEAN_PAPER) == 'costs (5 dollars) in two words'


@pytest.mark.parametrize('bad', [[lambda t: t], ['strip'], 3, None])
def test_bad_cleaning(bad):
    with pytest.raises(ValueError, match='clean'): check_clean(bad)


def test_a_cleaning_step_must_give_a_text():
    def lose(text, prompt): return None
    with pytest.raises(ValueError, match='lose.*must give a str'): make(clean=lose).random([0], rng())
    assert make(clean=()).random([0], rng()).data[0].startswith('text')


# ---- what is refused before anything is asked ----

BAD = [
    (dict(random='{x}'), r"random messages\[0\] variable \('x'\)"), (dict(random='{sample}'), 'random messages'), (dict(vary='{smple}'), r"vary messages.*'sample'\?"), (dict(vary='again'), 'does not depend on the parent'),
    (dict(random='json: {"a": 1}'), 'random: messages'), (dict(values=[{}]), r'label_values \(1 entries\)'), (dict(values=[dict(sample='x')]*2), 'must have another name'), (dict(values=[dict(c='x'), dict(d='x')]), 'columns'),
    (dict(random='{k}', values=[dict(c='x'), dict(c='y')]), "'k'"), (dict(random=Prompt('{k}', [(dict(c='x'), dict(k='z'))]), values=[dict(c='x'), dict(c='y')]), "'k' must have a value for the label 'b'"),
    (dict(names=()), 'label_names'), (dict(names=('a', 'a')), 'unique'), (dict(names='ab'), 'label_names'), (dict(chat=3), 'must be a Chat'), (dict(min_words=0), 'min_words'), (dict(min_words=True), 'min_words'), (dict(words_std=-1), 'words_std'),
    (dict(words_std=5), 'has no {word_count}'), (dict(vary='{sample}{word_count}', words_std='5'), 'words_std'), (dict(tokens_per_word=0), 'tokens_per_word'), (dict(max_tokens=5), 'must come with tokens_per_word'), (dict(tokens_per_word=1, max_tokens=0), 'max_tokens'),
    (dict(tokens_per_word=1, vary_arguments=dict(max_completion_tokens=9)), 'tokens_per_word'), (dict(chat=Fake(max_tokens=9), tokens_per_word=1), 'tokens_per_word'), (dict(max_words=0), 'max_words'), (dict(max_sample_words=.5), 'max_sample_words'),
    (dict(retries=-1), 'retries'), (dict(max_kept=2), 'max_kept'), (dict(max_kept=None), 'max_kept'), (dict(clean=[3]), 'clean'), (dict(random_arguments=dict(n=3)), 'n \\(3\\)'), (dict(random_arguments=dict(max_tokens=0)), 'max_tokens'),
    (dict(vary_arguments=['temperature']), 'vary_arguments'), (dict(expected_tokens=0), 'expected_tokens'), (dict(expected_tokens=[]), 'expected_tokens'), (dict(expected_tokens=dict(rnd=4)), 'expected_tokens'), (dict(expected_tokens=['', no('empty')]), 'expected_tokens'),
]


@pytest.mark.parametrize('kw, message', BAD, ids=[m for _, m in BAD])
def test_bad_settings(kw, message):
    with pytest.raises(ValueError, match=message): make(**kw)


DEGREES = [('{sample}', {}, [None, {}, dict(mask=None)], [.5, 0, dict(mask=.5), dict(words_std=5), 'x', dict(a=1)]),
           ('{masked_sample}', {}, [0, .5, 1, np.float64(.5), dict(mask=.5)], [None, -.1, 1.01, float('nan'), True, '0.5', [.5], {}, dict(mask=.5, words_std=5), dict(mask=.5, x=1)]),
           ('{sample} {word_count}', {}, [dict(words_std=5), dict(words_std=0)], [None, .5, dict(words_std=-1), dict(words_std='a'), dict(words_std=float('inf'))]),
           ('{masked_sample} {word_count}', dict(words_std=5), [.5, dict(mask=.5, words_std=9)], [None, dict(words_std=9)]),
           ('{sample}', dict(tokens_per_word=2), [dict(words_std=5)], [None]),
           (Prompt('{sample} {x}', [({}, dict(x='1')), (dict(masked_sample='_'), dict(x='2'))]), {}, [.5], [None])]


@pytest.mark.parametrize('prompt, kw, good, bad', DEGREES)
def test_degrees(prompt, kw, good, bad):
    g = make(vary=prompt, **kw)
    for d in good:
        g.check(d)
        g.vary(parents(['some text']), d, rng())
    for d in bad:
        with pytest.raises(ValueError, match='degree|words_std'): g.check(d)
        with pytest.raises(ValueError, match='degree|words_std'): g.vary(parents(['some text']), d, rng())


def test_a_run_is_refused_before_its_first_request():
    g = make(vary='{masked_sample}')
    s = Settings(generations=2, samples=4, degree=[.5, .5, None], folds=1)
    with pytest.raises(ValueError, match='must be or hold a mask probability'): evolve(parents(['x']*4), g, lambda r: np.zeros((len(r), 2), np.float32), s, Budget(epsilon=1, delta=1e-3))
    assert not g.chat.asked


# ---- one record for each, in order ----

def test_random_and_vary_keep_order_labels_and_extras():
    g = make(Fake(lambda job, i: f'<{job.request.messages[0][1]}>'), 'Write about {c} as {label}.', 'Again, {c}: {sample}', values=[dict(c='cats'), dict(c='bats')])
    labels = np.array([1, 0, 0, 1, 1])
    r = g.random(labels, rng())
    assert r.labels.tolist() == labels.tolist() and r.label_names == ('a', 'b')
    assert r.data.tolist() == [f"<Write about {('cats', 'bats')[i]} as {'ab'[i]}.>" for i in labels]
    mine = Records.texts([f't{i}' for i in range(5)], labels, ('a', 'b'), dict(r.extra, source=np.arange(5)))
    v = g.vary(mine, None, rng())
    assert v.data.tolist() == [f"<Again, {('cats', 'bats')[i]}: t{k}>" for k, i in enumerate(labels)]
    assert set(v.extra) == {'outcome', 'words_wanted', 'source'} and v.extra['source'].tolist() == list(range(5))
    assert Records.concat([r, g.vary(r, None, rng())]).extra['outcome'].tolist() == ['new']*10
    assert not g.vary(Records.texts(['x'], [0], ('a', 'b')), None, rng()).extra  # as its parents


def test_all_labels_go_into_one_list_of_requests():
    g = make(names=tuple(map(str, range(50))))
    r = g.random(np.repeat(np.arange(50), 4), rng())
    g.vary(r, None, rng())
    assert g.chat.rounds == 2 and len(g.chat.asked) == 400


def test_no_records():
    g = make()
    none = g.random(np.zeros(0, np.int64), rng())
    assert len(none) == len(g.vary(none, None, rng())) == 0 and not g.chat.asked
    assert Records.concat([none, g.random([0], rng())]).extra['outcome'].tolist() == ['new']


def test_bad_records():
    g = make()
    for labels in ([2], [-1], [.5], [[0]]):
        with pytest.raises(ValueError): g.random(np.array(labels), rng())
    with pytest.raises(ValueError, match='must be records of texts'): g.vary(Records.images(np.zeros((1, 2, 2, 1), np.uint8), [0], ('a', 'b')), None, rng())
    with pytest.raises(ValueError, match='label_names'): g.vary(parents(['x'], names=('a', 'c')), None, rng())
    assert not g.chat.asked


def test_arguments_go_with_their_api():
    g = make(Fake(temperature=1), random_arguments=dict(max_completion_tokens=64), vary_arguments=dict(temperature=1.4))
    g.vary(g.random([0], rng()), None, rng())
    assert [j.request.arguments for j in g.chat.asked] == [dict(temperature=1, max_completion_tokens=64), dict(temperature=1.4)]


# ---- data is data ----

@pytest.mark.parametrize('text', [t for t in HOSTILE if t.strip()])
def test_data_comes_through_literally(text):
    g = make(random='about {c} {label}', vary='again {c} {label}\n{sample}', names=(text, 'x'), values=[dict(c=text), dict(c='y')], clean=())
    g.vary(Records.texts([text], [0], (text, 'x')), None, rng())
    g.random([0], rng())
    assert [j.request.messages[0][1] for j in g.chat.asked] == [f'again {text} {text}\n{text}', f'about {text} {text}']
    assert make(Fake(lambda job, i: text), clean=()).random([0], rng()).data[0] == text


# ---- empty and refused answers ----

REFUSED = ['content_filter', 'refused', 'empty', 'length', 'too_long', 'rate_limit', 'server', 'timeout', 'malformed', 'connection', 'bad_request']


@pytest.mark.parametrize('reason', REFUSED)
def test_one_of_twenty_refused_is_asked_again(reason):
    bad = lambda job, i: no(reason) if i < 200 and i % 20 == 3 else f'text {i}'
    g = make(Fake(bad))
    r = g.random(np.arange(200) % 2, rng())
    assert all(r.data != '') and Counter(r.extra['outcome'].tolist()) == {'new': 190, 'retried': 10}
    assert np.flatnonzero(r.extra['outcome'] == 'retried').tolist() == list(range(3, 200, 20))
    assert g.tally == {**g.tally, 'records': 200, 'requests': 210, reason: 10} and g.chat.rounds == 2
    g = make(Fake(bad))
    v = g.vary(r, None, rng())
    assert all(v.data != '') and (v.extra['outcome'] == 'retried').sum() == 10 and f'10 {reason}' in g.report and 'vary: 200 records in 1 calls' in g.report


@pytest.mark.parametrize('answer', ['', ' \n', '""', '\u00a0'])
def test_empty_answers_count_as_empty(answer):
    g = make(Fake(lambda job, i: answer if i < 10 and i % 5 == 0 else 'fine'))
    assert g.random(np.zeros(10, int), rng()).extra['outcome'].tolist().count('retried') == 2 and g.tally['empty'] == 2


def test_a_retry_is_another_draw_and_another_filling():
    g = make(Fake(lambda job, i: no('refused') if i < 9 else 'fine'), Prompt('{tone}', tone=[str(i) for i in range(1000)]), retries=3, max_kept=1)
    g.random([0, 0, 0], rng())
    asked = [(j.request.messages, j.draw) for j in g.chat.asked]
    assert len(asked) == 12 and len(set(asked)) == 12 and len({m for m, _ in asked}) > 10 and len({d for _, d in asked}) == 12


def test_the_parent_is_kept():
    g = make(Fake(lambda job, i: no('content_filter') if 'NO' in job.request.messages[0][1] else 'fine'))
    v = g.vary(parents(['yes', 'NO  way', 'yes']), None, rng())
    assert v.data.tolist() == ['fine', 'NO  way', 'fine'] and v.extra['outcome'].tolist() == ['new', 'kept', 'new'] and g.tally['kept'] == 1 and g.tally['content_filter'] == 3


def test_the_prompt_is_never_an_answer():
    "B78: a model that repeats what it was asked."
    echo = Fake(lambda job, i: job.request.messages[-1][1] + '\n')
    v = make(echo, max_kept=1).vary(parents(['one', 'two']), None, rng())
    assert v.data.tolist() == ['one', 'two'] and v.extra['outcome'].tolist() == ['kept']*2
    with pytest.raises(ChatFailed, match='6 x empty'): make(echo).random([0, 0], rng())
    half = Fake(lambda job, i: job.request.messages[-1][1] + ' and this is new.')
    assert make(half).random([0], rng()).data.tolist() == ['and this is new.']


def test_random_texts_are_borrowed_within_their_label():
    def answer(job, i): return no('refused') if job.draw % 3 == 0 else f"{job.request.messages[0][1]} {i}"
    g = make(Fake(answer), 'Write about {label}', retries=0, max_kept=.9, clean=())
    labels = np.arange(3000) % 2
    r = g.random(labels, rng())
    borrowed = r.extra['outcome'] == 'borrowed'
    assert 800 < borrowed.sum() < 1200 and all(r.data[i].startswith('Write about ' + 'ab'[labels[i]]) for i in range(3000))
    assert set(r.data[borrowed].tolist()) <= set(r.data[~borrowed].tolist())
    times = Counter(r.data[borrowed].tolist())
    assert len(times) > 500 and max(times.values()) <= 8  # one third of lenders each, uniformly: about Poisson(.5)


def test_a_label_without_any_text_is_an_error():
    g = make(Fake(lambda job, i: no('content_filter', detail='not that') if 'about b' in job.request.messages[0][1] else 'fine'))
    with pytest.raises(ChatFailed, match="2 of 12 records.*6 x content_filter.*the label 'b' has no text at all"): g.random([0]*10 + [1]*2, rng())


@pytest.mark.parametrize('reason', ['auth', 'not_found', 'quota', 'spend_cap', 'cache'])
@pytest.mark.parametrize('api', ['random', 'vary'])
def test_what_cannot_get_better_ends_the_call_at_once(reason, api):
    g = make(Fake(lambda job, i: no(reason, detail='says so') if i > 5 else 'fine'))
    with pytest.raises(ChatFailed, match=f'14 of 20 records of the {api} API have none: 14 x {reason} .*says so.*give the client a cache') as e:
        g.random(np.zeros(20, int), rng()) if api == 'random' else g.vary(parents(['x']*20), None, rng())
    assert g.chat.rounds == 1 and e.value.reasons == {reason: 14} and (e.value.failed, e.value.records) == (14, 20)


@pytest.mark.parametrize('reason', ['connection', 'bad_request', 'server', 'timeout', 'rate_limit', 'malformed'])
def test_an_endpoint_that_answers_nothing_ends_the_call_at_once(reason):
    g = make(Fake(lambda job, i: no(reason)))
    with pytest.raises(ChatFailed, match=f'20 x {reason}'): g.vary(parents(['x']*20), None, rng())
    assert g.chat.rounds == 1


def test_too_many_failures_are_an_error():
    some = lambda share: Fake(lambda job, i: no('content_filter') if job.request.messages[0][1][-1] in '0123456789'[:share] else 'fine')
    texts = [str(i) for i in range(10)]
    assert make(some(5)).vary(parents(texts), None, rng()).extra['outcome'].tolist() == ['kept']*5 + ['new']*5
    with pytest.raises(ChatFailed, match='6 of 10 records.*18 x content_filter.*at most 50% may'): make(some(6)).vary(parents(texts), None, rng())
    with pytest.raises(ChatFailed): make(some(1), max_kept=0).vary(parents(texts), None, rng())
    with pytest.raises(ChatFailed, match='30 x content_filter'): make(some(10)).vary(parents(texts), None, rng())


def test_texts_do_not_leak_into_errors():
    with pytest.raises(ChatFailed) as e: make(Fake(lambda job, i: no('auth'))).vary(parents(['the parent text']), None, rng())
    assert 'parent text' not in str(e.value)


# ---- empty, long and odd texts ----

def test_an_empty_parent_gets_a_random_text():
    g = make(Fake(lambda job, i: job.request.messages[0][1] + '!'), vary='Again: {sample} {word_count}', words_std=5, clean=())
    v = g.vary(parents(['', ' \n', 'x'], [1, 0, 0]), None, rng())
    assert v.extra['outcome'].tolist() == ['redrawn', 'redrawn', 'new'] and v.data.tolist()[:2] == ['Write about b.!', 'Write about a.!'] and v.extra['words_wanted'].tolist()[:2] == [-1, -1]
    v = make(Fake(lambda job, i: no('refused')), max_kept=1).vary(parents(['', 'x']), None, rng())
    assert v.data.tolist() == ['', 'x'] and v.extra['outcome'].tolist() == ['kept', 'kept']


@pytest.mark.parametrize('text', ['word '*100_000, 'x'*500_000, '食'*100_000])
def test_a_text_of_100_000_words_is_cut_and_counted(text):
    g = make(Fake(lambda job, i: text if i % 2 else 'short'), vary='{word_count} {masked_sample}', words_std=10, tokens_per_word=2)
    v = g.vary(parents([text, text, 'x']), .1, rng())
    prompts = [j.request.messages[0][1] for j in g.chat.asked]
    assert max(map(len, prompts)) <= 40_010 and max(len(p.split()) for p in prompts) <= 2001 and v.extra['words_wanted'].max() < 2100
    assert g.tally['parents cut'] == 2 and g.tally['answers cut'] == 1 and len(v.data[1]) <= 40_000 and len(v.data[1].split()) <= 2000
    again = make(Fake(lambda job, i: no('too_long')), max_kept=1).vary(parents([text]), None, rng())
    assert again.data[0] == text  # a parent that is kept is kept whole


def test_answers_that_a_limit_ended_are_counted():
    g = make(Fake(lambda job, i: Answer(text='half a', finish='length')))
    assert g.random([0], rng()).data.tolist() == ['half a'] and g.tally['ended by a limit'] == 1


# ---- the same again ----

PROMPTS = dict(random=Prompt('Write about {label} {tone}.', tone=list('abcdefgh')), vary=Prompt('{word_count} words {tone}: {masked_sample}', tone=list('abcdefgh')), words_std=9)
TEXTS = [f'some text number {i} of the many that there are' for i in range(40)]


def flaky(job, i):
    "The answer is a function of the request alone, and so is whether it is refused."
    return no('content_filter') if int(job.key[:4], 16) % 4 == 0 else f'text {job.key[:8]}'


def test_all_chance_comes_from_rng():
    a, b = make(Fake(flaky), **PROMPTS), make(Fake(flaky), **PROMPTS)
    assert a.random(np.arange(40) % 2, rng(3)) == b.random(np.arange(40) % 2, rng(3)) and a.vary(parents(TEXTS), .5, rng(4)) == b.vary(parents(TEXTS), .5, rng(4))
    assert [(j.key, j.draw) for j in a.chat.asked] == [(j.key, j.draw) for j in b.chat.asked] and a.tally == b.tally
    assert a.vary(parents(TEXTS), .5, rng(5)) != b.vary(parents(TEXTS), .5, rng(6))
    state, g = np.random.get_state()[1].copy(), rng(0)
    a.vary(parents(TEXTS), .5, g)
    assert (np.random.get_state()[1] == state).all() and g.random() == (lambda h: (h.integers(2**63), h.random())[1])(rng(0))  # one number taken, however often answers fail


def test_a_request_does_not_depend_on_other_records():
    g, h = make(Fake(flaky), **PROMPTS), make(Fake(flaky), **PROMPTS)
    g.vary(parents(TEXTS), .5, rng(1))
    h.vary(parents(TEXTS[:7]), .5, rng(1))
    assert {j.key for j in h.chat.asked} <= {j.key for j in g.chat.asked}


class Broken(Fake):
    "Stops in the middle."
    def __init__(self, stop, **kw):
        super().__init__(flaky, **kw)
        self.stop = stop
    async def ask(self, jobs, put):
        def counted(job, answer):
            if len(self.asked) > self.stop: raise KeyboardInterrupt
            put(job, answer)
        await super().ask(jobs, counted)


@pytest.mark.parametrize('stop', [0, 5, 39, 41, 47])
def test_an_interrupted_call_repeats_nothing(tmp_path, stop):
    whole = make(Fake(flaky), **PROMPTS)
    want = whole.vary(parents(TEXTS), .5, rng(9))
    assert len(whole.chat.asked) > 48
    with AnswerCache(tmp_path/'a.sqlite') as cache:
        first = make(Broken(stop, cache=cache), **PROMPTS)
        with pytest.raises(KeyboardInterrupt): first.vary(parents(TEXTS), .5, rng(9))
        second = make(Fake(flaky, cache=cache), **PROMPTS)
        assert second.vary(parents(TEXTS), .5, rng(9)) == want
        assert len(second.chat.asked) == len(whole.chat.asked) - stop and second.tally['cached'] == stop
        third = make(Fake(flaky, cache=cache), **PROMPTS)
        assert third.vary(parents(TEXTS), .5, rng(9)) == want and not third.chat.asked


def test_answers_after_a_failure_are_not_asked_again(tmp_path):
    "A wrong key for the second half: what the first half gave is in the cache."
    with AnswerCache(tmp_path/'a.sqlite') as cache:
        with pytest.raises(ChatFailed, match='kept in its cache'): make(Fake(lambda job, i: no('auth') if i >= 20 else flaky(job, i), cache=cache), **PROMPTS).vary(parents(TEXTS), .5, rng(9))
        mended = make(Fake(flaky, cache=cache), **PROMPTS)
        assert mended.vary(parents(TEXTS), .5, rng(9)) == make(Fake(flaky), **PROMPTS).vary(parents(TEXTS), .5, rng(9)) and mended.tally['cached'] == 20


def test_a_retry_that_was_paid_for_is_found_although_others_fare_better(tmp_path):
    "Refusals of the moment are not kept; the retries of other records stay where they are."
    with AnswerCache(tmp_path/'a.sqlite') as cache:
        make(Fake(lambda job, i: no('timeout') if i in (1, 2, 3) else flaky(job, i), cache=cache), **PROMPTS).vary(parents(TEXTS), .5, rng(9))
        again = make(Fake(flaky, cache=cache), **PROMPTS)
        assert again.vary(parents(TEXTS), .5, rng(9)) == make(Fake(flaky), **PROMPTS).vary(parents(TEXTS), .5, rng(9))
        assert len(again.chat.asked) <= 3 + 6


# ---- fingerprint ----

def own(text, prompt): return text


def test_fingerprint_changes_with_what_changes_texts():
    base = dict(random='Write {label}', vary='{masked_sample} {word_count}', words_std=5)
    changes = [{}, dict(random='Write  {label}'), dict(vary='{masked_sample}  {word_count}'), dict(names=('a', 'c')), dict(values=[dict(c='x')]*2), dict(chat=Fake(model='other')), dict(chat=Fake(temperature=1)), dict(random_arguments=dict(top_p=1)),
               dict(vary_arguments=dict(top_p=1)), dict(tokenizer=Ordinary()), dict(words_std=6), dict(min_words=24), dict(tokens_per_word=1.2), dict(tokens_per_word=1.2, max_tokens=9), dict(clean=CLEAN[:1]), dict(clean=own), dict(max_words=9),
               dict(max_sample_words=9), dict(retries=1)]
    prints = [make(**base | c).fingerprint for c in changes]
    assert len(set(prints)) == len(prints)
    assert all(make(**base | c).fingerprint == prints[0] for c in (dict(max_kept=.1), dict(expected_tokens=9), dict(random=Prompt('Write {label}'))))


# ---- costs ----

def words(n): return ' '.join(['service', 'was', 'good', 'and', 'fast', 'today', 'food', 'cold', 'nobody', 'came'][i % 10] for i in range(n))
def steady(random, vary): return lambda job, i: words(random if 'Write' in job.request.messages[-1][1] else vary)
def obedient(job, i): return words(int(m[1])) if (m := re.search(r'(\d+) words', job.request.messages[-1][1])) else words(40)
def lengths(r): return np.stack([[len(t), len(set(t)), t.count('_')] for t in r.data.tolist()]).astype(np.float32)


def limited(job, i):
    "An endpoint that keeps to max_completion_tokens."
    text, limit = words(60), job.request.arguments.get('max_completion_tokens', 10**6)
    while TOKENS.count(text) > limit: text = text.rsplit(' ', 1)[0]
    return text


EXAMPLES = 'Business: a place.\nInput: _ that great , terrible _ rolls.\nAnswer: Not that great, terrible egg rolls.\n'*3
TALK = [('user', EXAMPLES + 'Write about {c} {tone}.')], [('system', 'You fill in blanks.'), ('user', EXAMPLES + '{c} {tone}; {word_count} words: {masked_sample}')]
PLANS = [('steady', steady(40, 40), dict(expected_tokens=TOKENS.count(words(40)))), ('other lengths', steady(80, 30), dict(expected_tokens=dict(random=TOKENS.count(words(80)), vary=TOKENS.count(words(30))))),
         ('obedient', obedient, dict(expected_tokens=dict(random=[words(40)]))), ('short', lambda job, i: obedient(job, i) if 'words:' in job.request.messages[-1][1] else words(8), dict(expected_tokens=dict(random=[words(8)]), min_words=25)),
         ('long words', lambda job, i: words(20) if 'Write' in job.request.messages[-1][1] else 'incomprehensibilities '*20, dict(expected_tokens=dict(random=[words(20)], vary=['incomprehensibilities '*20]))),
         ('limited', limited, dict(expected_tokens=[Answer(text=words(60), completion_tokens=TOKENS.count(words(60)))], tokens_per_word=1.2, min_words=25))]


@pytest.mark.parametrize('lookahead', [0, 1])
@pytest.mark.parametrize('name, answer, kw', PLANS, ids=[p[0] for p in PLANS])
def test_costs_are_within_ten_per_cent_of_the_run(name, answer, kw, lookahead):
    names, values = ('c: bars', 'c: a shop for hats and umbrellas'), [dict(c='bars'), dict(c='a shop for hats and umbrellas')]
    tones = dict(tone=['kindly', 'as if it had been written by a person who is in a great hurry'])
    g = Text(Fake(answer, prices=Prices(1, 4)), Prompt(TALK[0], **tones), Prompt(TALK[1], **tones), names, values, words_std=10, **kw)
    s = Settings(generations=3, samples=30, degree=[.5, .5, .3, .1], folds=2, initial_folds=2, keep_parents=True, selection='rank', lookahead=lookahead)
    budget = Budget(epsilon=4, delta=1e-3)
    costs = plan(s, budget, g).costs
    private = Records.texts([words(10 + i) for i in range(60)], np.arange(60) % 2, names)   # as long as what the endpoint writes: a plan cannot know that votes will favour longer texts
    list(evolve(private, g, lengths, s, budget, noise=SeededNoise(0)))
    spent = g.tally
    assert costs.requests == spent['requests'] == len(g.chat.asked)
    for k in ('prompt_tokens', 'completion_tokens'): assert abs(getattr(costs, k)/spent[k] - 1) < .1, (k, getattr(costs, k), spent[k])
    assert abs(costs.money/Prices(1, 4).money(spent['prompt_tokens'], spent['completion_tokens']) - 1) < .1
    assert 'together' in repr(costs) and str(costs.prompt_tokens) in repr(costs) and 'estimated at four bytes' in repr(costs)
    assert 'together' in repr(plan(s, budget, g))


def test_costs_count_each_label_as_it_is():
    g = make(names=('short', 'long'), values=[dict(c='x'), dict(c='x'*4000)], random='{c}', expected_tokens=10)
    t = Tokens()
    for counts in ([5, 0], [0, 5], [3, 2]):
        want = sum(n*t.prompt(g._ask_random(l, rng()).request) for l, n in enumerate(counts))
        c = g.costs([('random', None, np.array(counts))])
        assert (c.prompt_tokens, c.completion_tokens, c.requests) == (want, 50, 5)


def test_parents_in_costs_are_made_of_the_words_of_their_api():
    long = 'incomprehensibilities '*20
    g, t = make(vary='{masked_sample}', expected_tokens=dict(random=[words(20)], vary=[long])), Tokens()
    call, first, later = ('vary', 1, np.array([10, 0])), t.count(words(20)), t.count(long)
    made = [g.costs([('random', None, np.array([10, 0]))] + [call]*k).prompt_tokens for k in range(4)]
    for k, (length, vocabulary) in enumerate([(first, words(20).split()), ((first + later)/2, long.split()), ((first + 2*later)/3, long.split())]):
        parent = stand_in(round(length), vocabulary, t.count)
        assert made[k + 1] - made[k] == 10*(7 + t.count(blank_words(parent, 1, rng())))


def test_costs_without_word_of_the_length():
    calls = [('random', None, np.array([3, 3]))]
    assert make().costs(calls).completion_tokens == 6*200 and 'a guess' in repr(make().costs(calls))
    assert make(random_arguments=dict(max_completion_tokens=50)).costs(calls).completion_tokens == 300
    assert make(Fake(max_completion_tokens=70)).costs(calls).completion_tokens == 420
    assert make(expected_tokens=90, random_arguments=dict(max_completion_tokens=50)).costs(calls).completion_tokens == 300
    assert make().costs(calls, expected_tokens=7).completion_tokens == 42 and make().costs(calls).money is None
    assert make().costs(calls, 7, Tokens(lambda s: 1, per_message=0, per_request=0)).prompt_tokens == 6 and 'counted' in repr(make().costs(calls, 7, Tokens(lambda s: 1)))
    assert make().costs([]).requests == 0
    with pytest.raises(ValueError, match='api'): make().costs([('rand', None, np.array([1, 1]))])
    with pytest.raises(ValueError, match='degree'): make().costs([('vary', .5, np.array([1, 1]))])


def test_costs_use_the_clients_counter():
    chat = Fake()
    chat.tokens = Tokens(len)
    assert make(chat, 'abc', expected_tokens=5).costs([('random', None, np.array([1, 0]))]).prompt_tokens == 3 + 4 + 3


def test_costs_leave_the_generator_as_it_is():
    g = make()
    g.costs([('random', None, np.array([3, 3])), ('vary', None, np.array([3, 3]))])
    assert not g.chat.asked and not g.calls and g.report == 'no calls yet'


def test_stand_ins_have_the_length_asked_for():
    for n in (1, 2, 7, 100, 1500):
        for vocabulary in (['a'], ['word', 'internationalization']):
            got = TOKENS.count(stand_in(n, vocabulary, TOKENS.count))
            assert n <= got <= n + 6
    assert answer_length(['one', '', 'three'], 'vary', len)[0] == 4
    assert make(expected_tokens=100).record_bytes == 424


# ---- a run ----

def test_a_run_with_a_model_that_refuses(tmp_path):
    answer = lambda job, i: no('content_filter') if int(job.key[:3], 16) % 20 == 0 else '' if int(job.key[:3], 16) % 20 == 1 else f'{words(5 + int(job.key[:2], 16) % 40)} {job.key[:4]}'
    g = make(Fake(answer), vary='{word_count} {masked_sample}', words_std=5)
    s = Settings(generations=2, samples=20, degree=dict(mask=.5, words_std=8), folds=2, initial_folds=1, keep_parents=True, selection='rank')
    private = Records.texts([words(i % 50 + 1) for i in range(100)], np.arange(100) % 2, ('a', 'b'))
    last = list(evolve(private, g, lengths, s, Budget(epsilon=4, delta=1e-3)))[-1].records
    assert len(last) == 60 and all(last.data != '') and set(last.extra['outcome'].tolist()) <= {'new', 'retried', 'kept', 'borrowed'} and g.tally['content_filter'] > 0 and g.tally['empty'] > 0
    from pe_nb.records import load_records, save_records
    save_records(last, tmp_path/'r.parquet')
    assert load_records(tmp_path/'r.parquet') == last


# ---- the real client, and a server that speaks the protocol ----

def over_http(s, key='sk-test-0123456789abcdef', url=None, **kw):
    pytest.importorskip('openai')
    from pe_nb.llms.endpoints import Endpoint, Retry
    from pe_nb.llms.openai_chat import OpenAIChat
    return OpenAIChat('m', Endpoint(url or s.url, key), retry=Retry(tries=2, first=.01, longest=.02), timeout=5., **kw)


@pytest.fixture
def server():
    from openai_server import Server
    with Server(keys=['sk-test-0123456789abcdef'], models=['m'], context=3000, reply=lambda b: 'about ' + b['messages'][-1]['content'][:40]) as s: yield s


def test_over_http(server, tmp_path):
    with AnswerCache(tmp_path/'a.sqlite') as cache:
        g = make(over_http(server, cache=cache, prices=Prices(1, 1)), **PROMPTS)
        v = g.vary(g.random(np.arange(40) % 2, rng()), .5, rng())
        assert all(v.data != '') and g.tally['requests'] == 80 and g.costs([('random', None, np.array([20, 20]))]).money > 0
        again = make(over_http(server, cache=cache), **PROMPTS)
        assert again.vary(again.random(np.arange(40) % 2, rng()), .5, rng()) == v and again.tally['cached'] == 80


def test_an_endpoint_that_cannot_work_over_http(server):
    from pe_nb.llms.openai_chat import OpenAIChat
    for chat, reason in ((over_http(server, key='sk-wrong-0123456789'), 'auth'), (OpenAIChat('no-such-model', over_http(server).endpoints[0]), 'not_found'), (over_http(server, url='http://127.0.0.1:9/v1'), 'connection')):
        with pytest.raises(ChatFailed, match=f'5 x {reason}') as e: make(chat).vary(parents(['x']*5), None, rng())
        assert '0123456789' not in str(e.value)


def test_a_context_overflow_over_http(server):
    g = make(over_http(server), max_sample_words=10_000, retries=0)
    v = g.vary(parents(['word '*8000, 'short', 'shorter']), None, rng())
    assert v.extra['outcome'].tolist() == ['kept', 'new', 'new'] and g.tally['too_long'] == 1
    assert make(over_http(server)).vary(parents(['word '*100_000]), None, rng()).extra['outcome'].tolist() == ['new']  # cut to 2000 words
