"Prompts: literal data, the reference's rules, and a check that is as strict as all the ways the rules can go."
import itertools
import json
import random as stdlib_random
import string
import subprocess
import sys
import time

import numpy as np
import pytest

from pe_nb.generators.prompts import BUILT_IN, Prompt, as_prompt, check_label_values, cut, outcomes


def rng(seed=0): return np.random.default_rng(seed)


# ---- contents: never more than str.format can do, never less for plain names ----

def test_cut_agrees_with_str_format():
    "Whatever is accepted means what str.format makes of it; what str.format accepts with plain names is accepted."
    r = stdlib_random.Random(0)
    values = dict(a='A{a}', b='{{B}}', **{'c d': 'C'})
    accepted = refused = 0
    for _ in range(20_000):
        s = ''.join(r.choice(['{', '}', '{{', '}}', '{a}', '{b}', '{c d}', 'x', ' ', '.', '!', ':', '[', '\n']) for _ in range(r.randint(1, 7)))
        try: want = s.format(**values)
        except (ValueError, KeyError, IndexError, AttributeError): want = None
        try: parts = cut(s, 'content')
        except ValueError:
            refused += 1
            plain = want is not None and all(f is None or (f in values and not spec and not conv) for _, f, spec, conv in string.Formatter().parse(s)) and not (set('.!:[]') & set(''.join(f or '' for _, f, _, _ in string.Formatter().parse(s))))
            assert not plain or ':}' in s, s  # '{a:}' is an empty format
            continue
        if not set(parts[1::2]) <= set(values): continue
        accepted += 1
        assert ''.join(values[p] if i % 2 else p for i, p in enumerate(parts)) == want, s
    assert accepted > 1000 and refused > 1000


HOSTILE = ['{}', '{sample}', '{tone}', '{0}', '${oc.env:SECRET}', '{{', '}}', '%s %(a)s', '\\1 \\g<0>', '<|endoftext|>', '[MASK] </s>', '\u202eright to left', '\u05e9\u05dc\u05d5\u05dd', '\U0001f600', '', '\n\t', 'a\0b']


@pytest.mark.parametrize('value', HOSTILE)
def test_values_come_through_literally(value):
    p = Prompt([('system', '{category}|{tone}'), ('user', '>{sample}<')], tone=[value])
    values = check_label_values([dict(category=value)], ('x',))[0] if '\0' not in value else dict(category=value)
    assert p.fill(dict(values, sample=value), rng()) == (('system', f'{value}|{value}'), ('user', f'>{value}<'))


def test_numbers_are_written_as_format_writes_them():
    p = Prompt('{word_count} {x}', [({}, dict(x=5.0))])
    assert p.fill(dict(word_count=np.int64(30)), rng())[0][1] == '30 5.0'


BAD = [
    (lambda: Prompt([]), 'at least one message'), (lambda: Prompt(''), "content ('')"), (lambda: Prompt('  \n'), 'not empty'), (lambda: Prompt(None), 'messages (None)'),
    (lambda: Prompt({'role': 'user', 'content': 'x'}), 'messages'), (lambda: Prompt([('user', None)]), 'content (None)'), (lambda: Prompt([('', 'x')]), "role ('')"),
    (lambda: Prompt([('robot', 'x')]), "role ('robot')"), (lambda: Prompt([('user', 'x', 'y')]), "messages[0] must be"), (lambda: Prompt([dict(role='user', content='x', name='y')]), 'messages[0] must be'),
    (lambda: Prompt('a\ud800'), 'surrogates'), (lambda: Prompt('{}'), "'{}'"), (lambda: Prompt('{ }'), "'{ }'"), (lambda: Prompt('{0}'), 'hold the name'), (lambda: Prompt('{"a": 1}'), "':' has no meaning"),
    (lambda: Prompt('{a.b}'), "'.' has no meaning"), (lambda: Prompt('{a[0]}'), "'[' has no meaning"), (lambda: Prompt('{a!r}'), "'!' has no meaning"), (lambda: Prompt('{a:>9}'), "':' has no meaning"),
    (lambda: Prompt([('user', 'fine'), ('user', 'one\ntwo { three')]), 'messages[1] content'), (lambda: Prompt('x', {}), 'rules (dict) must be a list'), (lambda: Prompt('x', ['y']), 'rules[0] must be'),
    (lambda: Prompt('x', [dict(constraints={})]), 'rules[0] must be'), (lambda: Prompt('x', [dict(constraint={}, replacements=dict(a='b'))]), 'rules[0] must be'), (lambda: Prompt('x', [({}, {})]), 'at least one variable'),
    (lambda: Prompt('x', [({}, dict(a=[]))]), 'at least one choice'), (lambda: Prompt('x', [({}, dict(a=None))]), '(None) must be a str or a number'), (lambda: Prompt('x', [({}, dict(a=[True]))]), '(True)'),
    (lambda: Prompt('x', [({'a': float('nan')}, dict(b='c'))]), '(nan)'), (lambda: Prompt('x', [({1: 'a'}, dict(b='c'))]), 'variable (1) must be a str'), (lambda: Prompt('x', [({}, dict(sample='c'))]), 'must not set a built-in'),
    (lambda: Prompt('x', [({}, dict(a=dict(b='c')))]), 'must be a str or a number'), (lambda: Prompt.from_dict([]), 'message_template'), (lambda: Prompt.from_dict(dict(messages=[])), 'prompt (messages)'),
    (lambda: Prompt.from_dict(dict(message_template=[('user', 'x')], replacement_rule=[])), 'nothing else'), (lambda: Prompt.from_dict(dict(message_template='x')), 'must be a list of messages'),
]


