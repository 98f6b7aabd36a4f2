"The chat protocol: requests, answers, draws, waiting, progress; tokens, caps and plans."
import asyncio, dataclasses, os, pickle, signal, threading, time

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from pe_nb.llms.chat import Answer, Chat, Job, NotKept, Prices, Progress, REASONS, Request, draw_numbers, request_key, tally, wait
from pe_nb.llms.costs import Spending, Tokens, plan_chat, token_counter

WEIRD = ['', ' ', 'x '*100_000, 'שלום عليكم', '😀🇩🇪', '<|endoftext|><s>[INST]', '{} {name} ${oc.env:HOME} %s', 'a\r\n\t"\\\u2028', '\x00', 'e\u0301', 'null']


# ---- requests ----

@pytest.mark.parametrize('text', WEIRD)
def test_text_is_text(text):
    r = Request([('system', text), dict(role='user', content=text)], stop=[text])
    assert r.chat == [dict(role='system', content=text), dict(role='user', content=text)] and r.arguments == {'stop': [text]}
    assert pickle.loads(pickle.dumps(r)) == r and len(request_key('m', r, 0)) == 64


plain = st.recursive(st.none() | st.booleans() | st.integers(-2**40, 2**40) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
                     lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=4), x, max_size=3), max_leaves=6)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(['temperature', 'top_p', 'stop', 'logit_bias', 'seed', 'user']), plain, max_size=5), st.randoms())
def test_arguments_in_any_order_are_one_request(arguments, random):
    items = list(arguments.items())
    random.shuffle(items)
    a, b = Request('x', **arguments), Request('x', **dict(items))
    assert a == b and hash(a) == hash(b) and request_key('m', a, 3) == request_key('m', b, 3)
    assert a.arguments == {k: v for k, v in arguments.items() if v is not None}


def test_arguments_are_copied_and_frozen():
    stop = ['a']
    r = Request('x', stop=stop)
    stop.append('b')
    r.arguments['stop'].append('c')
    assert r.arguments == {'stop': ['a']}
    with pytest.raises(dataclasses.FrozenInstanceError): r.messages = ()


def test_numbers_mean_the_same():
    a = Request('x', temperature=1, max_tokens=np.int64(5), top_p=np.float64(.5))
    assert a == Request('x', temperature=1.0, max_tokens=5, top_p=.5)
    assert Request('x', flag=True) != Request('x', flag=1)


@pytest.mark.parametrize('messages, arguments, said', [
    ((), {}, 'at least one message'), ([('user', 7)], {}, 'content (int) must be a str'), ([('user',)], {}, 'must be a dict'), ([dict(role='user')], {}, 'must be a dict'),
    ([dict(role='user', content='x', name='y')], {}, 'must be a dict'), ([('', 'x')], {}, 'must not be empty'), ('\ud800', {}, 'lone surrogates'), ([None], {}, 'must be a dict'),
    ('x', dict(n=2), 'n (2) must be left out'), ('x', dict(stream=True), 'must be left out'), ('x', dict(model='y'), 'the client has the model'), ('x', dict(max_tokens=0), 'at least 1'),
    ('x', dict(max_completion_tokens=-3), 'at least 1'), ('x', dict(max_completion_tokens=2.5), 'at least 1'), ('x', dict(max_tokens=True), 'at least 1'),
    ('x', dict(temperature=float('nan')), 'plain data'), ('x', dict(stop={1, 2}), 'plain data')])
def test_bad_requests(messages, arguments, said):
    with pytest.raises(ValueError) as e: Request(messages, **arguments)
    assert said in str(e.value)


# ---- answers and draws ----

def test_answers_are_texts_or_named():
    for bad in (dict(text=None), dict(text=b'x'), dict(refusal='bad luck'), dict(text='x', refusal='empty')):
        with pytest.raises(ValueError): Answer(**bad)
    assert [Answer('x').ok, Answer(refusal='timeout').ok] == [True, False]
    assert {r for r in REASONS if Answer(refusal=r).keeps} == {'content_filter', 'refused', 'empty', 'length', 'too_long'}
    assert tally([]) == {} and tally([Answer('x', finish='length')]) == {'ok': 1, 'cut': 1}


