"""Useful tokens per second of HFChat beside plain `model.generate` on the same prompts in the same run, with the same greedy answers asserted.

The model is a GPT-2 of 6 layers with random weights, made on the spot; nothing is downloaded. The ways alternate; medians. Compare ratios, not rates. On a machine that is busy with other work the
ratio of CPU seconds is the steadier one, so both are printed; and torch gets one thread, because two on a busy machine wait for each other.

    python bench/hf_chat/run.py [repeats [threads]]
"""
import json, os, sys, time
from pathlib import Path
from statistics import median

os.environ['HF_HUB_OFFLINE'] = '1'
import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, GenerationConfig, PreTrainedTokenizerFast
from pe_nb.llms.chat import Request
from pe_nb.llms.huggingface import HFChat

WORDS = 'the food was good and the room was clean but the service slow soup cold price fair staff kind bed hard view fine we will come again'.split()

def made(vocab=4000, width=192, layers=6):
    "(tokenizer, model)."
    t = Tokenizer(models.BPE())
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    t.train_from_iterator([' '.join(WORDS)]*9, trainers.BpeTrainer(vocab_size=vocab, special_tokens=['<|endoftext|>'], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=vocab, n_embd=width, n_layer=layers, n_head=8, n_positions=512, bos_token_id=0, eos_token_id=0, initializer_range=.1))
    return PreTrainedTokenizerFast(tokenizer_object=t, eos_token='<|endoftext|>', bos_token='<|endoftext|>'), model.eval()

def requests(n=200, seed=0):
    "(prompt, limit): 1 to 120 words, 8 to 96 tokens of answer."
    rng = np.random.default_rng(seed)
    return [(' '.join(rng.choice(WORDS, int(rng.integers(1, 121)))), int(rng.integers(8, 97))) for _ in range(n)]

def generated(model, tokenizer, batch, limit):
    "Token lists of one call of `generate`: padded to the longest, and written to one limit."
    ids = [tokenizer(p).input_ids for p in batch]
    width = max(map(len, ids))
    x = torch.tensor([[0]*(width - len(i)) + i for i in ids])
    mask = torch.tensor([[0]*(width - len(i)) + [1]*len(i) for i in ids])
    with torch.inference_mode(): out = model.generate(x, attention_mask=mask, generation_config=GenerationConfig(do_sample=False, max_new_tokens=limit, pad_token_id=0, eos_token_id=0))
    return out[:, width:].tolist()

def cut(tokens, limit):
    "What counts of an answer."
    tokens = tokens[:limit]
    return tokens[:tokens.index(0)] if 0 in tokens else tokens

def padded(model, tokenizer, asked, size):
    "Batches in the given order, each to the largest limit in it."
    out = []
    for i in range(0, len(asked), size):
        part = asked[i:i + size]
        out += [cut(t, l) for t, (_, l) in zip(generated(model, tokenizer, [p for p, _ in part], max(l for _, l in part)), part)]
    return out

def grouped(model, tokenizer, asked, size):
    "The reference's way: only requests with equal arguments share a batch."
    out = [None]*len(asked)
    for limit in sorted({l for _, l in asked}):
        at = [i for i, (_, l) in enumerate(asked) if l == limit]
        for j in range(0, len(at), size):
            for i, t in zip(at[j:j + size], generated(model, tokenizer, [asked[i][0] for i in at[j:j + size]], limit)): out[i] = cut(t, limit)
    return out

def ours(model, tokenizer, asked):
    "HFChat, from requests to answers."
    return HFChat(model, tokenizer=tokenizer, name='bench', do_sample=False).answers([Request(p, max_new_tokens=l) for p, l in asked])

def main(n=200, repeats=3, threads=1):
    torch.set_num_threads(threads)
    tokenizer, model = made()
    asked = requests(n)
    ways = {'ours': lambda a: ours(model, tokenizer, a), 'padded_32': lambda a: padded(model, tokenizer, a, 32), 'padded_128': lambda a: padded(model, tokenizer, a, 128), 'grouped': lambda a: grouped(model, tokenizer, a, 128)}
    seconds, cpu, said = {k: [] for k in ways}, {k: [] for k in ways}, {}
    for f in ways.values(): f(asked[:8])
    for _ in range(repeats):
        for k, f in ways.items():
            t, c = time.perf_counter(), time.process_time()
            said[k] = f(asked)
            seconds[k].append(time.perf_counter() - t)
            cpu[k].append(time.process_time() - c)
            print(f'{k}: {seconds[k][-1]:.1f} s, {cpu[k][-1]:.1f} s of CPU', file=sys.stderr, flush=True)
    texts = [tokenizer.decode(x, skip_special_tokens=True, clean_up_tokenization_spaces=False).rstrip('\ufffd').strip() for x in said['grouped']]
    assert said['padded_32'] == said['padded_128'] == said['grouped'] and [a.text.strip() for a in said['ours']] == texts, 'greedy answers differ'
    useful = sum(map(len, said['grouped']))
    ratio = lambda d: {k: median(b/a for a, b in zip(d['ours'], d[k])) for k in ways}
    out = dict(python=sys.version.split()[0], torch=torch.__version__, transformers=transformers.__version__, threads=torch.get_num_threads(), parameters=model.num_parameters(), prompts=n, useful_tokens=useful,
               distinct_limits=len({l for _, l in asked}), same_greedy_answers=True, tokens_per_s={k: useful/median(v) for k, v in seconds.items()}, ours_times=ratio(seconds), ours_times_by_cpu_seconds=ratio(cpu), seconds=seconds, cpu_seconds=cpu)
    out = json.loads(json.dumps(out), parse_float=lambda x: round(float(x), 2))
    Path(__file__).with_name('results.json').write_text(json.dumps(out, indent=1) + '\n')
    print(json.dumps(out, indent=1))

if __name__ == '__main__': main(200, *map(int, sys.argv[1:3]))
