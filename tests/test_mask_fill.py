"Mask filling: what is not hidden stays to the character, batches do not matter, nothing special comes out. Tiny random models, no network."
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM  # noqa: E402

from pe_nb.evolution import Settings, evolve  # noqa: E402
from pe_nb.generators import mask_fill as F  # noqa: E402
from pe_nb.generators.mask_fill import MaskFill, Pieces, spliced  # noqa: E402
from pe_nb.generators.pool import Pool  # noqa: E402
from pe_nb.records import Records  # noqa: E402
from pe_nb.release import Budget, SeededNoise  # noqa: E402

rng = lambda s=0: np.random.default_rng(s)
WORDS = 'the quick brown fox jumps over a lazy dog while seven wizards quietly judge its form (badly), and "laugh" - twice! it\'s fine; good food costs more?'
TEXTS = ['the quick brown fox jumps over a lazy dog', 'Seven  wizards\n\nquietly judge the fox!', 'a dog', '', '   \n', 'good food costs more (it\'s fine), and the fox laughs twice while seven lazy dogs jump',
         '😀 naïve  café 食べ物 אוכל <mask> [MASK] </s> [SEP] {x} ${y} the dog', 'x']
SPECIAL = dict(bert=['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'], roberta=['<s>', '<pad>', '</s>', '<unk>', '<mask>'])


def wordpiece():
    t = Tokenizer(models.WordPiece(unk_token='[UNK]'))
    t.normalizer, t.pre_tokenizer, t.decoder = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    t.train_from_iterator([WORDS], trainers.WordPieceTrainer(vocab_size=150, special_tokens=SPECIAL['bert'] + ['[unused0]', '[unused1]'], show_progress=False))
    t.post_processor = processors.TemplateProcessing(single='[CLS] $A [SEP]', special_tokens=[('[CLS]', 2), ('[SEP]', 3)])
    return PreTrainedTokenizerFast(tokenizer_object=t, pad_token='[PAD]', unk_token='[UNK]', cls_token='[CLS]', sep_token='[SEP]', mask_token='[MASK]', model_max_length=10**30)


def bytebpe(trim=True):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    t.train_from_iterator(['the dog the fox a dog a fox']*20 + [WORDS]*3, trainers.BpeTrainer(vocab_size=340, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=SPECIAL['roberta'], show_progress=False))
    t.post_processor = processors.RobertaProcessing(('</s>', 2), ('<s>', 0), trim_offsets=trim, add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=t, bos_token='<s>', eos_token='</s>', pad_token='<pad>', unk_token='<unk>', mask_token='<mask>', cls_token='<s>', sep_token='</s>')


SMALL = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, initializer_range=.5)
def make_model(kind, tok, places=66, seed=0, **kw):
    torch.manual_seed(seed)
    c, m = dict(bert=(BertConfig, BertForMaskedLM), roberta=(RobertaConfig, RobertaForMaskedLM))[kind]
    return m(c(vocab_size=len(tok) + 5, max_position_embeddings=places, pad_token_id=tok.pad_token_id, **SMALL | kw))       # 5 ids that no token has


TOKENIZERS = dict(bert=wordpiece(), roberta=bytebpe())
MODELS = {k: make_model(k, t) for k, t in TOKENIZERS.items()}
PIECES = {k: Pieces(t) for k, t in TOKENIZERS.items()} | dict(untrimmed=Pieces(bytebpe(False)))
both = pytest.mark.parametrize('kind', ['bert', 'roberta'])
def gen(kind='bert', model=None, **kw): return MaskFill(MODELS[kind] if model is None else model, TOKENIZERS[kind], **dict(start=Records.texts(TEXTS)) | kw)
parents = Records.texts(TEXTS, extra=dict(outcome=np.array(['new']*len(TEXTS), np.dtypes.StringDType())))


pytestmark = pytest.mark.usefixtures('one_thread')


# ---- splicing

