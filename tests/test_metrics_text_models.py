"Fine-tuned text classifiers, and the training loop they share with next_word: a slow version beside the fast one, choices, seeds, bad input."
import inspect
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification  # noqa: E402

from pe_nb.metrics.fine_tune import (adamw, check_fits, encoded, from_hub, length_batches, lr_factor, padded, quiet, seeded, tokenizer_of,  # noqa: E402
                                     train_epochs)
from pe_nb.metrics.next_word import next_word  # noqa: E402
from pe_nb.metrics.text_models import PROTOCOLS, class_probabilities, fine_tune_classifier, inception_score, keep_texts, relabel, token_counter  # noqa: E402
from pe_nb.records import Records  # noqa: E402
from tiny import word_tokenizer  # noqa: E402

WORDS = ['[PAD]', '[CLS]', '[SEP]', '[UNK]', *'beer wine room bed good great bad rude the a was very'.split()]
CELLS = ('category: Bars | stars: 5', 'category: Bars | stars: 1', 'category: Hotels | stars: 5', 'category: Hotels | stars: 1')
CPU = torch.device('cpu')


pytestmark = pytest.mark.usefixtures('one_thread', 'no_network')


def tokenizer(specials=True): return word_tokenizer(WORDS, specials)


def bert(classes, **more):
    return BertForSequenceClassification(BertConfig(**dict(dict(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                                                                max_position_embeddings=32, num_labels=classes), **more)))


