#!/usr/bin/env bash
# Kills training runs 200 times (or KILLS) at random moments, also in the middle of writing, resumes them, and compares their
# final weights with those of runs that were left alone: scripts/kill-trials.sh [KILLS]
set -euo pipefail
cd "$(dirname "$0")/.."
STRIATE_KILLS="${1:-200}" cargo test --release --quiet -p striate-cli --test outside kill:: -- --ignored --nocapture