texts = st.lists(st.sampled_from(list('theTHE dogfox  \n\t(),.!\'"-é食😀אß\u0301\u200d#Ġ▁') + ['fox', ' the', ' dog', '<mask>', '[SEP]']), max_size=30).map(''.join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts, st.sampled_from(['bert', 'roberta', 'untrimmed']))
def test_no_change_is_the_same_text(text, kind):
    p = PIECES[kind]
    ids, spans = p.encode([text])[0]
    assert spliced(text, ids, ids.copy(), spans, p) == text
    assert spliced(text, ids, ids[:2].copy(), spans[:2] + spans[2:], p) == text


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts, st.sampled_from(['bert', 'roberta', 'untrimmed']), st.integers(0, 10**6))
def test_what_is_not_changed_stays_to_the_character(text, kind, seed):
    p, r = PIECES[kind], rng(seed)
    ids, spans = p.encode([text])[0]
    can = p.maskable(text, spans)
    new, pick = ids.copy(), np.flatnonzero(can & (r.random(len(ids)) < .3))
    new[pick] = r.choice(np.flatnonzero(p.allowed(p.backend.get_vocab_size())), len(pick))
    out, gone = spliced(text, ids, new, spans, p), np.zeros(len(text), bool)
    for i in pick:
        if new[i] != ids[i]: gone[slice(*spans[i])] = True
    left = ''.join(c for c, g in zip(text, gone) if not g and not c.isspace())           # all of it is there, in order
    rest = iter(out)
    assert all(c in rest for c in left)
    assert '\ufffd' not in out


@both
def test_changed_words_are_joined_well(kind):
    p = PIECES[kind]
    def swap(text, **words):
        ids, spans = p.encode([text])[0]
        new = ids.copy()
        for i, (s, e) in enumerate(spans):
            if (w := words.get(text[s:e].strip())) is not None:
                got = p.backend.encode(w if kind == 'bert' or s == 0 else ' ' + w, add_special_tokens=False).ids
                assert len(got) == 1
                new[i] = got[0]
        return spliced(text, ids, new, spans, p)
    assert swap('the  fox,\n a dog!', fox='dog', a='the') == 'the  dog,\n the dog!'
    assert swap('The fox', fox='dog') == 'The dog' and swap('the fox', the='a') == 'a fox'
    assert swap('😀 fox', fox='dog') == '😀 dog'


def test_continuations_and_punctuation():
    p = PIECES['bert']
    def put(text, **ids_at):
        ids, spans = p.encode([text])[0]
        new = ids.copy()
        for k, v in ids_at.items(): new[int(k[1:])] = p.backend.token_to_id(v)
        return spliced(text, ids, new, spans, p)
    assert p.backend.token_to_id('##s') and p.backend.token_to_id('.') is None
    assert put('the fox dog', _1='##s') == 'thes dog' and put('(the) dog', _2='fox') == '(the fox dog'
    assert put('the dog', _0='!', _1='fox') == '! fox'


# ---- the property of the generator

@both
def test_degree_zero_is_the_parent_and_needs_no_model(kind):
    g = MaskFill('no such folder', start=parents.without_extra())
    out = g.vary(parents, 0, rng())
    assert out.data.tolist() == TEXTS and set(out.extra['outcome'].tolist()) == {'kept'}
    assert gen(kind).vary(parents, 0., rng(1)).data.tolist() == TEXTS


@both
def test_changes_grow_with_the_degree(kind):
    base = [TEXTS[5]]*60
    old, spans = PIECES[kind].encode([TEXTS[5]])[0]
    shares = []
    for degree in (0, .1, .3, .6, 1):
        gaps = [F.Gap(t, old, spans, PIECES[kind], 60, degree, r) for t, r in zip(base, map(rng, range(60)))]
        shares.append(np.mean([len(g.todo)/len(old) for g in gaps]))
        out = gen(kind).vary(Records.texts(base), degree, rng())
        assert (np.array([t != TEXTS[5] for t in out.data.tolist()]).mean() > min(.7, degree*6)) == (degree > 0)
    can = PIECES[kind].maskable(TEXTS[5], spans).mean()
    assert shares[0] == 0 and np.abs(np.array(shares) - can*np.array([0, .1, .3, .6, 1])).max() < .03      # sd .011
    assert can > .9


@both
@pytest.mark.parametrize('kw', [{}, dict(rounds=1), dict(rounds=5, order='random'), dict(steps=3, rounds=2), dict(top_k=3), dict(temperature=0)])
def test_a_record_does_not_depend_on_its_batch(kind, kw):
    want = gen(kind, **kw).vary(parents, .5, rng(2))
    for more in (dict(batch_size=1), dict(batch_size=3), dict(memory_mb=1)): assert gen(kind, **kw, **more).vary(parents, .5, rng(2)) == want
    for n in (1, 6): assert gen(kind, **kw).vary(parents[:n], .5, rng(2)).data.tolist() == want.data.tolist()[:n]
    assert gen(kind, **kw).vary(parents, .5, rng(3)) != want