@pytest.mark.parametrize('make, message', BAD, ids=[m for _, m in BAD])
def test_bad_prompts(make, message):
    with pytest.raises(ValueError) as e: make()
    assert message in str(e.value)


def test_the_place_of_a_brace_is_named():
    with pytest.raises(ValueError, match=r"messages\[1\] content .*line 2.*twice: \{\{ or \}\}"): Prompt([('user', 'fine'), ('user', 'one\ntwo { three')])


# ---- rules: as in the reference ----

def reference_fill(d, variables, choose):
    "What the reference's documentation says, written out a second time."
    v = dict(variables)
    for rule in d.get('replacement_rules', []):
        ok = True
        for k, x in rule['constraints'].items():
            if not (k in v and v[k] == x): ok = False
        if ok:
            for k, x in rule['replacements'].items(): v[k] = choose(x) if isinstance(x, list) else x
    return [(m['role'], m['content'].format(**v)) for m in d['message_template']]


def random_prompt(r):
    "A prompt with few variables and values, so that rules meet."
    value = lambda: r.choice(['0', '1', '2'])
    some = lambda k: {r.choice('abcd'): value() for _ in range(k)}
    rules = [dict(constraints=some(r.randint(0, 2)), replacements={k: [value() for _ in range(r.randint(1, 3))] if r.random() < .6 else v for k, v in some(r.randint(1, 2)).items()}) for _ in range(r.randint(0, 5))]
    return dict(message_template=[dict(role='user', content='{{' + ''.join('{%s}' % k for k in r.sample('abcd', r.randint(1, 3))) + '}}')], replacement_rules=rules)


def all_outcomes(d, variables):
    "All fillings with their paths; 'missing' where one lacks a variable."
    found = set()
    def walk(script):
        seen = []
        def choose(x):
            i = script[len(seen)] if len(seen) < len(script) else 0
            seen.append(len(x))
            return x[i]
        try: found.add(reference_fill(d, variables, choose)[0][1])
        except KeyError: found.add('missing')
        path = list(script) + [0]*(len(seen) - len(script))
        for i in range(len(path) - 1, -1, -1):
            if path[i] + 1 < seen[i]: return path[:i] + [path[i] + 1]
    script = []
    while script is not None: script = walk(script)
    return found


def test_fill_and_check_agree_with_all_ways_the_rules_can_go():
    r, strict, loose = stdlib_random.Random(1), 0, 0
    for trial in range(400):
        d = random_prompt(r)
        p = Prompt.from_dict(json.loads(json.dumps(d)))
        values = {k: r.choice('012') for k in r.sample('abcd', r.randint(0, 2))}
        want = all_outcomes(d, values)
        got = set()
        for s in range(60):
            try: got.add(p.fill(values, rng(s))[0][1])
            except ValueError: got.add('missing')
        assert got <= want
        if len(want) <= 2: assert got == want
        try:
            p.check((), [values])
            assert 'missing' not in want
            strict += 1
        except ValueError as e:
            unknown = 'must be one of the variables' in str(e)
            assert unknown or 'missing' in want, (d, values, e)
            loose += 1
    assert strict > 40 and loose > 40


