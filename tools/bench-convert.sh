#!/usr/bin/env bash
# Seconds, MB/s of source and peak resident memory of converting a model: bench-convert.sh MODEL [VOCABULARY]
# RUNS=5 and TYPES="q8_0 q4_0 f16 q4_k_m" are taken from the environment.
# Without verification: the median of RUNS after one warm-up that brings the file into the page cache; with verification: one run.
set -euo pipefail
cd "$(dirname "$0")/.."
model=$1
vocabulary=()
[ $# -lt 2 ] || vocabulary=(--vocab "$2")
runs=${RUNS:-5}
out=$(mktemp -d "${TMPDIR:-/tmp}/bench-convert.XXXXXX")
trap 'rm -rf "$out"' EXIT
cargo build --release --quiet
forge=target/release/rwkv-forge

convert() { # TYPE [OPTIONS]: the JSON record, with the seconds of the whole process
    local type=$1 start end
    shift
    rm -f "$out/file"
    start=$(date +%s.%N)
    "$forge" --quiet --json convert "$model" --to gguf --type "$type" -o "$out/file" "${vocabulary[@]}" "$@" > "$out/json"
    end=$(date +%s.%N)
    python3 - "$out/json" "$start" "$end" <<'PY'
import json, sys
document = json.load(open(sys.argv[1]))
record = document["record"]
seconds = float(sys.argv[3]) - float(sys.argv[2])
print(record["write_seconds"], seconds, record["verify_seconds"], document["peak_memory_bytes"], record["source_bytes"], record["output_bytes"])
PY
}

echo "| type | read, quantize, write | with flush to disk | MB/s of source | peak memory | with verification | peak memory |"
echo "|---|---|---|---|---|---|---|"
for type in ${TYPES:-q8_0 q4_0 f16 q4_k_m}; do
    convert "$type" --no-verify > /dev/null
    for _ in $(seq "$runs"); do convert "$type" --no-verify; done > "$out/plain"
    convert "$type" > "$out/verified"
    python3 - "$out/plain" "$out/verified" "$type" <<'PY'
import statistics, sys
plain = [list(map(float, line.split())) for line in open(sys.argv[1])]
verified = list(map(float, open(sys.argv[2]).read().split()))
write, whole = (statistics.median(row[i] for row in plain) for i in (0, 1))
peak = max(row[3] for row in plain)
print(f"| {sys.argv[3]} | {write:.2f} s | {whole:.2f} s | {plain[0][4] / 1e6 / write:.0f} | {peak / 1e6:.0f} MB "
      f"| {verified[1]:.1f} s | {verified[3] / 1e6:.0f} MB |")
PY
done
