"Embeddings from endpoints, against a local server that misbehaves: a vector is right or there is an error, and no text leaves without consent."
import asyncio, base64, itertools

import numpy as np
import pytest

from openai_server import FAULTS, VECTORS, Server
from pe_nb.embeddings.endpoints import EmbeddingError, EndpointEmbedding, one_vector, read_vectors
from pe_nb.llms.cache import AnswerCache
from pe_nb.llms.chat import Prices
from pe_nb.llms.endpoints import Endpoint, Malformed, Retry
from pe_nb.llms.openai_chat import EndpointError
from pe_nb.records import Records

KEY, QUICK = 'sk-test-0123456789', Retry(tries=4, first=.01, longest=.05)

def texts(*x): return Records.texts(list(x))
def made(s, **kw): return EndpointEmbedding('some-model', s.url, KEY, **(dict(sends_private=True, retry=QUICK, timeout=5.) | kw))
def want(s, *x): return np.array([s.vector(t, s.dim) for t in x], np.float32)

# ---- consent and secrets ----

@pytest.mark.parametrize('say', [{}, dict(sends_private=False), dict(sends_private=1), dict(sends_private='yes'), dict(sends_private=None)])
def test_consent(say):
    with Server() as s:
        with pytest.raises(ValueError, match=r'sends_private \(False\) must be True.*operator can read'): EndpointEmbedding('m', s.url, KEY, **say)
        assert not s.seen

def test_secrets_and_texts_are_not_told():
    with Server(keys=['other']) as s:
        e = made(s)
        with pytest.raises(EmbeddingError) as err: e(texts('my secret diary'))
        for shown in (str(err.value), repr(err.value), repr(e), e.fingerprint, repr(e.client), repr(vars(e)), repr(err.value.__context__)):
            assert KEY not in shown and 'diary' not in shown and 'sk-' not in shown
        assert '401' in str(err.value) and 'auth' in str(err.value) and s.url not in e.fingerprint
        with pytest.raises(EndpointError) as err: e.check()
        assert KEY not in str(err.value)
    for fault in ('400', '404', '500', '401', 'filter-400', 'quota', '422'):
        with Server(faults=lambda body, n: fault) as s:
            with pytest.raises(EmbeddingError) as err: made(s)(texts('my secret diary'))
            assert 'diary' not in str(err.value) and KEY not in str(err.value) and str(FAULTS[fault][0]) in str(err.value)
            assert err.value.__context__ is None and err.value.__cause__ is None

# ---- vectors ----

