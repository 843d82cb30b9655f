#!/usr/bin/env bash
# The original AlexNet on 640 training images a class of CIFAR-10, scaled up; what local response normalisation and dropout
# do, each switched off, three seeds of each: scripts/alexnet.sh CIFAR MNIST
# CIFAR is CIFAR-10 as images, train/CLASS/FILE and test/CLASS/FILE; MNIST holds the four IDX files, unpacked.
set -euo pipefail
[ $# = 2 ] || { sed -n '2,4s/^# //p' "$0"; exit 2; }
cifar="$(realpath "$1")" mnist="$(realpath "$2")"
cd "$(dirname "$0")/.."
. scripts/program.sh
work="$(mktemp -d)"
part() { # TARGET TRAIN TEST, images a class
    for class in "$cifar"/train/*/; do
        class="$(basename "$class")"
        for split in "train:$2" "test:$3"; do
            to="$work/$1/${split%:*}/$class"
            mkdir -p "$to"
            find "$cifar/${split%:*}/$class" -type f | LC_ALL=C sort | head -n "${split#*:}" | xargs cp -t "$to"
        done
    done
}
part large 640 40
part small 2000 1000
# The first 1,000 training images of MNIST, all test images.
mkdir "$work/mnist"
cut_idx() { # FILE COUNT BYTES_AN_IMAGE
    python3 - "$mnist/$1" "$work/mnist/$1" "$2" "$3" <<'EOF'
import struct, sys
source, target, count, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
raw, head = open(source, "rb").read(), 16 if size > 1 else 8
open(target, "wb").write(raw[:4] + struct.pack(">I", count) + raw[8 : head + count * size])
EOF
}
cut_idx train-images-idx3-ubyte 1000 784
cut_idx train-labels-idx1-ubyte 1000 1
cp "$mnist"/t10k-* "$work/mnist"

plain=(--optimizer adam --average 0 --augment none)
train() { # NAME OPTIONS...
    echo "$1"
    "$striate" train --quiet --out "$work/$1" "${plain[@]}" "${@:2}"
}
train alexnet --data "$work/large" --model alexnet --input 3,227,227 --batch 32 --epochs 1 --lr 0.0001 --schedule constant \
    --normalize mean
# A network as in Krizhevsky's cuda-convnet: without normalisation, with the paper's numbers, and with a stronger one.
network() { # ALPHA K
    python3 - "$@" <<'EOF'
import sys
layer = lambda kind, name, **options: print(f'[[layers]]\nkind = "{kind}"\nname = "{name}"', *(f"{k} = {v}" for k, v in options.items()), "", sep="\n")
print('name = "cuda-convnet"\ninput = [3, 32, 32]\n')
for i, (filters, pooling) in enumerate([(32, "max"), (32, "average"), (64, "average")], 1):
    layer("convolution", f"conv{i}", filters=filters, init='"he"', kernel=5, padding=2)
    pool = lambda: layer("pooling", f"pool{i}", pooling=f'"{pooling}"', kernel=3, stride=2, padding=1)
    if i == 1: pool()
    layer("relu", f"relu{i}")
    if i > 1: pool()
    if i < 3 and sys.argv[1:]: layer("local-response-norm", f"norm{i}", alpha=sys.argv[1], beta=0.75, k=sys.argv[2], size=5)
layer("affine", "classes", outputs=10, init='"xavier"')
EOF
}
network > "$work/none.toml"
network 0.0001 2.0 > "$work/paper.toml"
network 0.1 1.0 > "$work/strong.toml"
for lrn in none paper strong; do
    train "lrn-$lrn" --data "$work/small" --model "$work/$lrn.toml" --batch 100 --epochs 6 --lr 0.001 \
        --normalize data --seeds 3
done
for dropout in 0.5 0; do
    train "dropout-$dropout" --data "$work/mnist" --model deep-convnet --set "dropout=$dropout" --batch 50 --epochs 60 --lr 0.001 \
        --schedule constant --seeds 3
done
echo "losses, step by step: $work/*/metrics.jsonl; means and deviations: $work/*/seeds.json"
