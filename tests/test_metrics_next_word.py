"Next-token accuracy and perplexity: token by token beside the batches, a model that looks ahead, choices, bad input."
import math

import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')
from transformers import BertConfig, BertLMHeadModel, GPT2Config, GPT2LMHeadModel  # noqa: E402

from pe_nb.metrics.fine_tune import encoded, padded, quiet, seeded  # noqa: E402
from pe_nb.metrics.next_word import check_causal, decoder, next_word, shifted, token_scores  # noqa: E402
from pe_nb.records import Records  # noqa: E402
from tiny import word_tokenizer  # noqa: E402

WORDS = ['[PAD]', '[CLS]', '[SEP]', '[UNK]', *'the cat dog sees hears a bird fish'.split()]
CPU = torch.device('cpu')


pytestmark = pytest.mark.usefixtures('one_thread', 'no_network')


def tokenizer(specials=True): return word_tokenizer(WORDS, specials)


def bert(**more):
    with quiet():
        return BertLMHeadModel(BertConfig(**dict(dict(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                                                      max_position_embeddings=32, is_decoder=True), **more)))


def gpt2(): return GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2))


def amp(): return torch.autocast('cpu', enabled=False)


def texts(*each): return Records.texts(list(each))


RULE = texts(*['the cat sees a fish']*60)
FAST = dict(tokenizer=tokenizer(), batch=16, max_tokens=12, lr=2e-2, device='cpu')


def run(synthetic=RULE, validation=RULE[:4], test=RULE[:5], model=bert, **more):
    return next_word(synthetic, validation, test, model, **FAST | dict(epochs=2) | more)


# --- the figures

@pytest.mark.parametrize('make', [bert, gpt2])
@pytest.mark.parametrize('batch', [1, 3, 50])
def test_token_by_token(make, batch):
    with seeded(3, CPU): model = make().eval()
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 12, n) for n in (1, 2, 9, 4, 9, 1, 14)]
    hits, nll, count = 0, 0., 0
    for text in ids:
        for i in range(1, len(text)):  # the model sees the tokens before i, alone and without padding
            with torch.no_grad(): p = model(input_ids=torch.tensor(text[None, :i])).logits[0, -1].double().log_softmax(0)
            hits, nll, count = hits + (int(p.argmax()) == text[i]), nll - float(p[text[i]]), count + 1
    out = token_scores(model, ids, 0, batch, CPU, amp)
    assert count == sum(len(i) - 1 for i in ids) == 33
    assert out['token_accuracy'] == hits/count and math.isclose(out['perplexity'], math.exp(nll/count), rel_tol=1e-4)


def test_the_training_loss_is_that_of_transformers():
    with seeded(0, CPU): model = bert().eval()
    x = padded([np.array([1, 5, 6, 2]), np.array([1, 2]), np.array([1, 0, 0, 5, 7, 2])], 0, CPU)
    labels = x['input_ids'].masked_fill(x['attention_mask'] == 0, -100)
    theirs = model(**x, labels=labels).loss
    ours = torch.nn.functional.cross_entropy(*shifted(model(**x).logits, x))
    assert torch.allclose(ours, theirs) and len(shifted(model(**x).logits, x)[1]) == 9  # padding is known by the mask: a real token 0 counts


def test_which_tokens_count():
    with_specials = encoded(tokenizer(), ['cat sees', ''], 12, 0)
    assert [i.tolist() for i in with_specials] == [[1, 5, 7, 2], [1, 2]]
    x = padded(with_specials, 0, CPU)
    assert shifted(torch.zeros(2, 4, 12), x)[1].tolist() == [5, 7, 2, 2]  # never [CLS], never padding; always [SEP]
    cut = encoded(tokenizer(), ['cat '*100], 5, 0)
    assert cut[0].tolist() == [1, 5, 5, 5, 2]
    bare = padded(encoded(tokenizer(specials=False), ['cat sees', ''], 12, 2), 2, CPU)
    assert shifted(torch.zeros(2, 2, 12), bare)[1].tolist() == [7]


def test_perplexity_stays_finite():
    with seeded(0, CPU): model = bert().eval()
    with torch.no_grad(): model.cls.predictions.bias.copy_(torch.tensor([1e4]+[0.]*11))
    out = token_scores(model, [np.array([1, 5, 2])], 0, 1, CPU, amp)
    assert out['token_accuracy'] == 0 and math.isfinite(out['perplexity']) and out['perplexity'] > 1e300


# --- looking ahead

@pytest.mark.parametrize('n', [2, 5, 30])
def test_only_a_model_that_does_not_look_ahead_is_taken(n):
    ids = [np.array([1, 2]), np.arange(n) % 12]
    for make in (bert, gpt2):
        model = make()
        check_causal(model, ids, CPU)
        assert model.training
    with pytest.raises(ValueError, match='is_decoder=True'): check_causal(bert(is_decoder=False), ids, CPU)
    with pytest.raises(ValueError, match='is_decoder=True'): run(model=lambda: bert(is_decoder=False))


