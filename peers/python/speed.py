"""Speed of the rwkv package: tokens a second of decoding and of prompts, as JSON.

    speed.py MODEL.pth VERSION THREADS TOKENS REPEAT PROMPT,...

Computes in float32 on the processor. The first round does not count. Token ids differ from token to token, as in `bench`.
"""

import json
import os
import sys
import time

path, version, threads, tokens, repeat, prompts = sys.argv[1:]
# Read when the package is imported. Its compiled form of RWKV-7 is what the package recommends.
os.environ.update(RWKV_JIT_ON="1", RWKV_CUDA_ON="0", RWKV_V7_ON=str(int(version == "7")))

import torch  # noqa: E402

torch.set_num_threads(int(threads))
# The package prints its progress to stdout.
stdout, sys.stdout = sys.stdout, sys.stderr
from rwkv.model import RWKV  # noqa: E402

model = RWKV(model=path.removesuffix(".pth"), strategy="cpu fp32")
vocabulary = model.args.vocab_size if hasattr(model.args, "vocab_size") else model.z["emb.weight"].shape[0]


def ids(count, seed):
    return [(seed + 7919 * index) % vocabulary for index in range(count)]


def decode(seed):
    _, state = model.forward(ids(1, seed), None)
    begun = time.perf_counter()
    for token in ids(int(tokens), seed + 1):
        _, state = model.forward([token], state)
    return int(tokens) / (time.perf_counter() - begun)


def prompt(length, seed):
    begun = time.perf_counter()
    model.forward(ids(length, seed), None)
    return length / (time.perf_counter() - begun)


with torch.no_grad():
    lengths = [int(length) for length in prompts.split(",") if length]
    result = {"decode": [], "prompt": {length: [] for length in lengths}}
    for seed in range(int(repeat) + 1):
        rate = decode(seed)
        rates = {length: prompt(length, seed) for length in lengths}
        if seed > 0:
            result["decode"].append(rate)
            for length in lengths:
                result["prompt"][length].append(rates[length])
print(json.dumps(result), file=stdout)
