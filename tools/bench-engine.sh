#!/usr/bin/env bash
# The whole series of measurements of the engine: bench-engine.sh OUT MODEL[=VOCABULARY] ...
# Converts each model into GGUF files of several types (below OUT, kept for the next run) and writes into OUT, for each model:
#   NAME.md .csv .svg .json        every type with 1 and 2 threads, all in every round
#   NAME-positions.md .svg .json   decoding at position 1 to 32,768
#   NAME-isa.md .json              every instruction set of this CPU
# and sizes.md .csv .svg: all models in f16 and q8_0. For the other programs see `speed` in peers/README.md.
# The machine must be otherwise idle. TYPES, THREADS, POSITION and REPEAT are taken from the environment.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
out=$1
shift
types=${TYPES:-f16 q8_0 q4_0 q4_k_m q5_k_m q6_k iq4_xs}
threads=${THREADS:-1,2}
position=${POSITION:-32768}
repeat=${REPEAT:-7}
mkdir -p "$out"
forge=${RWKV_FORGE:-}
if [ -z "$forge" ]; then
    (cd "$here" && cargo build --release --quiet)
    forge=$here/target/release/rwkv-forge
fi

measure() { # NAME [OPTIONS] FILES: the table on stdout and as NAME.md, the document as NAME.json
    local name=$1
    shift
    "$forge" --quiet --json bench --force --markdown "$out/$name.md" "$@" > "$out/$name.json"
    printf '\n## %s\n\n' "$name"
    cat "$out/$name.md"
}

sizes=()
for argument in "$@"; do
    model=${argument%%=*}
    vocabulary=()
    [ "$model" = "$argument" ] || vocabulary=(--vocab "${argument#*=}")
    name=$(basename "$model")
    name=${name%.*}
    files=()
    for type in $types; do
        file=$out/$name-$type.gguf
        if [ ! "$file" -nt "$model" ]; then
            "$forge" --quiet convert "$model" --to gguf --type "$type" --no-verify --force -o "$file" ${vocabulary[@]+"${vocabulary[@]}"}
        fi
        files+=("$file")
        case $type in f16 | q8_0) sizes+=("$file") ;; esac
    done
    last=${threads##*,}
    measure "$name" --scaling "$threads" --repeat "$repeat" --csv "$out/$name.csv" --svg "$out/$name.svg" "${files[@]}"
    measure "$name-positions" --threads "$last" --repeat "$repeat" --prompt 0 --position "$position" --svg "$out/$name-positions.svg" "$out/$name"-{q8_0,q4_0}.gguf
    measure "$name-isa" --threads "$last" --repeat 3 --tokens 16 --prompt 128 --isa all "$out/$name"-{f16,q8_0}.gguf
done
measure sizes --threads "${threads##*,}" --repeat "$repeat" --prompt 0 --csv "$out/sizes.csv" --svg "$out/sizes.svg" "${sizes[@]}"