def test_draws_count_repetitions():
    rng = np.random.default_rng(0)
    requests = [Request('abc'[i]) for i in rng.integers(3, size=50)]
    slow = [sum(q == r for q in requests[:i]) for i, r in enumerate(requests)]
    assert draw_numbers(requests) == slow
    assert draw_numbers(requests, draws=np.arange(50)) == list(range(50))


def test_draws_come_from_the_generator():
    requests = [Request('a')]*4
    assert draw_numbers(requests, rng=np.random.default_rng(1)) == draw_numbers(requests, rng=np.random.default_rng(1)) != draw_numbers(requests, rng=np.random.default_rng(2))
    assert all(0 <= d < 2**63 for d in draw_numbers(requests, rng=np.random.default_rng(1)))


@pytest.mark.parametrize('draws', [[0], [0, 1, 2], [0., 1.], [-1, 0], [[0, 1]], 'ab'])
def test_bad_draws(draws):
    with pytest.raises(ValueError, match='draws'): draw_numbers([Request('a'), Request('b')], draws=draws)


def test_keys_differ_in_every_part():
    base = ('m', Request([('user', 'a'), ('user', 'b')], top_p=1), 0)
    others = [('n', *base[1:]), (*base[:2], 1), ('m', Request([('user', 'a'), ('user', 'b')]), 0), ('m', Request([('user', 'ab')], top_p=1), 0), ('m', Request([('user', 'b'), ('user', 'a')], top_p=1), 0),
              ('m', Request([('system', 'a'), ('user', 'b')], top_p=1), 0)]
    assert len({request_key(*x) for x in [base, *others]}) == 7
    # if this changes, every cache and recording in the world is lost
    assert request_key('gpt', Request('Write.', temperature=1), 7) == '6b908bea8428b8dc2e7a5a8ba9bf42a7fc5cd38114abe979fdb6abf7ad0ef8e2'


# ---- waiting ----

async def later(x, seconds=0.):
    await asyncio.sleep(seconds)
    return x


def test_wait_inside_and_outside_a_loop():
    async def cell(): return wait(later(5))
    assert wait(later(3)) == 3 and asyncio.run(cell()) == 5
    async def fails(): raise KeyError('x')
    with pytest.raises(KeyError): wait(fails())
    async def exits(): raise SystemExit(3)
    with pytest.raises(SystemExit): wait(exits())


