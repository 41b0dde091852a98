"""The Python side of `rwkv-forge-peers rwkvq`: files of the rwkv-quant package, and what its own reader finds in them.

    rwkvq.py make FOLDER
    rwkvq.py compare FILE.rwkvq WRITTEN.safetensors [--plant]

`make` writes a random RWKV-7 of 2 layers x 256 channels as FOLDER/random-rwkv7.pth, quantizes it in every way that the package has, and
prints the files as JSON. `compare` holds every tensor of a file that rwkv-forge converted to f32 against the package's reader, bit for bit,
and prints JSON; with --plant one bit of one expected tensor is turned first, which must then be found."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from rwkv_quant import presets
from rwkv_quant.calibration.group_config import QuantConfig
from rwkv_quant.formats import codec, writer
from safetensors.numpy import load_file

CHANNELS, HIDDEN, HEAD, VOCABULARY, LAYERS = 256, 512, 64, 300, 2
# Layer 0 has nothing to mix its values with: no runtime uses these, and a conversion leaves them out.
UNUSED = {"blocks.0.att.v0", "blocks.0.att.v1", "blocks.0.att.v2"}
RANKS = {"w": 32, "a": 32, "v": 96, "g": 128}


def model():
    torch.manual_seed(7)

    def matrix(*shape):
        return (torch.randn(shape) / shape[-1] ** 0.5).bfloat16()

    def vector(*shape):
        return (torch.randn(shape) * 0.3).bfloat16()

    tensors = {"emb.weight": matrix(VOCABULARY, CHANNELS), "head.weight": matrix(VOCABULARY, CHANNELS)}
    norms = ["ln_out", "blocks.0.ln0"]
    for layer in range(LAYERS):
        norms += [f"blocks.{layer}.{name}" for name in ("ln1", "ln2", "att.ln_x")]
        att, ffn = f"blocks.{layer}.att.", f"blocks.{layer}.ffn."
        for name in ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "w0", "a0", "v0", "k_k", "k_a"):
            tensors[att + name] = vector(1, 1, CHANNELS)
        tensors[att + "r_k"] = vector(CHANNELS // HEAD, HEAD)
        for name, rank in RANKS.items():
            tensors[f"{att}{name}1"], tensors[f"{att}{name}2"] = matrix(CHANNELS, rank), matrix(rank, CHANNELS)
        for name in ("receptance", "key", "value", "output"):
            tensors[f"{att}{name}.weight"] = matrix(CHANNELS, CHANNELS)
        tensors[ffn + "x_k"] = vector(1, 1, CHANNELS)
        tensors[ffn + "key.weight"], tensors[ffn + "value.weight"] = matrix(HIDDEN, CHANNELS), matrix(CHANNELS, HIDDEN)
    for name in norms:
        tensors[name + ".weight"], tensors[name + ".bias"] = (vector(CHANNELS) + 1).bfloat16(), vector(CHANNELS)
    return tensors


def configurations():
    groups = ("proj", "cmix", "emb", "head", "w_lora", "a_lora", "v_lora", "g_lora", "small")
    rows = {group: 8 for group in groups}
    yield "compression", presets.COMPRESSION
    yield "reduction", presets.REDUCTION
    yield "rtn-8", QuantConfig(**rows, strict=False)
    yield "rtn-4", QuantConfig(**{**rows, "proj": 4, "cmix": 3, "w_lora": 5}, strict=False)
    yield "rtn-outliers", QuantConfig(**{**rows, "proj": 4}, outlier_fracs={"cmix": 0.02, "proj": 0.01}, strict=False)
    modes = {"proj": "asym_sb6_search", "cmix": "sym", "emb": "sym", "head": "asym_sb6"}
    sizes = {"proj": 32, "cmix": 16, "emb": 16, "head": 32, "w_lora": 64, "v_lora": 64, "g_lora": 32}
    yield "mixed", QuantConfig(**{**rows, "proj": 6, "cmix": 6, "head": 5}, group_scale=sizes, group_scale_mode=modes, strict=False)


def make(folder):
    warnings.simplefilter("ignore")
    source = Path(folder) / "random-rwkv7.pth"
    torch.save(model(), source)
    files = []
    for name, configuration in configurations():
        path = Path(folder) / f"{name}.rwkvq"
        writer.quantize_file(str(source), str(path), configuration, verbose=False)
        files.append(str(path))
    return files


def expected(path):
    """Tensors as checkpoints have them: low-rank factors are [inputs, outputs]."""
    manifest, arrays = codec.open_rwkvq(path)
    for name in sorted(manifest["tensors"].keys() - UNUSED):
        values = codec.dequant_key(manifest, arrays, name)
        turned = codec.is_raw_lora_world(name) and not codec.is_transposed(manifest, name)
        yield name, np.ascontiguousarray(values.T if turned else values)


def compare(path, written, plant):
    found = load_file(written)
    result = {"equal": 0, "different": [], "missing": [], "kinds": []}
    for name, values in expected(path):
        if plant and values.ndim == 2:
            values.view(np.uint32)[-1, -1] ^= 1
            plant = False
        if name not in found:
            result["missing"].append(name)
        elif found[name].shape != values.shape or not np.array_equal(found[name].view(np.uint32), values.view(np.uint32)):
            result["different"].append(name)
        else:
            result["equal"] += 1
    manifest, _ = codec.open_rwkvq(path)
    result["kinds"] = sorted({f"{entry['kind']} {entry['bits']}" for entry in manifest["tensors"].values()})
    return result


def main():
    match sys.argv[1:]:
        case ["make", folder]:
            print(json.dumps(make(folder)))
        case ["compare", path, written, *plant] if plant in ([], ["--plant"]):
            print(json.dumps(compare(path, written, bool(plant))))
        case _:
            sys.exit(__doc__)


main()
