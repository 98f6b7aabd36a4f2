"Images from an endpoint that misbehaves: nothing lost, nothing paid twice, no cap crossed, no key shown, no private image sent."
import asyncio, base64, io, json, logging, pickle, signal, subprocess, sys, threading, time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings as quick, strategies as st
from openai_server import PICTURES, Server, png
from PIL import Image
from pe_nb.generators import image_client
from pe_nb.generators.image_client import AddressOnly, PictureCache, Pictures, digest_of, fitted, png_of, read_images
from pe_nb.generators.image_costs import Bill, ImagePrices, ImageSpending, image_spent, read_bill
from pe_nb.generators.image_prompts import VARY, check_asked, filled, label_prompts, template_of, vary_templates
from pe_nb.generators.mixture import Mixture
from pe_nb.generators.openai_images import ImagesFailed, OpenAIImages, dealt
from pe_nb.llms.cache import AnswerCache
from pe_nb.llms.chat import Answer
from pe_nb.llms.endpoints import Endpoint, Malformed, Retry, fault_of_status
from pe_nb.llms.openai_chat import EndpointError
from pe_nb.llms.wire import Letter
from pe_nb.records import Records
from pe_nb.release import Budget
from pe_nb.runs import Settings, plan, synthesize

QUICK = Retry(tries=4, first=.005, longest=.02)
KEY = 'sk-test-0123456789abcdef'
NAMES = ('cat', 'dog')
COLOURS = {'cat': (250, 40, 10), 'dog': (10, 60, 240)}


def paint(body, i):
    "A picture that says which label it was asked for."
    return png(64, 64, next((c for n, c in COLOURS.items() if n in body['prompt']), (0, 0, 0)))

def maker(s, prompts='a {label}', **kw):
    "A generator on the server."
    given = dict(size=8, label_names=NAMES, vary='more of: {prompt}', asked='64x64', endpoints=Endpoint(s.url, KEY), retry=QUICK, timeout=5.)
    return OpenAIImages(kw.pop('model', 'm'), prompts, **given | kw)

def rng(seed=0): return np.random.default_rng(seed)
def images_billed(s): return sum(b[2] for b in s.billed)//272
def idle(s):
    while s.now: time.sleep(.01)
def parents_of(x, labels=None, prompt='a cat'):
    return Records.images(x, [0]*len(x) if labels is None else labels, NAMES, dict(prompt=np.array([prompt]*len(x), 'T'), outcome=np.array(['new']*len(x), 'T')))
def noise(n, seed=0, size=8): return rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 1, 0, 1, 0, 0])


@pytest.fixture(params=['aiohttp', 'sdk'])
def carrier(request): return request.param


# ---- the plain way, by both carriers ----

def test_random_in_order(carrier):
    with Server(picture=paint, latency=lambda b: .001*(hash(b['prompt']) % 7)) as s:
        r = maker(s, carrier=carrier, quality='low', random_arguments=dict(moderation='low')).random(LABELS, rng())
        assert r.kind == 'image' and r.data.shape == (7, 8, 8, 3) and r.label_names == NAMES and r.labels.tolist() == LABELS.tolist()
        assert [tuple(x[0, 0]) for x in r.data] == [COLOURS[NAMES[l]] for l in LABELS]
        assert r.extra['prompt'].tolist() == [f'a {NAMES[l]}' for l in LABELS] and set(r.extra['outcome'].tolist()) == {'new'}
        assert len(s.seen) == 7 and set(s.auth) == {KEY}
        assert {k: v for k, v in s.seen[0].items() if k != 'prompt'} == dict(model='m', size='64x64', n=1, quality='low', moderation='low', response_format='b64_json', path='/v1/images/generations')


def test_vary_uploads_the_parent(carrier):
    x = noise(5)
    with Server(picture=paint) as s:
        g = maker(s, vary='{label}, {degree} percent unlike: {prompt}', carrier=carrier, enlarge=False, quality='low', vary_arguments=dict(input_fidelity='high'))
        v = g.vary(parents_of(x, [0, 1, 1, 0, 0]), 12.5, rng())
        assert v.labels.tolist() == [0, 1, 1, 0, 0] and v.extra['prompt'].tolist() == ['a cat']*5 and v.data.shape == x.shape
        sent = {np.asarray(Image.open(io.BytesIO(b['image']))).tobytes(): b for b in s.seen}
        assert set(sent) == {i.tobytes() for i in x}
        body = sent[x[1].tobytes()]
        assert {k: v for k, v in body.items() if k != 'image'} == dict(model='m', prompt='dog, 12.5 percent unlike: a cat', n='1', size='64x64', quality='low', input_fidelity='high', response_format='b64_json', path='/v1/images/edits')


