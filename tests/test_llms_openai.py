"The OpenAI client against a server that misbehaves: nothing lost, nothing paid twice, no cap crossed, no key shown."
import asyncio, itertools, json, logging, os, re, signal, threading, time

import numpy as np
import pytest
from openai_server import Server, count_prompt, count_words
from pe_nb.llms.cache import AnswerCache
from pe_nb.llms.chat import Prices, Request, tally
from pe_nb.llms.costs import Tokens
from pe_nb.llms.endpoints import Balancer, Endpoint, Fault, Rate, Retry, Secret, azure_endpoints, fault_of_status, openai_endpoints, read_completion, redact, retry_after
from pe_nb.llms.openai_chat import EndpointError, OpenAIChat
from test_llms_chat import WEIRD

QUICK = Retry(tries=4, first=.01, longest=.05)
WORDS = Tokens(count_words, per_message=4, per_request=3)
KEY = 'sk-test-0123456789abcdef'


def client(s, **kw): return OpenAIChat('m', Endpoint(s.url, KEY), **dict(dict(retry=QUICK, timeout=5., max_completion_tokens=30), **kw))
def prompts(n, word='review'): return [Request(f'{word} {i}') for i in range(n)]
def idle(s):
    "Wait until the server has nothing in hand: it bills what it has begun, whoever still listens."
    while s.now: time.sleep(.01)
@pytest.fixture(params=['aiohttp', 'sdk'])
def carrier(request): return request.param


# ---- the plain way, by both carriers ----

def test_answers_in_order(carrier):
    with Server(reply=lambda b: 'about ' + b['messages'][-1]['content'], latency=lambda b: .001*(hash(b['messages'][-1]['content']) % 9)) as s:
        c = client(s, carrier=carrier)
        assert [a.text for a in c.answers(prompts(60))] == [f'about review {i}' for i in range(60)]
        assert s.most <= 16 and c.spending.tokens == sum(b[1] + b[2] for b in s.billed) and c.spending.prompt == sum(b[1] for b in s.billed)
        assert {k for k in s.auth} == {KEY} and s.seen[0]['model'] == 'm' and s.seen[0]['max_completion_tokens'] == 30


def test_texts_arrive_untouched(carrier):
    with Server(reply=lambda b: b['messages'][-1]['content'] or '-') as s:
        c = OpenAIChat('m', s.url, carrier=carrier)
        answers = c.answers([Request([('system', w), ('user', w)]) for w in WEIRD])
        assert sorted(r['messages'][0]['content'] for r in s.seen) == sorted(WEIRD)
        assert [a.text for a in answers] == [w if w.strip() else '' for w in WEIRD[:0]] + [('-' if not w else w if w.strip() else '') for w in WEIRD]
        assert answers[1].refusal == 'empty'


def test_request_arguments_and_seeds(carrier):
    with Server() as s:
        e = Endpoint(s.url, rename={'max_completion_tokens': 'max_tokens', 'user': None})
        OpenAIChat('m', e, carrier=carrier, seeds=True, temperature=1, user='me').answers([Request('a', max_completion_tokens=3, temperature=.5)], draws=[2**40 + 5])
        assert {k: v for k, v in s.seen[0].items() if k != 'messages'} == dict(model='m', max_tokens=3, temperature=.5, seed=(2**40 + 5) % 2**31)


def test_azure(carrier):
    with Server(keys=['token-1', KEY]) as s:
        told = []
        def token():
            told.append(1)
            return 'token-1'
        entra = Endpoint(s.azure, azure=True, api_version='2024-10-21', token_provider=token, model='dep')
        key = Endpoint(s.azure, KEY, azure=True, api_version='2024-10-21', model='dep')
        c = OpenAIChat('m', [entra, key], carrier=carrier, concurrency=2)
        assert tally(c.answers(prompts(6))) == {'ok': 6} and set(s.auth) == {'token-1', KEY} and told
        assert {b['model'] for b in s.seen} == {'dep'}


