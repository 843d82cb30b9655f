#!/usr/bin/env bash
# Trains on a disk that fills up, on one that is read-only and in a directory that may no longer be written to. Each time the
# run has to end with status 1 and the reason, leave its last checkpoint whole, and go on from it to the weights of a run
# that was left alone. With faketime installed, also trains under a clock that jumps by years. Needs root, for mount and for
# running as nobody: sudo scripts/fault-trials.sh. What needs no root is in crates/striate-cli/tests/outside/faults.rs.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "fault-trials: mounting a disk takes root: sudo $0" >&2; exit 2; }
cd "$(dirname "$0")/.."
. scripts/program.sh
work="$(mktemp -d)"
disk="$work/disk"
mkdir "$disk"
trap 'umount "$disk" 2>/dev/null || true; rm -rf "$work"' EXIT

task=(train --model lenet --set activation=relu --optimizer adam --schedule constant --lr 0.001 --average 0 --quiet)
# Runs a command that has to fail, and shows what it said.
must_fail() { # WORDS COMMAND...
    local words="$1" status=0
    shift
    "$@" || status=$?
    sed 's/^/    /' "$work/err"
    [ "$status" = 1 ] || { echo "status $status instead of 1"; exit 1; }
    grep -q "$words" "$work/err" || { echo "the message does not say: $words"; exit 1; }
}
striate() { "$striate" "$@" >"$work/out" 2>"$work/err"; }
weights() { "$striate" summary "$1" --json --quiet | grep -o '"weights_sha256":"[0-9a-f]*"'; }
check() { # RUN SHA256: the checkpoint is still the same one, no half file lies beside it, and the run can be finished
    [ "$(sha256sum <"$1/last.ckpt")" = "$2" ] || { echo "the checkpoint changed"; exit 1; }
    [ -z "$(find "$1" -name '.striate-*')" ] || { echo "a half file is left"; exit 1; }
    "$striate" train --resume "$1" --epochs 2 --quiet >"$work/out"
    [ "$(weights "$1")" = "$expected" ] || { echo "other weights"; exit 1; }
    echo "    the checkpoint is whole; the run went on to the weights of one that was left alone"
}

"$striate" "${task[@]}" --epochs 2 --out "$work/whole" >"$work/out"
expected="$(weights "$work/whole")"

echo "a disk without room for a run"
mount -t tmpfs -o size=512k tmpfs "$disk"
must_fail "the disk is full" striate "${task[@]}" --epochs 1 --out "$disk/run"
umount "$disk"

echo "a disk that has room for one checkpoint, not for the next beside it"
mount -t tmpfs -o size=1400k tmpfs "$disk"
must_fail "the disk is full" striate "${task[@]}" --epochs 2 --out "$disk/run"
mount -o remount,size=20m "$disk"
check "$disk/run" "$(sha256sum <"$disk/run/last.ckpt")"
umount "$disk"

echo "a disk that others have filled"
mount -t tmpfs -o size=8m tmpfs "$disk"
"$striate" "${task[@]}" --epochs 1 --out "$disk/run" >"$work/out"
before="$(sha256sum <"$disk/run/last.ckpt")"
dd if=/dev/zero of="$disk/ballast" bs=4k status=none 2>"$work/err" || true
must_fail "No space left\|the disk is full" striate train --resume "$disk/run" --epochs 2 --quiet
rm "$disk/ballast"
check "$disk/run" "$before"
umount "$disk"

echo "a read-only disk"
mount -t tmpfs -o size=8m tmpfs "$disk"
"$striate" "${task[@]}" --epochs 1 --out "$disk/run" >"$work/out"
before="$(sha256sum <"$disk/run/last.ckpt")"
mount -o remount,ro "$disk"
must_fail "ead-only file system" striate train --resume "$disk/run" --epochs 2 --quiet
must_fail "ead-only file system" striate "${task[@]}" --epochs 1 --out "$disk/other"
mount -o remount,rw "$disk"
check "$disk/run" "$before"
umount "$disk"

echo "a directory that may no longer be written to, in the middle of a run"
chmod 755 "$work"
mkdir "$work/run"
cp "$striate" "$work/striate"
chown nobody "$work/run"
setpriv --reuid=nobody --clear-groups "$work/striate" "${task[@]}" --epochs 2 --checkpoint-every 100 --out "$work/run" \
    >"$work/out" 2>"$work/err" &
run=$!
until [ -s "$work/run/metrics.jsonl" ]; do sleep 0.05; done
chmod 555 "$work/run"
before="$(sha256sum <"$work/run/last.ckpt")"
must_fail "you may not write in this directory" wait "$run"
chmod 755 "$work/run"
check "$work/run" "$before"

echo "a clock that jumps ten years to and fro"
library="$(find /usr/lib -name libfaketime.so.1 -print -quit 2>/dev/null || true)"
if [ -n "$library" ]; then
    echo '+0' >"$work/clock"
    (while :; do for jump in +3650d -3650d; do echo "$jump" >"$work/clock.new" && mv "$work/clock.new" "$work/clock"; sleep 0.2; done; done) &
    jumper=$!
    # The clock that only goes forward is left alone, as the system leaves it.
    LD_PRELOAD="$library" FAKETIME_TIMESTAMP_FILE="$work/clock" FAKETIME_NO_CACHE=1 DONT_FAKE_MONOTONIC=1 \
        FAKETIME_DONT_FAKE_MONOTONIC=1 "$striate" "${task[@]}" --epochs 2 --tensorboard --out "$work/jumps" >"$work/out"
    kill "$jumper"
    [ "$(weights "$work/jumps")" = "$expected" ] || { echo "other weights"; exit 1; }
    if grep -qE '"(seconds|evaluation_seconds|images_per_second)":(-|[0-9]{7})' "$work/jumps/metrics.jsonl"; then
        echo "a duration follows the clock"
        exit 1
    fi
    echo "    the same weights; no duration follows the clock"
else
    echo "    skipped: faketime is not installed"
fi
echo "all trials passed"
