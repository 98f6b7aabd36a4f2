"Batches: the same protocol, any order of answers, nothing submitted twice."
import pytest
from openai_server import Server, count_words
from pe_nb.llms.cache import AnswerCache
from pe_nb.llms.chat import Prices, Request, tally
from pe_nb.llms.costs import Tokens
from pe_nb.llms.endpoints import Endpoint, Retry
from pe_nb.llms.openai_batch import OpenAIBatch, batch_answer
from pe_nb.llms.openai_chat import OpenAIChat

KEY = 'sk-test-0123456789abcdef'


@pytest.fixture
def cache(tmp_path):
    with AnswerCache(tmp_path/'a.sqlite') as c: yield c


def client(s, cache, **kw): return OpenAIBatch('m', Endpoint(s.url, KEY), cache=cache, **dict(dict(poll_s=.01, max_completion_tokens=30), **kw))
def prompts(n, word='review'): return [Request(f'{word} {i}') for i in range(n)]
def submitted(s): return [b for b in s.batches.values() if b['status'] != 'failed']


@pytest.mark.parametrize('settings, count', [({}, 1), (dict(per_batch=7), 6), (dict(bytes_per_batch=1000), None)])
def test_answers_in_order(cache, settings, count):
    with Server(reply=lambda b: 'about ' + b['messages'][-1]['content'], batch_s=.03) as s:
        c = client(s, cache, **settings)
        requests = [*prompts(40), Request('emoji 😀 \u2028 {} line\n')]
        answers = c.answers(requests)
        assert [a.text for a in answers] == [f'about {r.messages[0][1]}' for r in requests]
        assert len(s.batches) == count if count else len(s.batches) > 4
        assert c.spending.tokens == sum(p + q for _, p, q in s.billed) and c.spending.flying == 0 and c.spending.held == [0, 0]
        assert c.answers(requests) == answers and len(s.billed) == 41 and cache.open_batches(c.endpoints[0].name) == []


def test_each_outcome(cache):
    with Server() as s:
        names = ['400', 'filter-400', 'expired', 'lost', 'null', 'filter-finish', '500', '429']
        answers = client(s, cache).answers([*(Request(f'[[{n}]] x') for n in names), *prompts(5)])
        assert [a.refusal for a in answers] == ['bad_request', 'content_filter', 'expired', 'expired', 'empty', 'content_filter', 'server', 'rate_limit'] + ['']*5
        assert len(cache) == 8


def test_shares_the_cache_with_the_direct_client(cache):
    with Server() as s:
        direct = OpenAIChat('m', Endpoint(s.url, KEY), cache=cache, max_completion_tokens=30)
        direct.answers(prompts(10))
        client(s, cache).answers(prompts(20))
        assert len(s.billed) == 20 and tally(direct.answers(prompts(20))) == {'ok': 20} and len(s.billed) == 20


@pytest.mark.parametrize('noted', [True, False])
def test_a_batch_is_found_again(cache, noted):
    with Server(batch_s=.3) as s:
        assert tally(client(s, cache, limit_s=.01).answers(prompts(9))) == {'expired': 9}
        if not noted: cache.run('delete from batches')
        assert tally(client(s, cache).answers(prompts(9))) == {'ok': 9}
        assert len(s.batches) == 1 and len(s.billed) == 9


def test_other_requests_of_an_open_batch_are_kept_too(cache):
    with Server(batch_s=.2) as s:
        client(s, cache, limit_s=.01).answers(prompts(9))
        c = client(s, cache)
        assert tally(c.answers([*prompts(3), Request('new')])) == {'ok': 4}
        assert len(cache) == 10 and len(s.billed) == 10 and c.spending.flying == 0
        assert tally(c.answers(prompts(9))) == {'ok': 9} and len(s.billed) == 10


def test_line_breaks_after_the_batch_was_taken(cache):
    with Server() as s:
        s.break_batches = [True]
        assert tally(client(s, cache).answers(prompts(9))) == {'ok': 9} and len(s.batches) == 1 and len(s.billed) == 9


def test_failed_batch_and_wrong_key(cache):
    with Server() as s:
        s.fail_batches = True
        answers = client(s, cache).answers(prompts(3))
        assert tally(answers) == {'bad_request': 3} and 'line 1 is no JSON' in answers[0].detail
        s.fail_batches = False
        assert tally(client(s, cache).answers(prompts(3))) == {'ok': 3}  # a failed batch is not taken for an open one
    with Server(keys=['other']) as s:
        answers = client(s, cache).answers(prompts(3, 'secret'))
        assert tally(answers) == {'auth': 3} and KEY not in repr(answers)
    assert tally(OpenAIBatch('m', 'http://127.0.0.1:9/v1', cache=cache, retry=Retry(tries=1)).answers(prompts(3, 'down'))) == {'connection': 3}


def test_cap(cache):
    with Server() as s:
        c = client(s, cache, tokens=Tokens(count_words, slack=0), cap_tokens=500, prices=Prices(prompt=1, completion=1))
        t = tally(c.answers(prompts(50)))
        assert t['ok'] == 500//(9 + 30) and t['spend_cap'] == 50 - t['ok'] and c.spending.tokens <= 500


@pytest.mark.parametrize('bad', [dict(cache=None), dict(poll_s=0), dict(per_batch=0), dict(endpoints=['http://a/v1', 'http://b/v1'])])
def test_bad_settings(cache, bad):
    with pytest.raises(ValueError): OpenAIBatch('m', **dict(dict(endpoints='http://a/v1', cache=cache), **bad))


def test_lines():
    assert batch_answer(dict(response=dict(status_code=200, body={}))).refusal == 'malformed'
    assert batch_answer({}).refusal == 'server' and batch_answer(dict(response=dict(status_code=None, body=None), error=None)).refusal == 'server'
