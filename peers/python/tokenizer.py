"""The Python side of `rwkv-forge-peers python` for vocabularies: what AutoTokenizer makes of a directory that rwkv-forge wrote.

    tokenizer.py DIRECTORY VOCABULARY.txt [--plant] TEXT...

Holds the ids of 1 MB of text against those of always the longest token of VOCABULARY.txt, a list of RWKV's that Python's own literal_eval
reads: the files named, characters of all planes, and tokens of the list one after another. Then the time of 1 MB without a space, whether
texts come back, the conversation format, and whether the ids that end a text are those of generation_config.json. Prints JSON. With --plant
two tokens of the list are exchanged first, which must then be found."""

import json
import random
import sys
import time
from ast import literal_eval
from pathlib import Path

from transformers import AutoTokenizer

SIZE = 1_000_000


def vocabulary(path):
    tokens = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        number, rest = line.split(" ", 1)
        token = literal_eval(rest.rsplit(" ", 1)[0])
        tokens[token.encode() if isinstance(token, str) else token] = int(number)
    return tokens


def longest(tokens, text):
    """Ids by always the longest token, from the left."""
    text, ids, at, most = text.encode(), [], 0, max(map(len, tokens))
    while at < len(text):
        size = next(size for size in range(most, 0, -1) if text[at : at + size] in tokens)
        ids.append(tokens[text[at : at + size]])
        at += size
    return ids


def texts(tokens, files):
    draw = random.Random(5)
    books = "\n".join(Path(file).read_text(encoding="utf-8") for file in files)
    planes = [(0x20, 0x7F), (0xA0, 0x3000), (0x4E00, 0xA000), (0x1F300, 0x1F700), (0, 0xD800), (0xE000, 0x110000)]
    wild = "".join(chr(draw.randrange(*draw.choice(planes))) for _ in range(SIZE // 8))
    # Bytes in any order, as far as they are a text.
    some = list(tokens)
    mixed = b"".join(draw.choice(some) for _ in range(SIZE // 8)).decode("utf-8", "ignore")
    noise = draw.randbytes(SIZE // 8).decode("utf-8", "replace")
    rest = SIZE - sum(len(text.encode()) for text in (wild, mixed, noise))
    return {"texts": (books * (1 + max(rest, SIZE // 4) // len(books)))[: max(rest, SIZE // 4)], "characters": wild, "tokens": mixed, "bytes": noise}


def main():
    directory, path, *files = sys.argv[1:]
    plant = files[0] == "--plant"
    tokens = vocabulary(path)
    if plant:
        one, other = b"e", b"t"
        tokens[one], tokens[other] = tokens[other], tokens[one]
    tokenizer = AutoTokenizer.from_pretrained(directory)
    result = {"bytes": 0, "tokens": 0, "different": [], "back": True}
    for name, text in texts(tokens, files[plant:]).items():
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        result["bytes"] += len(text.encode())
        result["tokens"] += len(ids)
        result["back"] = result["back"] and tokenizer.decode(ids) == text
        if ids != longest(tokens, text):
            result["different"].append(name)
    seconds = []
    for size in (SIZE // 4, SIZE):
        word = "".join(random.Random(size).choices("abcdefghijklmnopqrstuvwxyz", k=size))
        begun = time.process_time()
        tokenizer(word)
        seconds.append(round(time.process_time() - begun, 2))
    result["seconds"] = seconds
    said = [{"role": "user", "content": "Hi"}]
    shown = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    ids = tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=True, return_dict=False)
    # The format may begin with the end of text, which is a token of its own there.
    begin = [tokenizer.bos_token_id] if shown.startswith(tokenizer.bos_token) else []
    result["chat"] = shown
    result["chat_ids"] = ids == begin + longest(tokens, shown.removeprefix(tokenizer.bos_token) if begin else shown)
    ends = json.loads((Path(directory) / "generation_config.json").read_text())["eos_token_id"]
    result["ends"] = ends
    result["stops"] = tokenizer.eos_token_id in (ends if isinstance(ends, list) else [ends])
    again = Path(directory).parent / "saved-tokenizer"
    tokenizer.save_pretrained(again)
    result["saved"] = AutoTokenizer.from_pretrained(again)(shown)["input_ids"] == tokenizer(shown)["input_ids"]
    print(json.dumps(result))


main()
