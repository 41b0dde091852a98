#!/usr/bin/env bash
# Prints a folder with a libggml-cpu.so for the llama.cpp whose folder is the first argument, built without AMX: on some virtual
# machines the processor announces AMX, and llama.cpp's kernels for it crash. To be named in LD_LIBRARY_PATH.
set -euo pipefail
work=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.work
source=$1
if [ ! -e "$source/build-without-amx/bin/libggml-cpu.so.0" ]; then
    export PATH=$work/venv/bin:$PATH
    flags="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
    cmake -G Ninja -S "$source" -B "$source/build-without-amx" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF \
        -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_COMMON=OFF \
        -DCMAKE_C_FLAGS="$flags" -DCMAKE_CXX_FLAGS="$flags" >&2
    ninja -C "$source/build-without-amx" ggml-cpu >&2
fi
echo "$source/build-without-amx/bin"