def reviews(n, seed, names=CELLS):
    rng = np.random.default_rng(seed)
    labels = rng.integers(4, size=n)
    place, mood = np.array([['beer', 'wine'], ['room', 'bed']]), np.array([['good', 'great'], ['bad', 'rude']])
    texts = [' '.join(rng.permutation([*rng.choice(['the', 'a', 'was', 'very'], rng.integers(0, 6)), rng.choice(place[i//2]), rng.choice(mood[i % 2])])) for i in labels]
    return Records.texts(texts, labels, names)


TRAIN, VALIDATION, TEST = reviews(240, 0), reviews(60, 1), reviews(60, 2)
FAST = dict(tokenizer=tokenizer(), batch=16, max_tokens=12, lr=5e-3, device='cpu')


def run(train=TRAIN, validation=VALIDATION, test=TEST, model=bert, **more):
    return fine_tune_classifier(train, validation, test, model, **FAST | dict(label_of='stars', seeds=(0,), epochs=1) | more)


# --- what comes out

def test_planted_classes_are_learned_and_noise_is_not():
    noise = Records.texts(TRAIN.data, np.random.default_rng(5).permutation(TRAIN.labels), CELLS)
    good, bad = run(epochs=6, label_of='category'), run(noise, epochs=6, label_of='category')
    assert float(good['accuracy']) > .95 and float(good['macro_f1']) > .95
    assert .2 < float(bad['accuracy']) < .8
    assert all(m.private for m in good.values()) and not any(m.private for m in run(private=False).values())


def test_figures_agree_with_sklearn_and_with_each_other():
    from sklearn.metrics import f1_score
    out = run(label_of=None, seeds=(0, 1), epochs=2)
    for r in out.runs:
        truth, guess = np.repeat(np.indices((4, 4)).reshape(2, -1), r.confusion.ravel(), axis=1)
        assert (np.bincount(truth, minlength=4) == np.bincount(TEST.labels, minlength=4)).all()
        assert r.confusion.dtype == np.int64 and not r.confusion.flags.writeable
        assert 1 <= r.epoch <= 2 and len(r.history) == 2 and r.epoch == 1 + int(np.argmax([h['accuracy'] for h in r.history]))
    accuracies = [np.trace(r.confusion)/60 for r in out.runs]
    assert math.isclose(out['accuracy'].value, np.mean(accuracies)) and math.isclose(out['accuracy'].spread, np.std(accuracies), abs_tol=1e-12)
    assert out['accuracy'].seeds == 2 and [r.seed for r in out.runs] == [0, 1]
    each = []
    for r in out.runs:
        truth, guess = np.repeat(np.indices((4, 4)).reshape(2, -1), r.confusion.ravel(), axis=1)
        each.append(f1_score(truth, guess, average='macro', labels=np.union1d(truth, guess)))
    assert math.isclose(out['macro_f1'].value, np.mean(each))
    rows = np.mean([r.confusion[2, 2]/r.confusion[2].sum() for r in out.runs])
    assert math.isclose(out[f'accuracy/{CELLS[2]}'].value, rows)


def test_inception_score_by_brute_force():
    p = np.random.default_rng(0).dirichlet(np.ones(3), 23)
    def one(q): return math.exp(sum(sum(v*math.log(v/m) for v, m in zip(row, q.mean(0))) for row in q)/len(q))
    assert math.isclose(inception_score(p), np.mean([one(p[i*4:i*4 + 4]) for i in range(5)]), rel_tol=1e-9)
    assert math.isclose(inception_score(p[:3]), one(p[:3]), rel_tol=1e-9)
    assert math.isclose(inception_score(np.full((20, 4), .25)), 1) and math.isclose(inception_score(np.tile(np.eye(4), (5, 1)), 5), 4)


def test_the_test_set_chooses_nothing():
    other = Records.texts(TEST.data, (TEST.labels + 1) % 4, CELLS)
    a, b = run(epochs=3), run(test=other, epochs=3)
    assert a.runs[0].history == b.runs[0].history and a.runs[0].epoch == b.runs[0].epoch
    assert math.isclose(a['accuracy'].value + b['accuracy'].value, 1)  # the same predictions, every star wrong instead of right


def test_a_class_without_training_texts_or_in_no_other_set():
    bars = np.isin(TRAIN.labels, (0, 1))
    out = run(TRAIN[bars], label_of='category', epochs=3)
    assert out['accuracy/Hotels'].value == 0 and out['accuracy/Bars'].value == 1
    out = run(test=TEST[TEST.labels == 3], validation=VALIDATION[VALIDATION.labels != 3], label_of=None, epochs=6)
    assert f'accuracy/{CELLS[3]}' in out and f'accuracy/{CELLS[0]}' not in out
    assert out['accuracy'].value > .9  # ids are by name: a file without some classes shifts nothing


def test_length_does_not_leak_through_padding():
    with seeded(0, CPU): model = bert(3).eval()
    ids = encoded(tokenizer(), TEST.data, 12, 0)
    amp = lambda: torch.autocast('cpu', enabled=False)  # noqa: E731
    alone, together = (class_probabilities(model, ids, 0, n, CPU, amp) for n in (1, 60))
    assert np.allclose(alone, together, atol=1e-6) and np.allclose(alone.sum(1), 1) and len({len(i) for i in ids}) > 3


# --- seeds and state

def test_seeds_repeat_and_nothing_global_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, threads, numpy_state = torch.get_rng_state(), torch.get_num_threads(), np.random.get_state()[1].copy()
    level = transformers.utils.logging.get_verbosity()
    a = run(epochs=2)
    torch.rand(7)
    moved = torch.get_rng_state()
    b, c = run(epochs=2), run(epochs=2, seeds=(1,))
    assert torch.equal(torch.get_rng_state(), moved) and not torch.equal(moved, before)
    assert a.runs[0].history == b.runs[0].history and a.runs[0].history != c.runs[0].history
    with pytest.raises(ValueError, match=r'lr \(1e\+30\) must be lower'): run(lr=1e30)
    assert torch.equal(torch.get_rng_state(), moved) and torch.get_num_threads() == threads
    assert (np.random.get_state()[1] == numpy_state).all() and transformers.utils.logging.get_verbosity() == level
    assert not list(tmp_path.iterdir())


def test_progress_and_half_precision():
    said = []
    out = run(seeds=(0, 3), epochs=2, progress=said.append, dtype='bfloat16', warmup=.2, weight_decay=.1)
    assert [(d['seed'], d['epoch'], d['epochs']) for d in said] == [(0, 1, 2), (0, 2, 2), (3, 1, 2), (3, 2, 2)]
    assert all(set(d) == {'seed', 'epoch', 'epochs', 'loss', 'accuracy'} for d in said)
    assert out.runs[1].history[1]['accuracy'] == said[3]['accuracy']


# --- the loop

class One(torch.nn.Module):
    def __init__(self, w=0.):
        super().__init__()
        self.w = torch.nn.Parameter(torch.full((1, 1), w))


@pytest.mark.parametrize('plan, goal, chosen', [([.1, .5, .5, .2], 'a', 2), ([.1, .2, .3], 'a', 3), ([.9, .9], 'a', 1), ([.9, .1, .2], None, 3), ([.4], 'a', 1),
                                                ([-3., -2., -2.5], 'a', 2)])
def test_the_best_epoch_and_of_equals_the_earliest(plan, goal, chosen):
    model, seen, scores = One(), [], iter(plan)
    def score():
        assert not model.training
        seen.append(model.w.item())
        return dict(a=next(scores))
    epoch, history = train_epochs(model, lambda rows: -model.w.sum(), lambda: [None, None], score, goal, epochs=len(plan), lr=.5)
    assert epoch == chosen and [h['a'] for h in history] == plan and len(set(seen)) == len(plan)
    assert model.w.item() == seen[chosen - 1]


def test_the_loop_is_torchs_own_with_a_schedule():
    x, y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40.)[:, None]/20
    def net():
        with seeded(1, CPU): return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1))
    parts = [np.arange(i, i + 8) for i in range(0, 40, 8)]
    ours, slow = net(), net()
    train_epochs(ours, lambda rows: ((ours(x[rows]) - y[rows])**2).mean(), lambda: parts, lambda: {}, None, epochs=3, lr=.05, weight_decay=.3, warmup=.25)
    decay = [p for n, p in slow.named_parameters() if n in ('0.weight', '2.weight')]
    rest = [p for n, p in slow.named_parameters() if n not in ('0.weight', '2.weight')]
    optimizer = torch.optim.AdamW([dict(params=decay, weight_decay=.3), dict(params=rest, weight_decay=0.)], lr=.05)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, math.ceil(15*.25), 15)
    norms = []
    for _ in range(3):
        for rows in parts:
            optimizer.zero_grad()
            ((slow(x[rows]) - y[rows])**2).mean().backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_(slow.parameters(), 1.)))
            optimizer.step()
            schedule.step()
    assert min(norms) < .9 and max(norms) > 1.1  # some gradients are clipped, others not
    for a, b in zip(ours.parameters(), slow.parameters()): assert torch.allclose(a, b, atol=1e-6)


