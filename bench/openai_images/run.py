"""Images per second of OpenAIImages against a local server, beside a bare AsyncOpenAI loop with the same number of tasks in the same run.

The server runs in a process of its own (tests/openai_server.py) and sends one PNG again and again: of 1024 x 1024, about 2 MB, as hosted models do, or of 64 x 64, where the client itself is what takes the time. Both ways end with images of 32 x 32: the bare one decodes and scales as OpenAIImages does, and keeps nothing.
Repetitions alternate; medians. Client and server share the machine, so compare ratios, not rates.
"""
import asyncio, base64, io, json, statistics, sys, tempfile, time
from pathlib import Path
import numpy as np
import openai
from PIL import Image
from pe_nb.generators.image_client import fitted, png_of
from pe_nb.generators.openai_images import OpenAIImages
from pe_nb.llms.cache import AnswerCache

sys.path.insert(0, str(Path(__file__).resolve().parents[2]/'tests'))
from openai_server import apart

ROWS = [('64 x 64, at once', 64, 0., 300, 64), ('1024 x 1024, at once', 1024, 0., 24, 16), ('1024 x 1024, after 5 s', 1024, 5., 16, 16)]  # name, pixels, seconds to answer, images, requests at once

def ours(url, n, concurrency, side, folder):
    "Images per second and CPU milliseconds per image: random, vary, and both again from the cache."
    with AnswerCache(Path(folder)/f'{time.time_ns()}.sqlite') as cache:
        g = OpenAIImages('m', 'a cat', 32, asked=f'{side}x{side}', endpoints=url, cache=cache, concurrency=concurrency)
        rates = []
        for _ in range(2):
            t, cpu = time.perf_counter(), time.process_time()
            r = g.random(np.zeros(n, np.int64), np.random.default_rng(0))
            t2, cpu2 = time.perf_counter(), time.process_time()
            g.vary(r, 30, np.random.default_rng(1))
            rates += [(n/(t2 - t), 1000*(cpu2 - cpu)/n), (n/(time.perf_counter() - t2), 1000*(time.process_time() - cpu2)/n)]
    return rates

def bare(url, n, concurrency, side):
    "The same with the default AsyncOpenAI, as its documentation shows it."
    async def go(parents):
        todo = iter(range(n))
        async with openai.AsyncOpenAI(base_url=url, api_key='none') as c:
            async def one(i):
                shared = dict(model='m', prompt='a cat', n=1, size=f'{side}x{side}', response_format='b64_json')
                got = await (c.images.generate(**shared) if parents is None else c.images.edit(image=('image.png', png_of(parents[i], (side, side)), 'image/png'), **shared))
                return fitted(Image.open(io.BytesIO(base64.b64decode(got.data[0].b64_json))), (32, 32), 3, 'lanczos')
            async def worker(): return [await one(i) for i in todo]
            return [x for part in await asyncio.gather(*(worker() for _ in range(concurrency))) for x in part]
    rates, made = [], None
    for _ in range(2):
        t, cpu = time.perf_counter(), time.process_time()
        made = asyncio.run(go(made))
        assert len(made) == n
        rates.append((n/(time.perf_counter() - t), 1000*(time.process_time() - cpu)/n))
    return rates

def main():
    "Print and write the table."
    rng, out = np.random.default_rng(0), {}
    with tempfile.TemporaryDirectory() as folder:
        size = {}
        for side in (1024, 64):
            coarse = Image.fromarray(rng.integers(0, 256, (side//16, side//16, 3), dtype=np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
            Image.fromarray(np.clip(np.asarray(coarse) + rng.normal(0, 6, (side, side, 3)), 0, 255).astype(np.uint8)).save(f'{folder}/{side}.png')
            size[side] = Path(f'{folder}/{side}.png').stat().st_size
        for name, side, latency, n, at_once in ROWS:
            with apart(latency=latency, picture=f'{folder}/{side}.png') as url:
                got = [(ours(url, n, at_once, side, folder), bare(url, n, at_once, side)) for _ in range(2)]
            median = lambda which, i, k: statistics.median(g[which][i][k] for g in got)
            for i, api in enumerate(('random', 'vary')):
                row = dict(ours=median(0, i, 0), bare=median(1, i, 0), cpu_ours=median(0, i, 1), cpu_bare=median(1, i, 1), cached=median(0, i + 2, 0))
                out[f'{api}, {name}'] = dict(images=n, at_once=at_once) | {k: round(v, 2) for k, v in row.items()} | dict(ratio=round(row['ours']/row['bare'], 3))
                print(f'{api}, {name}', out[f'{api}, {name}'], flush=True)
    (Path(__file__).parent/'results.json').write_text(json.dumps(dict(png_bytes=size, rows=out), indent=1) + '\n')

if __name__ == '__main__': main()
