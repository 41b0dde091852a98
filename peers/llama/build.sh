#!/usr/bin/env bash
# Prints the folder of a built llama.cpp: $LLAMA_CPP_DIR if set, else one built from the source package of llama-cpp-python,
# which carries llama.cpp whole. The first run takes some minutes; later ones find peers/.work as they left it.
# Arguments are programs of llama.cpp that must be in build/bin, such as llama-bench.
set -euo pipefail

version=0.3.36
sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e

if [ -n "${LLAMA_CPP_DIR:-}" ]; then
    for file in include/llama.h build/bin/libllama.so "${@/#/build/bin/}"; do
        [ -e "$LLAMA_CPP_DIR/$file" ] || { echo "LLAMA_CPP_DIR: no $LLAMA_CPP_DIR/$file" >&2; exit 1; }
    done
    echo "$LLAMA_CPP_DIR"
    exit
fi

work=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.work
source=$work/llama_cpp_python-$version/vendor/llama.cpp
if [ ! -e "$source/.built" ]; then
    mkdir -p "$work"
    cd "$work"
    [ -d venv ] || python3 -m venv venv >&2
    # The build backends are only there because pip asks for a source package's metadata before it keeps the file.
    venv/bin/pip install --quiet cmake ninja scikit-build-core flit-core hatchling >&2
    archive=llama_cpp_python-$version.tar.gz
    [ -e "$archive" ] || PATH=$work/venv/bin:$PATH venv/bin/pip download --quiet --no-deps --no-binary :all: --no-build-isolation "llama-cpp-python==$version" >&2
    echo "$sha256  $archive" | sha256sum --check --quiet >&2
    rm -rf "llama_cpp_python-$version"
    tar xzf "$archive"
    cd "$source"
    # The package has a .git file that points nowhere and time stamps in the future; ninja would configure for ever.
    rm -f .git
    find . -exec touch -h {} +
    export PATH=$work/venv/bin:$PATH
    cmake -G Ninja -B build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF \
        -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_COMMON=OFF >&2
    ninja -C build llama >&2
    touch .built
fi
cd "$source"
missing=()
for tool in "$@"; do
    [ -e "build/bin/$tool" ] || missing+=("$tool")
done
if [ ${#missing[@]} -gt 0 ]; then
    export PATH=$work/venv/bin:$PATH
    cmake -B build -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_COMMON=ON >&2
    ninja -C build "${missing[@]}" >&2
fi
echo "$source"
