#!/usr/bin/env bash
# Draws the sheets of docs/gallery.md: scripts/gallery.sh RUN IMAGE [RUN IMAGE]...
# The sheets of RUN go to docs/gallery/NAME, NAME being the last part of RUN; one over 150 KB is left out.
set -euo pipefail
if (($# == 0 || $# % 2)); then
    sed -n '2,3s/^# //p' "$0"
    exit 2
fi
here="$PWD"
cd "$(dirname "$0")/.."
cargo build --release --quiet
striate="$PWD/target/release/striate"
while (($#)); do
    run="$1" image="$2"
    shift 2
    to="$PWD/docs/gallery/$(basename "$run")"
    drawn="$(mktemp -d)"
    (cd "$here" && "$striate" explain "$run" all "$image" --out "$drawn" --quiet >/dev/null)
    rm -rf "$to"
    mkdir -p "$to"
    for sheet in "$drawn"/*.png; do
        if (($(stat -c %s "$sheet") < 150000)); then
            cp "$sheet" "$to"
        else
            echo "left out, $(du -k "$sheet" | cut -f 1) KB: $(basename "$sheet")"
        fi
    done
    rm -r "$drawn"
done
du -sk docs/gallery/*
