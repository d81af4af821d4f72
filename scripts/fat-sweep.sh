#!/bin/sh
# The long form of the FAT tests: random operations with many seeds on FAT12, FAT16 and FAT32 of many sizes, read by fsck.fat, mtools and
# The Sleuth Kit after each batch; then, when KERNEL_ROOT is given, by the vfat driver of that kernel (see fat-kernel.py).
# Usage: scripts/fat-sweep.sh [COUNT] [FIRST_SEED] [KERNEL_ROOT]
set -eu
cd "$(dirname "$0")/.."
first=${2:-100}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export VMRESCUE_REQUIRE_ORACLES=1
VMRESCUE_FAT_OUT=$out VMRESCUE_FAT_SEEDS=$first..$((first + ${1:-20})) cargo test --test suite -- --exact fat::sweep --nocapture
if [ -n "${3:-}" ]; then
    ls "$out"/*.img | xargs -n 12 python3 scripts/fat-kernel.py "$3"
fi