@pytest.mark.parametrize('encoding', ['base64', 'float'])
@pytest.mark.parametrize('batch', [1, 3, 100])
@pytest.mark.parametrize('carrier', ['aiohttp', 'sdk'])
def test_vectors(encoding, batch, carrier):
    x = [f'text {i%7} of 7' for i in range(12)] + ['😀 עברית', '{x} ${y}', '[CLS]</s>', 'word '*5000]
    with Server(dim=6, keys=[KEY]) as s:
        e = made(s, encoding=encoding, batch=batch, carrier=carrier)
        y = e(Records.texts(x))
        assert y.dtype == np.float32 and y.tobytes() == want(s, *x).tobytes()
        n = len(set(x))
        assert len(s.seen) == -(-n//batch) and all(b['encoding_format'] == encoding and b['model'] == 'some-model' and 'messages' not in b for b in s.seen)
        assert e(texts()).shape == (0, 6) and e.width == 6
        order = np.random.default_rng(0).permutation(len(x))
        assert e(Records.texts(x)[order]).tobytes() == y[order].tobytes()

def test_what_is_sent():
    with Server() as s:
        e = made(s, max_chars=5, empty='nothing', dimensions=4)
        y = e(texts('', ' \n\t ', '1234567', '12345', '\u2003'))
        assert sorted(b['input'][0] for b in s.seen) == ['12345', 'nothing'] and all(b['dimensions'] == 4 for b in s.seen)
        assert y.shape == (5, 4) and y[0].tobytes() == y[1].tobytes() == y[4].tobytes() and y[2].tobytes() == y[3].tobytes()
        assert made(s, dimensions=4)(texts()).shape == (0, 4) and len(s.seen) == 2
        assert made(s)(texts()).shape == (0, 8) and s.seen[-1]['input'] == ['(empty)']     # no private text to learn the width
        with pytest.raises(ValueError, match='must be texts'): e(Records.images(np.zeros((1, 8, 8, 1), np.uint8)))

def test_azure_and_several_endpoints():
    with Server(keys=[KEY]) as a, Server(keys=[KEY], faults=lambda body, n: '401') as b:
        places = [Endpoint(a.azure, KEY, azure=True, api_version='2024-10-21', model='deployed'), Endpoint(b.url, KEY)]
        x = [f'text {i}' for i in range(20)]
        e = EndpointEmbedding('some-model', places, sends_private=True, retry=QUICK)
        assert e(Records.texts(x)).tobytes() == want(a, *x).tobytes()
        assert {body['model'] for body in a.seen} == {'deployed'} and len(a.billed) == 20 and not b.billed
        with pytest.raises(EndpointError, match='401'): e.check()
        assert [f['ok'] for f in made(a).check()] == [True]

# ---- faults ----

@pytest.mark.parametrize('fault', ['429', '429-after', '429-ms', '429-date', '500', '503', '408', 'truncated', 'html', 'not-json-object', 'null', 'empty', 'disconnect', 'disconnect-unpaid', 'half', *VECTORS[:-2]])
def test_passing_faults(fault):
    "Two wrong answers, then a right one: the vectors are right."
    x = ['b', 'a', 'c']
    with Server(faults=lambda body, n: fault if n <= 1 else None, retry_after=.02) as s:
        for batch in (1, 3):
            s.reset()
            e = made(s, batch=batch, timeout=3.)
            if fault in ('bad-index', 'no-index', 'narrow') and batch == 1: continue
            assert e(texts(*x)).tobytes() == want(s, *x).tobytes() and s.faulted[fault]

@pytest.mark.parametrize('fault', ['as-floats', 'shuffled', 'no-usage'])
def test_what_is_no_fault(fault):
    x = ['b', 'a', 'c']
    with Server(faults=lambda body, n: fault) as s:
        assert made(s, batch=3)(texts(*x)).tobytes() == want(s, *x).tobytes() and len(s.seen) == 1

@pytest.mark.parametrize('fault,reason', [('400', 'bad_request'), ('401', 'auth'), ('403', 'auth'), ('404', 'not_found'), ('quota', 'quota'), ('filter-400', 'content_filter'), ('500', 'server'), ('429', 'rate_limit'),
    ('missing', 'malformed'), ('doubled', 'malformed'), ('nan', 'malformed'), ('truncated', 'malformed'), ('disconnect', 'connection'), ('empty', 'malformed'), ('hang', 'timeout')])
def test_lasting_faults(fault, reason):
    with Server(faults=lambda body, n: fault) as s:
        with pytest.raises(EmbeddingError, match=rf'model .some-model. cannot be had: {reason} \(.*0 of 1 requests'): made(s, timeout=.3)(texts('a'))

def test_nobody_there_and_too_long():
    with Server() as s: gone = s.url
    with pytest.raises(EmbeddingError, match='connection'): EndpointEmbedding('m', gone, KEY, sends_private=True, retry=QUICK)(texts('a', 'b'))
    with Server(context=10) as s:
        with pytest.raises(EmbeddingError, match=r'too_long \(prompt and answer do not fit.*400 context_length_exceeded'): made(s)(texts('word '*100_000))
        assert made(s, max_chars=40)(texts('word '*100_000)).shape == (1, 8)
    with Server(models=['other']) as s:
        with pytest.raises(EmbeddingError, match='not_found'): made(s)(texts('a'))

def test_the_first_refusal_stops_the_rest():
    "Without a cache, what is paid after it would be lost."
    x = ['[[400]] x'] + [f'text {i}' for i in range(200)]
    with Server(latency=.005) as s:
        with pytest.raises(EmbeddingError, match=r'of 201 requests were answered'): made(s, concurrency=4)(Records.texts(x))
        assert len(s.seen) < 40
        with pytest.raises(EmbeddingError, match='they are lost; with cache='): made(s, concurrency=1)(texts('fine', '[[400]] x'))

def test_nothing_done_is_lost_with_a_cache(tmp_path):
    x = [f'text {i}' for i in range(30)] + ['[[400*1]] x', '[[500*2]] y']
    with Server(faults={'429-ms': .2, '500': .1}, retry_after=.005) as s, AnswerCache(tmp_path/'c.sqlite') as cache:
        e = made(s, cache=cache)
        with pytest.raises(EmbeddingError, match='31 of 32 requests were answered: they are in the cache'): e(Records.texts(x))
        billed = len(s.billed)
        y = e(Records.texts(x))
        assert y.tobytes() == want(s, *x).tobytes() and len(s.billed) == billed + 1 and s.stats()['billed_once'] == 32
        n = len(s.seen)
        assert made(s, cache=cache)(Records.texts(x[::-1])).tobytes() == y[::-1].tobytes() and len(s.seen) == n
        for other in (dict(dimensions=8), dict(encoding='float'), dict(batch=2)):           # other settings, other places in the cache
            n = len(s.seen)
            made(s, cache=cache, **other)(texts(*x[:2]))
            assert len(s.seen) > n

def test_without_a_cache_nothing_is_kept():
    with Server() as s:
        e = made(s)
        e(texts('a')), e(texts('a'))
        assert len(s.seen) == 2

def test_widths():
    with Server() as s:
        s.dim = 5
        e = made(s)
        assert e(texts('a')).shape == (1, 5)
        s.dim = 6
        with pytest.raises(EmbeddingError, match='must have 5 entries, as asked for or as before; the endpoint sent 6'): e(texts('b'))
        s.dim = 7
        wrong = EndpointEmbedding('m', Endpoint(s.url, rename={'dimensions': None}), sends_private=True, dimensions=5)  # an endpoint that does not know the argument
        with pytest.raises(EmbeddingError, match='must have 5 entries'): wrong(texts('b'))
        assert 'dimensions' not in s.seen[-1]

def test_caps_and_plan():
    x = ['three words here']*3 + ['and four more words']
    with Server() as s:
        p = made(s, prices=Prices(prompt=1000.), tokens=None).plan(Records.texts(x))
        assert (p.requests, p.sent, p.completion_tokens) == (2, 2, 0) and p.money > 0 and not s.seen
        e = made(s, cap_tokens=60, concurrency=1)
        with pytest.raises(EmbeddingError, match='spend_cap'): e(Records.texts([f'a text of six words {i}' for i in range(40)]))
        assert 0 < sum(b[1] for b in s.billed) <= 60
        e = made(s)
        s.reset()
        e(Records.texts(x))
        assert e.client.spending.prompt == sum(b[1] for b in s.billed) == 7

def test_inside_a_running_loop():
    with Server() as s:
        async def main(): return made(s)(texts('a'))
        assert asyncio.run(main()).shape == (1, 8)

def test_many_at_once():
    with Server(latency=.05) as s:
        x = [f'text {i}' for i in range(64)]
        y = made(s, concurrency=32)(Records.texts(x))
        assert y.tobytes() == want(s, *x).tobytes() and 8 <= s.most <= 32

# ---- settings ----

@pytest.mark.parametrize('bad', [dict(batch=0), dict(batch=None), dict(batch=True), dict(dimensions=0), dict(max_chars=0), dict(max_chars=1.5), dict(encoding='int8'), dict(empty=' '), dict(empty=None), dict(concurrency=0), dict(timeout=-1), dict(base_url='ftp://x'), dict(model='')])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match='must'): EndpointEmbedding(**(dict(model='m', base_url='http://localhost:1/v1', sends_private=True) | bad))

