#!/usr/bin/env bash
# Trains five seeds of one recipe and prints all five results: scripts/five-seeds.sh [book|default|best] [more train options]
set -euo pipefail
cd "$(dirname "$0")/.."
recipe="${1:-book}"
shift || true
cargo build --release --quiet
for seed in 1 2 3 4 5; do
    out="$(mktemp -d)/run"
    ./target/release/striate train --recipe "$recipe" --seed "$seed" --quiet --json --out "$out" "$@" | tail -n 1
done
