#!/usr/bin/env bash
# The original AlexNet on 640 training images a class of CIFAR-10, scaled up; and what local response normalisation and dropout
# do, each switched off, three seeds each: scripts/alexnet.sh CIFAR MNIST
# CIFAR is CIFAR-10 as images, train/CLASS/FILE and test/CLASS/FILE; MNIST holds the four IDX files, unpacked.
set -euo pipefail
[ $# = 2 ] || { sed -n '2,4s/^# //p' "$0"; exit 2; }
cifar="$(realpath "$1")" mnist="$(realpath "$2")"
cd "$(dirname "$0")/.."
cargo build --release --quiet
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
part small 1000 200
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

# The small network for CIFAR of the paper's authors (cuda-convnet's layers-18pct), and the normalisation after its poolings.
network() { # ALPHA, or nothing for none
    echo 'name = "cuda-convnet"'
    echo 'input = [3, 32, 32]'
    local n=0 layer
    for layer in "32 max" "32 average" "64 average"; do
        n=$((n + 1))
        printf '[[layers]]\nname = "conv%d"\nkind = "convolution"\nfilters = %d\ninit = "he"\nkernel = 5\npadding = 2\n' "$n" "${layer% *}"
        printf '[[layers]]\nname = "relu%d"\nkind = "relu"\n' "$n"
        printf '[[layers]]\nname = "pool%d"\nkind = "pooling"\npooling = "%s"\nkernel = 3\nstride = 2\nrounding = "ceil"\n' "$n" "${layer#* }"
        if [ $n -lt 3 ] && [ -n "${1:-}" ]; then
            printf '[[layers]]\nname = "norm%d"\nkind = "local-response-norm"\nsize = 5\nk = 2.0\nalpha = %s\nbeta = 0.75\n' "$n" "$1"
        fi
    done
    printf '[[layers]]\nname = "classes"\nkind = "affine"\noutputs = 10\ninit = "xavier"\n'
}
network > "$work/none.toml"
network 0.0001 > "$work/paper.toml"

plain=(--augment none --average 0 --validation 0 --keep last)
train() { # NAME OPTIONS...
    echo "$1"
    ./target/release/striate train --quiet --out "$work/$1" "${plain[@]}" "${@:2}"
}
train alexnet --data "$work/large" --model alexnet --input 3,227,227 --batch 32 --epochs 2 --optimizer adam --lr 0.0001 \
    --schedule constant --normalize mean
several=(--seeds 3 --optimizer adamw --weight-decay 0.05 --schedule cosine --batch 50)
for norm in none paper; do
    train "lrn-$norm" --data "$work/small" --model "$work/$norm.toml" --epochs 12 --lr 0.002 --normalize mean "${several[@]}"
done
for dropout in 0.5 0; do
    train "dropout-$dropout" --data "$work/mnist" --model deep-convnet --set "dropout=$dropout" --epochs 80 --lr 0.001 \
        --normalize data "${several[@]}"
done
echo "losses, step by step: $work/*/metrics.jsonl; means and deviations: $work/*/seeds.json"
