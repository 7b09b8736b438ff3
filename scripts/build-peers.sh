#!/usr/bin/env bash
# Build the real peers of the end-to-end tests, `ant-quic` and `e2e-test-node`, from their published source.
#
# They go to ${ANTQUIC_CACHE:-~/.cache/antquic-server}/peers/ant-quic-VERSION/bin, outside the work tree, where the
# tests look for them. Nothing is done when they are there already. A build takes minutes and about 4 GB of
# temporary space, which is given back.
set -euo pipefail

readonly version=0.27.44
readonly programs=(ant-quic e2e-test-node)
readonly cache="${ANTQUIC_CACHE:-$HOME/.cache/antquic-server}"
readonly destination="$cache/peers/ant-quic-$version"

say() { printf 'build-peers: %s\n' "$*"; }
fail() { printf 'build-peers: %s\n' "$*" >&2; exit 1; }

complete() {
    local program
    for program in "${programs[@]}"; do
        [ -x "$1/bin/$program" ] || return 1
    done
}

if complete "$destination"; then
    say "ant-quic $version is in $destination/bin"
    exit 0
fi

command -v cargo >/dev/null || fail "cargo is missing: install Rust (rustup, or your system's package 'cargo')"
missing=()
command -v cmake >/dev/null || missing+=(cmake)
if command -v pkg-config >/dev/null; then
    pkg-config --exists dbus-1 || missing+=(libdbus-1-dev)
else
    missing+=(pkg-config libdbus-1-dev)
fi
[ ${#missing[@]} -eq 0 ] || fail "packages are missing, on Debian: apt-get install ${missing[*]}"

mkdir -p "$cache/peers"
# Beside the destination, so that the last step is a rename: a build that is interrupted leaves no half of it.
work=$(mktemp -d "$cache/peers/.build-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "building ant-quic $version; this takes minutes"
arguments=(install ant-quic --version "$version" --locked --root "$work/root")
for program in "${programs[@]}"; do
    arguments+=(--bin "$program")
done
CARGO_TARGET_DIR="$work/target" cargo "${arguments[@]}"
complete "$work/root" || fail "cargo finished, but did not build ${programs[*]}"

mkdir -p "$destination"
rm -rf "${destination:?}/bin"
mv "$work/root/bin" "$destination/bin"
say "ant-quic $version is in $destination/bin"
