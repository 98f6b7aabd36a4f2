"Text recipes: the prompts are complete for every public label, the settings are the paper's, and the noise keeps the promise."
import json
import math
import re

import numpy as np
import pytest

from pe_nb import Budget, Records, Settings, evolve
from pe_nb.accounting import Event, calibrate, epsilon
from pe_nb.data.text_sets import OPENREVIEW, SIZES, YELP
from pe_nb.data.texts import label_name, label_set
from pe_nb.evolution import planned_events, steps
from pe_nb.generators.prompts import Prompt
from pe_nb.generators.text import Text
from pe_nb.generators.text_recipes import NAMES, TRAIN, WAYS, delta_of, population, prompt_file, recipe, selected
from pe_nb.llms.chat import Answer, Chat
from pe_nb.release import SeededNoise

LABELS = dict(yelp=label_set(YELP), openreview=label_set(OPENREVIEW), pubmed=label_set(None))
FILES = [f'{n}_{w}_{api}' for n in NAMES for w in WAYS for api in ('random', 'variation')]
BRACES = re.compile(r'\{(\w+)\}')


def read(name): return json.loads(prompt_file(name).read_text(encoding='utf-8'))


def given(name): return () if name.endswith('random') else ('sample',) if '_local_' in name else ('masked_sample', 'word_count')


def choices(name):
    "Variable to the list of its choices, over all rules without constraints."
    return {k: v for r in read(name).get('replacement_rules', []) if not r['constraints'] for k, v in r['replacements'].items()}


# ---- prompt files ----

def test_the_twelve_files_and_no_other():
    assert len(FILES) == 12 and {p.stem for p in prompt_file(FILES[0]).parent.iterdir() if p.suffix == '.json'} == set(FILES)
    for bad in ('yelp', 'yelp_api', '../secret', 'yelp_api_random.json', '', None):
        with pytest.raises(ValueError, match='must be one of yelp_api_random'): prompt_file(bad)


@pytest.mark.parametrize('name', FILES)
def test_structure(name):
    d, prompt = read(name), Prompt.load(prompt_file(name))
    assert prompt.to_dict() == d, 'the file is in the reference format, nothing is lost in reading'
    roles = [m['role'] for m in d['message_template']]
    assert roles == (['user'] if '_local_' in name else ['system', 'user'])
    assert d['message_template'][-1]['content'].rstrip().endswith(':'), 'a base model continues here'
    for r in d.get('replacement_rules', []):
        for values in r['replacements'].values():
            assert isinstance(values, list) and len({v.casefold() for v in values}) == len(values) > 1
            assert all(v == v.strip() and v and not set('{}_"\n') & set(v) for v in values)


@pytest.mark.parametrize('name', FILES)
def test_complete_for_every_label(name):
    "By the check of Prompt, and by filling it a few times for every label."
    prompt, labels = Prompt.load(prompt_file(name)), LABELS[name.split('_')[0]]
    prompt.check(given(name), labels)
    assert set(given(name)) <= prompt.names, 'what a variation is made of is used'
    assert set(labels[0]) <= prompt.names, 'every label column is used'
    values = dict(sample='A {text} with ${braces}', masked_sample='A _ with {braces}', word_count=41)
    for i, label in enumerate(labels):
        for seed in range(3):
            messages = prompt.fill(label | {k: values[k] for k in given(name)}, np.random.default_rng([i, seed]))
            text = '\n'.join(c for _, c in messages)
            assert not BRACES.findall(text.replace('{text}', '').replace('{braces}', ''))
            assert all(v in text for v in label.values()) and all(str(values[k]) in text for k in given(name))


@pytest.mark.parametrize('name', FILES)
def test_a_missing_part_is_noticed(name):
    "Without what a record gives, or without one of its rules, no prompt passes."
    labels, d = LABELS[name.split('_')[0]], read(name)
    prompt = Prompt.load(prompt_file(name))
    if given(name):
        with pytest.raises(ValueError, match='variable'): prompt.check((), labels)
    rules = d.get('replacement_rules', [])
    for i in range(len(rules)):
        with pytest.raises(ValueError, match='variable'): Prompt(d['message_template'], rules[:i] + rules[i + 1:]).check(given(name), labels)


def test_as_many_of_each_as_in_the_paper():
    for way in WAYS:
        assert [len(choices(f'{n}_{way}_variation')['tone']) for n in NAMES] == [28, 6, 9]
        rules = read(f'yelp_{way}_random')['replacement_rules']
        assert [r['constraints'] for r in rules] == [{'business_category': c} for c in YELP['business_category']]
        assert all(60 <= len(r['replacements']['keyword']) <= 110 for r in rules)
    assert {k: len(v) for k, v in choices('pubmed_api_random').items()} == dict(writer=50, opening=8)
    assert {k: len(v) for k, v in choices('openreview_local_random').items()} == dict(writer=50)
    assert choices('openreview_api_random') == choices('pubmed_local_random') == {}