def test_an_encoder_from_a_folder_becomes_a_decoder(tmp_path):
    with quiet(), seeded(0, CPU):
        model = bert(is_decoder=False)
        model.save_pretrained(tmp_path)
        tokenizer().save_pretrained(tmp_path)
    again = decoder(str(tmp_path))
    assert again.config.is_decoder and torch.equal(again.bert.embeddings.word_embeddings.weight, model.bert.embeddings.word_embeddings.weight)
    check_causal(again, [np.arange(8)], CPU)
    out = run(model=str(tmp_path), tokenizer=None, epochs=4)
    assert out['token_accuracy'].value > .9


# --- what is learned

@pytest.mark.parametrize('make', [bert, gpt2])
def test_a_language_with_one_sentence_is_learned(make):
    out = run(model=make, epochs=25, seeds=(0, 1))
    assert out['token_accuracy'].value > .99 and out['perplexity'].value < 1.1 and out['token_accuracy'].private and out['token_accuracy'].seeds == 2
    assert set(out) == {'token_accuracy', 'perplexity', 'validation/token_accuracy', 'validation/perplexity', 'epoch'}


def test_random_words_are_not():
    rng = np.random.default_rng(0)
    r = texts(*(' '.join(rng.choice(WORDS[4:], 8)) for _ in range(120)))
    out = run(r[:60], r[60:90], r[90:], epochs=6)
    assert out['token_accuracy'].value < .35 and out['perplexity'].value > 4  # 8 of 9 tokens are one of 8 words


def test_the_chosen_epoch():
    rng = np.random.default_rng(1)
    r = texts(*(' '.join(rng.choice(WORDS[4:], rng.integers(2, 9))) for _ in range(70)))
    more = dict(synthetic=r[:40], validation=r[40:55], test=r[55:], epochs=6, lr=5e-2)
    runs = {c: run(choose=c, **more) for c in ('accuracy', 'perplexity', 'last')}
    histories = [o.runs[0].history for o in runs.values()]
    assert histories[0] == histories[1] == histories[2]
    a, p = ([h[k] for h in histories[0]] for k in ('token_accuracy', 'perplexity'))
    epochs = {c: o.runs[0].epoch for c, o in runs.items()}
    assert epochs == dict(accuracy=1 + int(np.argmax(a)), perplexity=1 + int(np.argmin(p)), last=6) and len(set(epochs.values())) > 1
    for c, o in runs.items():
        assert o['validation/token_accuracy'].value == a[epochs[c] - 1] and math.isclose(o['validation/perplexity'].value, p[epochs[c] - 1])
    same = run(choose='last', **more | dict(test=r[:3]))
    assert same.runs[0].history == histories[0]  # the test set chooses nothing


def test_seeds_repeat_and_nothing_global_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    a, b, c, said = run(), run(), run(seeds=(7,)), []
    assert a.runs[0].history == b.runs[0].history != c.runs[0].history and a['perplexity'] == b['perplexity']
    run(progress=said.append, dtype='bfloat16', seeds=(0, 1))
    assert [(d['seed'], d['epoch']) for d in said] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert torch.equal(state, torch.get_rng_state()) and torch.get_num_threads() == threads and not list(tmp_path.iterdir())


# --- bad input

def test_odd_texts():
    odd = texts('', '[SEP] [PAD] [CLS]', 'cat '*100_000, '{x} ${y}', 'مرحبا 🙂')
    assert 0 <= run(odd, odd, odd)['token_accuracy'].value <= 1
    assert run(odd, odd, odd, model=gpt2, tokenizer=tokenizer(specials=False))['perplexity'].value >= 1


def test_labels_play_no_part():
    labelled = Records.texts(RULE.data, np.arange(60) % 2, ['a', 'b'])
    assert run(labelled)['perplexity'] == run()['perplexity']


@pytest.mark.parametrize('more, text', [
    (dict(choose='best'), "choose ('best') must"), (dict(epochs=0), 'epochs (0) must'), (dict(lr=-1), 'lr (-1) must'), (dict(seeds=()), 'seeds (()) must'),
    (dict(tokenizer=None), 'tokenizer (None) must'), (dict(synthetic=RULE[:0]), 'synthetic (0 records) must'), (dict(validation=RULE[:0]), 'validation (0 records) must'),
    (dict(test=RULE[:0]), 'test (0 records) must'), (dict(test='x'), "test ('str') must be Records of texts"), (dict(dtype='half'), "dtype ('half') must"),
    (dict(test=texts('cat', ''), tokenizer=tokenizer(specials=False)), 'test (2 texts) must hold at least one text of two tokens')])
def test_bad_arguments_before_any_model(more, text):
    def untouched(): raise AssertionError('a model was made before the arguments were checked')
    with pytest.raises(ValueError) as e: run(model=untouched, **more)
    assert text in str(e.value) and 'fish' not in str(e.value)


@pytest.mark.parametrize('model, more, text', [
    (lambda: bert(vocab_size=9), {}, 'the model knows 9 tokens'), (lambda: bert(max_position_embeddings=8), {}, 'max_tokens (12) must be at most 8'),
    (bert, dict(lr=1e30, epochs=4), 'lr (1e+30) must be lower'), ('prajjwal1/bert-of-nobody', dict(tokenizer=None, download=False), '`hf download prajjwal1/bert-of-nobody`')])
def test_models_that_do_not_work(model, more, text):
    with pytest.raises(ValueError) as e: run(model=model, **more)
    assert text in str(e.value)
