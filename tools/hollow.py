"""An RWKV-7 of the shape of a released 7B in a sparse file: hollow.py OUT.safetensors

All weights are zero and take no room on the disk (15 GB by its length). It shows what memory a model of this size needs.
"""

import json
import sys

LAYERS, CHANNELS, FFN, VOCABULARY, HEAD = 32, 4096, 16384, 65536, 64
# Ranks of decay, in-context learning rate, value and gate in the released model of this width.
RANKS = {"w": 128, "a": 128, "v": 96, "g": 480}


def shapes():
    c, heads = CHANNELS, CHANNELS // HEAD
    yield "emb.weight", [VOCABULARY, c]
    for layer in range(LAYERS):
        block = f"blocks.{layer}."
        norms = ["ln1", "ln2"] + (["ln0"] if layer == 0 else [])
        for norm in norms:
            yield f"{block}{norm}.weight", [c]
            yield f"{block}{norm}.bias", [c]
        for name in "rwkvag":
            yield f"{block}att.x_{name}", [1, 1, c]
        for name, rank in RANKS.items():
            if name != "g":
                yield f"{block}att.{name}0", [1, 1, c]
            yield f"{block}att.{name}1", [c, rank]
            yield f"{block}att.{name}2", [rank, c]
        yield f"{block}att.k_k", [1, 1, c]
        yield f"{block}att.k_a", [1, 1, c]
        yield f"{block}att.r_k", [heads, HEAD]
        for name in ["receptance", "key", "value", "output"]:
            yield f"{block}att.{name}.weight", [c, c]
        yield f"{block}att.ln_x.weight", [c]
        yield f"{block}att.ln_x.bias", [c]
        yield f"{block}ffn.x_k", [1, 1, c]
        yield f"{block}ffn.key.weight", [FFN, c]
        yield f"{block}ffn.value.weight", [c, FFN]
    yield "ln_out.weight", [c]
    yield "ln_out.bias", [c]
    yield "head.weight", [VOCABULARY, c]


def main(path):
    header, offset = {}, 0
    for name, shape in shapes():
        count = 1
        for dim in shape:
            count *= dim
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + 2 * count]}
        offset += 2 * count
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)


main(sys.argv[1])