def test_parents_are_enlarged_and_grey_ones_are_sent_in_colour():
    with Server() as s:
        maker(s, asked='64x96', size=(8, 4)).vary(parents_of(noise(1)[:, :, :4]), None, rng())
        assert Image.open(io.BytesIO(s.seen[0]['image'])).size == (48, 96)
        g = maker(s, channels=1)
        r = g.random(LABELS, rng())
        assert r.data.shape == (7, 8, 8, 1) and g.vary(r, None, rng()).data.shape == (7, 8, 8, 1)
        im = Image.open(io.BytesIO(s.seen[-1]['image']))
        assert (im.mode, im.size) == ('RGB', (64, 64))


def test_gpt_models_are_not_asked_for_a_format():
    with Server() as s:
        maker(s, model='gpt-image-1-mini', asked=None).random([0], rng())
        maker(s, response_format=None).random([0], rng())
        assert s.seen[0]['size'] == '1024x1024' and not any('response_format' in b for b in s.seen)


def test_azure_and_renamed_arguments(carrier):
    with Server(keys=[KEY]) as s:
        e = Endpoint(s.azure, KEY, azure=True, api_version='2024-10-21', model='dep', rename={'quality': 'detail', 'response_format': None})
        g = maker(s, endpoints=e, carrier=carrier, quality='low')
        g.vary(g.random(LABELS, rng()), None, rng())
        assert len(s.seen) == 14 and {b['model'] for b in s.seen} == {'dep'} and all(b['detail'] == 'low' and 'quality' not in b and 'response_format' not in b for b in s.seen)


def test_works_in_a_running_loop_and_in_threads():
    with Server(picture=paint, latency=.01) as s:
        async def cell(): return maker(s).random(LABELS, rng())
        assert len(asyncio.run(cell())) == 7
        g, got = maker(s), {}
        first = g.random(LABELS, rng())
        ts = [threading.Thread(target=lambda t=t: got.update({t: g.vary(first, None, rng(t))})) for t in range(3)]
        for t in ts: t.start()
        for t in ts: t.join()
        assert len(got) == 3 and g.client.sources == {} and g.client.spending.flying == 0


def test_endpoints_can_be_checked():
    with Server(keys=[KEY]) as s:
        g = maker(s, prices=ImagePrices(image=.01))
        assert g.check_endpoints()[0]['ok'] and len(s.billed) == 1 and g.client.spending.images == 1
        bad = maker(s, endpoints=[Endpoint(s.url, KEY), Endpoint(s.url, 'sk-wrong-0123456789')])
        with pytest.raises(EndpointError, match='#2: auth') as e: bad.check_endpoints()
        assert 'sk-' not in str(e.value)
        with pytest.raises(TypeError, match='costs'): g.client.plan([])


@pytest.mark.parametrize('form', ['PNG', 'JPEG', 'WEBP'])
def test_files_of_other_kinds(form):
    def picture(body, i):
        out = io.BytesIO()
        Image.new('RGB', (32, 32), (200, 30, 90)).save(out, form)
        return out.getvalue()
    with Server(picture=picture) as s:
        r = maker(s, output_format=form.lower()).random(LABELS, rng())
        assert np.abs(r.data.astype(int) - (200, 30, 90)).max() < 4 and s.seen[0]['output_format'] == form.lower()


def test_no_labels_no_parents():
    with Server() as s:
        g = maker(s)
        r = g.random(np.zeros(0, np.int64), rng())
        assert len(r) == 0 and sorted(r.extra) == ['outcome', 'prompt'] and len(g.vary(r, None, rng())) == 0 and not s.seen


# ---- several images in one request ----

def test_several_per_request():
    with Server(picture=paint) as s:
        g = maker(s, n=4, prompts=dict(cat=['a cat', 'one cat'], dog='a dog'))
        r = g.random(np.array([0]*9 + [1]*6), rng())
        assert sorted(b['n'] for b in s.seen) == [1, 2, 4, 4, 4] and [tuple(x[0, 0]) for x in r.data] == [COLOURS['cat']]*9 + [COLOURS['dog']]*6
        s.reset()
        x = noise(3)
        twice = parents_of(np.concatenate([x, x[:2], x[:1]]), [0]*6)
        v = g.vary(twice, None, rng())
        assert sorted(int(b['n']) for b in s.seen) == [1, 2, 3] and len(v) == 6


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(0, 99))
def test_prompts_are_dealt_evenly(labels, seed):
    prompts, labels = (('a',), ('b', 'c', 'd'), ('e', 'f')), np.array(labels, np.int64)
    out = dealt(labels, prompts, rng(seed))
    for l, ps in enumerate(prompts):
        counts = np.bincount(out[labels == l], minlength=len(ps))
        assert len(counts) == len(ps) and counts.max() - counts.min() <= 1


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 10))
@quick(deadline=None, max_examples=30)
def test_the_plan_counts_what_will_be_asked(a, b, n):
    g = OpenAIImages('m', dict(cat=['a', 'b', 'c'], dog='d'), 8, NAMES, vary='{prompt}', n=n, endpoints='http://localhost:1/v1', asked='64x64', prices=ImagePrices(image=.5))
    labels = np.array([0]*a + [1]*b, np.int64)
    first = dealt(labels, g.prompts, rng())
    asked = g._grouped('random', range(a + b), lambda i, t: (g.prompts[labels[i]][first[i]], None), 0, 1)
    costs = g.costs([('random', None, np.array([a, b]))])
    assert (costs.requests, costs.images, costs.money) == (len(asked), a + b, .5*(a + b)) and sorted(i for q in asked for i in q.rows) == list(range(a + b))
    assert g.costs([('vary', None, np.array([a, b]))]).requests == a + b


