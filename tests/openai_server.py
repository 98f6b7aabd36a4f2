"""A small server that speaks the OpenAI protocol on this machine, and misbehaves on order. Standard library only.

In a test:          with Server(latency=.01, faults={'429': .1}) as s: ... s.url, s.billed, s.seen
In its own process: python tests/openai_server.py '{"latency": 0.05}'   (prints its address; GET /stats tells what it counted; ends with its parent's pipe)

Paths: /v1/models, /v1/chat/completions, /v1/embeddings, /v1/images/generations, /v1/images/edits, /v1/files, /v1/batches, and Azure's /openai/deployments/NAME/chat/completions. It counts tokens as blank-separated words,
4 more for each message and 3 for the answer's head. A fault comes from `faults`: a dict of rates, a list (one entry per request, then none), a function of (body, n-th time this body is seen),
or from the prompt itself: a message that begins with [[name]] gets that fault each time, with [[name*2]] the first two times. /v1/embeddings takes the same faults, also from the first of its texts,
and some of its own (VECTORS); its vectors are a function of the text.
The two paths of images take the same faults, also from the prompt, and some of their own (PICTURES); an edit is a form with a PNG in it. Each image is of one colour of its own, or what `picture` makes of (body, number).
"""
import asyncio, base64, collections, contextlib, hashlib, json, random, re, struct, subprocess, sys, threading, time, zlib

FAULTS = {
    '429': (429, 'rate_limit_exceeded', {}), '429-after': (429, 'rate_limit_exceeded', {'Retry-After': '{after}'}), '429-ms': (429, 'rate_limit_exceeded', {'retry-after-ms': '{ms}'}),
    '429-date': (429, 'rate_limit_exceeded', {'Retry-After': '{date}'}), 'quota': (429, 'insufficient_quota', {}), '408': (408, 'timeout', {}), '409': (409, 'conflict', {}),
    '500': (500, 'server_error', {}), '503': (503, 'overloaded', {}), '503-after': (503, 'overloaded', {'Retry-After': '{after}'}), '400': (400, 'invalid_value', {}), '422': (422, 'invalid_value', {}),
    '401': (401, 'invalid_api_key', {}), '403': (403, 'forbidden', {}), '404': (404, 'model_not_found', {}), 'filter-400': (400, 'content_filter', {}), 'moderation': (400, 'moderation_blocked', {})}
BODIES = ('filter-finish', 'length', 'truncated', 'html', 'null', 'empty', 'refusal', 'no-usage', 'no-choices', 'not-json-object')  # answers with status 200; all are billed
VECTORS = ('missing', 'doubled', 'no-index', 'bad-index', 'nan', 'narrow', 'no-base64', 'as-floats', 'shuffled')  # embeddings with status 200; all but the last two are wrong, and all are billed
PICTURES = ('fewer', 'none', 'more', 'blank', 'one-blank', 'bad-base64', 'one-bad', 'no-picture', 'half-picture', 'url', 'no-details')  # images with status 200; all are billed
BREAKS = ('hang', 'disconnect', 'disconnect-unpaid', 'half', 'drip')  # no whole answer; all but disconnect-unpaid are billed

def count_words(text): return len(text.split())
def count_prompt(messages): return sum(count_words(m['content'] or '') + 4 for m in messages) + 3

def png(width, height, colour):
    "A PNG of one colour (three bytes)."
    chunk = lambda kind, data: struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    rows = (b'\0' + bytes(colour)*width)*height
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)) + chunk(b'IDAT', zlib.compress(rows, 1)) + chunk(b'IEND', b'')

