"""What a GGUF says, by llama.cpp's own package.

metadata.py publish SOURCE OUT     copies a GGUF and says of it what publishers say: tokens of their own, a template, who, under which licence
metadata.py drop SOURCE OUT KEY    copies a GGUF without one key
metadata.py keys FILE              prints each key with a digest of its type and value, as JSON
"""

import hashlib
import json
import sys

import gguf


def entries(reader):
    """Key, type, type of the elements, value of all that is metadata."""
    for name, field in reader.fields.items():
        if name.startswith("GGUF."):
            continue
        element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        yield name, field.types[0], element, field.contents()


def write(reader, out, values):
    architecture = dict((name, value) for name, _, _, value in values)["general.architecture"]
    writer = gguf.GGUFWriter(out, architecture)
    for name, kind, element, value in values:
        # The writer says these of itself.
        if name != "general.architecture":
            writer.add_key_value(name, value, kind, element)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def publish(source, out):
    kind = gguf.GGUFValueType
    reader = gguf.GGUFReader(source)
    values = {name: (of, element, value) for name, of, element, value in entries(reader)}
    # Published by somebody else: nothing of ours is in it.
    values = {name: value for name, value in values.items() if not name.startswith("rwkv_forge.")}
    tokens = values["tokenizer.ggml.tokens"][2]
    types = values["tokenizer.ggml.token_type"][2]
    last = len(tokens) - 1
    tokens[last - 1 :] = ["<|im_start|>", "<|im_end|>"]
    types[last - 1 :] = [int(gguf.TokenType.CONTROL)] * 2
    values["tokenizer.ggml.tokens"] = (kind.ARRAY, kind.STRING, tokens)
    values["tokenizer.ggml.token_type"] = (kind.ARRAY, kind.INT32, types)
    values["tokenizer.ggml.eos_token_id"] = (kind.UINT32, None, last)
    values["tokenizer.ggml.eot_token_id"] = (kind.UINT32, None, last)
    values["tokenizer.ggml.padding_token_id"] = (kind.UINT32, None, last - 1)
    template = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    texts = {
        "tokenizer.chat_template": template,
        "tokenizer.chat_template.tool_use": template + "{{ tools }}",
        "general.license": "apache-2.0",
        "general.license.link": "https://example.org/licence",
        "general.author": "A | B, \"C\"",
        "general.organization": "D",
        "general.description": "two\nlines",
        "general.url": "https://example.org/é",
        "general.basename": "tiny",
        "general.size_label": "47K",
        "general.quantized_by": "somebody else",
        "general.base_model.0.name": "Base",
        "general.base_model.0.organization": "E",
        "general.base_model.0.repo_url": "https://example.org/base",
        "of.nobody": "",
    }
    values.update({key: (kind.STRING, None, text) for key, text in texts.items()})
    values["general.base_model.count"] = (kind.UINT32, None, 1)
    values["general.tags"] = (kind.ARRAY, kind.STRING, ["rwkv", "text-generation"])
    values["general.languages"] = (kind.ARRAY, kind.STRING, ["en", "zh"])
    values["general.sampling.temp"] = (kind.FLOAT32, None, 0.25)
    # Keys of other programs, in types that publishers' keys seldom have.
    values["of.nobody.u64"] = (kind.UINT64, None, 2**63 + 1)
    values["of.nobody.i8"] = (kind.INT8, None, -128)
    values["of.nobody.f64"] = (kind.FLOAT64, None, 0.1)
    values["of.nobody.bool"] = (kind.BOOL, None, True)
    values["of.nobody.array"] = (kind.ARRAY, kind.INT64, [-(2**62), 0, 1])
    write(reader, out, [(name, *value) for name, value in values.items()])


def drop(source, out, key):
    reader = gguf.GGUFReader(source)
    kept = [entry for entry in entries(reader) if entry[0] != key]
    write(reader, out, kept)


def keys(file):
    found = {}
    for name, kind, element, value in entries(gguf.GGUFReader(file)):
        said = f"{kind.name} {element.name if element is not None else ''} {value!r}"
        found[name] = hashlib.sha256(said.encode()).hexdigest()
    print(json.dumps(found))


if __name__ == "__main__":
    {"publish": publish, "drop": drop, "keys": keys}[sys.argv[1]](*sys.argv[2:])