def test_works_in_a_running_loop_and_with_await():
    with Server() as s:
        async def cell(): return client(s).answers(prompts(3)), await client(s).aanswers(prompts(3))
        a, b = asyncio.run(cell())
        assert len(a) == len(b) == 3


def test_two_threads_share_a_client():
    with Server(latency=.005) as s:
        c, got = client(s), {}
        threads = [threading.Thread(target=lambda t=t: got.update({t: c.answers(prompts(40, f't{t}'))})) for t in range(2)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert all(tally(a) == {'ok': 40} for a in got.values()) and c.spending.tokens == sum(b[1] + b[2] for b in s.billed) and c.spending.flying == 0


# ---- faults ----

@pytest.mark.parametrize('fault, reason, tries', [
    ('429*2', '', 3), ('429-ms*1', '', 2), ('500*3', '', 4), ('503*1', '', 2), ('408*1', '', 2), ('409*1', '', 2), ('disconnect-unpaid*2', '', 3), ('truncated*1', '', 2), ('html*1', '', 2), ('half*1', '', 2),
    ('disconnect*1', '', 2), ('no-choices*1', '', 2), ('not-json-object*1', '', 2),
    ('429', 'rate_limit', 4), ('500', 'server', 4), ('truncated', 'malformed', 4), ('disconnect', 'connection', 4),
    ('400', 'bad_request', 1), ('422', 'bad_request', 1), ('filter-400', 'content_filter', 1), ('filter-finish', 'content_filter', 1), ('null', 'empty', 1), ('empty', 'empty', 1), ('refusal', 'refused', 1), ('no-usage', '', 1), ('length', '', 1)])
def test_each_fault(fault, reason, tries, carrier):
    with Server(retry_after=.02) as s:
        c = client(s, carrier=carrier)
        answers = c.answers([Request(f'[[{fault}]] this'), *prompts(10)])
        assert tally(answers[1:]) == {'ok': 10}
        assert answers[0].refusal == reason and bool(answers[0].text) == (not reason), answers[0]
        assert sum(b['messages'][0]['content'].startswith('[[') for b in s.seen) == tries
        assert c.spending.flying == 0 and c.spending.held == [0, 0]
        if reason and tries > 1: assert '4 tries' in answers[0].detail and '#1' in answers[0].detail
        if fault == 'length': assert answers[0].finish == 'length'


@pytest.mark.parametrize('fault', ['hang', 'drip'])
def test_a_server_that_never_ends(fault, carrier):
    with Server() as s:
        t = time.monotonic()
        answers = client(s, carrier=carrier, timeout=.3, retry=Retry(tries=2, first=.01)).answers([Request(f'[[{fault}]] x'), *prompts(5)])
        assert [a.refusal for a in answers] == ['timeout'] + ['']*5 and .5 < time.monotonic() - t < 5


@pytest.mark.parametrize('header', ['429-after', '429-ms', '429-date', '503-after'])
def test_retry_after_is_honoured(header):
    with Server(retry_after=.4 if header != '429-date' else 1.) as s:
        t = time.monotonic()
        assert client(s, retry=Retry(first=.01)).answers([Request(f'[[{header}*1]] x')])[0].ok
        assert s.times[1] - s.times[0] >= (.4 if header != '429-date' else .9) and time.monotonic() - t < 4


def test_first_retry_comes_soon_and_long_waits_are_refused():
    with Server(retry_after=3600.) as s:
        t = time.monotonic()
        answers = OpenAIChat('m', s.url).answers([Request('[[500*1]] x'), Request('[[429-after]] x')])
        assert [a.refusal for a in answers] == ['', 'rate_limit'] and time.monotonic() - t < 20 and len(s.seen) == 3


def test_faults_in_a_fifth_of_all_answers(carrier):
    with Server(faults={'429-ms': .1, '500': .1}, retry_after=.01, latency=.002) as s:
        answers = client(s, carrier=carrier, retry=Retry(first=.01, longest=.1)).answers(prompts(200))
        assert tally(answers) == {'ok': 200} and len(s.billed) == len({b[0] for b in s.billed}) == 200 and sum(s.faulted.values()) > 20


def test_retries_go_first_and_hold_no_place():
    "Two slots; one request is told to wait; the others pass it, and it comes back before the last."
    with Server(latency=.02, retry_after=.1) as s:
        client(s, concurrency=2).answers([Request('[[429-ms*1]] slow'), *prompts(40)])
        order = [b['messages'][0]['content'] for b in s.seen]
        again = order.index('[[429-ms*1]] slow', 1)
        assert 8 <= again <= 30 and s.most == 2


def test_no_texts_in_requests_twice():
    "A refusal that is final is not asked again; one that may pass is."
    with Server() as s:
        c = client(s)
        assert tally(c.answers([Request('[[filter-400]] a')]*1 + [Request('[[400]] b')])) == {'content_filter': 1, 'bad_request': 1}


def test_context_overflow_is_named():
    with Server(context=200) as s:
        answers = client(s).answers([Request('word '*500), Request('short')])
        assert [a.refusal for a in answers] == ['too_long', ''] and 'maximum context length' in answers[0].detail and len(s.seen) == 2


def test_limit_of_one_word():
    with Server() as s:
        a = client(s).answers([Request('a', max_completion_tokens=1)])[0]
        assert a.ok and a.finish == 'length' and a.text == 'answer' and a.completion_tokens == 1


# ---- endpoints ----

def test_load_is_shared_and_survives_a_failure():
    with Server(latency=.004) as a, Server(latency=.004, faults=['500']*3) as b:
        c = OpenAIChat('m', [a.url, b.url], retry=QUICK, concurrency=8)
        assert tally(c.answers(prompts(120))) == {'ok': 120}
        assert 40 <= len(a.billed) and 40 <= len(b.billed) and [l.flying for l in c.balancer.lines] == [0, 0]


def test_one_endpoint_is_down():
    with Server(latency=.002) as a:
        c = OpenAIChat('m', ['http://127.0.0.1:9/v1', a.url], retry=QUICK)
        assert tally(c.answers(prompts(100))) == {'ok': 100}
        assert c.balancer.lines[0].sent < 40


def test_all_endpoints_are_down():
    t = time.monotonic()
    answers = OpenAIChat('m', 'http://127.0.0.1:9/v1', retry=QUICK).answers(prompts(5))
    assert tally(answers) == {'connection': 5} and time.monotonic() - t < 10


def test_an_endpoint_that_dies_in_the_middle():
    with Server(latency=.003) as a:
        b = Server(latency=.003).__enter__()
        threading.Timer(.15, lambda: b.__exit__()).start()
        c = OpenAIChat('m', [a.url, b.url], retry=Retry(tries=6, first=.02), concurrency=8)
        assert tally(c.answers(prompts(300))) == {'ok': 300}
        b.thread.join(5)


@pytest.mark.parametrize('fault, reason', [('401', 'auth'), ('403', 'auth'), ('404', 'not_found'), ('quota', 'quota')])
def test_an_endpoint_that_will_not(fault, reason):
    "Its requests go to another; alone, it is asked a few times and no more."
    with Server(latency=.002) as good, Server(faults=lambda b, n: fault) as bad:
        c = OpenAIChat('m', [bad.url, good.url], retry=QUICK, concurrency=4)
        assert tally(c.answers(prompts(60))) == {'ok': 60} and len(bad.seen) <= 4 and c.balancer.lines[0].dead.reason == reason
        bad.reset()
        answers = OpenAIChat('m', bad.url, concurrency=4).answers(prompts(60))
        assert tally(answers) == {reason: 60} and len(bad.seen) <= 4


def test_one_denial_sends_one_request_elsewhere():
    "An endpoint that answered well before stays, and the request goes to another at once."
    with Server() as a, Server() as b:
        a.faults = lambda body, n: '401' if 'odd' in body['messages'][0]['content'] else None
        c = OpenAIChat('m', [a.url, b.url], concurrency=1)
        assert tally(c.answers([*prompts(6), Request('odd 1'), *prompts(4, 'more'), Request('odd 2'), *prompts(4, 'last')])) == {'ok': 16}
        assert sum('odd' in x['messages'][0]['content'] for x in a.seen) <= 2 and c.balancer.lines[0].dead is None
        alone = OpenAIChat('m', a.url, concurrency=1)
        alone.answers(prompts(3, 'before'))
        a.reset()
        answers = alone.answers([Request('odd 3'), *prompts(4, 'after')])
        assert tally(answers) == {'ok': 4, 'auth': 1} and len(a.seen) == 5  # nobody else to ask: refused, and not asked again


def test_an_endpoint_that_stays_down_is_out_until_the_next_call():
    b = Balancer([Endpoint('http://a/v1')], retry=Retry(tries=3, first=1., factor=2., longest=2.))
    now = 0.
    for n in range(20):
        line, pause = b.lease(0, now)
        if line is None and pause is None: break
        if line is None: now += pause
        else: b.give_back(line, Fault('connection', 'refused'), now)
    assert 3. < now < 60 and b.lines[0].dead.reason == 'connection' and b.lease(0, now + 99) == (None, None)
    b.revive()
    assert b.lease(0, now)[0] is b.lines[0]


def test_retries_come_soon_while_others_are_answered():
    "One try in three fails: that is no reason to wait longer and longer."
    turns, waits = itertools.count(), []
    class Noted(Retry):
        def delay(self, failed, *rest): return waits.append((failed, super().delay(failed, *rest))) or waits[-1][1]
    with Server(faults=lambda body, n: '500' if next(turns) % 3 == 2 else None) as s:
        assert tally(client(s, retry=Noted(tries=12, first=.02, factor=30., longest=6.)).answers(prompts(150))) == {'ok': 150}
    assert len(waits) == (len(s.seen) - 150) >= 70 and max(f for f, _ in waits) > 1 and all(w <= .02 for _, w in waits)


def test_a_key_that_comes_back():
    with Server(keys=[]) as s:
        c = client(s)
        assert tally(c.answers(prompts(3))) == {'auth': 3}
        s.keys = [KEY]
        assert tally(c.answers(prompts(3))) == {'ok': 3}


@pytest.mark.parametrize('what', ['key', 'model', 'down', 'one of two', 'fine', 'busy'])
def test_check(what, carrier):
    with Server(keys=[KEY], models=['m'], faults=(lambda b, n: '429') if what == 'busy' else None) as s:
        key, model = ('sk-wrong-0987654321' if what == 'key' else KEY), 'm2' if what == 'model' else 'm'
        c = OpenAIChat(model, [Endpoint('http://127.0.0.1:9/v1' if what == 'down' else s.url, key)] + [Endpoint(s.url, 'sk-wrong-0987654321')]*(what == 'one of two'), carrier=carrier)
        if what in ('fine', 'busy'): return_ = c.check()
        else:
            with pytest.raises(EndpointError) as e: c.check()
            assert dict(key='auth', model='not_found', down='connection').get(what, 'auth') in str(e.value) and 'sk-wrong' not in str(e.value) and KEY not in str(e.value)
            if what == 'one of two': return_ = c.check(strict=False)
            else: return
        assert return_[0]['ok'] and c.spending.tokens == sum(b[1] + b[2] for b in s.billed)


def test_balance_is_least_load():
    "Against a slow simulation: at any moment the loads of living endpoints differ by at most one while all are ready."
    b, rng, flying = Balancer([Endpoint(f'http://e{i}/v1') for i in range(3)]), np.random.default_rng(0), []
    for now in range(300):
        if flying and rng.random() < .5: b.give_back(flying.pop(int(rng.integers(len(flying)))), None, float(now))
        else:
            loads = [l.flying for l in b.lines]
            line, _ = b.lease(0, float(now))
            assert loads[line.index] == min(loads)
            flying.append(line)
    assert b.lease(0, 0., denied={0, 1, 2}) == (None, None)


def test_a_rest_when_most_answers_are_429():
    line = Balancer([Endpoint('http://a/v1')]).lines[0]
    for _ in range(30):
        line.take(0, 0.)
        line.give_back(Fault('rate_limit', '', after=5.) if _ % 5 == 0 else None, 0.)
    assert line.wait(0.) == 0
    for _ in range(10):
        line.take(0, 0.)
        line.give_back(Fault('rate_limit', '', after=5.), 0.)
    assert line.wait(0.) == 5. and line.flying == 0


# ---- limits ----

def test_concurrency_and_request_rate():
    with Server(latency=.01) as s:
        client(s, concurrency=3).answers(prompts(30))
        assert s.most == 3
    with Server() as s:
        t = time.monotonic()
        client(s, requests_per_minute=60*20).answers(prompts(45))
        assert time.monotonic() - t > (45 - 20 - 1)/20 - .05
        assert all(sum(a <= x < a + 1 for x in s.times) <= 41 for a in s.times)


def test_token_rate():
    with Server() as s:
        t = time.monotonic()
        client(s, tokens=Tokens(count_words, slack=0), tokens_per_minute=60*400).answers(prompts(30))  # each 9 + 30 tokens: 10 a second
        assert 1.7 < time.monotonic() - t < 6


@pytest.mark.parametrize('seed', range(3))
def test_rate_never_exceeds(seed):
    rng, now, sent = np.random.default_rng(seed), 0., []
    r = Rate(300)
    while now < 60:
        now += float(rng.exponential(.05))
        if r.wait(now): continue
        n = int(rng.integers(1, 5))
        r.take(n, now)
        sent.append((now, n))
    for a, _ in sent: assert sum(n for t, n in sent if a <= t < a + 10) <= 50 + 5 + 4


# ---- money ----

@pytest.mark.parametrize('how', ['tokens', 'money', 'bytes'])
def test_cap_is_not_crossed(how):
    with Server(latency=.002, faults={'500': .1}) as s:
        cap = dict(cap_tokens=2000) if how != 'money' else dict(cap_money=.004, prices=Prices(prompt=1., completion=3.))
        c = client(s, tokens=None if how == 'bytes' else WORDS, **cap)
        answers = c.answers(prompts(200))
        spent = sum(p + q for _, p, q in s.billed)
        assert tally(answers)['spend_cap'] > 0 and tally(answers)['ok'] == len(s.billed)
        if how == 'money': assert .003 < sum(p + 3*q for _, p, q in s.billed)/1e6 <= .004
        else: assert 1700 < spent <= 2000 and c.spending.tokens == spent
        before = len(s.seen)
        assert tally(c.answers(prompts(20, 'more'))) == {'spend_cap': 20} and len(s.seen) == before


def test_broken_lines_count_as_spent():
    with Server() as s:
        c = client(s, tokens=WORDS, cap_tokens=600)
        c.answers([Request('[[disconnect*1]] x')])
        assert c.spending.uncertain[2] == 1 and c.spending.tokens >= sum(p + q for _, p, q in s.billed)
    with pytest.raises(ValueError, match='a cap needs'): OpenAIChat('m', s.url, cap_tokens=600).answers(prompts(1))


def test_a_template_that_adds_text_is_learnt():
    "The server bills 100 tokens more than anybody could count: the cap is crossed by what was on its way at most, never again."
    with Server() as s:
        real = s.bill
        s.bill = lambda key, p, q: real(key, p + 100, q)
        complete = s.complete
        def more(*a):
            out = complete(*a)
            out['usage']['prompt_tokens'] += 100
            return out
        s.complete = more
        c = client(s, tokens=WORDS, cap_tokens=3000, concurrency=2)
        c.answers(prompts(100))
        assert c.spending.tokens == sum(p + q for _, p, q in s.billed) <= 3000 and c.tokens.excess > 0


def test_spent_before_counts():
    with Server() as s:
        c = client(s, tokens=WORDS, cap_tokens=1000, spent=(900, 50))
        assert tally(c.answers(prompts(3))) == {'spend_cap': 3} and not s.seen


@pytest.mark.parametrize('seed', range(3))
def test_plan_is_within_a_tenth(seed, tmp_path):
    rng = np.random.default_rng(seed)
    lengths = {f'review {i}': int(rng.integers(5, 60)) for i in range(400)}
    requests = [Request([('system', 'You write.'), ('user', f'review {i}')]) for i in range(400)]
    with Server(words=lambda b: lengths[b['messages'][-1]['content']]) as s, AnswerCache(tmp_path/'a.sqlite') as cache:
        c = client(s, tokens=WORDS, prices=Prices(prompt=.4, completion=1.6), max_completion_tokens=100, cache=cache, concurrency=32)
        c.answers(requests[:60])
        p, before, money = c.plan(requests), c.spending.tokens, c.spending.money
        assert len(s.seen) == 60 and (p.cached, p.sent) == (60, 340)
        c.answers(requests)
        assert c.spending.prompt == sum(count_prompt(b['messages']) for b in s.seen)
        assert c.spending.tokens - before == pytest.approx(p.prompt_tokens + p.completion_tokens, rel=.1)
        assert c.spending.money - money == pytest.approx(p.money, rel=.1) and c.spending.money - money <= p.worst_money


def test_progress_tells_money():
    with Server() as s:
        seen = []
        c = client(s, progress=seen.append, prices=Prices(prompt=1e6, completion=1e6))
        c.answers(prompts(30))
        assert seen[-1].done == 30 and seen[-1].money == seen[-1].tokens == c.spending.tokens and '/30 answers' in str(seen[-1])


# ---- stopping, and faults of our own ----

def test_ctrl_c_collects_what_is_on_its_way(capsys, tmp_path, interruptible):
    with Server(latency=.1) as s, AnswerCache(tmp_path/'a.sqlite') as cache:
        c = client(s, cache=cache)
        threading.Timer(.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt): c.answers(prompts(400))
        idle(s)
        assert len(cache) == len(s.billed) < 400 and c.spending.flying == 0 and c.spending.held == [0, 0]
        assert tally(c.answers(prompts(400)[:40])) == {'ok': 40}


def test_cancel_with_await_collects_too(tmp_path):
    with Server(latency=.05) as s, AnswerCache(tmp_path/'a.sqlite') as cache:
        async def go():
            t = asyncio.create_task(client(s, cache=cache).aanswers(prompts(300)))
            await asyncio.sleep(.4)
            t.cancel()
            with pytest.raises(asyncio.CancelledError): await t
        asyncio.run(go())
        idle(s)
        assert 0 < len(cache) == len(s.billed) < 300


def test_a_bug_of_the_caller_is_raised_and_loses_nothing(tmp_path):
    def moody(text):
        if text == 'review 40': raise ZeroDivisionError('tokenizer')
        return len(text)
    with Server(latency=.01) as s, AnswerCache(tmp_path/'a.sqlite') as cache:
        with pytest.raises(ZeroDivisionError): client(s, cache=cache, tokens=Tokens(moody), concurrency=4).answers(prompts(60))
        assert len(cache) == len(s.billed) >= 30


def test_a_full_disk(tmp_path):
    with Server(latency=.005) as s, AnswerCache(tmp_path/'a.sqlite') as cache:
        real = cache.put
        cache.put = lambda *a: real(*a) if len(cache) < 20 else (_ for _ in ()).throw(OSError('disk full'))
        answers = client(s, cache=cache).answers(prompts(100))
        t = tally(answers)
        assert t['ok'] == len(s.billed) and t['cache'] == 100 - t['ok'] and 20 < t['ok'] < 60


def test_no_warnings_about_open_things_and_no_tasks_left():
    with Server() as s:
        async def go():
            await client(s).aanswers(prompts(5))
            return [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        assert asyncio.run(go(), debug=True) == []


# ---- secrets ----

def test_keys_are_nowhere(caplog, carrier, tmp_path):
    caplog.set_level(logging.DEBUG)
    with Server(keys=['sk-other']) as s:
        c = client(s, carrier=carrier)
        answers = c.answers(prompts(3))
        try: c.check()
        except EndpointError as e: said = repr(e) + str(e) + repr(e.__cause__) + repr(e.__context__)
        told = ' '.join([repr(c), str(c.endpoints), repr(answers), said, caplog.text, repr(c.balancer.lines[0].dead), repr(c.spending)])
        assert 'auth' in told and 'sk-test' not in told and '0123456789abcdef' not in told
    assert s.auth == [KEY]*len(s.auth)


def test_secrets():
    import copy, dataclasses, pickle
    e = Endpoint('http://h/v1', KEY)
    for f in (repr, str, lambda x: str(dataclasses.asdict(x)), lambda x: repr(copy.deepcopy(x.key)), lambda x: f'{x.key}'): assert KEY not in f(e)
    for f in (pickle.dumps, lambda x: json.dumps(x.key)):
        with pytest.raises(TypeError): f(e)
    for bad in ('', ' ', 'a b', 'schlüssel', None, 7, 'a\nb'):
        with pytest.raises(ValueError, match='not shown'): Secret(bad)
    assert e.key.reveal() == KEY
    assert redact(f'x {KEY} y', [e.key]) == 'x *** y' and len(redact('long '*1000)) == 300
    assert 'abcdefgh' not in redact('Incorrect API key provided: abcdefgh, Bearer abcdefgh, sk-abcdefgh')


# ---- what is written down ----

@pytest.mark.parametrize('bad', [dict(concurrency=0), dict(concurrency=2.5), dict(timeout=0), dict(requests_per_minute=-1), dict(tokens_per_minute=float('nan')), dict(cap_tokens=0), dict(cap_money=1.), dict(n=3), dict(carrier='pigeon')])
def test_bad_settings(bad):
    with pytest.raises(ValueError): OpenAIChat('m', 'http://127.0.0.1:9/v1', retry=Retry(tries=1), **bad).answers(prompts(1))


@pytest.mark.parametrize('bad', [dict(url='ftp://x'), dict(url='x'), dict(url='http://u:p@h/v1'), dict(url='http://h/v1?key=x'), dict(key=''), dict(azure=True), dict(url='http://h', azure=True, api_version='1'),
                                 dict(url='http://h', token_provider=str), dict(requests_per_minute=0), dict(url='http://h', azure=True, api_version='1', key='k', token_provider=str)])
def test_bad_endpoints(bad):
    with pytest.raises(ValueError): Endpoint(**bad)


def test_endpoints_from_the_environment():
    one = dict(OPENAI_API_KEY='k1, k2,k3')
    assert [e.key.reveal() for e in openai_endpoints(one)] == ['k1', 'k2', 'k3'] and openai_endpoints(one)[0].url is None
    assert [(e.url, e.key.reveal()) for e in openai_endpoints(dict(one, OPENAI_BASE_URL='http://h/v1'))][2] == ('http://h/v1', 'k3')
    assert openai_endpoints(dict(OPENAI_BASE_URL='http://a/v1,http://b/v1'))[1].key is None
    assert len(azure_endpoints(dict(AZURE_OPENAI_API_ENDPOINT='https://a,https://b', AZURE_OPENAI_API_KEY='k', AZURE_OPENAI_API_VERSION='1'))) == 2
    for env in ({}, dict(AZURE_OPENAI_ENDPOINT='https://a'), dict(AZURE_OPENAI_ENDPOINT='https://a', AZURE_OPENAI_API_KEY='k')):
        with pytest.raises(ValueError, match='must be set'): azure_endpoints(env)
    with pytest.raises(ValueError, match='must be as many'): openai_endpoints(dict(one, OPENAI_BASE_URL='http://a,http://b'))


def test_given_address_does_not_get_the_key_of_the_environment(monkeypatch):
    monkeypatch.setenv('OPENAI_API_KEY', 'sk-from-the-environment')
    with Server() as s:
        OpenAIChat('m', s.url).answers(prompts(1))
        assert s.auth == ['none']


@pytest.mark.parametrize('headers, want', [({'retry-after-ms': '250'}, .25), ({'retry-after': '3'}, 3.), ({'retry-after': '0'}, 0.), ({'retry-after': '-5'}, 0.), ({'retry-after': 'soon'}, None), ({}, None),
                                           ({'retry-after': 'nan'}, None), ({'retry-after-ms': 'x', 'retry-after': '2'}, 2.), ({'retry-after': 'Thu, 01 Jan 1970 00:00:09 GMT'}, 9.), ({'retry-after': 'inf'}, None)])
def test_retry_after_header(headers, want): assert retry_after(headers, 0.) == want


@pytest.mark.parametrize('status, body, want', [
    (400, {'error': {'code': 'content_filter'}}, ('content_filter', 'request')), (400, {'error': {'message': 'x', 'innererror': {'code': 'ResponsibleAIPolicyViolation'}}}, ('content_filter', 'request')),
    (403, {'error': {'message': 'Your input was flagged'}}, ('content_filter', 'request')), (403, 'no', ('auth', 'endpoint')), (401, None, ('auth', 'endpoint')), (404, '<html>', ('not_found', 'endpoint')),
    (400, {'error': {'code': 'context_length_exceeded'}}, ('too_long', 'request')), (400, {'error': {'message': "This model's maximum context length is 9"}}, ('too_long', 'request')), (413, '', ('too_long', 'request')),
    (400, {'error': {'message': 'Please reduce your prompt'}}, ('too_long', 'request')), (400, {'error': 'plain words'}, ('bad_request', 'request')), (422, {}, ('bad_request', 'request')),
    (429, {'error': {'code': 'insufficient_quota'}}, ('quota', 'endpoint')), (429, '', ('rate_limit', 'passing')), (500, '', ('server', 'passing')), (529, '', ('server', 'passing')), (302, '', ('not_found', 'endpoint'))])
def test_status_table(status, body, want):
    f = fault_of_status(status, body, {}, 0.)
    assert (f.reason, f.scope) == want and not f.billed


@pytest.mark.parametrize('u', [0., .5, .999])
def test_retry_table(u):
    r = Retry(tries=5, first=.2, factor=2, longest=1.)
    delays = [r.delay(i, u=u) for i in range(1, 5)]
    assert all(.5*w <= d <= w for d, w in zip(delays, (.2, .4, .8, 1.))) and r.delay(5, u=u) is None and r.delay(1, after=301) is None and r.delay(1, after=2., u=u) >= 2


def test_parts_of_content_and_odd_answers():
    a = read_completion({'choices': [{'message': {'content': [{'type': 'text', 'text': 'a'}, {'type': 'text', 'text': 'b'}]}, 'finish_reason': None}], 'usage': None})
    assert (a.text, a.finish, a.prompt_tokens) == ('ab', '', 0)
    assert read_completion({'choices': [{'message': {'content': ''}, 'finish_reason': 'length'}]}).refusal == 'length'
    for bad in (None, [], {}, {'choices': []}, {'choices': [{}]}, {'choices': [{'message': None}]}, {'choices': [{'message': {'content': 'x'}}], 'usage': {'prompt_tokens': 'many'}}):
        with pytest.raises(ValueError): read_completion(bad)


def test_without_openai_the_error_names_the_extra():
    import subprocess, sys
    code = '''
import sys
for name in ('openai', 'httpx2', 'aiohttp'): sys.modules[name] = None
from pe_nb.llms.openai_chat import OpenAIChat
from pe_nb.llms.chat import Request
try: OpenAIChat('m', 'http://127.0.0.1:9/v1').answers([Request('a')])
except ImportError as e: print(e)
'''
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert re.search(r"pip install 'pe_nb\[text\]'", out.stdout), out.stderr
