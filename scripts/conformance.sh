#!/usr/bin/env bash
# Random layers and networks against PyTorch in float64, on every instruction set of this machine: scripts/conformance.sh [SEED] [COUNT]
# Outputs, losses, all gradients and the input's, running statistics; each eighth case some steps of an optimizer too.
# Needs `pip install torch`.
set -euo pipefail
seed="${1:-1}" count="${2:-600}"
cd "$(dirname "$0")/.."
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 crates/striate/tests/reference/graphs.py random "$seed" "$count" > "$work/cases.jsonl"
sets="portable"
grep -q '^flags.*avx2' /proc/cpuinfo 2> /dev/null && sets+=" avx2"
grep -q '^flags.*avx512vl' /proc/cpuinfo 2> /dev/null && sets+=" avx512"
[ "$(uname -m)" = aarch64 ] && sets+=" neon"
for set in $sets; do
    STRIATE_ISA="$set" STRIATE_CASES="$work/cases.jsonl" cargo test --release --quiet -p striate --test graphs_against_pytorch \
        -- --ignored --exact drawn_by_a_seed --nocapture
done