@pytest.mark.parametrize('name, shots', [('yelp', 3), ('openreview', 1), ('pubmed', 0)])
def test_worked_examples_are_right(name, shots):
    "Each completed text has the stated number of words, and is the one with blanks, its blanks filled; its labels are public."
    content = read(f'{name}_api_variation')['message_template'][1]['content']
    found = re.findall(r'With blanks: (.+)\nWords wanted: (\d+)\nComplete: (.+)\n', content)
    assert len(found) == shots and content.count('With blanks:') == shots + 1
    for blank, words, full in found:
        assert len(full.split()) == int(words) >= 25
        pattern = ' '.join(r'\S+( \S+)*' if w == '_' else r'\S+( \S+)*' + re.escape(w[1:]) if w[0] == '_' else re.escape(w) for w in blank.split(' '))
        assert re.fullmatch(pattern, full) and '_' not in full and blank.count('_') >= 5
    for column, values in (YELP | OPENREVIEW).items():
        head = dict(business_category='Kind of business: ', review_stars='Stars: ', area='Area of the paper: ', recommendation='Recommendation of the reviewer: ')[column]
        for v in re.findall(f'^{head}(.+)$', content.split('Now complete')[0], re.M): assert v.removesuffix(' out of 5') in values


def test_choices_are_drawn_anew_and_all_come_up():
    prompt = Prompt.load(prompt_file('yelp_local_variation'))
    label, rng = LABELS['yelp'][0], np.random.default_rng(0)
    seen = {prompt.fill(label | dict(sample='x'), rng)[0][1] for _ in range(600)}
    assert len(seen) == 28


# ---- settings ----

# Written down from the paper's scripts, once more: N, L, T with privacy, T without, mask, std, tokens per word, temperature, tokens, embedding, selected stay.
PAPER = {
    ('yelp', 'api'): (5000, 4, 10, 20, .5, .5 * 40, 1.2, 1.4, 128, 'stsb-roberta-base-v2', False), ('yelp', 'local'): (5000, 7, 10, 20, None, None, None, 1.4, 64, 'stsb-roberta-base-v2', True),
    ('openreview', 'api'): (2000, 4, 10, 10, .5, .5 * 60, 5, 1.2, 1000, 'stsb-roberta-base-v2', True), ('openreview', 'local'): (2000, 7, 10, 10, None, None, None, 1.2, 448, 'stsb-roberta-base-v2', True),
    ('pubmed', 'api'): (2000, 4, 10, 10, .6, .6 * 60, 5, 1.2, 1000, 'sentence-t5-base', True), ('pubmed', 'local'): (2000, 7, 10, 10, None, None, None, 1.0, 448, 'sentence-t5-base', True)}


@pytest.mark.parametrize('key', PAPER)
@pytest.mark.parametrize('variant', ['paper', 'library'])
def test_settings_are_those_of_the_paper(key, variant):
    n, L, T, free, mask, std, ratio, temperature, tokens, embedding, stay = PAPER[key]
    r = recipe(*key, variant=variant)
    if variant == 'library': T = free = 20 if key[0] == 'yelp' else 10
    stay = stay or variant == 'library'
    s, g, c = r['settings'], r['generator'], r['chat']
    plan = steps(Settings(**s))
    assert [p.rows for p in plan[1:]] == [L * n] * (T - 1) + [n] and s['samples'] * (1 + s['initial_folds']) == L * n and s['generations'] == T
    assert all((p.folds, p.keep_parents) == ((L - 1, True) if stay else (L, False)) for p in plan[1:-1])
    assert {(p.selection, p.threshold, p.lookahead, p.degree) for p in plan} == {('rank', 0., 0, mask)} and (s['metric'], s['neighbours']) == ('l2', 1)
    assert recipe(*key, math.inf, variant)['settings']['generations'] == free and recipe(*key, math.inf)['budget']['non_private'] is True
    assert r['embedding'] == f'sentence-transformers/{embedding}' and c['temperature'] == temperature
    if key[1] == 'api':
        assert (g['words_std'], g['tokens_per_word'], g['min_words'], g['max_tokens'], g['random_arguments']) == (pytest.approx(std), ratio, 25, 1200, dict(max_completion_tokens=tokens))
        assert r['models'] == (('gpt-3.5-turbo',) if variant == 'paper' else ('gpt-4o-mini-2024-07-18',)) and ('clean' in g) == (variant == 'paper')
    else:
        assert set(g) == {'random', 'vary'} and c['max_completion_tokens'] == tokens and c['top_k'] == 50
        assert (c.get('top_p'), c.get('no_repeat_ngram_size'), c.get('repetition_penalty')) == ((.9, 2, 1.) if variant == 'paper' else (None, None, None))
        assert len(r['models']) == (8 if variant == 'paper' else 1)
    assert r['budget']['delta'] == delta_of(TRAIN[key[0]])


