# Recipes for developers. `just` alone lists them.

# List the recipes
default:
    @just --list

# Everything that CI runs
check:
    bash .ci/run

# Format the code
format:
    cargo fmt --all

# Tests only
test:
    cargo test --workspace

# Run the tests of simd, quant and matrix in qemu, NEON with its dot products and without (tools/test-aarch64.sh says what that needs)
aarch64:
    sh tools/test-aarch64.sh

# Licences, duplicate and banned packages, with cargo-deny
deny:
    bash .ci/beyond.sh deny

# The oldest Rust that Cargo.toml promises
msrv:
    bash .ci/beyond.sh msrv

# Compile everything for aarch64, tests too
aarch64-check:
    bash .ci/beyond.sh aarch64

# Make the synthetic 0.4B RWKV-7 (about 0.9 GB) that docs/benchmarks.md measures with (needs Python with numpy)
synthetic out="target/synthetic-0.4B.safetensors":
    python3 tools/synthetic.py {{out}}

# Seconds, MB/s and peak memory of converting a model, as in docs/benchmarks.md
bench-convert model="target/synthetic-0.4B.safetensors" vocabulary="":
    bash tools/bench-convert.sh {{model}} {{vocabulary}}

# Speed and memory of the engine, the whole series: each model as MODEL or MODEL=VOCABULARY, results in `out`
bench-engine out +models:
    bash tools/bench-engine.sh {{out}} {{models}}

# The engine beside llama-bench and the rwkv package, in turns on the same files
peers-speed model="target/synthetic-0.4B.safetensors":
    cargo run --release --manifest-path peers/Cargo.toml -- speed --model {{model}}

# What a parallel region costs, and what a core that is busy elsewhere costs
bench-pool:
    cargo run --release -p rwkv-forge-pool --example regions

# Speed of the block formats
bench-blocks:
    cargo bench -p rwkv-forge-quant

# Our files in llama.cpp: logits of the same file, side by side (installs and builds llama.cpp into peers/.work)
peers:
    cargo run --release --manifest-path peers/Cargo.toml -- llama

# The other programs: candle, web-rwkv on a software Vulkan driver, Python packages (peers/README.md says what each needs)
peers-all:
    for name in llama presets candle web-rwkv python; do cargo run --release --manifest-path peers/Cargo.toml -- $name || exit 1; done

# Make the fixtures anew (needs Python with torch, numpy, gguf, safetensors, and a built libggml); digests must not change
fixtures:
    python3 fixtures/blocks/make_vectors.py
    python3 fixtures/blocks/make_searched.py
    python3 fixtures/torch-savings/make.py
    sha256sum --check fixtures/SHA256SUMS

# Package every crate and build each against the packages of the others
package:
    cargo package --workspace
