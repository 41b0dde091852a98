#!/usr/bin/env bash
# The measurements of docs/measurements.md, each into the folder OUT:
#   accuracy.sh levels OUT MODEL VOCABULARY TEXT...   every type of GGUF against the model, in windows of 512 tokens: levels.md, levels.html, levels.csv
#   accuracy.sh speed OUT MODEL [VOCABULARY]          tokens a second and peak memory against its own q4_k_m: speed.md
#   accuracy.sh large OUT                             peak memory of a model of the shape of a 7B, made of holes in a file: large.md
# BYTES=40000 of each text, TOKENS=4096 and THREADS="1 2" are taken from the environment. Needs Python 3 for the numbers of the last two.
set -euo pipefail
what=${1:?levels, speed or large}
out=$(mkdir -p "${2:?a folder for the results}" && cd "$2" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
shift 2
cargo build --release --quiet --manifest-path "$root/Cargo.toml"
forge=$root/target/release/rwkv-forge

# A row of a table from the JSON of a run: tokens a second of each model, and the peak of the process.
row() { # NAME JSON
    python3 - "$1" "$2" <<'PY'
import json, sys
seen = json.load(open(sys.argv[2]))
fed = seen["plan"]["fed"]
rates = " / ".join(f"{model['tokens_per_second']:.0f}" for model in seen["models"])
print(f"| {sys.argv[1]} | {fed} | {rates} | {seen['peak_memory_bytes'] / 1e6:.0f} MB |")
PY
}

levels() { # MODEL VOCABULARY TEXT...
    local model=$1 vocabulary=$2 texts=()
    shift 2
    for text in "$@"; do texts+=(--text "$text"); done
    "$forge" eval "$model" --vocab "$vocabulary" "${texts[@]}" --bytes "${BYTES:-40000}" --context 512 --levels all --no-cache --force \
        --html "$out/levels.html" --markdown "$out/levels.md" --csv "$out/levels.csv"
}

speed() { # MODEL [VOCABULARY]
    local model=$1 vocabulary=() tokens=${TOKENS:-4096}
    [ $# -lt 2 ] || vocabulary=(--vocab "$2")
    "$forge" --quiet convert "$model" --to gguf --type q4_k_m --no-verify --force -o "$out/q4_k_m.gguf" "${vocabulary[@]}" > /dev/null
    {
        echo "| run | tokens | tokens a second | peak memory |"
        echo "|---|---|---|---|"
        for threads in ${THREADS:-1 2}; do
            # About four bytes a token of English.
            "$forge" --quiet --json --threads "$threads" eval "$model" --context 512 --bytes $((tokens * 4)) "${vocabulary[@]}" > "$out/json"
            row "the model alone, $threads threads" "$out/json"
            "$forge" --quiet --json --threads "$threads" eval "$out/q4_k_m.gguf" --baseline "$model" --context 512 --bytes $((tokens * 4)) \
                "${vocabulary[@]}" > "$out/json"
            row "q4_k_m against it, $threads threads" "$out/json"
        done
    } | tee "$out/speed.md"
}

large() {
    local model=$out/large.safetensors
    python3 "$root/tools/hollow.py" "$model"
    {
        echo "| run | tokens | tokens a second | peak memory |"
        echo "|---|---|---|---|"
        "$forge" --quiet --json eval "$model" --baseline "$model" --context 512 --bytes 2048 > "$out/json"
        row "32 layers x 4096, against itself" "$out/json"
    } | tee "$out/large.md"
    rm -f "$model"
}

"$what" "$@"
