#!/usr/bin/env python3
"""Writes an RWKV-7, 7a or 7b checkpoint with random weights, as large as asked, for measuring time and memory.

    python3 tools/synthetic.py OUT.safetensors                     # 0.4B: 24 layers x 1024, vocabulary 65536, bf16
    python3 tools/synthetic.py OUT.pth --layers 12 --width 768     # needs torch; 0.1B
    python3 tools/synthetic.py OUT.safetensors --version 7b --layers 12 --width 768 --vocabulary 4096

Names and shapes are those of the released models. Values are scaled so that activations stay near 1 in every layer and
the logits vary like those of a language model (standard deviation near 4), with heavy tails in the matrices and a few
large layer-norm weights, because that is what quantization formats have to cope with. Every tensor has a random stream
of its own, so equal arguments give equal tensors whatever the container. safetensors are written tensor by tensor and
need numpy only; .pth needs torch and memory for the whole model.
"""
import argparse
import json
import math
import pathlib
import zlib

import numpy as np

HEAD = 64
# Ranks of the released sizes; between them the smaller width's ranks are used.
RANKS = {256: (32, 32, 32, 64), 768: (64, 64, 32, 128), 2048: (96, 96, 64, 256), 2560: (96, 96, 64, 320), 4096: (128, 128, 96, 480)}


class Values:
    """Random values for the tensors of one model; each method returns float32 of the shape asked for."""

    def __init__(self, seed, tails):
        self.seed, self.tails = seed, tails

    def stream(self, name):
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def normal(self, name, shape, scale, mean=0.0):
        return np.float32(mean) + np.float32(scale) * self.stream(name).standard_normal(shape, dtype=np.float32)

    def matrix(self, name, shape, inputs, gain, tails=None):
        """Variance gain^2 / inputs. With tails, Student's t of 4 degrees of freedom scaled to that variance."""
        rng = self.stream(name)
        out = rng.standard_normal(shape, dtype=np.float32)
        if self.tails if tails is None else tails:
            # chi-squared of 4 degrees of freedom is twice the sum of two exponentials; the variance of t is then 2.
            chi = rng.standard_exponential(shape, dtype=np.float32)
            chi += rng.standard_exponential(shape, dtype=np.float32)
            out /= np.sqrt(chi)
        out *= np.float32(gain / math.sqrt(inputs))
        return out

    def norm(self, name, width, scale=1.0):
        out = self.normal(name, width, 0.1, 1.0)
        if self.tails:
            out[self.stream(name + "#outliers").random(width) < 0.005] *= 6
        return out * np.float32(scale)


# Of RWKV-7a and 7b: rank of the pairs around the tables, width of queries and keys.
DEEP, QUERY = 32, 256


