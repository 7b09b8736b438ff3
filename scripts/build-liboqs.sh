#!/usr/bin/env bash
# Provide liboqs 0.13 or newer, the C library behind the fast post-quantum provider.
#
# One that the system knows is taken as it is. Otherwise the C source that the crate oqs-sys carries is built
# as a shared library with just the two algorithms we use, into
# ${ANTQUIC_CACHE:-~/.cache/antquic-server}/liboqs-<version>, to which the link "liboqs" beside it then points.
# A second run does nothing. The last line on standard output is the directory for OQS_INSTALL_PATH.
set -euo pipefail

cache=${ANTQUIC_CACHE:-$HOME/.cache/antquic-server}
oldest=0.13

fail() {
    echo "build-liboqs: $*" >&2
    exit 1
}

# Whether version $1 is $oldest or newer.
new_enough() {
    [ "$(printf '%s\n' "$oldest" "$1" | sort -V | head -n 1)" = "$oldest" ]
}

# The prefix of a liboqs that pkg-config or the dynamic linker knows.
installed_prefix() {
    local library version
    if pkg-config --atleast-version="$oldest" liboqs 2>/dev/null; then
        pkg-config --variable=prefix liboqs
        return
    fi
    library=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | awk '$1 ~ /^liboqs\.so/ {print $NF; exit}')
    [ -n "$library" ] || return 1
    version=$(basename "$(readlink -f "$library")")
    version=${version#liboqs.so.}
    new_enough "$version" || return 1
    echo "${library%%/lib*}"
}

# Run a step quietly; show the end of what it said only if it fails.
step() {
    local name=$1
    shift
    echo "build-liboqs: $name" >&2
    if ! "$@" >"$work/log" 2>&1; then
        tail -n 30 "$work/log" >&2
        fail "$name failed"
    fi
}

if prefix=$(installed_prefix); then
    echo "build-liboqs: the system has one" >&2
    echo "$prefix"
    exit 0
fi
if [ -e "$cache/liboqs/lib/liboqs.so" ]; then
    readlink -f "$cache/liboqs"
    exit 0
fi

for tool in cargo cmake "${CC:-cc}"; do
    command -v "$tool" >/dev/null || fail "$tool is needed to build liboqs, and is not on PATH"
done
mkdir -p "$cache"
# Beside the final place, so that moving it there is one rename.
work=$(mktemp -d "$cache/.liboqs-build.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Nothing of this package is ever compiled: it only makes cargo resolve and unpack the crate.
mkdir -p "$work/fetch/src"
touch "$work/fetch/src/lib.rs"
cat >"$work/fetch/Cargo.toml" <<'TOML'
[package]
name = "fetch-liboqs"
version = "0.0.0"
edition = "2021"

[dependencies]
oqs-sys = "*"
TOML
step "fetch the source" cargo fetch --manifest-path "$work/fetch/Cargo.toml"

crate=$(awk '/^name = "oqs-sys"$/ {getline; gsub(/version = |"/, ""); print}' "$work/fetch/Cargo.lock")
version=${crate#*+liboqs-}
source=
for candidate in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"oqs-sys-$crate/liboqs"; do
    [ -f "$candidate/CMakeLists.txt" ] && source=$candidate
done
[ -n "$source" ] || fail "oqs-sys $crate carries no source of liboqs where cargo unpacked it"
new_enough "$version" || fail "oqs-sys $crate carries liboqs $version, older than $oldest"

prefix=$(readlink -f "$cache")/liboqs-$version
step "configure liboqs $version" cmake -S "$source" -B "$work/build" \
    -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_INSTALL_PREFIX="$prefix" \
    -DCMAKE_INSTALL_LIBDIR=lib \
    -DBUILD_SHARED_LIBS=ON \
    -DOQS_BUILD_ONLY_LIB=ON \
    -DOQS_DIST_BUILD=ON \
    -DOQS_USE_OPENSSL=OFF \
    "-DOQS_MINIMAL_BUILD=KEM_ml_kem_768;SIG_ml_dsa_65"
step "build liboqs $version" cmake --build "$work/build" --parallel "$(nproc)"
step "install liboqs $version" env DESTDIR="$work/root" cmake --install "$work/build"

# A run beside this one may have been faster; what it made is the same.
[ -e "$prefix" ] || mv -T "$work/root$prefix" "$prefix" || [ -e "$prefix/lib/liboqs.so" ]
ln -s "liboqs-$version" "$work/link"
mv -T "$work/link" "$cache/liboqs"
echo "$prefix"