def test_other_sizes_and_no_shared_state():
    a = recipe('yelp', 'local', 2., records=1000, samples=30, generations=3, L=2, seed=7, proportions='uniform', last='pool')
    assert (a['settings']['samples'], a['settings']['generations'], a['settings']['folds'], a['settings']['seed']) == (30, 3, [1] * 4, 7) and 'noise_weight' not in a['settings']
    assert a['budget'] == dict(epsilon=2., delta=1 / (1000 * math.log(1000)))
    a['chat']['temperature'] = a['generator']['random'] = a['settings']['samples'] = 'changed'
    b = recipe('yelp', 'api'); b['generator']['random_arguments']['max_completion_tokens'] = 1
    assert recipe('yelp', 'local')['chat']['temperature'] == 1.4 and recipe('yelp', 'api')['generator']['random_arguments']['max_completion_tokens'] == 128
    with pytest.raises(TypeError): Settings(**recipe('yelp', 'api', nonsense=1)['settings'])


@pytest.mark.parametrize('call, what', [(lambda: recipe('imdb', 'api'), 'name'), (lambda: recipe('yelp', 'hf'), 'way'), (lambda: recipe('yelp', 'api', variant='script'), 'variant'), (lambda: recipe('yelp', 'api', records=0), 'records'),
                                        (lambda: recipe('yelp', 'api', records=1e6), 'records'), (lambda: recipe('yelp', 'api', L=-1), 'L '), (lambda: recipe('yelp', 'api', L=2.5), 'L '), (lambda: recipe('yelp', 'api', generations=-3), 'T '),
                                        (lambda: recipe('yelp', 'api', last='all'), 'last'), (lambda: population(3, 0), 'L '), (lambda: population(3, 2, 0), 'init_L'), (lambda: population(0, 2), 'T '), (lambda: population(True, 2), 'T '),
                                        (lambda: delta_of(2), 'records'), (lambda: delta_of(True), 'records')])
def test_bad_calls(call, what):
    with pytest.raises(ValueError, match=f'^{what}'): call()


# ---- L ----

class Numbers:
    "Texts that are numbers; a variation adds a digit."
    label_names, fingerprint = ('a', 'b'), 'Numbers'
    def random(self, labels, rng): return Records.texts([str(i) for i in rng.integers(100, 999, len(labels))], labels, self.label_names)
    def vary(self, parents, degree, rng): return Records.texts([t + str(d) for t, d in zip(parents.data.tolist(), rng.integers(0, 10, len(parents)))], parents.labels, self.label_names)


def last_digits(r): return np.array([[int(t[-1])] for t in r.data.tolist()], np.float32)