# ---- faults ----

PASSING = ['429*2', '429-ms*1', '500*3', '503*1', '408*1', 'disconnect-unpaid*1', 'disconnect*1', 'half*1', 'truncated*1', 'html*1', 'not-json-object*1', 'null*1', 'bad-base64*1', 'no-picture*1', 'half-picture*1']
PAID = ['moderation*1', 'filter-400*1', 'none*1', 'blank*1']

@pytest.mark.parametrize('fault', PASSING + PAID)
@pytest.mark.parametrize('api', ['random', 'vary'])
def test_each_fault_is_got_over(fault, api, carrier):
    with Server(retry_after=.02) as s:
        g = maker(s, dict(cat=f'[[{fault}]] a cat', dog='a dog'), vary='{prompt}', carrier=carrier)
        if api == 'random': r = g.random(np.array([0, 1, 1]), rng())
        else:
            parents = parents_of(noise(3), [0, 1, 1]).with_extra(prompt=np.array([f'[[{fault}]] a cat', 'a dog', 'a dog'], 'T'))
            r = g.vary(parents, None, rng())
            assert not (r.data == parents.data).all((1, 2, 3)).any()
        times = int(fault.split('*')[1])
        assert sum('[[' in b['prompt'] for b in s.seen) == times + 1 and len(s.seen) == times + 3
        assert r.extra['outcome'].tolist() == ['retried' if fault in PAID else 'new', 'new', 'new']
        assert g.client.spending.flying == 0 and g.client.spending.held == [0, 0]
        if fault in PAID: assert g.tally['empty' if fault in ('none*1', 'blank*1') else 'content_filter'] == 1


@pytest.mark.parametrize('fault, missing', [('fewer', 1), ('one-blank', 1), ('one-bad', 1), ('more', 0), ('no-usage', 0), ('no-details', 0)])
def test_fewer_or_more_than_asked(fault, missing):
    with Server(faults=[fault]) as s:
        g = maker(s, n=3, prices=ImagePrices(output=10., text=1., output_tokens=272))
        r = g.random(np.array([0]*3), rng())
        assert [b['n'] for b in s.seen] == [3] + [missing]*(missing > 0) and g.tally['images missing'] == missing
        assert sorted(r.extra['outcome'].tolist()) == ['new']*(3 - missing) + ['retried']*missing
        assert len({x.tobytes() for x in r.data}) == 3
        assert g.client.spending.prompt == images_billed(s)
        assert g.client.spending.completion == 1000*sum(p + 10*c for _, p, c in s.billed) or fault == 'no-usage'


def test_timeouts(carrier):
    with Server(faults=['hang', 'drip']) as s:
        t = time.monotonic()
        r = maker(s, timeout=.4, carrier=carrier).random(LABELS, rng())
        assert len(r) == 7 and len(s.seen) == 9 and .3 < time.monotonic() - t < 5


def test_a_storm_of_faults():
    with Server(faults={'429-ms': .1, '500': .1, 'disconnect': .05, 'bad-base64': .05, 'moderation': .1}, retry_after=.01, latency=.002) as s:
        g = maker(s, retries=6, retry=Retry(tries=8, first=.005, longest=.05))
        r = g.random(np.tile(LABELS, 10), rng())
        v = g.vary(r, None, rng())
        assert len(r) == len(v) == 70 and sum(s.faulted.values()) > 30 and 'kept' not in v.extra['outcome'].tolist()
        assert len({x.tobytes() for x in r.data}) == 70, 'each record has an image of its own'


def test_refused_prompts_are_redrawn_with_another():
    with Server() as s:
        g = maker(s, dict(cat=['[[moderation]] cat', 'a cat'], dog='a dog'), retries=1)
        r = g.random(np.array([0]*6 + [1]*2), rng())
        assert sorted(r.extra['outcome'].tolist()) == ['new']*5 + ['redrawn']*3 and set(r.extra['prompt'].tolist()) == {'a cat', 'a dog'}
        assert len(s.seen) == 3*2 + 3 + 5 and g.tally['content_filter'] == 6 and '3 redrawn' in g.report and g.tally['redrawn'] == 3
        bad = maker(s, dict(cat=['[[moderation]] cat', '[[moderation]] pet'], dog='a dog'), retries=1)
        with pytest.raises(ImagesFailed, match='1 of 3 records of the random API have none: 3 x content_filter') as e: bad.random(np.array([0, 1, 1]), rng())
    assert e.value.failed == 1 and e.value.records == 3 and e.value.reasons == {'content_filter': 3} and 'lost: give a cache' in str(e.value)


