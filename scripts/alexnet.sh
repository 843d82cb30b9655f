#!/usr/bin/env bash
# The original AlexNet on 640 training images a class of CIFAR-10, scaled up; what local response normalisation and dropout
# do, each switched off: scripts/alexnet.sh CIFAR MNIST
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
part small 200 40
# The first 1,000 training images of MNIST, the first 2,000 test images.
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
cut_idx t10k-images-idx3-ubyte 2000 784
cut_idx t10k-labels-idx1-ubyte 2000 1

plain=(--optimizer adam --schedule constant --average 0)
train() { # NAME OPTIONS...
    echo "$1"
    "$striate" train --quiet --out "$work/$1" "${plain[@]}" "${@:2}"
}
train alexnet --data "$work/large" --model alexnet --input 3,227,227 --batch 32 --epochs 1 --lr 0.0001 --normalize mean \
    --augment none
for lrn in true false; do
    train "lrn-$lrn" --data "$work/small" --model alexnet --input 3,67,67 --set "lrn=$lrn" --batch 32 --epochs 4 \
        --lr 0.0002 --normalize data
done
for dropout in 0.5 0; do
    train "dropout-$dropout" --data "$work/mnist" --model deep-convnet --set "dropout=$dropout" --batch 50 --epochs 25 --lr 0.001
done
echo "losses, step by step: $work/*/metrics.jsonl"
