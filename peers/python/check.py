"""The Python side of `rwkv-forge-peers python`: what Python's libraries read from files that rwkv-forge wrote.

    check.py versions
    check.py logits PROGRAM WRITTEN TOKENS.json OUT.f32
    check.py tensors SOURCE.pth FORM WRITTEN [--plant]

`logits` runs PROGRAM in float32, one token at a time from the empty state, and writes float32 [tokens, vocabulary]:
transformers (RWKV-4) and rwkv7-hf (RWKV-7) on a directory, rwkv4, rwkv5, rwkv6 or rwkv7 for the rwkv package on a .pth.
`tensors` compares every tensor of a written file with the source's, bit for bit, and prints JSON;
FORM says under which names and in which orientation it must be there: blinkdl-pth, blinkdl, st, hf4, hf5, hf6 or hf7.
With --plant one bit of one expected tensor is turned first, which must then be found.
"""

import json
import os
import re
import sys
from importlib import metadata
from pathlib import Path

import torch

FLOATS = {torch.float32, torch.float16, torch.bfloat16}


def versions():
    return {name: metadata.version(name) for name in ("torch", "transformers", "rwkv7-hf", "rwkv", "safetensors")}


def load(model_class, directory):
    """A model of Transformers' kind, which has to find all of its tensors and no others."""
    model, report = model_class.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    problems = {key: sorted(map(str, value)) for key, value in report.items() if value}
    if problems:
        sys.exit(f"{directory}: loading was not clean: {problems}")
    return model.eval()


def transformers(directory, tokens):
    from transformers import RwkvForCausalLM

    model, state = load(RwkvForCausalLM, directory), None
    for token in tokens:
        output = model(torch.tensor([[token]]), state=state, use_cache=True)
        state = output.state
        yield output.logits[0, -1]


def rwkv7_hf(directory, tokens):
    from rwkv7_hf.modeling_rwkv7 import RWKV7ForCausalLM

    model, cache = load(RWKV7ForCausalLM, directory), None
    for token in tokens:
        output = model(input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        yield output.logits[0, -1]


def rwkv_package(path, tokens, version):
    # The package reads these when it is imported, and prints its progress to stdout.
    os.environ.update(RWKV_JIT_ON="0", RWKV_CUDA_ON="0", RWKV_V7_ON=str(int(version == 7)))
    from rwkv.model import RWKV

    model, state = RWKV(model=path.removesuffix(".pth"), strategy="cpu fp32"), None
    for token in tokens:
        output, state = model.forward([token], state)
        yield output


PROGRAMS = {"transformers": transformers, "rwkv7-hf": rwkv7_hf}
PROGRAMS |= {f"rwkv{version}": lambda path, tokens, version=version: rwkv_package(path, tokens, version) for version in (4, 5, 6, 7)}


def logits(program, path, tokens, out):
    torch.set_num_threads(1)
    with torch.no_grad(), open(out, "wb") as file:
        for row in PROGRAMS[program](path, json.loads(Path(tokens).read_text())):
            file.write(row.float().numpy().tobytes())


def as_they_are(name, tensor):
    return name, tensor


def web_rwkv(name, tensor):
    """Names and orientation of web-rwkv's .st files."""
    name = name.lower().replace("time_faaaa", "time_first").replace("time_maa", "time_mix")
    if re.search(r"time_(mix|decay)_w[12]$|att\.[wavg][12]$", name):
        tensor = tensor.transpose(-1, -2)
    return name, tensor


def hugging_face(name, tensor):
    """RWKV-4 to 6 in Transformers' style."""
    if name == "emb.weight":
        name = "embeddings.weight"
    name = name.replace(".ln0.", ".pre_ln.").replace(".att.", ".attention.").replace(".ffn.", ".feed_forward.")
    words = {"k": "key", "v": "value", "r": "receptance", "g": "gate"}
    name = re.sub(r"time_mix_([kvrg])$", lambda match: "time_mix_" + words[match[1]], name)
    return (name if name.startswith("head.") else f"rwkv.{name}"), tensor


def flash_linear_attention(name, tensor):
    """RWKV-7 in the style of flash-linear-attention."""
    outside = {"emb.weight": "model.embeddings.weight", "head.weight": "lm_head.weight"}
    if name in outside:
        return outside[name], tensor
    if name.startswith("ln_out."):
        return name.replace("ln_out", "model.norm"), tensor
    layer, name = re.fullmatch(r"blocks\.(\d+)\.(.*)", name).groups()
    name = re.sub(r"^ln([012])\.", lambda match: ("pre_norm.", "attn_norm.", "ffn_norm.")[int(match[1])], name)
    name = re.sub(r"^att\.(.)[a-z]+\.weight$", r"attn.\1_proj.weight", name).replace("att.ln_x", "attn.g_norm")
    factor = re.fullmatch(r"att\.([wavg])([012])", name)
    if factor:
        name = f"attn.{factor[1]}_lora.lora." + ("2.bias", "0.weight", "2.weight")[int(factor[2])]
        tensor = tensor.reshape(-1) if factor[2] == "0" else tensor.T
    if name in ("att.k_k", "att.k_a", "ffn.x_k"):
        tensor = tensor.reshape(-1)
    return f"model.layers.{layer}.{name.replace('att.', 'attn.', 1)}", tensor


FORMS = {
    "blinkdl-pth": as_they_are,
    "blinkdl": as_they_are,
    "st": web_rwkv,
    "hf4": hugging_face,
    "hf5": hugging_face,
    "hf6": hugging_face,
    "hf7": flash_linear_attention,
}


def read(form, path):
    if form == "blinkdl-pth":
        return torch.load(path, map_location="cpu", weights_only=True)
    from safetensors.torch import load_file

    files = sorted(Path(path).glob("*.safetensors")) if Path(path).is_dir() else [path]
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def bits(tensor):
    return tensor.contiguous().view({2: torch.int16, 4: torch.int32}[tensor.element_size()])


def tensors(source, form, path, plant):
    expected = dict(FORMS[form](name, tensor) for name, tensor in torch.load(source, map_location="cpu", weights_only=True).items())
    written = read(form, path)
    if plant:
        name = next(name for name, tensor in expected.items() if tensor.dim() == 2)
        whole = expected[name].clone().contiguous()
        bits(whole)[-1, -1] ^= 1 << (8 * whole.element_size() - 1)
        expected[name] = whole
    result = {"equal": 0, "different": [], "missing": [], "extra": sorted(written.keys() - expected.keys()), "types": []}
    for name, tensor in expected.items():
        if name not in written:
            result["missing"].append(name)
            continue
        found = written[name]
        if found.dtype not in FLOATS or found.shape != tensor.shape or not torch.equal(bits(found), bits(tensor.to(found.dtype))):
            result["different"].append(f"{name} {found.dtype} {list(found.shape)}")
        else:
            result["equal"] += 1
    result["types"] = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in written.values()})
    return result


def main():
    match sys.argv[1:]:
        case ["versions"]:
            print(json.dumps(versions()))
        case ["logits", program, path, tokens, out] if program in PROGRAMS:
            logits(program, path, tokens, out)
        case ["tensors", source, form, path, *plant] if form in FORMS and plant in ([], ["--plant"]):
            print(json.dumps(tensors(source, form, path, bool(plant))))
        case _:
            sys.exit(__doc__)


main()