def test_what_was_paid_for_outlives_an_error(tmp_path):
    with Server() as s, AnswerCache(tmp_path/'c.sqlite') as cache:
        prompts = dict(cat='[[moderation*12]] cat', dog='a dog')
        with pytest.raises(ImagesFailed, match='kept in its cache'): maker(s, prompts, cache=cache).random(LABELS, rng())
        assert len(s.billed) == 3 and len(cache) == 3 + 12
        r = maker(s, prompts, cache=cache, retries=9).random(LABELS, rng())
        assert len(s.billed) == 7 and r.extra['outcome'].tolist().count('new') == 3


def test_refused_variations_keep_the_parent():
    with Server() as s:
        x = noise(6)
        parents = parents_of(x).with_extra(prompt=np.array(['[[moderation]] x', 'b', '[[400]] c', 'd', 'e', 'f'], 'T'), mine=np.arange(6))
        g = maker(s, vary='{prompt}', retries=1)
        v = g.vary(parents, None, rng())
        assert v.extra['outcome'].tolist() == ['kept', 'new', 'kept', 'new', 'new', 'new'] and v.extra['mine'].tolist() == list(range(6))
        assert (v.data[[0, 2]] == x[[0, 2]]).all() and g.tally['kept'] == 2 and g.tally['bad_request'] == 2
        with pytest.raises(ImagesFailed, match='2 of 6 records of the vary API'): maker(s, vary='{prompt}', retries=1, max_kept=.3).vary(parents, None, rng())


@pytest.mark.parametrize('fault, word', [('401', 'auth'), ('quota', 'quota'), ('404', 'not_found'), ('500', 'server'), ('400', 'bad_request'), ('bad-base64', 'malformed')])
def test_hopeless_ends_at_once(fault, word):
    with Server() as s:
        with pytest.raises(ImagesFailed, match=word): maker(s, f'[[{fault}]] x', retry=Retry(tries=2, first=.01)).random(LABELS, rng())
        assert len(s.seen) <= 14


def test_addresses_stop_the_call_before_more_is_paid():
    with Server(latency=.01, faults=lambda b, n: 'url') as s:
        g = maker(s, concurrency=2)
        with pytest.raises(AddressOnly, match="response_format='b64_json'"): g.random(np.tile(LABELS, 10), rng())
        assert len(s.seen) <= 4 and g.client.spending.prompt == len(s.billed)


def test_faults_of_this_file_are_all_of_the_servers():
    tried = {f.split('*')[0] for f in PASSING + PAID} | {'fewer', 'one-blank', 'one-bad', 'more', 'no-usage', 'no-details', 'url'}
    assert set(PICTURES) <= tried


def test_a_refusal_of_the_safety_system_is_one():
    said = dict(error=dict(message='Your request was rejected as a result of our safety system.', type='image_generation_user_error', code=None))
    assert fault_of_status(400, said, {}, 0).reason == 'content_filter'
    assert fault_of_status(400, dict(error=dict(message="Unknown parameter: 'safety_identifier'.", code='unknown_parameter')), {}, 0).reason == 'bad_request'


# ---- the cache ----

def test_repeats_come_from_the_cache_and_new_draws_do_not(tmp_path):
    with AnswerCache(tmp_path/'c.sqlite') as cache:
        with Server() as s:
            g = maker(s, cache=cache)
            r = g.random(LABELS, rng())
            v = g.vary(r, None, rng(5))
            assert len(s.seen) == 14 and len({x.tobytes() for x in [*r.data, *v.data]}) == 14
            assert g.random(LABELS, rng(1)) != r and len(s.seen) == 21
            assert g.vary(r, None, rng(6)) != v and len(s.seen) == 28
            changed = Records.images(r.data ^ 1, r.labels, NAMES, dict(r.extra))
            g.vary(changed, None, rng(5))
            assert len(s.seen) == 35, 'the pixels of the parent are part of the key'
            maker(s, cache=cache, quality='high').random(LABELS, rng())
            assert len(s.seen) == 42
        dead = dict(endpoints=Endpoint('http://127.0.0.1:9/v1', KEY), cache=cache)
        again = maker(s, **dead)
        assert again.random(LABELS, rng()) == r and again.vary(r, None, rng(5)) == v and again.tally['cached'] == 14 and again.client.spending.prompt == 0
        grey = maker(s, size=5, channels=1, filter='box', **dead).random(LABELS, rng())
        assert grey.data.shape == (7, 5, 5, 1), 'the files as they came are kept'
        assert image_spent(cache, 'm', ImagePrices(image=.5)) == (42, 21.)


DRIVER = '''
import sys, numpy as np
from pe_nb.generators.openai_images import OpenAIImages
from pe_nb.llms.cache import AnswerCache
url, path, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
with AnswerCache(path) as cache:
    g = OpenAIImages('m', 'a {label}', 8, ('cat', 'dog'), vary='{prompt}', asked='64x64', endpoints=url, cache=cache, concurrency=4)
    print('begun', flush=True)
    r = g.random(np.arange(n) % 2, np.random.default_rng(0))
    v = g.vary(r, None, np.random.default_rng(1))
    print(r.fingerprint, v.fingerprint, flush=True)
'''