class Server:
    "Runs in a thread of this process between `with` and the end of its block."
    def __init__(self, latency=0., faults=None, keys=None, models=None, context=None, reply=None, words=None, seed=0, retry_after=1., batch_s=0., dim=8, picture=None, sizes=None):
        self.latency, self.faults, self.keys, self.models, self.context, self.dim = latency, faults, keys, models, context, dim
        self.reply, self.words, self.retry_after, self.batch_s = reply, words, retry_after, batch_s
        if isinstance(picture, str):  # the path of a PNG that every image is
            with open(picture, 'rb') as f: kept = f.read()
        self.picture, self.sizes = (lambda body, i: kept) if isinstance(picture, str) else picture, sizes  # (body, number) -> PNG; sizes that are allowed, None: all
        self.rng, self.lock = random.Random(seed), threading.Lock()
        self.break_batches, self.fail_batches = [], False
        self.reset()

    def reset(self):
        "Forget what was counted."
        self.seen, self.billed, self.times, self.auth, self.faulted = [], [], [], [], collections.Counter()
        self.attempts, self.now, self.most, self.files, self.batches, self.served, self.busy_s = collections.Counter(), 0, 0, {}, {}, 0, 0.

    # ---- life ----

    def __enter__(self):
        ready = threading.Event()
        self.loop = asyncio.new_event_loop()
        def serve():
            asyncio.set_event_loop(self.loop)
            self.server = self.loop.run_until_complete(self.loop.create_server(lambda: Connection(self), '127.0.0.1', 0, backlog=1024))
            ready.set()
            self.loop.run_forever()
        self.connections, self.tasks = set(), set()
        self.thread = threading.Thread(target=serve, daemon=True)
        self.thread.start()
        ready.wait(5)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    @property
    def url(self): return f'http://127.0.0.1:{self.port}/v1'
    @property
    def azure(self): return f'http://127.0.0.1:{self.port}'

    def __exit__(self, *exc):
        async def stop():
            self.server.close()
            for c in list(self.connections): c.transport.abort()
            for t in list(self.tasks): t.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
            await asyncio.sleep(0)
        asyncio.run_coroutine_threadsafe(stop(), self.loop).result(5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()

    # ---- what it counted ----

    def stats(self):
        prompt, completion = sum(b[1] for b in self.billed), sum(b[2] for b in self.billed)
        return dict(requests=len(self.seen), billed=len(self.billed), billed_once=len({b[0] for b in self.billed}), prompt_tokens=prompt, completion_tokens=completion, most_at_once=self.most,
                    faults=dict(self.faulted), mean_service_ms=1000*self.busy_s/max(self.served, 1), connections=getattr(self, 'opened', 0))

    def bill(self, key, prompt, completion): self.billed.append((key, prompt, completion))

    # ---- answers ----

    def fault(self, body, key, n):
        text = body['prompt'] if 'prompt' in body else body['messages'][-1]['content'] if body.get('messages') else body['input'][0] if isinstance(body.get('input'), list) and body['input'] else body.get('input') or ''
        m = re.match(r'\[\[([\w-]+?)(?:\*(\d+))?\]\]', text or '')
        if m: return m[1] if not m[2] or n <= int(m[2]) else None
        f = self.faults
        if callable(f): return f(body, n)
        if isinstance(f, list): return f.pop(0) if f else None
        if isinstance(f, dict):
            u = self.rng.random()
            for name, rate in f.items():
                if (u := u - rate) < 0: return name
        return None

    def error(self, status, code, message, headers=(), param=None):
        return status, json.dumps({'error': {'message': message, 'type': 'error', 'param': param, 'code': code}}).encode(), dict(headers)

    def denied(self, headers):
        key = headers.get('api-key') or headers.get('authorization', '').removeprefix('Bearer ')
        self.auth.append(key)
        if self.keys is not None and key not in self.keys: return self.error(401, 'invalid_api_key', f'Incorrect API key provided: {key}. You can find your API key on the account page.')

    def unknown(self, model):
        if self.models is not None and model not in self.models: return self.error(404, 'model_not_found', f'The model `{model}` does not exist or you do not have access to it.')

    def complete(self, body, key, n, fault=None):
        "Body of a good answer, counted as paid."
        limit = body.get('max_completion_tokens', body.get('max_tokens'))
        text = self.reply(body) if self.reply else f'answer {len(self.billed)} to ' + body['messages'][-1]['content'][:60]
        words = text.split(' ')
        if self.words:
            n = self.words(body) if callable(self.words) else self.words
            words = (words*n)[:n]
        finish = 'length' if limit is not None and len(words) > limit else 'stop'
        if finish == 'length': text = ' '.join(words[:limit])
        elif self.words: text = ' '.join(words)
        message = dict(role='assistant', content=text, refusal=None)
        if fault == 'length': finish = 'length'
        if fault == 'filter-finish': finish, message['content'] = 'content_filter', text[:5]
        if fault == 'null': message['content'] = None
        if fault == 'empty': message['content'] = ' \n'
        if fault == 'refusal': message.update(content=None, refusal='I cannot help with that.')
        prompt, completion = count_prompt(body['messages']), len((message['content'] or '').split())
        self.bill(key, prompt, completion)
        out = dict(id=f'chatcmpl-{len(self.billed)}', object='chat.completion', created=int(time.time()), model=body['model'],
                   choices=[dict(index=0, message=message, logprobs=None, finish_reason=finish)], usage=dict(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion))
        if fault == 'no-usage': del out['usage']
        if fault == 'no-choices': out['choices'] = []
        return out

    async def chat(self, body, headers, connection):
        if bad := self.denied(headers) or self.unknown(body.get('model')): return bad
        key = hashlib.sha1(json.dumps({k: v for k, v in body.items() if k != 'model'}, sort_keys=True).encode()).hexdigest()
        self.attempts[key] += 1
        n = self.attempts[key]
        fault = self.fault(body, key, n)
        if fault: self.faulted[fault] += 1
        if self.latency: await asyncio.sleep((self.latency(body) if callable(self.latency) else self.latency) - .0005)  # the loop's clock rounds up to 1 ms
        if not isinstance(body.get('messages'), list) or not body['messages']: return self.error(400, 'invalid_value', 'messages must not be empty', param='messages')
        limit = body.get('max_completion_tokens', body.get('max_tokens'))
        if limit is not None and limit < 1: return self.error(400, 'integer_below_min_value', f'Invalid value: {limit}. Expected a value >= 1.', param='max_completion_tokens')
        tokens = count_prompt(body['messages'])
        if self.context and tokens + (limit or 0) > self.context:
            return self.error(400, 'context_length_exceeded', f"This model's maximum context length is {self.context} tokens. However, you requested {tokens + (limit or 0)}.", param='messages')
        return await self.misbehave(fault, key, tokens, body['messages'][-1]['content'], lambda: self.complete(body, key, n, fault), connection)

    async def misbehave(self, fault, key, tokens, text, answer, connection):
        "The answer, or what the fault makes of it. An error repeats the beginning of the text, as real ones do."
        if fault in FAULTS:
            status, code, extra = FAULTS[fault]
            date = time.strftime('%a, %d %b %Y %H:%M:%S GMT', time.gmtime(time.time() + self.retry_after + 1))
            extra = {k: v.format(after=f'{self.retry_after:g}', ms=f'{1000*self.retry_after:g}', date=date) for k, v in extra.items()}
            return self.error(status, code, f'{fault}: {text[:200]}', extra)
        if fault == 'disconnect-unpaid': return connection.transport.abort()
        if fault == 'hang':
            self.bill(key, tokens, 0)
            return await asyncio.sleep(3600)
        out = json.dumps(answer()).encode()
        if fault == 'disconnect': return connection.transport.abort()
        if fault == 'half': return connection.half(out)
        if fault == 'drip': return await connection.drip(out)
        if fault == 'truncated': out = out[:len(out)//2]
        if fault == 'html': out = b'<html>502 Bad Gateway</html>'
        if fault == 'not-json-object': out = b'["nothing"]'
        return 200, out, {}

    def vector(self, text, dim):
        r = random.Random(text)
        return [r.gauss(0, 1) for _ in range(dim)]

    def vectors(self, body, key, texts, tokens, fault=None):
        "Body of a good answer with one vector per text, counted as paid."
        import base64, struct
        packed = body.get('encoding_format') == 'base64' and fault != 'as-floats'
        pack = lambda v: base64.b64encode(struct.pack(f'<{len(v)}f', *v)).decode() if packed else v
        data = [dict(object='embedding', index=i, embedding=pack(self.vector(t, body.get('dimensions') or self.dim))) for i, t in enumerate(texts)]
        if fault == 'missing': data.pop()
        if fault == 'doubled': data.append(data[0])
        if fault == 'no-index': del data[0]['index']
        if fault == 'bad-index': data[-1]['index'] = len(texts)
        if fault == 'nan': data[0]['embedding'] = pack([float('nan')]*self.dim)
        if fault == 'narrow': data[0]['embedding'] = pack(self.vector(texts[0], 3))
        if fault == 'no-base64': data[0]['embedding'] = '???'
        if fault == 'null': data[0]['embedding'] = None
        if fault == 'empty': data = []
        if fault == 'shuffled': data.reverse()
        self.bill(key, tokens, 0)
        out = dict(object='list', data=data, model=body['model'], usage=dict(prompt_tokens=tokens, total_tokens=tokens))
        if fault == 'no-usage': del out['usage']
        return out

    async def embeddings(self, body, headers, connection):
        if bad := self.denied(headers) or self.unknown(body.get('model')): return bad
        texts = [body['input']] if isinstance(body.get('input'), str) else body.get('input')
        if not texts or not all(isinstance(t, str) and t for t in texts): return self.error(400, 'invalid_value', 'input must hold texts that are not empty', param='input')
        key, tokens = hashlib.sha1(json.dumps(texts).encode()).hexdigest(), sum(map(count_words, texts))
        self.attempts[key] += 1
        fault = self.fault(body, key, self.attempts[key])
        if fault: self.faulted[fault] += 1
        if self.latency: await asyncio.sleep((self.latency(body) if callable(self.latency) else self.latency) - .0005)
        if self.context and max(map(count_words, texts)) > self.context:
            return self.error(400, 'context_length_exceeded', f"This model's maximum context length is {self.context} tokens, however you requested more: {texts[0][:100]}", param='input')
        return await self.misbehave(fault, key, tokens, texts[0], lambda: self.vectors(body, key, texts, tokens, fault), connection)

    def images(self, body, key, n, tokens, fault=None):
        "Body of a good answer with n images, counted as paid."
        w, h = map(int, body.get('size', '1024x1024').split('x'))
        made = n - 1 if fault == 'fewer' else 0 if fault == 'none' else n + 1 if fault == 'more' else n
        colour = lambda i: hashlib.sha1(f'{body["prompt"]} {len(self.billed)} {i}'.encode()).digest()[:3]
        pictures = [self.picture(body, i) if self.picture else png(w, h, colour(i)) for i in range(made)]
        if fault == 'half-picture': pictures = [p[:len(p)//2] for p in pictures]
        if fault == 'no-picture': pictures = [b'GIF89a, or not' for _ in pictures]
        data = [dict(b64_json=base64.b64encode(p).decode()) for p in pictures]
        if fault in ('bad-base64', 'one-bad'): data[-1]['b64_json'] = '?' + data[-1]['b64_json'][1:]
        if fault == 'bad-base64': data = data[-1:]*made
        if fault in ('blank', 'one-blank'): data[-1]['b64_json'] = None
        if fault == 'blank': data = data[-1:]*made
        if fault == 'null': data = None
        if fault == 'url': data = [dict(url=f'http://127.0.0.1:{self.port}/picture/{i}.png') for i in range(made)]
        uploaded = 200 if 'image' in body else 0
        self.bill(key, tokens + uploaded, 272*made)
        out = dict(created=int(time.time()), data=data, usage=dict(input_tokens=tokens + uploaded, output_tokens=272*made, total_tokens=tokens + uploaded + 272*made,
                   input_tokens_details=dict(text_tokens=tokens, image_tokens=uploaded)))
        if fault == 'no-details': del out['usage']['input_tokens_details']
        if fault == 'no-usage': del out['usage']
        return out

    async def draw(self, body, headers, connection, edit):
        if bad := self.denied(headers) or self.unknown(body.get('model')): return bad
        prompt, n, size = body.get('prompt'), body.get('n', '1'), body.get('size', '1024x1024')
        key = hashlib.sha1(b'\0'.join(str(v).encode() if not isinstance(v, bytes) else v for _, v in sorted(body.items()))).hexdigest()
        self.attempts[key] += 1
        fault = self.fault(body, key, self.attempts[key])
        if fault: self.faulted[fault] += 1
        if self.latency: await asyncio.sleep((self.latency(body) if callable(self.latency) else self.latency) - .0005)
        if not prompt: return self.error(400, 'invalid_value', 'prompt must not be empty', param='prompt')
        if not str(n).isdecimal() or not 1 <= int(n) <= 10: return self.error(400, 'invalid_value', f'Invalid value: {n}. Expected 1 to 10.', param='n')
        if self.sizes is not None and size not in self.sizes: return self.error(400, 'invalid_value', f'Invalid size {size}', param='size')
        if edit and not (isinstance(body.get('image'), bytes) and body['image'][:8] == b'\x89PNG\r\n\x1a\n'): return self.error(400, 'invalid_image_file', 'Invalid image file', param='image')
        if str(body.get('model')).startswith('gpt-image') and 'response_format' in body: return self.error(400, 'unknown_parameter', "Unknown parameter: 'response_format'.", param='response_format')
        tokens = count_words(prompt)
        return await self.misbehave(fault, key, tokens, prompt, lambda: self.images(body, key, int(n), tokens, fault), connection)

    # ---- files and batches ----

    def put_file(self, content, name, purpose):
        f = f'file-{len(self.files)}'
        self.files[f] = content
        return dict(id=f, object='file', bytes=len(content), created_at=int(time.time()), filename=name, purpose=purpose, status='processed')

    def batch(self, b):
        "The state of a batch, worked off when its time has come."
        if b['status'] == 'in_progress' and time.time() >= b['_due']: self.work_off(b)
        return {k: v for k, v in b.items() if k[0] != '_'}

    def work_off(self, b):
        good, bad = [], []
        if self.fail_batches:
            b.update(status='failed', errors=dict(object='list', data=[dict(code='invalid', message='line 1 is no JSON', line=1, param=None)]))
            return
        for line in self.files[b['input_file_id']].decode().strip().split('\n'):
            r = json.loads(line)
            body, key = r['body'], hashlib.sha1(line.encode()).hexdigest()
            self.attempts[key] += 1
            fault = self.fault(body, key, self.attempts[key])
            if fault == 'lost': continue
            if fault == 'expired': bad.append(dict(id='x', custom_id=r['custom_id'], response=None, error=dict(code='batch_expired', message='This request could not be executed before the completion window expired.')))
            elif fault in FAULTS: bad.append(dict(id='x', custom_id=r['custom_id'], response=dict(status_code=FAULTS[fault][0], body=json.loads(self.error(*FAULTS[fault][:2], fault)[1])), error=None))
            else: good.append(dict(id='x', custom_id=r['custom_id'], response=dict(status_code=200, request_id='r', body=self.complete(body, key, 1, fault)), error=None))
        self.rng.shuffle(good)  # a batch answers in any order
        jsonl = lambda rows: ''.join(json.dumps(x) + '\n' for x in rows).encode()
        b.update(status='completed', output_file_id=self.put_file(jsonl(good), 'out.jsonl', 'batch_output')['id'] if good else None,
                 error_file_id=self.put_file(jsonl(bad), 'err.jsonl', 'batch_output')['id'] if bad else None, request_counts=dict(total=len(good) + len(bad), completed=len(good), failed=len(bad)))

    def new_batch(self, body):
        if body['input_file_id'] not in self.files: return self.error(404, 'not_found', 'No such file')
        b = dict(id=f'batch_{len(self.batches)}', object='batch', endpoint=body['endpoint'], input_file_id=body['input_file_id'], completion_window=body['completion_window'], status='in_progress',
                 created_at=int(time.time()), output_file_id=None, error_file_id=None, metadata=body.get('metadata'), _due=time.time() + self.batch_s)
        self.batches[b['id']] = b
        return 200, json.dumps({k: v for k, v in b.items() if k[0] != '_'}).encode(), {}

    # ---- the table of paths ----

    async def answer(self, method, path, headers, data, connection):
        path, _, _ = path.partition('?')
        m = re.fullmatch(r'/openai/deployments/([^/]+)(/.*)', path)
        if m: path = f'/v1{m[2]}'
        path = path.replace('/openai/v1/', '/v1/')
        if path == '/stats': return 200, json.dumps(self.stats()).encode(), {}
        if path == '/reset':
            self.reset()
            return 200, b'{}', {}
        if path in ('/v1/chat/completions', '/v1/embeddings', '/v1/batches') and method == 'POST':
            body = json.loads(data)
            if m: body['model'] = m[1]
            self.seen.append(body)
            self.times.append(time.monotonic())
            if path == '/v1/embeddings': return await self.embeddings(body, headers, connection)
            if path == '/v1/batches':
                if bad := self.denied(headers): return bad
                out = self.new_batch(body)
                return connection.transport.abort() if self.break_batches and self.break_batches.pop() else out  # taken, and the line breaks
            return await self.chat(body, headers, connection)
        if path in ('/v1/images/generations', '/v1/images/edits') and method == 'POST':
            edit = path.endswith('edits')
            body = {k: v if k == 'image' else v.decode() for k, v in multipart(headers['content-type'], data).items()} if edit else json.loads(data)
            if m: body['model'] = m[1]
            self.seen.append(dict(body, path=path))
            self.times.append(time.monotonic())
            return await self.draw(body, headers, connection, edit)
        if bad := self.denied(headers): return bad
        if path == '/v1/models': return 200, json.dumps(dict(object='list', data=[dict(id=x, object='model', created=0, owned_by='here') for x in self.models or ['any']])).encode(), {}
        if (x := re.fullmatch(r'/v1/models/(.+)', path)): return self.unknown(x[1]) or (200, json.dumps(dict(id=x[1], object='model', created=0, owned_by='here')).encode(), {})
        if path == '/v1/files' and method == 'POST':
            parts = multipart(headers['content-type'], data)
            return 200, json.dumps(self.put_file(parts['file'], 'in.jsonl', parts['purpose'].decode())).encode(), {}
        if (x := re.fullmatch(r'/v1/files/([^/]+)/content', path)) and x[1] in self.files: return 200, self.files[x[1]], {'Content-Type': 'application/octet-stream'}
        if path == '/v1/batches': return 200, json.dumps(dict(object='list', data=[self.batch(b) for b in self.batches.values()], has_more=False)).encode(), {}
        if (x := re.fullmatch(r'/v1/batches/([^/]+)(/cancel)?', path)) and x[1] in self.batches:
            if x[2]: self.batches[x[1]]['status'] = 'cancelled'
            return 200, json.dumps(self.batch(self.batches[x[1]])).encode(), {}
        return self.error(404, 'not_found', f'Unknown path {path}')

def multipart(kind, data):
    "Name to content of the parts of a form."
    boundary = b'--' + re.search(r'boundary="?([^";]+)', kind)[1].encode()
    parts = {}
    for piece in data.split(boundary)[1:-1]:
        head, _, content = piece.removeprefix(b'\r\n').partition(b'\r\n\r\n')
        parts[re.search(rb'name="([^"]+)"', head)[1].decode()] = content.removesuffix(b'\r\n')
    return parts

class Connection(asyncio.Protocol):
    "HTTP/1.1 with keep-alive, one request at a time."
    def __init__(self, server): self.s, self.buffer = server, bytearray()
    def connection_made(self, transport):
        self.transport = transport
        self.s.connections.add(self)
        self.s.opened = getattr(self.s, 'opened', 0) + 1
    def connection_lost(self, exc): self.s.connections.discard(self)

    def data_received(self, data):
        self.buffer += data
        end = self.buffer.find(b'\r\n\r\n')
        if end < 0: return
        head = self.buffer[:end].decode('latin-1').split('\r\n')
        headers = {k.lower(): v.strip() for k, _, v in (l.partition(':') for l in head[1:])}
        if 'chunked' in headers.get('transfer-encoding', ''):
            if not self.buffer.endswith(b'0\r\n\r\n'): return
            body, rest = b'', bytes(self.buffer[end + 4:])
            while rest and (n := int(rest.split(b'\r\n', 1)[0], 16)): body, rest = body + rest.split(b'\r\n', 1)[1][:n], rest.split(b'\r\n', 1)[1][n + 2:]
            self.buffer.clear()
        else:
            size = end + 4 + int(headers.get('content-length', 0))
            if len(self.buffer) < size: return
            body = bytes(self.buffer[end + 4:size])
            del self.buffer[:size]
        method, path, _ = head[0].split(' ', 2)
        t = self.s.loop.create_task(self.handle(method, path, headers, body))
        self.s.tasks.add(t)
        t.add_done_callback(self.s.tasks.discard)

    async def handle(self, method, path, headers, body):
        s = self.s
        if 'gzip' in headers.get('content-encoding', ''): body = zlib.decompress(body, 31)
        s.now += 1
        s.most = max(s.most, s.now)
        t = time.perf_counter()
        try: got = await s.answer(method, path, headers, body, self)
        finally: s.now -= 1
        if got and not self.transport.is_closing(): self.send(*got)
        s.served, s.busy_s = s.served + 1, s.busy_s + time.perf_counter() - t

    def head(self, status, size, headers=()):
        h = {'Content-Type': 'application/json', 'Content-Length': size, **dict(headers)}
        return (f'HTTP/1.1 {status} X\r\n' + ''.join(f'{k}: {v}\r\n' for k, v in h.items()) + '\r\n').encode('latin-1')
    def send(self, status, out, headers): self.transport.write(self.head(status, len(out), headers) + out)
    def half(self, out):
        self.transport.write(self.head(200, len(out)) + out[:len(out)//2])
        self.transport.close()
    async def drip(self, out):
        self.transport.write(self.head(200, len(out)))
        for b in out:
            if self.transport.is_closing(): return
            self.transport.write(bytes([b]))
            await asyncio.sleep(.05)

def main():
    "Serve until the parent closes our standard input."
    with Server(**json.loads(sys.argv[1] if len(sys.argv) > 1 else '{}')) as s:
        print(s.url, flush=True)
        sys.stdin.read()

@contextlib.contextmanager
def apart(**settings):
    "Address of a server in a process of its own, for measurements."
    p = subprocess.Popen([sys.executable, __file__, json.dumps(settings)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try: yield p.stdout.readline().strip()
    finally:
        p.stdin.close()
        p.wait(10)


if __name__ == '__main__': main()