@pytest.mark.parametrize('L, init_L, keep', [(4, 4, True), (4, 4, False), (3, 2, True), (2, 5, False), (1, 3, True), (1, 1, False)])
def test_pool_of_aug_pe(L, init_L, keep):
    "A second account of the paper's pool, by the texts themselves: a record is its parent, or its parent and one more digit."
    n, T = 10, 4
    private = Records.texts([str(i) for i in range(60)], np.arange(60) % 2, ['a', 'b'])
    s = Settings(samples=n, generations=T, selection='rank', **population(T, L, init_L, keep, last='pool'))
    gens = list(evolve(private, Numbers(), last_digits, s, Budget(epsilon=5, delta=1e-5), noise=SeededNoise(0)))
    assert len(gens[0].records) == n * init_L and all(len(g.records) == n * L for g in gens[1:])
    for before, g in zip(gens, gens[1:]):
        chosen = selected(before, g)
        assert len(chosen) == n and chosen.label_counts.tolist() == [n // 2] * 2
        texts, pool = chosen.data.tolist(), g.records.data.tolist()
        assert set(texts) <= set(before.records.data.tolist())
        stay = keep and L > 1
        if stay: assert pool[:n] == texts and g.selected == chosen
        for j in range(int(stay), L): assert [t[:-1] for t in pool[j * n:(j + 1) * n]] == texts
    end = list(evolve(private, Numbers(), last_digits, Settings(samples=n, generations=T, selection='rank', **population(T, L, init_L, keep)), Budget(epsilon=5, delta=1e-5), noise=SeededNoise(0)))
    assert end[-1].records == selected(gens[-2], gens[-1]) == selected(end[-2], end[-1]), 'the last generation is what the paper saves'


# ---- noise ----

# Exact noise for T = 10 from the analytic Gaussian formula, as PAPERS.md has it; ours is a discrete Gaussian and its calibration an upper bound: equal to 5e-4.
SIGMA = {'yelp': (15.404, 8.039, 4.245), 'openreview': (11.600, 6.211, 3.374), 'pubmed': (13.251, 7.001, 3.749)}
README = {'yelp': (1.0045, 2.0024, 4.0053), 'openreview': (1.0000, 1.9967, 3.9922), 'pubmed': (.9992, 1.9972, 3.9992)}
PUBLISHED = {'yelp': (15.34, 8.03, 4.24), 'openreview': (11.60, 6.22, 3.38), 'pubmed': (13.26, 7.01, 3.75)}


@pytest.mark.parametrize('name', NAMES)
def test_noise_of_the_paper(name):
    delta = delta_of(TRAIN[name])
    for eps, sigma, published, spent in zip((1., 2., 4.), SIGMA[name], PUBLISHED[name], README[name]):
        assert calibrate(eps, delta, 10, mechanism='continuous') == pytest.approx(sigma, abs=1e-3)
        assert calibrate(eps, delta, 10) == pytest.approx(sigma, rel=5e-4)
        assert epsilon([Event(noise_multiplier=published, mechanism='continuous')] * 10, delta) == pytest.approx(spent, abs=1e-4)


def test_noise_of_twenty_rounds():
    assert calibrate(1., delta_of(TRAIN['yelp']), 20, mechanism='continuous') == pytest.approx(21.785, abs=1e-3)
    assert [float(f'{delta_of(TRAIN[n]):.3g}') for n in NAMES] == [3.56e-8, 1.32e-5, 1.18e-6] and TRAIN == {n: SIZES[n]['train'] for n in NAMES}


@pytest.mark.parametrize('name', NAMES)
def test_the_plan_keeps_the_promise_with_the_label_counts(name):
    for eps in (1., 4.):
        r = recipe(name, 'local', eps)
        budget, settings = Budget(**r['budget']), Settings(**r['settings'])
        events = planned_events(settings, budget)
        assert len(events) == 10 + (name != 'pubmed') and epsilon(events, budget.delta) <= eps
        alone = calibrate(eps, budget.delta, 10)
        assert alone * (1 - 1e-3) <= events[-1].noise_multiplier <= alone * {'yelp': 1.0015, 'openreview': 1.0065, 'pubmed': 1.001}[name], 'the label counts cost next to nothing'
    public = recipe(name, 'local', proportions='uniform')
    assert len(planned_events(Settings(**public['settings']), Budget(**public['budget']))) == 10


# ---- the generator ----

class Heard(Chat):
    "Remembers what it is asked for."
    def __init__(self, *a, **k):
        super().__init__(*a, **k)
        self.heard = []
    async def ask(self, jobs, put):
        for job in jobs:
            self.heard.append(job.request)
            put(job, Answer('Some words "quoted" (9 words).', prompt_tokens=1, completion_tokens=1))


def build(name, way, variant='paper', **more):
    r, labels = recipe(name, way, variant=variant, **more), LABELS[name]
    chat = Heard('heard', **r['chat'])
    return r, chat, Text(chat, label_names=[label_name(v) for v in labels], label_values=labels, **r['generator'])


@pytest.mark.parametrize('key', PAPER)
@pytest.mark.parametrize('variant', ['paper', 'library'])
def test_requests_of_a_generator(key, variant):
    r, chat, text = build(*key, variant)
    steps(Settings(**r['settings']), text)
    labels = np.arange(len(LABELS[key[0]]))
    first = text.random(labels, np.random.default_rng(0))
    cap = lambda: [dict(json.loads(q.fixed))['max_completion_tokens'] for q in chat.heard]
    tokens, ratio, std = PAPER[key][8], PAPER[key][6], PAPER[key][5]
    assert cap() == [tokens] * len(labels) and all(json.loads(q.fixed)['temperature'] == PAPER[key][7] for q in chat.heard)
    assert set(first.data.tolist()) == ({'Some words quoted.'} if 'clean' in r['generator'] else {'Some words "quoted" (9 words).'})
    chat.heard.clear()
    parents = Records.texts(['word ' * 300] * len(labels), labels, text.label_names)
    text.vary(parents, r['settings']['degree'], np.random.default_rng(1))
    if key[1] == 'local': assert cap() == [tokens] * len(labels)
    else:
        wanted = [int(re.search(r'exactly (\d+) words', q.messages[-1][1])[1]) for q in chat.heard]
        assert cap() == [min(int(w * ratio), 1200) for w in wanted] and all(25 <= w < 300 + 6 * std for w in wanted)
        if len(wanted) > 40: assert std * .6 < np.std(wanted) < std * 1.5
        blanks = [q.messages[-1][1].rsplit('With blanks: ', 1)[1].split('\n')[0].split() for q in chat.heard]
        assert abs(np.mean([w == '_' for b in blanks for w in b]) - r['settings']['degree']) < .1