def test_a_kill_pays_twice_only_for_what_was_on_its_way(tmp_path):
    n, start = 60, lambda url: subprocess.Popen([sys.executable, '-c', DRIVER, url, str(tmp_path/'c.sqlite'), str(n)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    with Server(latency=.02) as s:
        p, end = start(s.url), time.monotonic() + 60
        while len(s.billed) < 90: assert time.monotonic() < end; time.sleep(.005)
        p.send_signal(signal.SIGKILL)
        p.communicate()
        idle(s)
        paid = len(s.billed)
        with AnswerCache(tmp_path/'c.sqlite') as c: kept = len(c)
        assert paid - 4 <= kept <= paid < 2*n
        out, err = start(s.url).communicate(timeout=60)
        assert len(s.billed) == paid + 2*n - kept, err
    again, err = start('http://127.0.0.1:9/v1').communicate(timeout=60)
    assert again == out and len(again.split()) == 3, err


def test_another_process_was_first(tmp_path):
    fit = lambda im: fitted(im, (4, 4), 3, 'box')
    files = [base64.b64encode(png(8, 8, c)).decode() for c in ((9, 9, 9), (200, 0, 0))]
    with AnswerCache(tmp_path/'c.sqlite') as cache:
        p = PictureCache(cache, fit, ImagePrices(image=.1))
        shown = [p.put('k', 'm', Pictures(f, finish=str(Bill(1)), prompt_tokens=1, completion_tokens=10**8, images=(fit(Image.open(io.BytesIO(base64.b64decode(f)))),))) for f in files]
        assert [tuple(a.images[0][0, 0]) for a in shown] == [(9, 9, 9)]*2 and [a.text for a in shown] == ['', ''] and not shown[1].cached
        assert p.get_many(['k'])['k'].completion_tokens == 10**8 and p.get_many(['k'])['k'].cached
        cache.put('bad', 'm', Answer('AAAA', finish=str(Bill(1))))
        with pytest.raises(ValueError, match='cannot be read'): p.get_many(['bad'])


# ---- money ----

def test_caps_are_never_crossed_whatever_happens():
    for seed in range(4):
        with Server(faults={'disconnect': .15, 'half': .1, '500': .1, 'fewer': .1, 'bad-base64': .1}, latency=.002, seed=seed) as s:
            g = maker(s, n=2, prices=ImagePrices(image=.01), cap_money=.25)
            with pytest.raises(ImagesFailed, match='spend_cap'): g.random(np.zeros(60, np.int64), rng())
            idle(s)
            assert .15 < images_billed(s)*.01 <= g.client.spending.money + 1e-9 <= .25 + 1e-9


def test_a_cap_of_images_and_a_restart(tmp_path):
    with Server() as s, AnswerCache(tmp_path/'c.sqlite') as cache:
        prices, labels = ImagePrices(image=.01), np.zeros(10, np.int64)
        with pytest.raises(ImagesFailed, match=r'spend_cap.*spent 6 images'): maker(s, cache=cache, cap_images=6).random(labels, rng())
        assert images_billed(s) == 6
        spent = image_spent(cache, 'm', prices)
        assert spent == (6, .06)
        with pytest.raises(ImagesFailed, match='spend_cap'): maker(s, cache=cache, cap_images=8, spent=spent).random(labels, rng())
        assert images_billed(s) == 8
        assert len(maker(s, cache=cache, cap_images=10, spent=image_spent(cache, 'm', prices)).random(labels, rng())) == 10


def test_tokens_are_billed_as_the_endpoint_says():
    prices = ImagePrices(text=2., picture=3., output=8., picture_tokens=250, output_tokens=300)
    with Server() as s:
        g = maker(s, prices=prices, cap_money=1.)
        r = g.random(LABELS, rng())
        g.vary(r, None, rng())
        text, edit = 7*2, 7*4
        assert abs(g.client.spending.money - (2*(text + edit) + 3*7*200 + 8*14*272)/1e6) < 1e-9 and g.client.spending.images == 14
        assert abs(g.costs([('random', None, [10, 0]), ('vary', None, [0, 10])]).money - 10*(4 + 8*272)/1e6 - 10*(8 + 600 + 8*272)/1e6) < 1e-9
        assert 'have cost so far' in repr(g.costs([('random', None, [10, 0])]))
        low = maker(s, prices=ImagePrices(output=8., output_tokens=100), cap_money=.01, concurrency=1)  # the caller is wrong: an image has 272 tokens, and four fit under the cap
        with pytest.raises(ImagesFailed, match='spend_cap'): low.random(np.tile(LABELS, 3), rng())
        assert low.client.spending.images == 4 and low.client.spending.money <= .01


def test_a_plan_of_a_run():
    g = OpenAIImages('m', 'a {label}', 8, NAMES, n=5, endpoints='http://localhost:1/v1', prices=ImagePrices(image=.02))
    p = plan(Settings(generations=2, samples=[20, 10, 10], degree=[60, 30, 10], folds=1, initial_folds=1), Budget(epsilon=1, delta=1e-5), g)
    assert p.costs.images == p.random_calls + p.variation_calls and abs(p.costs.money - .02*p.costs.images) < 1e-9 and 'together' in repr(p)
    with pytest.raises(ValueError, match='degree'): plan(Settings(generations=1, samples=20, degree=[None, None]), Budget(epsilon=1, delta=1e-5), g)
    assert OpenAIImages('m', 'x', 8, endpoints='http://localhost:1/v1').costs([('random', None, [3])]).money is None


def test_progress_counts_images():
    told = []
    with Server() as s: maker(s, n=3, prices=ImagePrices(image=.25), progress=told.append).random(np.zeros(7, np.int64), rng())
    assert (told[-1].done, told[-1].total, told[-1].tokens, told[-1].money) == (3, 3, 7, 1.75) and '7 images' in str(told[-1])


@given(st.integers(0, 9), st.integers(0, 999), st.integers(0, 999))
def test_bills_read_back(images, a, b):
    bill = read_bill(dict(input_tokens=a + b, output_tokens=7, input_tokens_details=dict(text_tokens=a, image_tokens=b)), images, Bill())
    assert bill == Bill(images, a, b, 7) == Bill.read(str(bill))
    assert ImagePrices(text=1., picture=1., output=1.).nano(bill) == 1000*(a + b + 7)


# ---- secrets, and what is sent ----

def test_keys_show_nowhere(tmp_path, caplog, carrier):
    caplog.set_level(logging.DEBUG)
    with Server(keys=['another']) as s, AnswerCache(tmp_path/'c.sqlite') as cache:
        g = maker(s, cache=cache, carrier=carrier)
        with pytest.raises(ImagesFailed, match='auth') as e: g.random(LABELS, rng())
        s.keys = None
        g.vary(g.random(LABELS, rng()), None, rng())
        with pytest.raises(ImagesFailed) as f: maker(s, f'[[400]] my key is {KEY}', cache=cache, carrier=carrier).random(LABELS, rng())
        with pytest.raises(TypeError, match='key'): pickle.dumps(g.client.endpoints)
    files = b''.join(p.read_bytes() for p in tmp_path.iterdir())
    shown = f'{e.value} {e.value!r} {f.value} {g!r} {g.client!r} {g.fingerprint} {g.report} {vars(e.value)}' + ''.join(r.getMessage() for r in caplog.records)
    assert 'sk-test' not in shown and b'sk-test' not in files


def brightness(records): return records.data.reshape(len(records), -1).astype(np.float32)
brightness.fingerprint = 'pixels'

def test_a_run_sends_no_private_image_and_repeats(tmp_path):
    private = Records.images(noise(40, 7), [0, 1]*20, NAMES)
    settings, budget = Settings(generations=2, samples=8, degree=[60, 30, 10], folds=1), Budget(epsilon=5., delta=1e-3)
    with Server() as s, AnswerCache(tmp_path/'c.sqlite') as cache:
        given = dict(cache=cache, enlarge=False, vary=VARY)
        run = synthesize(private, maker(s, **given), brightness, settings, budget, tmp_path/'run', report=False)
        assert run.finished and len(s.billed) == plan(settings, budget, maker(s, **given)).costs.images
        sent = {np.asarray(Image.open(io.BytesIO(b['image']))).tobytes() for b in s.seen if 'image' in b}
        assert sent and not sent & {x.tobytes() for x in private.data} and {'60', '30', '10'} >= {b['prompt'].split('About ')[1].split()[0] for b in s.seen if 'image' in b}
        with pytest.raises(ValueError, match='must be resumed with its own settings'): synthesize(private, maker(s, **given, quality='low'), brightness, settings, budget, tmp_path/'run')
        paid = len(s.billed)
        last = [p for p in sorted((tmp_path/'run'/'generations').iterdir())][-1]
        old = last.read_bytes()
        last.unlink()
        synthesize(private, maker(s, **given), brightness, settings, budget, tmp_path/'run', report=False)
        assert last.read_bytes() == old and len(s.billed) == paid, 'a generation made anew costs nothing'


class Black:
    "Makes black images."
    label_names, fingerprint, record_bytes = NAMES, 'Black', 192
    def random(self, labels, rng): return Records.images(np.zeros((len(labels), 8, 8, 3), np.uint8), labels, NAMES)
    def vary(self, parents, degree, rng): return parents


def test_in_a_mixture():
    with Server() as s:
        mix = Mixture(dict(api=maker(s), black=Black()))
        r = mix.random(np.tile(LABELS, 4), rng())
        assert '' in r.extra['prompt'].tolist()
        v = mix.vary(r, None, rng(1))
        mine = v.extra['source'] == 0
        assert set(v.extra['prompt'][mine].tolist()) == {'a cat', 'a dog'} and mine.any()


# ---- pictures ----

@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.integers(0, 99))
@quick(deadline=None)
def test_box_is_the_mean(h, w, k, seed):
    x = rng(seed).integers(0, 256, (h*k, w*k, 3), dtype=np.uint8)
    got = fitted(Image.fromarray(x), (h, w), 3, 'box')
    assert np.abs(got - x.reshape(h, k, w, k, 3).mean((1, 3))).max() <= 1.01


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(1, 20), st.sampled_from(['lanczos', 'box']), st.sampled_from([1, 3]), st.sampled_from(['RGB', 'RGBA', 'L', 'LA', 'P', '1', 'I;16', 'CMYK']))
@quick(deadline=None)
@example(2, 21, 19, 1, 'lanczos', 1, 'RGB')  # rounding once left the picture
def test_any_picture_fits(w, h, a, b, filter, channels, mode):
    im = Image.new(mode, (w, h))
    out = fitted(im, (a, b), channels, filter)
    assert out.shape == (a, b, channels) and out.dtype == np.uint8