def tensors(layers, width, vocabulary, values, version="7"):
    """(name, shape, function that makes the values), in the released order."""
    c, ffn = width, 4 * width
    place = np.arange(c, dtype=np.float32) / max(1, c - 1)
    within = (np.arange(c, dtype=np.float32) % HEAD - (HEAD - 1) / 2) / ((HEAD - 1) / 2)
    within = within * np.abs(within)
    residual = 1 / math.sqrt(2 * layers)
    ranks = dict(zip("wavg", RANKS[max((w for w in RANKS if w <= c), default=min(RANKS))]))
    yield "emb.weight", (vocabulary, c), lambda n: values.normal(n, (vocabulary, c), 0.5)

    def norms(prefix, scale=1.0):
        yield f"{prefix}.weight", (c,), lambda n: values.norm(n, c, scale)
        yield f"{prefix}.bias", (c,), lambda n: values.normal(n, c, 0.02)

    def matrix(name, rows, columns, gain, orientation=1, tails=None):
        inputs = (rows, columns)[orientation]
        return name, (rows, columns), lambda n: values.matrix(n, (rows, columns), inputs, gain, tails)

    def vector(name, array):
        return name, (1, 1, c), lambda n: np.asarray(array, np.float32)

    for i in range(layers):
        block, att, depth, left = f"blocks.{i}", f"blocks.{i}.att", i / max(1, layers - 1), 1 - i / layers
        for norm in ["ln1", "ln2"] + (["ln0"] if i == 0 else []):
            yield from norms(f"{block}.{norm}")
        for x, power in zip("rwkvag", (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)):
            yield vector(f"{att}.x_{x}", 1 - place ** (power * left))
        start = {"w": 6 * (place ** (1 + depth**0.3) - 1) + 0.5 + 2.5 * within, "a": -0.19 + 0.3 * within + 0.4 * (place - 0.5), "v": 0.73 - 0.4 * (place - 0.5)}
        for x, gain in zip("wavg", (0.5, 0.5, 0.5, 2.0)):
            yield matrix(f"{att}.{x}1", c, ranks[x], 1.0, orientation=0)
            yield matrix(f"{att}.{x}2", ranks[x], c, gain, orientation=0)
            if x in start:
                yield vector(f"{att}.{x}0", start[x])
        yield vector(f"{att}.k_k", 0.71 - 0.1 * (place - 0.5))
        yield vector(f"{att}.k_a", np.full(c, 1.02))
        yield f"{att}.r_k", (c // HEAD, HEAD), lambda n: values.normal(n, (c // HEAD, HEAD), 0.2, -0.04)
        for name, gain in (("receptance", 1.0), ("key", 0.6), ("value", 1.0), ("output", residual)):
            yield matrix(f"{att}.{name}.weight", c, c, gain)
        yield from norms(f"{att}.ln_x", ((1 + i) / layers) ** 0.7)
        yield vector(f"{block}.ffn.x_k", 1 - place ** (left**4))
        yield matrix(f"{block}.ffn.key.weight", ffn, c, 1.0)
        yield matrix(f"{block}.ffn.value.weight", c, ffn, residual)
        if version != "7":
            square = DEEP * DEEP
            yield matrix(f"{block}.ffn.s_emb.weight", vocabulary, square, 0.3 * math.sqrt(square), tails=False)
            yield matrix(f"{block}.ffn.s_emb_x.weight", square, c, 0.3)
            yield f"{block}.ffn.s0", (1, 1, ffn), lambda n: values.normal(n, (1, 1, ffn), 0.2, 1.0)
            yield matrix(f"{block}.ffn.s1", c, DEEP, 1.0, orientation=0)
            yield matrix(f"{block}.ffn.s2", DEEP, ffn, 0.3, orientation=0)
        if version == "7b":
            qkv = f"{block}.qkv"
            yield matrix(f"{qkv}.qq.weight", QUERY, c, 1.0)
            for x, wide in (("k", QUERY), ("v", c)):
                yield matrix(f"{qkv}.{x}1", c, DEEP, 1.0, orientation=0)
                yield matrix(f"{qkv}.{x}2", DEEP, wide, 1.0, orientation=0)
                yield matrix(f"{qkv}.{x}_emb.weight", vocabulary, wide, math.sqrt(wide), tails=False)
                yield matrix(f"{qkv}.{x}_emb_x.weight", wide, c, 1.0)
            for x, wide, gain in (("q", QUERY, 2.0), ("k", QUERY, 2.0), ("v", c, 0.5)):
                yield f"{qkv}.x_{x}", (1, 1, wide), lambda n, wide=wide: values.stream(n).random((1, 1, wide), dtype=np.float32)
                yield f"{qkv}.ln{x}.weight", (wide,), lambda n, wide=wide, gain=gain: values.norm(n, wide, gain)
                yield f"{qkv}.ln{x}.bias", (wide,), lambda n, wide=wide: values.normal(n, wide, 0.02)
    yield from norms("ln_out")
    # Without tails, so that no single token dominates.
    yield matrix("head.weight", vocabulary, c, 3.7, tails=False)


def encode(array, dtype):
    """Little-endian bytes, as an array: bf16 as uint16, rounded to nearest, ties to even."""
    if dtype != "bf16":
        return array.astype({"f16": "<f2", "f32": "<f4"}[dtype])
    bits = array.astype("<f4").view("<u4")
    bits += 0x7FFF + ((bits >> 16) & 1)
    return (bits >> 16).astype("<u2")


def write_safetensors(path, table, dtype):
    size = 4 if dtype == "f32" else 2
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, _ in table:
        start, end = end, end + size * math.prod(shape)
        header[name] = {"dtype": dtype.upper(), "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape, make in table:
            file.write(encode(make(name).reshape(shape), dtype).tobytes())


def write_torch(path, table, dtype):
    try:
        import torch
    except ImportError:
        raise SystemExit("a .pth is written by torch, which is not installed; name a .safetensors file instead") from None
    model = {}
    for name, shape, make in table:
        tensor = torch.from_numpy(encode(make(name).reshape(shape), dtype))
        model[name] = tensor.view(torch.bfloat16) if dtype == "bf16" else tensor
    torch.save(model, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, help="file to write; .pth or .safetensors")
    parser.add_argument("--version", choices=["7", "7a", "7b"], default="7")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024, help="channels, a multiple of 64")
    parser.add_argument("--vocabulary", type=int, default=65536)
    parser.add_argument("--dtype", choices=["bf16", "f16", "f32"], default="bf16")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-tails", action="store_true", help="normal matrices, no outliers in layer norms")
    options = parser.parse_args()
    writers = {".pth": write_torch, ".safetensors": write_safetensors}
    if options.out.suffix not in writers:
        parser.error("OUT must end in .pth or .safetensors")
    if options.layers < 1 or options.vocabulary < 1 or options.width < HEAD or options.width % HEAD:
        parser.error(f"--layers and --vocabulary must be at least 1, --width a multiple of {HEAD}")
    values = Values(options.seed, not options.no_tails)
    table = list(tensors(options.layers, options.width, options.vocabulary, values, options.version))
    writers[options.out.suffix](options.out, table, options.dtype)
    print(f"{options.out}: {len(table)} tensors, {sum(math.prod(shape) for _, shape, _ in table):,} parameters, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
