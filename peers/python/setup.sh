#!/usr/bin/env bash
# Prints the Python with the libraries that check.py needs: $PEERS_PYTHON if set, else one of peers/.work, installed at the
# first run (PyTorch for Linux brings its CUDA libraries: about 5 GB).
set -euo pipefail

if [ -n "${PEERS_PYTHON:-}" ]; then
    echo "$PEERS_PYTHON"
    exit
fi

venv=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.work/venv-python
if [ ! -e "$venv/.installed" ]; then
    python3 -m venv "$venv" >&2
    nice "$venv/bin/pip" install --quiet torch==2.11.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6 rwkv==0.8.32 >&2
    # What it asks for beyond these is for its converter and its server.
    nice "$venv/bin/pip" install --quiet --no-deps rwkv7-hf==0.9.0 >&2
    touch "$venv/.installed"
fi
if [ ! -e "$venv/.rwkv-quant" ]; then
    # Its dependencies are there, but for those of macOS.
    nice "$venv/bin/pip" install --quiet --no-deps rwkv-quant==0.3.0 >&2
    touch "$venv/.rwkv-quant"
fi
echo "$venv/bin/python"