def test_fits_are_cut_in_the_middle():
    x = np.zeros((4, 12, 3), np.uint8)
    x[:, 4:8] = 255
    assert fitted(Image.fromarray(x), (2, 2), 3, 'box').min() == 255 and fitted(Image.fromarray(x.transpose(1, 0, 2)), (2, 2), 1, 'lanczos').min() > 240


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))
@quick(deadline=None)
def test_png_of_is_exact_and_digests_tell_shapes_apart(h, w, c):
    x = rng(h*w).integers(0, 256, (h, w, c), dtype=np.uint8)
    back = np.asarray(Image.open(io.BytesIO(png_of(x))))
    assert (back == x).all() and png_of(x) == png_of(x)
    assert (digest_of(x) == digest_of(x.reshape(w, h, c))) == (h == w)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_picture(data):
    assert image_client.opened(data, lambda im: 1/0) is None


@pytest.mark.parametrize('page', [None, [], {}, dict(data=None), dict(data=[1]), dict(data='x')])
def test_answers_that_are_none(page):
    with pytest.raises(Malformed): read_images(page)


def test_letters():
    data = b'\r\n--\x00\xff\r\n'
    kind, body = Letter('/images/edits', dict(a='caf\u00e9', n=2, on=True), (('image', 'image.png', 'image/png', data),)).packed()
    from openai_server import multipart
    assert multipart(kind, body) == dict(a='caf\u00e9'.encode(), n=b'2', on=b'true', image=data)
    assert Letter(None, dict(a=1)).packed() == ('application/json', b'{"a": 1}')


