#!/usr/bin/env bash
# Draws the sheets of docs/gallery.md: scripts/gallery.sh RUN IMAGE [RUN IMAGE]...
# Those sheets of RUN that the page shows go to docs/gallery/NAME, NAME being the last part of RUN.
set -euo pipefail
if (($# == 0 || $# % 2)); then
    sed -n '2,3s/^# //p' "$0"
    exit 2
fi
here="$PWD"
cd "$(dirname "$0")/.."
. scripts/program.sh
while (($#)); do
    run="$1" image="$2"
    shift 2
    name="$(basename "$run")"
    to="docs/gallery/$name"
    drawn="$(mktemp -d)"
    (cd "$here" && "$striate" explain "$run" all "$image" --out "$drawn" --quiet >/dev/null)
    rm -rf "$to"
    mkdir -p "$to"
    for sheet in "$drawn"/*.png; do
        if grep -qF "(gallery/$name/$(basename "$sheet"))" docs/gallery.md; then
            cp "$sheet" "$to"
        fi
    done
    rm -r "$drawn"
done
du -sk docs/gallery/*
