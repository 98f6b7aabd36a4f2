"OpenAIChat against the OpenAI-compatible server of transformers, with the small language model of the package: a real server, and the same words as HFChat."
import os, shutil, socket, subprocess, sys, time, urllib.error, urllib.request
from importlib.util import find_spec

import pytest

NEEDED = ('torch', 'transformers', 'openai', 'fastapi', 'uvicorn', 'pydantic', 'accelerate', 'rich')
MISSING = [n for n in NEEDED if find_spec(n) is None]
if MISSING: pytest.skip(f"needs {', '.join(MISSING)}: pip install 'transformers[serving]'", allow_module_level=True)

from pe_nb.llms.cache import AnswerCache
from pe_nb.llms.chat import Request, tally
from pe_nb.llms.endpoints import Retry
from pe_nb.llms.huggingface import HFChat
from pe_nb.llms.openai_chat import EndpointError, OpenAIChat
from pe_nb.llms.small_lm import small_lm

TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"  # a base model's prompt: the server wants a template
ASKED = [Request(f'Topic: {w}\nText:', max_completion_tokens=4 + 3*i) for i, w in enumerate(('array', 'matrix', 'file', 'string', 'number', 'time', 'list', 'test'))]


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = shutil.copytree(small_lm(), tmp_path_factory.mktemp('models')/'small')
    (path/'chat_template.jinja').write_text(TEMPLATE)
    return path


@pytest.fixture(scope='module')
def server(folder, tmp_path_factory):
    "Address of `transformers serve` in a process of its own; ended at the end."
    port, log = free_port(), tmp_path_factory.mktemp('serve')/'log.txt'
    home = tmp_path_factory.mktemp('home')
    env = dict(os.environ, HF_HUB_OFFLINE='1', HF_HOME=str(home), HF_HUB_DISABLE_TELEMETRY='1', OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')
    code = 'import sys; from transformers.cli.transformers import main; sys.argv[0] = "transformers"; main()'
    with open(log, 'w') as out:
        p = subprocess.Popen([sys.executable, '-c', code, 'serve', str(folder), '--device', 'cpu', '--dtype', 'float32', '--host', '127.0.0.1', '--port', str(port)], env=env, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 180
        while True:
            if p.poll() is not None: pytest.fail(f'the server ended by itself:\n{log.read_text()[-2000:]}')
            if time.monotonic() > end: pytest.fail(f'the server did not start in time:\n{log.read_text()[-2000:]}')
            try:
                with urllib.request.urlopen(f'http://127.0.0.1:{port}/health', timeout=5) as r:
                    if r.status == 200: break
            except (urllib.error.URLError, OSError): time.sleep(.2)
        yield f'http://127.0.0.1:{port}/v1'
    finally:
        if p.poll() is None: p.terminate()
        try: p.wait(20)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait(10)


def client(server, model, **kw): return OpenAIChat(str(model), server, **dict(dict(concurrency=8, timeout=120., retry=Retry(tries=2, first=.1)), **kw))


def test_eight_at_once_say_what_hfchat_says(server, folder, tmp_path):
    with AnswerCache(tmp_path/'a.sqlite') as cache:
        c = client(server, folder, cache=cache, temperature=0)
        answers = c.answers(ASKED)
        assert tally(answers)['ok'] == len(ASKED), tally(answers)
        ours = HFChat(folder, device='cpu', temperature=0).answers(ASKED)
        for r, a, b in zip(ASKED, answers, ours):
            assert (a.text.strip(), a.finish, a.prompt_tokens) == (b.text.strip(), b.finish, b.prompt_tokens), r
            assert 0 < a.completion_tokens <= r.arguments['max_completion_tokens']
        assert any(a.finish == 'length' for a in answers)
        assert c.spending.tokens == sum(a.prompt_tokens + a.completion_tokens for a in answers) and c.spending.flying == 0
        again = client('http://127.0.0.1:9/v1', folder, cache=cache, temperature=0).answers(ASKED)  # nobody listens there
        assert again == answers and all(a.cached for a in again)


def test_check(server, folder):
    assert [f['ok'] for f in client(server, folder).check()] == [True]


def test_a_model_that_does_not_exist_is_a_named_refusal(server):
    c = client(server, 'nobody/nothing')
    answers = c.answers([r for r in ASKED[:3]])
    assert not any(a.ok or a.text for a in answers) and {a.refusal for a in answers} == {'bad_request'} and 'nobody/nothing' in answers[0].detail
    with pytest.raises(EndpointError, match='nobody/nothing'): c.check()


def test_arguments_that_the_server_does_not_know_are_refused_by_name(server, folder):
    a, b = client(server, folder, temperature=0).answers([Request('Topic: array\nText:', max_completion_tokens=5, top_k=5), ASKED[0]])
    assert a.refusal == 'bad_request' and b.ok