def test_without_the_attention_mask_batches_would_matter(monkeypatch):
    class Deaf(torch.nn.Module):
        def __init__(self, m): super().__init__(); self.m, self.config = m, m.config
        def get_output_embeddings(self): return self.m.get_output_embeddings()
        def forward(self, input_ids, attention_mask): return self.m(input_ids=input_ids)
    g = [gen('bert', Deaf(MODELS['bert']), batch_size=b) for b in (1, 8)]
    a, b = (x.vary(parents, .5, rng(2)) for x in g)
    assert a != b


@both
def test_nothing_special_comes_out_and_names_of_special_tokens_are_text(kind):
    clean = Records.texts([TEXTS[5], TEXTS[1]]*40)
    out = gen(kind).vary(clean, 1., rng())
    for t in out.data.tolist():
        assert not any(s in t for s in SPECIAL['bert'] + SPECIAL['roberta'] + ['[unused', '##', 'Ġ', '\ufffd']) and t.strip() and t.isprintable() or '\n' in t
    hostile = Records.texts(['[MASK] <mask> [SEP] </s>']*50)
    low = gen(kind).vary(hostile, .02, rng(1)).data.tolist()
    assert sum(t == hostile.data[0] for t in low) > 5 and all('[MASK]' in t or '<mask>' in t for t in low)
    allowed = gen(kind).parts()[3].numpy()
    assert not allowed[-5:].any() and not allowed[TOKENIZERS[kind].all_special_ids].any() and allowed.sum() > 20


def test_an_emoji_is_never_cut():
    g = gen('roberta')
    for t in g.vary(Records.texts(['a 😀 dog 食']*50), 1., rng()).data.tolist(): assert '😀' in t and '食' in t and '\ufffd' not in t


@both
def test_empty_and_blank_texts_are_kept_and_counted(kind):
    out = gen(kind).vary(parents, 1., rng())
    assert out.data.tolist()[3:5] == TEXTS[3:5] and out.extra['outcome'][3:5].tolist() == ['kept']*2
    assert all((o == 'kept') == (a == b) for o, a, b in zip(out.extra['outcome'].tolist(), out.data.tolist(), TEXTS))
    assert out.extra['outcome'][5] == 'new'
    assert dict(gen(kind).vary(Records.texts(TEXTS), .5, rng()).extra) == {} and len(gen(kind).vary(parents[:0], .5, rng())) == 0
    only = gen(kind).vary(Records.texts(['', '']), 1., rng())
    assert only.data.tolist() == ['', '']


@both
def test_long_texts_are_varied_in_their_first_window(kind):
    tok = TOKENIZERS[kind]
    m = make_model(kind, tok, places=20)
    g = gen(kind, m)
    room = 20 - 2 - (tok.pad_token_id + 1 if kind == 'roberta' else 0)
    assert g.parts()[2] == room
    text = ' '.join(['dog', 'fox', 'the', 'a']*25_000)
    out = g.vary(Records.texts([text]), 1., rng()).data[0]
    end = PIECES[kind].encode([text[:300]])[0][1][room - 1][1]
    assert out.endswith(text[end:]) and out[:end] != text[:end] and len(out) - len(text) < 200
    short = PreTrainedTokenizerFast(tokenizer_object=TOKENIZERS['bert'].backend_tokenizer, mask_token='[MASK]', pad_token='[PAD]', model_max_length=9)
    assert F.context(MODELS['bert'], short) == 9 and F.context(MODELS['roberta'], TOKENIZERS['roberta']) == 64


# ---- filling

