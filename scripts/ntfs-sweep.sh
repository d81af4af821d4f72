#!/bin/sh
# The model test of the NTFS writer over many seeds: random operations on small, fragmented, nearly full volumes, and after each batch our
# checker and reader, the crate ntfs, ntfsfix, ntfsinfo and ntfs-3g (mounted read-only: run it as root) against the model; then 10^5 files in a directory.
# Usage: scripts/ntfs-sweep.sh [COUNT] [FIRST_SEED]
set -eu
cd "$(dirname "$0")/.."
first=${2:-100}
VMRESCUE_NTFS_SEEDS=$first..$((first + ${1:-50})) cargo test --test suite -- ntfs_model::sweep --nocapture
VMRESCUE_NTFS_FILES=100000 cargo test --test suite -- ntfs_model::a_directory_with_many_files --nocapture
