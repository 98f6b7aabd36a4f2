"The small language model that ships: its files, its tokenizer, its two prompts, without a network and without warnings."
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pe_nb.llms.small_lm as s

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')
from pe_nb.generators.text_parts import blank_words
from pe_nb.llms.chat import Request
from pe_nb.llms.huggingface import HFChat

FOLDER = Path(s.small_lm())
TEXTS = ['Compute the inverse of a square matrix.', 'Return the number of elements in the given list of values.', 'The window is applied to each segment of the signal before the transform.',
         'Open the file and read its content into memory.', 'If the input is an array, the result has the same shape.', 'This method returns a new object and leaves the old one as it is.',
         'The mean and the variance of the sample are estimated.', 'Raise an error if the name of the column is not known.', 'A graph is connected if there is a path between every two nodes.',
         'Convert the string to a number with the given precision.']


@pytest.fixture(scope='module')
def chat(one_thread): return HFChat(s.small_lm())


def write(chat, prompts, seed=0, **arguments):
    answers = chat.answers([Request(p, **arguments) for p in prompts], rng=np.random.default_rng(seed))
    assert all(a.ok for a in answers)
    return [a.text.strip() for a in answers]


# ---- files ----

def test_files_are_those_of_the_hashes_and_small():
    assert set(s.SHA256) <= {p.name for p in FOLDER.iterdir()} and 'LICENSES.txt' in {p.name for p in FOLDER.iterdir()}
    assert (FOLDER/'model.safetensors').stat().st_size <= 6_000_000 and sum(p.stat().st_size for p in FOLDER.iterdir()) <= 7_000_000
    for name in ('python', 'numpy', 'pandas', 'matplotlib', 'networkx', 'sympy', 'mpmath', 'torch'): assert name in (FOLDER/'LICENSES.txt').read_text()


