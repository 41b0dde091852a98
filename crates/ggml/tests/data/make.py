"""Small files in the format of rwkv.cpp, made as its converter makes them, by code that knows nothing of this crate.

Usage: python make.py [DIRECTORY]      needs NumPy

Values are multiples of 1/128 that follow from the name of a tensor and the index of an element, so that the test can compute
what it must read. `sha256sum --check SHA256SUMS` tells whether the files are those that were tested last.
"""

import hashlib
import pathlib
import struct
import sys

import numpy as np


def fnv1a(text):
    result = 0x811C9DC5
    for byte in text.encode():
        result = (result ^ byte) * 0x01000193 % 2**32
    return result


def values(name, *shape):
    count = int(np.prod(shape))
    mixed = [(fnv1a(name) * (2 * i + 1) % 2**32 >> 24) - 128 for i in range(count)]
    return (np.array(mixed, dtype=np.float32) / 128).reshape(shape)


def checkpoint(version, c, f, v, n, layers):
    """Names and shapes of a checkpoint, in an order like a trainer's."""
    h = c // n
    out = {"emb.weight": values("emb.weight", v, c)}

    def put(name, *shape):
        out[name] = values(name, *shape)

    for i in range(layers):
        b = f"blocks.{i}."
        for norm in ["ln1", "ln2"] + (["ln0"] if i == 0 else []):
            put(b + norm + ".weight", c)
            put(b + norm + ".bias", c)
        if version == "4":
            put(b + "att.time_decay", c)
            put(b + "att.time_first", c)
        elif version == "5.1":
            put(b + "att.time_decay", h)
            put(b + "att.time_first", h)
        elif version == "5.2":
            put(b + "att.time_decay", h, n)
            put(b + "att.time_faaaa", h, n)
        if version[0] in "45":
            for mix in "kvr" + ("g" if version == "5.2" else ""):
                put(b + "att.time_mix_" + mix, 1, 1, c)
        if version == "6":
            for mix in "xwkvrg":
                put(b + "att.time_maa_" + mix, 1, 1, c)
            put(b + "att.time_maa_w1", c, 10)
            put(b + "att.time_maa_w2", 5, 2, c)
            put(b + "att.time_decay", 1, 1, c)
            put(b + "att.time_decay_w1", c, 3)
            put(b + "att.time_decay_w2", 3, c)
            put(b + "att.time_faaaa", h, n)
        if version == "7":
            for mix in "rwkvag":
                put(b + "att.x_" + mix, 1, 1, c)
            for letter, rank in [("w", 3), ("a", 4), ("v", 2), ("g", 5)]:
                put(b + f"att.{letter}1", c, rank)
                put(b + f"att.{letter}2", rank, c)
                if letter != "g":
                    put(b + f"att.{letter}0", 1, 1, c)
            put(b + "att.k_k", 1, 1, c)
            put(b + "att.k_a", 1, 1, c)
            put(b + "att.r_k", h, n)
        for name in ["receptance", "key", "value", "output"] + (["gate"] if version in ("5.2", "6") else []):
            put(b + f"att.{name}.weight", c, c)
        if version != "4":
            put(b + "att.ln_x.weight", c)
            put(b + "att.ln_x.bias", c)
        if version == "7":
            put(b + "ffn.x_k", 1, 1, c)
        else:
            for mix in "kr":
                put(b + ("ffn.time_maa_" if version == "6" else "ffn.time_mix_") + mix, 1, 1, c)
            put(b + "ffn.receptance.weight", c, c)
        put(b + "ffn.key.weight", f, c)
        put(b + "ffn.value.weight", c, f)
    put("ln_out.weight", c)
    put("ln_out.bias", c)
    put("head.weight", v, c)
    return out


def transformed(version, tensors, heads):
    """What the runtime wants instead of the checkpoint's tensors. Nothing is divided for its epsilon."""
    out = {}
    for name, x in tensors.items():
        last = name.split(".")[-1]
        if ".time_" in name:
            x = x.squeeze()
        if version == "4" and last == "time_decay":
            x = -np.exp(x)
        if version in ("5.1", "5.2") and last == "time_decay":
            x = np.exp(-np.exp(x)).reshape(heads, -1, 1)
        if version == "5.1" and last == "time_first":
            x = np.exp(x).reshape(-1, 1, 1)
        if version == "5.2" and last == "time_faaaa":
            x = x.reshape(heads, -1, 1)
        if version == "6":
            if last in ("time_faaaa", "time_decay"):
                x = x.reshape(heads, -1, 1)
            if last in ("time_maa_w1", "time_maa_w2", "time_decay_w1", "time_decay_w2"):
                x = x.swapaxes(-1, -2)
        if version == "7":
            if len(last) == 2 and last[0] in "wavg" and last[1] in "12":
                x = x.T
            if last.startswith("x_") and ".att." in name:
                name = name.rsplit(".", 1)[0] + ".x_rwkvag"
                x = np.concatenate([out[name], x]) if name in out else x
        out[name] = np.ascontiguousarray(x, dtype=np.float32)
    return out


KEPT = [".time_", ".k_k", ".k_a", ".r_k", ".x_rwkvag", ".x_k", ".w0", ".a0", ".v0"]
FLOAT_ONLY = [f"att.{letter}{digit}" for letter in "wavg" for digit in "12"] + ["att.r_k"]


def q8_0(x):
    blocks = x.reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    inverse = np.where(scale > 0, 1 / np.where(scale > 0, scale, 1), 0).astype(np.float32)
    scaled = blocks * inverse
    codes = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).astype(np.int8)
    return b"".join(s.astype("<f2").tobytes() + row.tobytes() for s, row in zip(scale, codes))


def write(path, version, kind, c, f, v, n, layers, format_version=101):
    tensors = transformed(version, checkpoint(version, c, f, v, n, layers), c // n)
    number = {"f32": 0, "f16": 1, "q8_0": 9}
    out = struct.pack("<6i", 0x67676D66, format_version, v, c, layers, number[kind])
    for name, x in tensors.items():
        small = x.ndim == 1 or any(part in name for part in KEPT)
        stored = "f32" if kind == "f32" or small else "f16"
        is_matrix = x.ndim == 2 and name not in ("emb.weight", "head.weight")
        if kind == "q8_0" and is_matrix and not any(part in name for part in FLOAT_ONLY):
            stored = "q8_0"
        data = {"f32": lambda: x.astype("<f4").tobytes(), "f16": lambda: x.astype("<f2").tobytes(), "q8_0": lambda: q8_0(x)}[stored]()
        key = name.encode()
        out += struct.pack("<3i", x.ndim, len(key), number[stored])
        out += struct.pack(f"<{x.ndim}i", *reversed(x.shape)) + key + data
    path.write_bytes(out)


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    small = dict(c=16, f=32, v=8, n=8)
    write(folder / "4-f32.bin", "4", "f32", **small, layers=1, format_version=100)
    write(folder / "4-f16.bin", "4", "f16", **small, layers=1, format_version=100)
    write(folder / "5.1-f32.bin", "5.1", "f32", **small, layers=1)
    write(folder / "5.2-f16.bin", "5.2", "f16", **small, layers=1)
    write(folder / "6-f32.bin", "6", "f32", **small, layers=1)
    write(folder / "7-f16.bin", "7", "f16", **small, layers=2)
    write(folder / "5.2-q8_0.bin", "5.2", "q8_0", c=32, f=32, v=8, n=16, layers=1)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(folder.glob("*.bin"))]
    (folder / "SHA256SUMS").write_text("".join(lines))


main()
