#!/bin/sh
# The long form of the mount's tests: many kills under load, and random operations with many seeds.
# mount-sweep.sh [KILLS] [SEEDS] [STEPS]; needs root, /dev/fuse, mkntfs and ntfs-3g.
set -eu
cd "$(dirname "$0")/.."
kills=${1:-100} seeds=${2:-20} steps=${3:-5000}
export VMRESCUE_REQUIRE_ORACLES=1
VMRESCUE_MOUNT_KILLS=$kills cargo test --test suite -- --exact mount::a_killed_mount_keeps_what_was_synced
for seed in $(seq "$seeds"); do
    echo "seed $seed"
    VMRESCUE_MOUNT_SEED=$seed VMRESCUE_MOUNT_STEPS=$steps \
        cargo test -q --test suite -- --exact mount::random_operations_agree_with_a_plain_directory \
        mount_posix::fsx_agrees_with_its_model
done