def test_keys_and_addresses(monkeypatch):
    monkeypatch.delenv('OPENAI_API_KEY', raising=False)
    monkeypatch.delenv('OPENAI_BASE_URL', raising=False)
    with pytest.raises(ValueError, match='OPENAI_API_KEY must be set'): EndpointEmbedding('m', sends_private=True)
    with pytest.raises(ValueError, match='must be left out where endpoints are given') as err: EndpointEmbedding('m', Endpoint('http://localhost:1/v1'), KEY, sends_private=True)
    assert KEY not in str(err.value)
    monkeypatch.setenv('OPENAI_API_KEY', KEY)
    assert EndpointEmbedding('m', sends_private=True).client.endpoints[0].key.reveal() == KEY
    assert EndpointEmbedding('m', 'http://localhost:1/v1', sends_private=True).client.endpoints[0].key is None     # the environment's key goes nowhere else
    with pytest.raises(ValueError, match='path'): Endpoint('http://localhost:1/v1', path='/completions')

def test_fingerprints():
    kinds = [{}, dict(dimensions=4), dict(batch=2), dict(max_chars=9), dict(empty='x'), dict(encoding='float'), dict(model='n')]
    prints = [EndpointEmbedding(**(dict(model='m', base_url='http://localhost:1/v1', sends_private=True) | k)).fingerprint for k in kinds]
    assert len(set(prints)) == len(kinds)
    assert EndpointEmbedding('m', 'http://other:2/v1', KEY, sends_private=True, concurrency=3).fingerprint == prints[0]

# ---- reading ----

def test_read_vectors():
    rows = [dict(index=i, embedding=[float(i), 1.]) for i in range(3)]
    for order in itertools.permutations(rows): assert read_vectors(dict(data=list(order)), 3)[:, 0].tolist() == [0, 1, 2]
    assert read_vectors(dict(data=[dict(embedding=[1., 2.])]), 1).tolist() == [[1, 2]]
    for bad in (None, [], {}, dict(data=None), dict(data=[1, 2, 3]), dict(data=rows[:2]), dict(data=rows + rows[:1]), dict(data=[*rows[:2], dict(index=True, embedding=[1., 1.])]), dict(data=[*rows[:2], dict(index=2)]),
                dict(data=[*rows[:2], dict(index='2', embedding=[1., 2.])]), dict(data=[*rows[:2], dict(index=2, embedding=[1.])]), dict(data=[*rows[:2], dict(index=2, embedding=[1., float('inf')])])):
        with pytest.raises(Malformed): read_vectors(bad, 3)
    raw = np.array([1.5, -2], '<f4').tobytes()
    assert one_vector(base64.b64encode(raw).decode()).tolist() == [1.5, -2] == one_vector([1.5, -2]).tolist()
    for bad in ('', 'AAA=', 'no', base64.b64encode(raw[:-1]).decode(), [], [[1.]], ['x'], {}, None, 3, True, [None], [1e39]):
        with pytest.raises(Malformed): one_vector(bad)