@pytest.mark.parametrize('name', sorted(s.SHA256))
def test_damage_is_seen(tmp_path, name):
    folder = tmp_path/'lm'
    shutil.copytree(FOLDER, folder)
    s.check_folder(folder)
    data = bytearray((folder/name).read_bytes())
    data[len(data)//2] ^= 1
    (folder/name).write_bytes(data)
    with pytest.raises(ValueError, match=f'{re.escape(name)}.*must be as it was shipped'): s.check_folder(folder)
    (folder/name).write_bytes(data[:-1])
    with pytest.raises(ValueError, match=re.escape(name)): s.check_folder(folder)
    (folder/name).unlink()
    with pytest.raises(FileNotFoundError, match=f'{re.escape(name)}.*install pe_nb again'): s.check_folder(folder)


def test_loads_offline_without_a_word():
    "Plain transformers, a clean process, warnings are errors, nothing on stderr but the bar of the loader."
    code = ('import sys; from transformers import AutoModelForCausalLM, AutoTokenizer; from transformers.utils import logging; logging.disable_progress_bar(); import torch\n'
            'm, t = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32), AutoTokenizer.from_pretrained(sys.argv[1])\n'
            'x = t(["Topic: file\\nText:", "Topic: file, open, close\\nText:"], return_tensors="pt", padding=True)\n'
            'o = m.generate(**x, do_sample=False, max_new_tokens=8)\n'
            'print(m.dtype, m.config.tie_word_embeddings, m.num_parameters(), t.padding_side, t.pad_token_id, t.eos_token_id, len(t), x.attention_mask[0, 0].item())')
    env = {**os.environ, 'HF_HUB_OFFLINE': '1', 'OMP_NUM_THREADS': '1'}
    run = subprocess.run([sys.executable, '-W', 'error::UserWarning', '-c', code, s.small_lm()], capture_output=True, text=True, timeout=200, env=env)
    assert run.returncode == 0 and run.stderr == '', run.stderr
    assert run.stdout.split() == ['torch.float32', 'True', '1865120', 'left', '1', '0', '4096', '0']


def test_weights_are_half_precision_and_finite():
    from safetensors.numpy import load_file
    w = load_file(FOLDER/'model.safetensors')
    assert all(x.dtype == np.float16 and np.isfinite(x).all() for x in w.values())
    assert sum(x.size for x in w.values()) == 1865120 and 'lm_head.weight' not in w


def test_loss_fell():
    rows = [l.split(',') for l in (FOLDER/'loss.csv').read_text().split()]
    topic, blanks = ([float(r[rows[0].index(k)]) for r in rows[1:]] for k in ('topic', 'blanks'))
    assert topic[0] > 8 and topic[-1] == min(topic) < 4.1 and blanks[-1] == min(blanks) < topic[-1] - .5


# ---- tokenizer ----

def test_tokenizer_writes_any_text():
    from transformers import AutoTokenizer
    t = AutoTokenizer.from_pretrained(FOLDER)
    for text in (*TEXTS, '', ' ', 'naïve – 中文 שלום 😀', 'a\n\nb\tc', '{x} ${y} \\n', 'Topic: a, b\nText:'):
        assert t.decode(t(text).input_ids, clean_up_tokenization_spaces=False) == text
    assert np.mean([len(t(x).input_ids)/len(x.split()) for x in TEXTS]) < 1.6
    assert t(' _').input_ids != t('_').input_ids and len(t('_').input_ids) == 1 == len(t(' _').input_ids)


# ---- what it can do ----

def test_prompts_are_those_of_the_generator():
    from pe_nb.generators.prompts import Prompt
    assert Prompt(s.RANDOM).names == {'keywords'} and Prompt(s.VARY).names == {'masked_sample'}
    assert not s.RANDOM.endswith(' ') and not s.VARY.endswith(' ')
    json.dumps([s.RANDOM_ARGUMENTS, s.VARY_ARGUMENTS])


def test_random_texts_are_sentences(chat):
    texts = write(chat, [s.RANDOM.format(keywords=k) for k in ('file, read', 'matrix', 'graph, node, path', 'column, frame')]*8, **s.RANDOM_ARGUMENTS)
    assert all(texts) and len(set(texts)) > 25
    assert np.mean([bool(re.match(r'[A-Z`"\'(].*[.]', t)) and len(t.split()) >= 3 for t in texts]) > .75


def test_keywords_matter(chat):
    "A keyword turns up more often when it is asked for."
    words = ('matrix', 'file', 'graph', 'string')
    texts = {k: ' '.join(write(chat, [s.RANDOM.format(keywords=k)]*12, **s.RANDOM_ARGUMENTS)).lower() for k in words}
    own, other = sum(texts[k].count(k) for k in words), sum(texts[a].count(k) for a in words for k in words if a != k)/3
    assert own > 3*other and own > 12


def share(parent, child):
    a, b = (re.findall(r'\w+', t.lower()) for t in (parent, child))
    return sum(min(a.count(w), b.count(w)) for w in set(a))/len(a)


def test_more_blanks_less_of_the_parent(chat):
    rng = np.random.default_rng(1)
    made = {p: write(chat, [s.VARY.format(masked_sample=blank_words(t, p, rng)) for t in TEXTS*3], **s.VARY_ARGUMENTS) for p in (.1, .5, .9)}
    kept = {p: np.mean([share(a, b) for a, b in zip(TEXTS*3, c)]) for p, c in made.items()}
    floor = np.mean([share(a, b) for a, b in zip(TEXTS*3, made[.1][1:] + made[.1][:1])])
    assert all(t for c in made.values() for t in c)
    assert kept[.1] > kept[.5] + .05 > kept[.9] + .1 and kept[.1] > floor + .2


def test_recites_no_private_text(chat):
    "With nothing but blanks to go by, no sentence of SciPy comes out."
    from pe_nb.data.docstrings import docstrings
    texts, rng = docstrings('scipy', under='stats').texts, np.random.default_rng(2)
    made = write(chat, [s.VARY.format(masked_sample=blank_words(t, 1., rng)) for t in texts[:300:10]], **s.VARY_ARGUMENTS)
    assert len(made) == 30 and not set(made) & set(texts)
