#!/bin/sh
# The acceptance of `batch`: 200 disks of 34 kinds, some broken beyond repair, some held, some deleted in mid-run, the whole killed five
# times at random; everything repaired once or reported once, and undone to the old bytes. Needs 3 GB in TMPDIR.
# Usage: scripts/fleet.sh [COUNT]
set -eu
cd "$(dirname "$0")/.."
VMRESCUE_FLEET=${1:-200} cargo test --release --test suite -- batch::a_fleet --nocapture
