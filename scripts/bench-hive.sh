#!/bin/sh
# What a large hive takes: one value set in 400 MB and in 37 MB, and the repair of 36 MB with 64 KiB of rubbish. Needs python3 and GNU time.
# Usage: scripts/bench-hive.sh [PROGRAM]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
program=${1:-$here/../target/release/vmrescue}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
for size in 400 37; do
    python3 "$here/hive-large.py" "$dir/$size.hive" $size
    echo "reg set in $size MB:"
    /usr/bin/time -f "  %e s, processor %U s, %M KiB" "$program" reg set "$dir/$size.hive" group0030 new REG_SZ hello --yes | tail -1
done
python3 "$here/hive-large.py" "$dir/36.hive" 36
dd if=/dev/urandom of="$dir/36.hive" bs=1024 seek=18000 count=64 conv=notrunc status=none
echo "check --repair of 36 MB with 64 KiB of rubbish:"
/usr/bin/time -f "  %e s, processor %U s, %M KiB" "$program" check "$dir/36.hive" --repair --yes | tail -1