def test_choices_are_uniform_and_redrawn_for_every_request():
    p, g = Prompt('{a}{b}', [({}, dict(a=list('xyz'), b=list('uv')))]), rng()
    drawn = [p.fill({}, g)[0][1] for _ in range(6000)]
    counts = np.array([drawn.count(a + b) for a, b in itertools.product('xyz', 'uv')])
    assert abs(counts - 1000).max() < 150
    assert [p.fill({}, rng(3)) for _ in range(2)][0] == p.fill({}, rng(3))


def test_rules_go_in_order():
    a, b = ({}, dict(x='1')), (dict(x='1'), dict(y='2'))
    assert Prompt('{y}', [a, b]).fill(dict(y='0'), rng())[0][1] == '2'
    assert Prompt('{y}', [b, a]).fill(dict(y='0'), rng())[0][1] == '0'
    variables = dict(y='0')
    Prompt('{y}', [a, b]).fill(variables, rng())
    assert variables == dict(y='0')  # the caller's stay as they are


def test_values_are_not_formatted_again():
    "A replacement that names a variable is text, as in the reference."
    assert Prompt('{a}', [({}, dict(a='{b}', b='c'))]).fill({}, rng())[0][1] == '{b}'


# ---- check ----

def test_check_names_what_is_unknown():
    with pytest.raises(ValueError, match="messages\\[0\\] variable \\('smaple'\\).*'sample'\\?"): Prompt('{smaple}').check(('sample',))
    with pytest.raises(ValueError, match="rules\\[0\\] constraint \\('cat'\\)"): Prompt('x', [(dict(cat='a'), dict(b='c'))]).check(('sample',), [dict(category='a')])
    with pytest.raises(ValueError, match="random rules\\[0\\] constraint on stars \\(5\\) must be a str"): Prompt('x', [(dict(stars=5), dict(b='c'))]).check((), [dict(stars='5')], 'random')


def test_check_names_the_label_without_a_value():
    p = Prompt('{keyword}', [(dict(category='Bars'), dict(keyword=['a', 'b']))])
    with pytest.raises(ValueError, match="vary variable 'keyword' must have a value for the label 'c: Shops'"): p.check((), [dict(category='Bars'), dict(category='Shops')], 'vary', ('c: Bars', 'c: Shops'))
    p.check((), [dict(category='Bars')])


def test_a_rule_on_a_built_in_variable_may_or_may_not_fire():
    with pytest.raises(ValueError, match="'x' must have a value"): Prompt('{x}', [(dict(sample='a'), dict(x='b'))]).check(('sample',))
    Prompt('{x}', [({}, dict(x='b')), (dict(sample='a'), dict(x='c'))]).check(('sample',))
    Prompt('{word_count}', [(dict(word_count=25), dict(x='b'))]).check(('word_count',), [dict(c='1')])


def test_check_of_many_labels_and_rules_is_quick():
    words = [f'w{i}' for i in range(100)]
    p = Prompt('{keyword} {style}', [({}, dict(keyword=words)), *[(dict(keyword=w), dict(style=[w, 'x'])) for w in words]])
    start = time.perf_counter()
    p.check((), [dict(c=str(i)) for i in range(20)])
    assert time.perf_counter() - start < 10


def test_cases_beyond_counting_are_refused():
    many = {f'v{i}': [str(j) for j in range(6)] for i in range(8)}
    rules = [({}, many)] + [({k: str(j)}, dict(out='x')) for k in many for j in range(6)]
    with pytest.raises(ValueError, match='cases\\) must depend on fewer'): outcomes(Prompt('{out}', rules), {}, ())


# ---- label values ----

LABELS = [(dict(a='b'), 'sequence of dicts'), ('ab', 'sequence of dicts'), ([{}], r'\(1 entries\) must have one dict for each of the 2'), ([{}, 'x'], r'label_values\[1\] \(str\)'), ([{'a': 1}, {'a': '1'}], 'must map str to str'),
          ([{1: 'a'}, {1: 'a'}], 'must map str to str'), ([{'a': '1'}, {'b': '1'}], r'label_values\[1\] columns'), ([{'a': None}, {'a': 'x'}], 'must map str to str'), ([{'a': '\ud800'}, {'a': 'x'}], 'surrogates'),
          *[([{k: 'x'}]*2, f"column \\('{k}'\\) must have another name") for k in BUILT_IN]]


@pytest.mark.parametrize('values, message', LABELS)
def test_bad_label_values(values, message):
    with pytest.raises(ValueError, match=message): check_label_values(values, ('x', 'y'))


def test_no_label_values(): assert check_label_values(None, ('x', 'y')) == ({}, {})