# ---- bad input, before anything is asked ----

BAD = [(dict(prompts=dict(cat='x')), "'dog' has none"), (dict(prompts=dict(cat='x', dog='y', cow='z')), 'cow'), (dict(prompts=dict(cat='x', dog=[])), 'dog'), (dict(prompts=['x', 'x']), 'differ'),
       (dict(prompts='  '), 'not empty'), (dict(prompts='{name}'), 'must not use'), (dict(prompts='x'*32001), '32000'), (dict(prompts=3), 'text or a list'), (dict(prompts='missing.json'), 'missing.json'),
       (dict(prompts='\ud800'), 'surrogate|Unicode|UTF'), (dict(vary='{sample}'), 'must not use'), (dict(vary={}), 'at least one'), (dict(vary=dict(a=3)), "'a'"),
       (dict(size=0), 'size'), (dict(size=(8, 8, 3)), 'size'), (dict(size=2.5), 'size'), (dict(size=True), 'size'), (dict(channels=2), 'channels'), (dict(filter='nearest'), 'filter'), (dict(asked='auto'), 'asked'), (dict(asked='8x4'), 'scaled down'),
       (dict(model='gpt-image-1-mini', asked='512x512'), 'sizes that gpt-image-1-mini makes'), (dict(model='gpt-image-2', asked='1000x1000'), 'divisible by 16'), (dict(model='gpt-image-2', asked='512x2048'), '1:3'), (dict(model='gpt-image-2.5-flare', asked='3840x3840'), '3840'),
       (dict(size=2000, asked=None), 'must fit'), (dict(model=''), 'model'), (dict(n=0), 'n'), (dict(n=11), 'n'), (dict(n=True), 'n'), (dict(n=1.), 'n'), (dict(retries=-1), 'retries'), (dict(max_kept=1.5), 'max_kept'),
       (dict(prices=.02), 'ImagePrices'), (dict(cap_money=1.), 'prices must be given'), (dict(cap_money=1., prices=ImagePrices(output=1.)), 'output_tokens'), (dict(cap_money=1., prices=ImagePrices(picture=1.)), 'picture_tokens'),
       (dict(cap_money=-1., prices=ImagePrices(image=1.)), 'cap_money'), (dict(cap_images=0), 'cap_images'), (dict(cap_images=2.5), 'cap_images'), (dict(tokens_per_minute=9), 'tokens_per_minute'), (dict(concurrency=0), 'concurrency'), (dict(timeout=-1), 'timeout'),
       (dict(size_=(8, 8), mask='x'), 'mask'), (dict(output_format='svg'), 'output_format'), (dict(stream=True), 'stream'), (dict(random_arguments=dict(size='1x1')), 'asked'), (dict(vary_arguments=dict(n=2)), 'n'), (dict(vary_arguments=dict(x=object())), 'plain'),
       (dict(endpoints=Endpoint('http://localhost:1/v1', tokens_per_minute=5)), 'tokens_per_minute'), (dict(label_names=()), 'label')]

