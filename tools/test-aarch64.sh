#!/bin/sh
# Runs the tests of crates for aarch64 on another machine, in qemu: once on a CPU that has the dot products of Armv8.2, once on one
# that lacks them. Installs nothing: it says what is missing.
#
#   test-aarch64.sh [--check] [CRATE...]   the crates, rwkv-forge-simd, rwkv-forge-matrix and rwkv-forge-quant by default; with
#                                          --check they are only compiled, which needs neither linker nor qemu
#
#   AARCH64_RUSTC    a rustc with a standard library for the target (default: the one that cargo uses)
#   AARCH64_LINKER   a C compiler that links for the target (default: aarch64-linux-gnu-gcc)
#   AARCH64_QEMU     qemu in user mode (default: qemu-aarch64)
#   AARCH64_ROOT     where the target's C library is (default: /usr/aarch64-linux-gnu)
#   AARCH64_CPUS     CPUs of qemu (default: max cortex-a53)
#   AARCH64_TESTS    only tests with this in their names
set -eu

cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu
rustc=${AARCH64_RUSTC:-rustc}
linker=${AARCH64_LINKER:-aarch64-linux-gnu-gcc}
qemu=${AARCH64_QEMU:-qemu-aarch64}
root=${AARCH64_ROOT:-/usr/aarch64-linux-gnu}

missing() { # WHAT HOW
    printf 'test-aarch64: %s\n' "$1, $2" >&2
    exit 2
}

[ "$(uname -m)" != aarch64 ] || missing 'this is an aarch64 machine' 'where cargo test runs these tests as they are'
library=$("$rustc" --print target-libdir --target "$target")
ls "$library"/libstd-*.rlib > /dev/null 2>&1 ||
    missing "$rustc has no standard library for $target" "run rustup target add $target, or set AARCH64_RUSTC to one that has it"

check=
if [ "${1:-}" = --check ]; then
    check=yes
    shift
else
    command -v "$linker" > /dev/null || missing "no $linker" 'set AARCH64_LINKER (Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross)'
    command -v "$qemu" > /dev/null || missing "no $qemu" 'set AARCH64_QEMU (Debian: qemu-user)'
    [ -d "$root/lib" ] || missing "no C library in $root" 'set AARCH64_ROOT (Debian: libc6-arm64-cross)'
fi
if [ $# -eq 0 ]; then set -- rwkv-forge-simd rwkv-forge-matrix rwkv-forge-quant; fi
packages=
for crate in "$@"; do packages="$packages -p $crate"; done

export RUSTC="$rustc"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER="$linker"
# A directory of its own: another compiler must not undo what the usual one has built.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/aarch64"
if [ -n "$check" ]; then
    # shellcheck disable=SC2086 # one word a package
    exec cargo check --locked --target "$target" --lib --tests $packages
fi
for cpu in ${AARCH64_CPUS:-max cortex-a53}; do
    printf 'test-aarch64: %s on %s\n' "$*" "$cpu"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$qemu -L $root -cpu $cpu"
    # Examples in documentation would need a rustdoc of the same version; they are tests of the text, not of the architecture.
    # shellcheck disable=SC2086 # one word a package
    cargo test --locked --target "$target" --lib --tests $packages -- ${AARCH64_TESTS:-}
done