@pytest.mark.parametrize('order', ['confident', 'random'])
def test_rounds_fill_everything_in_equal_parts(order):
    g = F.Gap('x'*10, np.arange(10), [(i, i + 1) for i in range(10)], PIECES['bert'], 10, 1., rng())
    sure, filled = rng(1).random(10), []
    for left in (4, 3, 2, 1):
        before = g.todo
        g.accept(np.full(len(before), 50 + left), sure[before], left, order)
        filled.append(sorted(set(before) - set(g.todo)))
    assert [len(f) for f in filled] == [3, 3, 2, 2] and len(g.todo) == 0
    key = -sure if order == 'confident' else g.rank
    assert [i for f in filled for i in sorted(f, key=lambda i: key[i])] == np.argsort(key).tolist()
    assert sorted(g.new.tolist()) == sorted([54]*3 + [53]*3 + [52]*2 + [51]*2)


def test_draw_follows_the_distribution():
    z, ok, u = torch.log(torch.tensor([[.1, .2, .3, .4]])).repeat(20_000, 1), torch.ones(4, dtype=bool), rng().random(20_000)
    share = lambda *a, ok=ok: np.bincount(F.draw(z, ok, u, *a)[0], minlength=4)/20_000
    assert np.abs(share(1., 0) - [.1, .2, .3, .4]).max() < .02
    assert np.abs(share(1., 2) - [0, 0, 3/7, 4/7]).max() < .02
    assert np.abs(share(.5, 0) - np.array([1, 4, 9, 16])/30).max() < .02
    assert share(0, 0).tolist() == [0, 0, 0, 1] and share(1e-6, 0).tolist() == [0, 0, 0, 1]
    assert np.abs(share(1., 0, ok=torch.tensor([True, False, True, False])) - [.25, 0, .75, 0]).max() < .02
    edge = F.draw(z[:2], torch.tensor([False, True, True, False]), np.array([0., np.nextafter(1, 0)]), 1., 0)[0]
    assert edge.tolist() == [1, 2]                                             # the ends of the range fall on allowed tokens
    assert np.allclose(F.draw(z, ok, u, 1., 0)[1], .4)
    for bad in (float('nan'), -float('inf')):
        with pytest.raises(ValueError, match='must be finite'): F.draw(torch.full((1, 4), bad), ok, u[:1], 1., 0)


def test_batches_are_of_similar_length():
    gaps = [F.Gap('x'*n, np.arange(n), [(i, i + 1) for i in range(n)], PIECES['bert'], 99, 1., rng()) for n in (5, 50, 6, 40, 7)]
    got = [[len(g.now) for g in b] for b in F.batches(gaps, 2, 10**6)]
    assert got == [[52, 42], [9, 8], [7]]
    assert [len(b) for b in F.batches(gaps, 9, 60)] == [1, 1, 3] and [len(b) for b in F.batches(gaps, 9, 1)] == [1]*5


# ---- random API, settings, identity

def test_random_gives_public_texts_by_label():
    public = Records.texts(['dog a', 'dog b', 'fox a'], [0, 0, 1], ['dog', 'fox'], extra=dict(who=np.arange(3)))
    g = gen(start=public)
    out = g.random(np.array([1, 0, 0, 1]), rng())
    assert out.data.tolist()[0] == out.data.tolist()[3] == 'fox a' and sorted(out.data.tolist()[1:3]) == ['dog a', 'dog b']
    assert set(out.extra) == {'outcome'} and set(out.extra['outcome'].tolist()) == {'new'} and out.label_names == ('dog', 'fox')
    via = gen(start=Pool(public, embeddings=np.eye(3)))
    assert via.random(np.array([1, 0]), rng()).label_names == ('dog', 'fox') and g.record_bytes > 0
    assert set(g.vary(out, .5, rng()).extra) == {'outcome'}
    assert gen(start=Records.texts(['a', 'b']), label_names=['p', 'q']).random(np.array([1, 0]), rng()).labels.tolist() == [1, 0]
    assert len(g.random(np.zeros(0, int), rng())) == 0


def test_fingerprint_knows_weights_and_settings(tmp_path):
    m, t = MODELS['bert'], TOKENIZERS['bert']
    with torch.no_grad():
        other = make_model('bert', t)
        next(other.parameters())[7, 3] += 1e-3
    made = [gen(), gen(model=other), gen(rounds=1), gen(order='random'), gen(steps=2), gen(temperature=.7), gen(top_k=5), gen(start=Records.texts(['a'])), gen('roberta')]
    assert len({g.fingerprint for g in made}) == len(made)
    assert gen(model=make_model('bert', t), batch_size=3, memory_mb=5).fingerprint == made[0].fingerprint
    m.save_pretrained(tmp_path); t.save_pretrained(tmp_path)
    again = MaskFill(str(tmp_path), start=Records.texts(TEXTS))
    assert not hasattr(again, '_parts')
    assert str(tmp_path) not in again.fingerprint and again.vary(parents, .5, rng()) == gen().vary(parents, .5, rng())
    assert F.weights_hash(again.parts()[0]) == F.weights_hash(m)
    assert not m.training and again.parts()[1].backend.to_str() == made[0].parts()[1].backend.to_str()