def test_decay_only_on_matrices_and_the_rate_is_a_line():
    model = bert(2)
    groups = adamw(model, 1e-3, .1).param_groups
    decayed = {id(p) for p in groups[0]['params']}
    assert [g['weight_decay'] for g in groups] == [.1, 0.] and sum(len(g['params']) for g in groups) == len(list(model.parameters()))
    for name, p in model.named_parameters(): assert (id(p) in decayed) == ('bias' not in name and 'LayerNorm' not in name)
    assert [lr_factor(i, 4, 0) for i in range(4)] == [1, .75, .5, .25]
    assert [lr_factor(i, 4, .5) for i in range(4)] == [0, .5, 1, .5]


@pytest.mark.parametrize('n, batch', [(1, 1), (1, 8), (7, 3), (64, 8), (1000, 16), (257, 32)])
def test_batches_hold_every_text_once(n, batch):
    lengths = np.random.default_rng(n).integers(1, 50, n)
    for rng in (None, np.random.default_rng(0)):
        out = length_batches(lengths, batch, rng)
        assert sorted(np.concatenate(out)) == list(range(n)) and len(out) == math.ceil(n/batch) and max(map(len, out)) <= batch
    a, b = (length_batches(lengths, batch, np.random.default_rng(s)) for s in (1, 2))
    if n > 64: assert any(list(x) != list(y) for x, y in zip(a, b))


