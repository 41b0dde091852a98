"""Reads a GGUF file with gguf-py and renders its chat template with jinja2; prints what it found, one fact a line.

python read_back.py FILE
"""

import hashlib
import json
import sys

import gguf
import jinja2

reader = gguf.GGUFReader(sys.argv[1])


def refuse(message):
    raise ValueError(message)


for tensor in reader.tensors:
    dims = "x".join(str(dim) for dim in tensor.shape.tolist())
    print("tensor", tensor.name, tensor.tensor_type.name.lower(), dims, hashlib.sha256(tensor.data.tobytes()).hexdigest())
for key in ("general.architecture", "general.file_type", "tokenizer.ggml.model", "rwkv_forge.verify.status"):
    print("key", key, reader.get_field(key).contents())
tokens = reader.get_field("tokenizer.ggml.tokens").contents()
print("tokens", len(tokens), tokens[0], tokens[10], tokens[39], tokens[92], tokens[255], tokens[256])

environment = jinja2.Environment()
environment.globals["raise_exception"] = refuse
template = environment.from_string(reader.get_field("tokenizer.chat_template").contents())
messages = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Hello\n"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "Who?"},
]
for extra in ({}, {"add_generation_prompt": True}, {"add_generation_prompt": True, "enable_thinking": True},
              {"add_generation_prompt": True, "enable_thinking": False}):
    print("chat", json.dumps(template.render(messages=messages, bos_token="<s>", **extra)))
try:
    template.render(messages=[{"role": "tool", "content": ""}], bos_token="")
except ValueError:
    print("chat refuses other roles")
