#!/usr/bin/env bash
# What convolution and pooling know of images before any training: networks with and without, on digits and on digits whose
# pixels are in another order (7.2.1); and what they make of digits moved by some pixels (7.3.1):
# scripts/shapes.sh [EPOCHS] [DIRECTORY]
# Runs that DIRECTORY holds already are not trained again.
set -euo pipefail
epochs="${1:-3}" work="${2:-$(mktemp -d)}"
mkdir -p "$work" && work="$(realpath "$work")"
cd "$(dirname "$0")/.."
. scripts/program.sh
[ -d "$work/shuffled" ] || cargo run --release --quiet -p striate-cli --example shuffled_pixels -- "$work/shuffled"

"$striate" summary simple-convnet --toml > "$work/simple-convnet.toml"
# The same network without its pooling.
awk -v RS= -v ORS='\n\n' '!/kind = "pooling"/' "$work/simple-convnet.toml" |
    sed 's/^name = "simple-convnet"/name = "no-pooling"/' > "$work/no-pooling.toml"

accuracy() { # MODEL DATA NAME
    [ -e "$work/$3/model.safetensors" ] ||
        "$striate" train --quiet --model "$1" --data "$2" --epochs "$epochs" --out "$work/$3" > /dev/null
    "$striate" evaluate "$work/$3" --data "$2" --json | tail -n 1 | grep -o '"accuracy":[0-9.]*' | head -n 1 | cut -d: -f2
}
row() { # NAME MODEL
    printf '%-16s %8.2f %% %8.2f %%\n' "$1" \
        "$(accuracy "$2" mnist "$1" | awk '{print 100 * $1}')" \
        "$(accuracy "$2" "$work/shuffled" "$1-shuffled" | awk '{print 100 * $1}')"
}
printf '%-16s %10s %10s\n' "$epochs epochs" digits shuffled
row mlp mlp
row no-pooling "$work/no-pooling.toml"
row simple-convnet simple-convnet

echo
"$striate" explain "$work/simple-convnet" shift --against "$work/no-pooling" "$work/mlp" --out "$work/shift.svg"
