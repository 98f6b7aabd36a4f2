"""Requests per second of the OpenAI client against a local server, beside a bare AsyncOpenAI loop and a thread pool in the same run.

The server runs in a process of its own (tests/openai_server.py). Repetitions alternate; medians. Python, the SDK and the server share the machine, so compare ratios, not rates.
"""
import asyncio, json, sys, tempfile, time, urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
import openai
from pe_nb.llms.cache import AnswerCache
from pe_nb.llms.chat import Request, tally
from pe_nb.llms.openai_chat import OpenAIChat

sys.path.insert(0, str(Path(__file__).resolve().parents[2]/'tests'))
from openai_server import apart

LIMIT = dict(max_completion_tokens=60)

def get(url, path):
    with urllib.request.urlopen(url.removesuffix('/v1') + path, timeout=10) as r: return json.load(r)

def prompts(n, word): return [f'Write a short review, number {i} {word}.' for i in range(n)]

def ours(url, texts, concurrency, cache=None):
    "Requests per second, CPU milliseconds per request, and the answers."
    chat, requests = OpenAIChat('m', url, concurrency=concurrency, cache=cache, **LIMIT), [Request(p) for p in texts]
    t, cpu = time.perf_counter(), time.process_time()
    answers = chat.answers(requests)
    return len(texts)/(time.perf_counter() - t), (time.process_time() - cpu)*1000/len(texts), answers

def bare(url, texts, concurrency):
    "The same with the default AsyncOpenAI, as its documentation shows it, and as many tasks as requests may be open."
    async def go():
        todo = iter(texts)
        async with openai.AsyncOpenAI(base_url=url, api_key='none') as c:
            async def worker(): return [(await c.chat.completions.create(model='m', messages=[dict(role='user', content=p)], **LIMIT)).choices[0].message.content for p in todo]
            return await asyncio.gather(*(worker() for _ in range(concurrency)))
    t, cpu = time.perf_counter(), time.process_time()
    got = asyncio.run(go())
    assert sum(map(len, got)) == len(texts)
    return len(texts)/(time.perf_counter() - t), (time.process_time() - cpu)*1000/len(texts)

def threads(url, texts, concurrency):
    "The same with the SDK's synchronous client in a thread pool."
    with openai.OpenAI(base_url=url, api_key='none') as c, ThreadPoolExecutor(concurrency) as pool:
        one = lambda p: c.chat.completions.create(model='m', messages=[dict(role='user', content=p)], **LIMIT).choices[0].message.content
        t = time.perf_counter()
        assert len(list(pool.map(one, texts))) == len(texts)
        return len(texts)/(time.perf_counter() - t)

def latency(folder, n=2000, concurrency=16, delay=.05, repeats=3):
    "Against a server that answers after 50 ms: without faults, with 20 % of them, and a thread pool."
    ideal, rows, lost = concurrency/delay, dict(plain=[], faulty=[], threads=[]), 0
    with apart(latency=delay) as good, apart(latency=delay, faults={'429-ms': .1, '500': .1}, retry_after=.05) as bad:
        ours(good, prompts(64, 'warm'), concurrency)
        for i in range(repeats):
            with AnswerCache(folder/f'plain{i}.sqlite') as c: rate, cpu, answers = ours(good, prompts(n, f'a{i}'), concurrency, c)
            assert tally(answers) == {'ok': n}
            rows['plain'].append(rate)
            with AnswerCache(folder/f'faulty{i}.sqlite') as c: rate, cpu, answers = ours(bad, prompts(n, f'b{i}'), concurrency, c)
            lost += n - tally(answers)['ok']
            rows['faulty'].append(rate)
            rows['threads'].append(threads(good, prompts(n, f'c{i}'), concurrency))
        counted = get(bad, '/stats')
    out = {k: median(v) for k, v in rows.items()}
    return dict(ideal_per_s=ideal, ours_per_s=out['plain'], thread_pool_per_s=out['threads'], ours_of_ideal=out['plain']/ideal, thread_pool_of_ideal=out['threads']/ideal, faulty_per_s=out['faulty'],
                faulty_of_fault_free=out['faulty']/out['plain'], faults=sum(counted['faults'].values()), requests_with_faults=counted['requests'], lost=lost, paid_twice=counted['billed'] - counted['billed_once'], rates=rows)

def instant(folder, n=1500, concurrency=256, repeats=5):
    "Against a server that answers at once: with a cache on disk, without, and the bare SDK."
    rows = dict(ours=[], cached=[], bare=[])
    with apart() as url:
        ours(url, prompts(64, 'warm'), 16)
        for i in range(repeats):
            rows['bare'].append(bare(url, prompts(n, f'a{i}'), concurrency))
            rows['ours'].append(ours(url, prompts(n, f'b{i}'), concurrency)[:2])
            with AnswerCache(folder/f'instant{i}.sqlite') as c: rows['cached'].append(ours(url, prompts(n, f'c{i}'), concurrency, c)[:2])
    rate, cpu = ({k: median(r[j] for r in v) for k, v in rows.items()} for j in (0, 1))
    ratio = lambda k: median(a[0]/b[0] for a, b in zip(rows[k], rows['bare']))
    return dict(bare_per_s=rate['bare'], ours_per_s=rate['ours'], ours_with_cache_per_s=rate['cached'], ratio=ratio('ours'), ratio_with_cache=ratio('cached'),
                cpu_ms=cpu, ratios=[a[0]/b[0] for a, b in zip(rows['cached'], rows['bare'])])

def again(folder, n=20_000, repeats=3):
    "The same 20,000 requests from the cache."
    requests = [Request(p) for p in prompts(n, 'again')]
    with AnswerCache(folder/'again.sqlite') as cache:
        chat = OpenAIChat('m', 'http://127.0.0.1:9/v1', cache=cache, **LIMIT)   # nobody listens there
        with cache.lock:
            cache.db.execute('begin')
            cache.db.executemany("insert into answers values (?,'m',0,?,'','','stop',9,60)", ((j.key, 'A short review. '*20) for j in chat.jobs(requests)))
            cache.db.execute('commit')
        rates = []
        for _ in range(repeats):
            t = time.perf_counter()
            assert tally(chat.answers(requests)) == {'ok': n}
            rates.append(n/(time.perf_counter() - t))
    return dict(answers=n, per_s=median(rates))

def main():
    with tempfile.TemporaryDirectory() as tmp:
        out = dict(openai=openai.__version__, python=sys.version.split()[0], latency_50ms=latency(Path(tmp)), instant=instant(Path(tmp)), cache=again(Path(tmp)))
    out = json.loads(json.dumps(out), parse_float=lambda x: round(float(x), 3))
    Path(__file__).with_name('results.json').write_text(json.dumps(out, indent=1) + '\n')
    print(json.dumps(out, indent=1))

if __name__ == '__main__': main()