# ---- files ----

REFERENCE = '''{"message_template": [{"role": "system", "content": "You are required to write an example of review."},
  {"role": "user", "content": "Business Category: {business_category}\\tReview Stars: {review_stars} with keyword {keyword}"}],
 "replacement_rules": [{"constraints": {"business_category": "Bars"}, "replacements": {"keyword": ["Caf\u00e9s", "Pubs"]}}]}'''


def test_the_references_files_load_unchanged(tmp_path):
    f = tmp_path/'random_api_prompt.json'
    f.write_text(REFERENCE, encoding='utf-8')
    p = Prompt.load(f)
    assert p.to_dict() == json.loads(REFERENCE) and as_prompt(f) == as_prompt(str(f)) == as_prompt(json.loads(REFERENCE)) == p and as_prompt(p) is p
    assert p.fill(dict(business_category='Bars', review_stars='5.0'), rng())[1][1].startswith('Business Category: Bars\tReview Stars: 5.0 with keyword ')
    f.write_bytes(b'\xef\xbb\xbf' + REFERENCE.encode())  # as some editors write it
    assert Prompt.load(f) == p


def test_yaml_has_the_same_shape(tmp_path):
    yaml = pytest.importorskip('yaml')
    f = tmp_path/'p.yaml'
    f.write_text(yaml.safe_dump(json.loads(REFERENCE)), encoding='utf-8')
    assert as_prompt(str(f)) == Prompt.from_dict(json.loads(REFERENCE))
    f.write_text('message_template: [{role: user, content: hi}]\nreplacement_rules: [{constraints: {}, replacements: {a: yes}}]')
    with pytest.raises(ValueError, match='file \\(p.yaml\\).*quotes'): as_prompt(f)
    f.write_text('a: [')
    with pytest.raises(ValueError, match='must be a prompt as JSON or YAML'): as_prompt(f)
    f.write_text('message_template: !!python/object/apply:os.getcwd []')
    with pytest.raises(ValueError, match='must be a prompt as JSON or YAML'): as_prompt(f)


def test_yaml_without_its_package_names_the_extra(tmp_path):
    code = "import sys; sys.modules['yaml'] = None\nfrom pe_nb.generators.prompts import yaml_values\ntry: yaml_values('a: 1')\nexcept ImportError as e: print(e)"
    assert "pip install 'pe_nb[text]'" in subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60).stdout


def test_a_text_that_is_no_file_stays_a_text():
    assert as_prompt('Write a review of a.json').messages[0][1] == 'Write a review of a.json'
    with pytest.raises(FileNotFoundError): as_prompt('nowhere.json')


# ---- equality and fingerprint ----

def test_fingerprint_changes_with_everything_that_changes_requests():
    base = dict(messages=[('user', '{a}')], rules=[({}, dict(a=['x', 'y'])), (dict(a='x'), dict(a='z'))])
    others = [dict(base, messages=[('system', '{a}')]), dict(base, messages=[('user', '{a} ')]), dict(base, rules=base['rules'][::-1]), dict(base, rules=[({}, dict(a=['y', 'x'])), base['rules'][1]]), dict(base, rules=base['rules'][:1]),
              dict(base, rules=[({}, dict(a=['x', 'y'])), (dict(a='x'), dict(a=1))]), dict(base, rules=[({}, dict(a=['x'], b=['y']))]), dict(base, rules=[({}, dict(b=['y'], a=['x']))])]
    prints = [Prompt(**d).fingerprint for d in [base, *others]]
    assert len(set(prints)) == len(prints) == len({Prompt(**d) for d in [base, *others]}) and Prompt(**base) == Prompt(**base) and len({Prompt(**base), Prompt(**base)}) == 1
    assert Prompt.from_dict(Prompt(**base).to_dict()).fingerprint == prints[0]
    assert Prompt('{a}', a=['x', 'y']) == Prompt('{a}', [({}, dict(a=['x', 'y']))])


def test_ten_thousand_requests_are_filled_well_under_a_second():
    cats = [f'c{i}' for i in range(10)]
    p, g = Prompt('{category} {keyword} {tone} {sample}', [(dict(category=c), dict(keyword=[f'{c}.{j}' for j in range(100)])) for c in cats], tone=list('abc')), rng()
    def seconds():
        start = time.perf_counter()
        for i in range(10_000): p.fill(dict(category=cats[i % 10], sample='some text'), g)
        return time.perf_counter() - start
    assert min(seconds() for _ in range(3)) < .8