def test_ctrl_c_cancels_and_waits(capsys, interruptible):
    state = []
    async def careful():
        try: await asyncio.sleep(30)
        except asyncio.CancelledError:
            await asyncio.sleep(.1)
            state.append('collected')
            raise
    threading.Timer(.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    t = time.monotonic()
    with pytest.raises(KeyboardInterrupt): wait(careful())
    assert state == ['collected'] and time.monotonic() - t < 10
    assert 'collecting what is on its way' in capsys.readouterr().err


def test_second_ctrl_c_gives_up(capsys, interruptible):
    async def stubborn():
        for _ in range(2):
            try: await asyncio.sleep(5)
            except asyncio.CancelledError: continue
    for s in (.3, .9): threading.Timer(s, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    t = time.monotonic()
    with pytest.raises(KeyboardInterrupt): wait(stubborn())
    assert time.monotonic() - t < 4


# ---- the base class ----

class Echo(Chat):
    "Answers out of order; says `no` to what begins with no."
    asked = 0
    async def ask(self, jobs, put):
        for j in reversed(jobs):
            self.asked += 1
            text = j.request.messages[-1][1]
            put(j, Answer(refusal='content_filter') if text.startswith('no') else Answer(f'{text}/{j.draw}', prompt_tokens=2, completion_tokens=3))


def test_order_and_one_question_for_equal_ones():
    c = Echo('m')
    texts = ['a', 'no', 'b', 'a', 'c']
    answers = c.answers([Request(t) for t in texts], draws=[0, 0, 0, 0, 1])
    assert [a.text for a in answers] == ['a/0', '', 'b/0', 'a/0', 'c/1'] and c.asked == 4
    assert c.answers([]) == []


def test_works_with_await():
    assert asyncio.run(Echo('m').aanswers([Request('a')]))[0].text == 'a/0'


def test_client_arguments_give_way_to_the_requests():
    c = Echo('m', temperature=1, max_tokens=5)
    jobs = c.jobs([Request('a'), Request('a', temperature=0), Request('b', stop=['x'])])
    assert [j.request.arguments for j in jobs] == [dict(temperature=1, max_tokens=5), dict(temperature=0, max_tokens=5), dict(temperature=1, max_tokens=5, stop=['x'])]
    assert jobs[0].key == Echo('m').jobs([Request('a', temperature=1, max_tokens=5)])[0].key
    assert c.jobs([jobs[0].request])[0].key == jobs[0].key


def test_what_is_lost_is_said():
    class Lazy(Chat):
        async def ask(self, jobs, put): put(jobs[0], Answer('x'))
    with pytest.raises(RuntimeError, match='gave no answer to 1 of 2'): Lazy('m').answers([Request('a'), Request('b')])
    with pytest.raises(ValueError, match='requests\\[1\\]'): Echo('m').answers([Request('a'), 'b'])
    with pytest.raises(ValueError, match='sequence of Request'): Echo('m').answers('b')
    with pytest.raises(ValueError, match='model'): Echo('')


def test_a_full_disk_stops_and_loses_nothing():
    class Full:
        n = 0
        def get_many(self, keys): return {}
        def put(self, key, model, answer):
            self.n += 1
            if self.n == 3: raise OSError('no space left on device')
            return answer
    c = Echo('m', cache=Full())
    answers = c.answers([Request(f'{i}') for i in range(8)])
    assert tally(answers) == {'ok': 3, 'cache': 5} and c.asked == 3 and 'no space left' in answers[0].detail
    assert issubclass(NotKept, RuntimeError)


def test_progress_is_not_called_for_each():
    seen = []
    Echo('m', progress=seen.append, prices=Prices(prompt=1e6, completion=1e6)).answers([Request(f'{i}') for i in range(3000)])
    assert len(seen) < 50 and seen[-1].done == seen[-1].total == 3000 and seen[-1].money == 15000 and seen[-1].tokens == 15000
    with pytest.warns(UserWarning, match='progress is not shown'): assert len(Echo('m', progress=lambda p: 1/0).answers([Request('a')])) == 1


def test_progress_line(capsys):
    p = Progress(total=10, done=5, cached=1, refused=2, tokens=7, money=.5, seconds=2.)
    assert p.rate == 2 and p.seconds_left == 2.5 and str(p) == '5/10 answers, 2/s, 2 s left, 1 cached, 2 refused, 7 tokens, 0.5000 money'
    Echo('m', progress=True).answers([Request('a')])
    assert '1/1 answers' in capsys.readouterr().err


# ---- tokens ----

class Encoding:
    def encode(self, s, add_special_tokens=True): return type('E', (), dict(ids=[0]*(len(s) + 2*add_special_tokens)))()
class Tik:
    def encode(self, s): raise ValueError('special token')
    def encode_ordinary(self, s): return [0]*len(s)


@pytest.mark.parametrize('tokenizer', [len, list, Encoding(), Tik(), lambda s: np.zeros(len(s))])
def test_tokenizers(tokenizer): assert token_counter(tokenizer)('<|endoftext|>') == 13


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_worst_case_is_never_below_the_estimate(texts):
    r, t = Request([('user', s) for s in texts]), Tokens()
    assert t.prompt(r) <= t.worst_prompt(r) and t.worst_prompt(r) >= sum(len(s.encode()) for s in texts)


def test_answers_limit():
    assert Tokens().worst_answer(Request('a')) is None and Tokens(longest_answer=9).worst_answer(Request('a')) == 9
    assert Tokens(longest_answer=9).worst_answer(Request('a', max_tokens=20, max_completion_tokens=12)) == 12
    with pytest.raises(ValueError): token_counter(lambda s: -1)('a')


# ---- the cap ----

@pytest.mark.parametrize('seed', range(20))
def test_cap_is_never_crossed_and_used_well(seed):
    rng = np.random.default_rng(seed)
    prices, tokens, money = Prices(prompt=1., completion=3.), int(rng.integers(500, 4000)), float(rng.uniform(.001, .01))
    s, flying, refused, worst = Spending(prices, cap_tokens=tokens, cap_money=money), [], 0, (60, 90)
    for _ in range(200):
        held = int(rng.integers(1, 61)), int(rng.integers(1, 91))
        while (said := s.reserve(*held)) is None:
            h = flying.pop(int(rng.integers(len(flying))))
            s.settle(h, [(int(rng.integers(h[0] + 1)), int(rng.integers(h[1] + 1))), (0, 0)][int(rng.integers(2))], uncertain=bool(rng.integers(10) == 0))
        if said: flying.append(held)
        else: refused += 1
        held_now = sum(h[0] for h in flying), sum(h[1] for h in flying)
        assert s.held == list(held_now) and s.tokens + sum(held_now) <= tokens and prices.money(s.prompt + s.uncertain[0] + held_now[0], s.completion + s.uncertain[1] + held_now[1]) <= money + 1e-12
    for h in flying: s.settle(h, h)
    assert s.flying == 0 and s.held == [0, 0] and s.tokens <= tokens and s.money <= money + 1e-12
    if refused: assert s.reserve(*worst) is False


def test_cap_between_threads():
    s, sent, lock = Spending(cap_tokens=3000), [], threading.Lock()
    def work():
        while True:
            said = s.reserve(2, 3)
            if said is False: return
            if said is None: continue
            with lock: sent.append(1)
            s.settle((2, 3), (2, 1))
    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert 2990 <= s.tokens == 3*len(sent) <= 3000


@pytest.mark.parametrize('bad', [dict(cap_tokens=0), dict(cap_money=-1., prices=Prices(1, 1)), dict(cap_money=1.), dict(cap_tokens=float('nan'))])
def test_bad_caps(bad):
    with pytest.raises(ValueError): Spending(**bad)


@pytest.mark.parametrize('bad', [-1, float('inf'), float('nan')])
def test_bad_prices(bad):
    with pytest.raises(ValueError): Prices(prompt=bad)


# ---- plans ----

def test_plan_is_the_sum():
    rng, t = np.random.default_rng(0), Tokens(lambda s: len(s.split()))
    jobs = [Job(str(i % 40), Request('word '*(i % 40 + 1), max_completion_tokens=i % 40 + 1), 0) for i in rng.permutation(60)]
    known, prices = {'3', '4'}, Prices(prompt=2, completion=5)
    p = plan_chat(jobs, known, t, prices, expected=10)
    unique = [i for i in range(40) if str(i) not in known]
    assert (p.requests, p.sent, p.cached) == (60, 38, sum(j.key in known for j in jobs))
    assert p.prompt_tokens == sum(i + 1 + 7 for i in unique) and p.worst_prompt == p.prompt_tokens + 32*38
    assert p.completion_tokens == sum(min(10, i + 1) for i in unique) and p.worst_completion == sum(i + 1 for i in unique)
    assert p.money == pytest.approx((2*p.prompt_tokens + 5*p.completion_tokens)/1e6) and p.money < p.worst_money


def test_plan_says_unknown():
    jobs = [Job('a', Request('x'), 0)]
    p = plan_chat(jobs, {}, Tokens(), Prices(1, 1))
    assert p.completion_tokens is p.worst_completion is p.money is None and 'unknown' in repr(p) and 'estimated' in repr(p)
    assert plan_chat(jobs, {}, Tokens(), Prices(1, 1), expected=lambda r: 7).completion_tokens == 7
    for bad in (-1, [Answer(refusal='timeout')], float('nan')):
        with pytest.raises(ValueError, match='expected'): plan_chat(jobs, {}, Tokens(), expected=bad)