def test_padding_and_its_mask():
    x = padded([np.array([5, 6]), np.array([7]), np.array([8, 9, 5])], 0, CPU)
    assert x['input_ids'].tolist() == [[5, 6, 0], [7, 0, 0], [8, 9, 5]] and x['attention_mask'].tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1]]


# --- odd texts

def test_odd_texts():
    t = tokenizer()
    ids = encoded(t, ['[SEP] good', '', 'good '*100_000, 'مرحبا 🙂', '{x} ${y}'], 8, 0)
    assert ids[0].tolist() == [1, 3, 3, 3, 8, 2]  # [SEP] in a text is three unknown words
    assert ids[1].tolist() == [1, 2] and len(ids[2]) == 8 and ids[2][-1] == 2 and ids[3].tolist() == [1, 3, 3, 2]
    bare, pad = tokenizer_of(bert, tokenizer(specials=False))
    assert pad == 2 and [i.tolist() for i in encoded(bare, ['', 'good bad'], 8, pad)] == [[2], [8, 10]]
    odd = Records.texts(['', '[CLS] [PAD]', '🙂'*500, 'good '*50_000], [0, 1, 0, 1], ['p', 'q'])
    assert 0 <= run(odd, odd, odd, label_of=None)['accuracy'].value <= 1


def test_a_model_without_padding_token():
    def gpt2(n): return GPT2ForSequenceClassification(GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=32, num_labels=n))
    out = run(model=gpt2, tokenizer=tokenizer(specials=False), epochs=6, label_of='category')
    assert out['accuracy'].value > .9


# --- which texts, which labels

@pytest.mark.parametrize('seed', range(5))
def test_keep_texts_against_a_loop(seed):
    rng = np.random.default_rng(seed)
    texts = [rng.choice(['Q: ', 'A: ', ''])+' '.join(['w']*rng.integers(0, 6)) for _ in range(40)]
    r = Records.texts(texts, rng.integers(2, size=40), ['a', 'b'])
    kept, counts = keep_texts(r, min_tokens=3, tokenizer=str.split, not_starting=('Q: ', 'A: w w'))
    slow = [i for i, s in enumerate(texts) if not s.startswith('Q: ') and not s.startswith('A: w w') and len(s.split()) >= 3]
    echo = sum(s.startswith('Q: ') or s.startswith('A: w w') for s in texts)
    assert kept == r[slow] and counts == dict(texts=40, starting=echo, short=40 - echo - len(slow), kept=len(slow))
    assert keep_texts(r[:0], min_tokens=3, tokenizer=str.split)[1] == dict(texts=0, starting=0, short=0, kept=0)


def test_token_counters():
    class Tiktoken:
        def encode_ordinary(self, s): return list(s)
    assert token_counter(Tiktoken())('<|endoftext|>') == 13
    count = token_counter(tokenizer())
    assert count('good bad [SEP]') == 5 and count('') == 0


def test_more_than_100_tokens_as_in_the_scripts():
    r = Records.texts([' '.join('w'*n) for n in (100, 101, 50, 51)])
    for name, left in (('openreview', [101]), ('pubmed', [100, 101, 51])):
        kept, _ = keep_texts(r, tokenizer=str.split, **PROTOCOLS[name]['keep'])
        assert [len(s.split()) for s in kept.data.tolist()] == left


def test_protocols_are_arguments():
    for name, call in dict(yelp=fine_tune_classifier, openreview=fine_tune_classifier, pubmed=next_word).items():
        for model, arguments in PROTOCOLS[name]['models'].items(): inspect.signature(call).bind(None, None, None, model, **arguments)
        inspect.signature(keep_texts).bind(None, **PROTOCOLS[name]['keep'])
    assert [d['epochs'] for d in PROTOCOLS['pubmed']['models'].values()] == [10, 20]


