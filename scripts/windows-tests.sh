#!/bin/sh
# Builds crates for Windows and runs their unit tests under wine. Usage: scripts/windows-tests.sh [CRATE ...]
# Needed: rustup target add x86_64-pc-windows-gnu; Debian's gcc-mingw-w64-x86-64 and wine64.
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- vmrescue-block vmrescue-transaction vmrescue-image vmrescue-registry
shim=target/wine
mkdir -p "$shim"
x86_64-w64-mingw32-gcc -shared -O2 -o "$shim/bcryptprimitives.dll" tests/wine/prng.c -ladvapi32
wine=$(command -v wine64 || echo /usr/lib/wine/wine64)
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER="$wine"
export WINEPREFIX="${WINEPREFIX:-$PWD/target/wine/prefix}" WINEDEBUG=-all WINEDLLOVERRIDES=bcryptprimitives=n
WINEPATH="Z:$(printf '%s' "$PWD/$shim" | tr / '\\')"
export WINEPATH
for crate in "$@"; do
    cargo test --target x86_64-pc-windows-gnu -p "$crate" --lib
done