@pytest.mark.parametrize('kw, word', BAD, ids=lambda v: str(v)[:40] if isinstance(v, dict) else '')
def test_bad_settings(kw, word):
    kw = dict(kw)
    given = dict(dict(model='m', prompts='a {label}', size=8, label_names=NAMES, asked='64x64', endpoints='http://localhost:1/v1'), **kw)
    with pytest.raises(ValueError, match=word): OpenAIImages(given.pop('model'), given.pop('prompts'), given.pop('size'), given.pop('label_names'), **given)


def test_bad_calls_ask_nobody():
    with Server() as s:
        g, x = maker(s), noise(2)
        for labels in ([2], [-1], [.5], [[0]]):
            with pytest.raises(ValueError, match='label'): g.random(np.array(labels), rng())
        wrong = [(Records.texts(['a'], [0], NAMES), 'images'), (Records.images(x, [0, 0], ('a', 'b'), dict(prompt=np.array(['x', 'y'], 'T'))), 'label_names'), (parents_of(noise(2, size=9)), '8x8x3'),
                 (Records.images(x, [0, 1], NAMES), "'prompt'"), (Records.images(x, [0, 1], NAMES, dict(prompt=np.arange(2))), "'prompt'"), ('x', 'Records'), (parents_of(x, prompt='x'*32000), '32000')]
        for parents, word in wrong:
            with pytest.raises(ValueError, match=word): g.vary(parents, None, rng())
        for degree in (3, 'x', True, float('nan'), '', [1]):
            with pytest.raises(ValueError, match='degree'): g.vary(parents_of(x), degree, rng())
            with pytest.raises(ValueError, match='degree'): g.check(degree)
        assert not s.seen


def test_degrees():
    assert template_of(vary_templates('a {degree}'), 3) == ('a {degree}', '3') and template_of(vary_templates('a {degree}'), .25) == ('a {degree}', '0.25') and template_of(vary_templates('a'), None) == ('a', '')
    assert template_of(vary_templates({10: 'x', 'far': '{degree}'}), 10) == ('x', '10') and template_of(vary_templates({10: 'x', 'far': '{degree}'}), 'far') == ('{degree}', 'far')
    for degree in (None, 11, 'near'):
        with pytest.raises(ValueError, match='degree'): template_of(vary_templates({10: 'x', 'far': 'y'}), degree)
    assert filled('{a}{b}{c}', a='{b}', b='x') == '{b}x{c}'


def test_prompt_files(tmp_path):
    for content in ('a {label}', ['a {label}', 'the {label}'], dict(cat='c', dog=['d', 'e'])):
        (tmp_path/'p.json').write_text(json.dumps(content))
        assert label_prompts(tmp_path/'p.json', NAMES) == label_prompts(content, NAMES) == label_prompts(str(tmp_path/'p.json'), NAMES)
    (tmp_path/'p.json').write_text('{')
    with pytest.raises(ValueError, match='p.json'): label_prompts(tmp_path/'p.json', NAMES)


def test_sizes_that_are_chosen():
    assert check_asked(None, 'any', (32, 32)) == '1024x1024' and check_asked(None, 'dall-e-2', (300, 300)) == '512x512' and check_asked(None, 'gpt-image-2', (100, 200)) == '1536x1024' and check_asked('1008x336', 'gpt-image-2', (9, 9)) == '1008x336'


def test_fingerprints_tell_settings_apart():
    base = dict(size=8, endpoints=Endpoint('http://localhost:1/v1', KEY))
    one = lambda model='m', prompts='a {label}', **kw: OpenAIImages(model, prompts, **dict(dict(base, label_names=NAMES), **kw)).fingerprint
    others = [one('m2'), one(prompts='b {label}'), one(size=9), one(label_names=('a', 'b')), one(vary='v'), one(channels=1), one(asked='64x64'), one(filter='box'), one(enlarge=False), one(n=2), one(retries=1),
              one(quality='low'), one(random_arguments=dict(moderation='low')), one(vary_arguments=dict(input_fidelity='high'))]
    assert len({one(), *others}) == 15 and one() == one(endpoints='http://other:1/v1', concurrency=3, timeout=9., max_kept=.9, prices=ImagePrices(image=1.), cap_images=5)


def test_spending_in_words():
    s = ImageSpending(spent=(3, .06), priced=True)
    s.reserve(2, 40_000_000)
    s.settle((2, 40_000_000), uncertain=True)
    assert repr(s) == '5 images, of these 2 uncertain (1 broken lines), 0.1000 money' and (s.images, s.money) == (5, .1)