def test_the_callers_tokenizer_stays_as_it_is():
    t = wordpiece()
    t.backend_tokenizer.enable_truncation(4)
    before = t.backend_tokenizer.to_str()
    g = MaskFill(MODELS['bert'], t, start=Records.texts(TEXTS))
    g.vary(parents, .5, rng())
    assert t.backend_tokenizer.to_str() == before and t('[MASK]')['input_ids'][1] == t.mask_token_id


@pytest.mark.parametrize('kw, said', [
    (dict(rounds=0), 'rounds'), (dict(steps=0), 'steps'), (dict(top_k=-1), 'top_k'), (dict(batch_size=0), 'batch_size'), (dict(memory_mb=0), 'memory_mb'), (dict(temperature=-1), 'temperature'),
    (dict(temperature=float('nan')), 'temperature'), (dict(order='best'), 'order'), (dict(dtype='int8'), 'dtype'), (dict(start=None), 'start'), (dict(start=Records.images(np.zeros((1, 2, 2, 1), np.uint8))), 'start'),
    (dict(start=Records.texts(['a'], [0], ['x', 'y'])), 'there is none of'), (dict(label_names=['p', 'p']), 'unique'), (dict(tokenizer=None), 'tokenizer'),
    (dict(start=Pool(Records.texts(['a']), embeddings=np.eye(1)), label_names=['z']), 'label_names')])
def test_bad_settings_are_refused(kw, said):
    with pytest.raises(ValueError) as e: MaskFill(**dict(model=MODELS['bert'], tokenizer=TOKENIZERS['bert'], start=Records.texts(TEXTS)) | kw)
    assert said in str(e.value)


@pytest.mark.parametrize('degree', [-.1, 1.1, None, True, '0.5', float('nan'), dict(mask=.5)])
def test_bad_degrees_are_refused(degree):
    with pytest.raises(ValueError, match='degree'): gen().check(degree)
    with pytest.raises(ValueError, match='degree'): gen().vary(parents, degree, rng())


def test_bad_parents_and_tokenizers_are_refused():
    for bad, said in [(None, 'texts'), (Records.images(np.zeros((1, 2, 2, 1), np.uint8)), 'texts'), (Records.texts(['a'], [0], ['z']), 'label_names'), (parents.with_extra(more=np.zeros(len(parents))), 'extra')]:
        with pytest.raises(ValueError, match=said): gen().vary(bad, .5, rng())
    t = TOKENIZERS['bert']
    for tok, said in [(PreTrainedTokenizerFast(tokenizer_object=t.backend_tokenizer, pad_token='[PAD]'), 'mask token'), (object(), 'fast'), (bytebpe(), 'must be that of the model')]:
        with pytest.raises(ValueError, match=said): MaskFill(MODELS['bert'], tok, start=Records.texts(TEXTS)).parts()
    images = Pool(Records.images(np.zeros((1, 2, 2, 1), np.uint8)), embeddings=np.eye(1))
    with pytest.raises(ValueError, match='must give texts'): gen(start=images).random(np.zeros(1, int), rng())


def test_in_a_run():
    class Lengths:
        fingerprint = 'Lengths'
        def __call__(self, r): return np.array([[t.count('dog'), len(t)/10] for t in r.data.tolist()], np.float32).reshape(len(r), 2)
    private = Records.texts(['dog dog dog dog']*50 + ['dog dog dog']*50)
    def run(**kw): return list(evolve(private, gen(**kw), Lengths(), Settings(generations=2, samples=8, degree=[.5, .5, .2], folds=1, keep_parents=True), Budget(epsilon=4., delta=1e-5), noise=SeededNoise(0)))[-1].records
    out = run()
    assert out == run(batch_size=2) and len(out) == 16 and set(out.extra['outcome'].tolist()) <= {'new', 'kept'}
