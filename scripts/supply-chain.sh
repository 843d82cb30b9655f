#!/usr/bin/env bash
# What the project is built of and how it is handed on: scripts/supply-chain.sh [STEP...], all steps by default.
#   deny      licences, known vulnerabilities, sources, duplicates (cargo-deny, deny.toml)
#   audit     known vulnerabilities once more, from the lock file alone (cargo-audit)
#   msrv      the workspace builds with the oldest compiler it promises (rust-version; needs it under rustup)
#   minimal   it builds with the oldest versions of its own dependencies that Cargo.toml admits
#   package   every crate is packaged and builds from its package; sizes
#   doc       documentation without a warning
#   semver    the library's public API against an earlier commit (cargo-semver-checks): SEMVER_BASE, else the last tag
# A step whose tool is missing is said to be skipped and makes the status 3. ADVISORY_DB is a clone of RustSec's advisory-db
# for machines that can't fetch it.
set -euo pipefail
cd "$(dirname "$0")/.."
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
skipped=()
has() { # COMMAND STEP
    command -v "$1" >/dev/null && return
    echo "  skipped: $1 is not installed"
    skipped+=("$2")
    return 1
}

deny() {
    has cargo-deny deny || return 0
    if [ -n "${ADVISORY_DB:-}" ]; then
        # cargo-deny looks for its own clone under a name of its own: the advisories are left to cargo-audit.
        cargo deny --offline check --hide-inclusion-graph licenses bans sources
    else
        cargo deny check --hide-inclusion-graph
    fi
}

audit() {
    has cargo-audit audit || return 0
    if [ -n "${ADVISORY_DB:-}" ]; then
        echo "  advisories of $(git -C "$ADVISORY_DB" log -1 --format=%cs)"
        cargo audit --db "$ADVISORY_DB" --no-fetch --stale --deny warnings
    else
        cargo audit --deny warnings
    fi
}

msrv() {
    local version
    version="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)"
    has rustup msrv || return 0
    if ! rustup run "$version" rustc --version; then
        echo "  skipped: rustup toolchain install $version --profile minimal"
        skipped+=(msrv)
        return 0
    fi
    RUSTUP_TOOLCHAIN="$version" cargo check --workspace --locked --target-dir "$work/msrv"
}

minimal() {
    cp -r Cargo.toml crates "$work/"
    # Only our own dependencies: what theirs ask for at least is their affair.
    RUSTC_BOOTSTRAP=1 cargo update --quiet -Zdirect-minimal-versions --manifest-path "$work/Cargo.toml"
    cargo check --workspace --manifest-path "$work/Cargo.toml" --target-dir "$work/minimal"
}

package() {
    local crate bytes
    # All at once: each is built against the packages of the others, which no registry has yet.
    cargo package --workspace --quiet --allow-dirty --target-dir "$work/package"
    for crate in "$work"/package/package/*.crate; do
        bytes="$(stat -c %s "$crate")"
        echo "  $(basename "$crate"): $bytes bytes"
        [ "$(tar tzf "$crate" | grep -cE '/(LICENSE-MIT|LICENSE-APACHE|README.md)$')" = 3 ] || { echo "without its licences or README"; return 1; }
        [ "$bytes" -lt 10485760 ] || { echo "over the registry's limit of 10 MiB"; return 1; }
    done
}

doc() { RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --quiet --target-dir "$work/doc"; }

semver() {
    local base
    has cargo-semver-checks semver || return 0
    base="${SEMVER_BASE:-$(git describe --tags --abbrev=0 2>/dev/null || true)}"
    if [ -z "$base" ]; then
        echo "  skipped: no release yet to compare with; SEMVER_BASE=COMMIT names one"
        skipped+=(semver)
        return 0
    fi
    cargo semver-checks --package striate --package striate-mnist --baseline-rev "$base"
}

for step in "${@:-deny audit msrv minimal package doc semver}"; do
    for one in $step; do
        case "$one" in
        deny | audit | msrv | minimal | package | doc | semver) ;;
        *)
            echo "supply-chain: no step $one; the steps are deny audit msrv minimal package doc semver" >&2
            exit 2
            ;;
        esac
        echo "$one"
        "$one"
    done
done
if [ ${#skipped[@]} -gt 0 ]; then
    echo "done, but for ${skipped[*]}, skipped"
    exit 3
fi
echo "done"
