#!/usr/bin/env bash
# The unsafe code and the arena under tools that watch every access: scripts/sanitizers.sh [asan|miri]..., both by default.
#   asan   AddressSanitizer over the library's own tests, on every instruction set of this machine, plans of drawn networks among them
#   miri   Miri over the portable kernels; needs a nightly toolchain with miri and rust-src under rustup
# Built in directories of their own, which are removed: about 3 GB.
set -euo pipefail
cd "$(dirname "$0")/.."
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
host="$(rustc -vV | sed -n 's/^host: //p')"

asan() {
    # Each set's own tests run all sets; the layers and plans run the one that is forced.
    local sets="portable" set
    grep -q '^flags.*avx2' /proc/cpuinfo 2>/dev/null && sets+=" avx2"
    grep -q '^flags.*avx512vl' /proc/cpuinfo 2>/dev/null && sets+=" avx512"
    [ "$(uname -m)" = aarch64 ] && sets+=" neon"
    for set in $sets; do
        echo "asan, $set"
        # --target, so that build scripts and procedural macros are left alone. The zoo's networks take more than
        # a quarter of an hour; one test asks for more memory than there is.
        STRIATE_ISA="$set" STRIATE_DRAWN=200 PROPTEST_CASES=40 RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" \
            ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 cargo test --release --quiet -p striate --lib --target "$host" --target-dir "$work/asan" \
            -- --skip of_the_zoo
    done
}

miri() {
    echo "miri, portable"
    # Rayon's queues leave memory to their threads; the tests read files of none.
    MIRIFLAGS="-Zmiri-tree-borrows -Zmiri-ignore-leaks -Zmiri-disable-isolation" \
        PROPTEST_CASES=2 RAYON_NUM_THREADS=1 \
        cargo +nightly miri test -p striate --lib --target-dir "$work/miri" -- kernels::isa
}

for step in "${@:-asan miri}"; do
    for one in $step; do
        case "$one" in
        asan | miri) "$one" ;;
        *)
            echo "sanitizers: no step $one; the steps are asan and miri" >&2
            exit 2
            ;;
        esac
    done
done