def test_relabel_by_every_kind_of_rule():
    want = Records.texts(TEST.data, TEST.labels//2, ['Bars', 'Hotels'])
    for rule in ('category', ['Bars', 'Bars', 'Hotels', 'Hotels'], dict(zip(CELLS, ['Bars', 'Bars', 'Hotels', 'Hotels'])), lambda n: n.split()[1]):
        assert relabel(TEST, rule) == want
    assert relabel(TEST, None) is TEST and relabel(TEST[:0], 'stars').label_names == ('5', '1')
    extra = TEST.with_extra(key=np.arange(60))
    assert relabel(extra, 'stars').extra['key'].tolist() == list(range(60))


@pytest.mark.parametrize('rule, names, text', [
    ('price', CELLS, "label_of ('price') must be a column"), ('category', ('Bars',), 'must be a column'), ('a', ('a: 1 | a: 2',), 'must be a column'),
    ('a', ('a: 1 | b',), 'must be a column'), ({}, CELLS, 'must give a class (str) for each label name'), (lambda n: 3, CELLS, 'must give a class'),
    (['x'], CELLS, 'or a sequence of 4 classes'), (3, CELLS, 'label_of (int) must be')])
def test_wrong_rules(rule, names, text):
    with pytest.raises(ValueError) as e: relabel(Records.texts([], [], names), rule)
    assert text in str(e.value)


# --- bad input

class Untouched:
    "Stands for a model that must not be made."
    def __call__(self, n): raise AssertionError('a model was made before the arguments were checked')


@pytest.mark.parametrize('more, text', [
    (dict(epochs=0), 'epochs (0) must'), (dict(epochs=True), 'epochs (True) must'), (dict(epochs=1.5), 'epochs (1.5) must'), (dict(lr=0), 'lr (0) must'),
    (dict(lr=float('nan')), 'lr (nan) must'), (dict(lr='1'), "lr ('1') must"), (dict(batch=0), 'batch (0) must'), (dict(max_tokens=2), 'max_tokens (2) must'),
    (dict(weight_decay=-1), 'weight_decay (-1) must'), (dict(warmup=1.), 'warmup (1.0) must'), (dict(seeds=()), 'seeds (()) must'), (dict(seeds=3), 'seeds (3) must'), (dict(seeds='0'), "seeds ('0') must"), (dict(seeds=None), 'seeds (None) must'),
    (dict(seeds=(1, 1)), 'seeds ((1, 1)) must'), (dict(seeds=(-1,)), 'seeds (-1) must'), (dict(dtype='float16'), "dtype ('float16') must"),
    (dict(progress=1), 'progress (1) must'), (dict(device='gpu'), "device ('gpu') must"), *([] if torch.cuda.is_available() else [(dict(device='cuda'), "device ('cuda') must be there")]), (dict(tokenizer=None), 'tokenizer (None) must'),
    (dict(tokenizer=3), 'tokenizer (3) must'), (dict(train=TRAIN[:0]), 'synthetic (0 records) must'), (dict(validation=VALIDATION[:0]), 'validation (0 records) must'),
    (dict(test=TEST[:0]), 'test (0 records) must'), (dict(train=['a']), "synthetic ('list') must be Records of texts"),
    (dict(test=Records.images(np.zeros((2, 4, 4, 1), np.uint8))), "test ('image') must be Records of texts"),
    (dict(test=reviews(5, 0, CELLS[::-1])), 'label_names of test'), (dict(validation=relabel(VALIDATION, 'stars'), label_of=None), 'label_names of validation'),
    (dict(label_of=lambda n: 'x'), "label_names (('x',)) must be at least two"), (dict(label_of='price'), "label_of ('price') must")])
def test_bad_arguments_before_any_model(more, text):
    with pytest.raises(ValueError) as e: run(model=Untouched(), **more)
    assert text in str(e.value)
    assert TRAIN.data[0] not in str(e.value)


@pytest.mark.parametrize('model, more, text', [
    (lambda n: bert(n + 1), {}, 'model (with 3 classes) must have 2'), (bert, dict(max_tokens=33), 'max_tokens (33) must be at most 32'),
    (lambda n: bert(n, max_position_embeddings=9), {}, 'max_tokens (12) must be at most 9'), (lambda n: bert(n, vocab_size=9), {}, 'the model knows 9 tokens'),
    (3, {}, 'model (3) must be a name'), ('', {}, "model ('') must be a name")])
def test_models_that_do_not_fit(model, more, text):
    with pytest.raises(ValueError) as e: run(model=model, **more)
    assert text in str(e.value)


def test_robertas_positions_start_behind_the_padding():
    from transformers import RobertaConfig, RobertaForSequenceClassification
    def roberta(n): return RobertaForSequenceClassification(RobertaConfig(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                                                                          max_position_embeddings=14, num_labels=n))
    with pytest.raises(ValueError, match=r'max_tokens \(13\) must be at most 12'): check_fits(roberta(2), tokenizer(), [np.array([1])], 13)
    check_fits(roberta(2), tokenizer(), [np.array([1])], 12)


def test_keep_texts_bad_input():
    for more, text in [(dict(min_tokens=-1), 'min_tokens (-1) must'), (dict(min_tokens=2), 'tokenizer (None) must'), (dict(min_tokens=2, tokenizer='gpt-3.5-turbo'), 'tokenizer ('),
                       (dict(not_starting=('',)), "not_starting (('',)) must"), (dict(not_starting=(3,)), 'not_starting ((3,)) must')]:
        with pytest.raises(ValueError) as e: keep_texts(TEST, **more)
        assert text in str(e.value)


# --- weights

def test_from_a_folder_with_another_head(tmp_path):
    with quiet():
        bert(7).save_pretrained(tmp_path)
        tokenizer().save_pretrained(tmp_path)
    names = sorted(p.name for p in tmp_path.iterdir())
    a, b = (run(model=str(tmp_path), tokenizer=None, label_of=None, epochs=2) for _ in range(2))
    assert a.runs[0].confusion.shape == (4, 4) and a.runs[0].history == b.runs[0].history
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_missing_weights_say_what_to_do(tmp_path):
    for name in ('roberta-base-of-nobody', 'nobody/bert', str(tmp_path/'absent')):
        with pytest.raises(ValueError) as e: fine_tune_classifier(TRAIN, VALIDATION, TEST, name, label_of='stars', download=False)
        assert f'`hf download {name}`' in str(e.value) and 'into a folder' in str(e.value)
    with pytest.raises(ValueError, match='`hf download '): from_hub('AutoConfig', str(tmp_path/'absent'))  # a path is not looked for on the hub
    (tmp_path/'config.json').write_text('{"model_type": "unheard-of"}')
    with pytest.raises(ValueError, match='must be'): from_hub('AutoConfig', str(tmp_path))


def test_the_hub_is_asked_only_for_what_is_not_here(monkeypatch):
    asked = []
    class Auto:
        @staticmethod
        def from_pretrained(name, local_files_only=False, **settings):
            asked.append((name, local_files_only))
            if name == 'absent' or local_files_only and name == 'there': raise OSError('not found')
            return name
    monkeypatch.setattr('pe_nb.metrics.fine_tune.packages', lambda: (torch, SimpleNamespace(AutoConfig=Auto)))
    assert from_hub('AutoConfig', 'here') == 'here' and from_hub('AutoConfig', 'there') == 'there'
    assert asked == [('here', True), ('there', True), ('there', False)]
    for name, download in (('there', False), ('absent', True)):
        with pytest.raises(ValueError, match=f'`hf download {name}`'): from_hub('AutoConfig', name, download)
    assert asked[3:] == [('there', True), ('absent', True), ('absent', False)]


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ImportError, match=r"pip install 'pe_nb\[text\]'"): run()
