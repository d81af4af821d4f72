#!/bin/sh
# NTFS against what people use today, in one run: walking 120,000 files with all metadata, cold and warm, and reading a large file in sequence.
# The image is that of the benchmark disks (gen_image.py big). Needs root (page cache, loop device), ntfs-3g and The Sleuth Kit.
# Usage: scripts/bench-ntfs.sh IMAGE.raw
set -eu
image=${1:?usage: bench-ntfs.sh IMAGE.raw}
cd "$(dirname "$0")/.."
cargo build --release --bench ntfs_walk --bin vmrescue 2>/dev/null
bench=$(ls -t target/release/deps/ntfs_walk-* | grep -v '\.d$' | head -1)
tool=target/release/vmrescue
# The largest volume: its number, byte offset and size.
place=$("$tool" info "$image" --json | python3 -c 'import json,sys
d=json.load(sys.stdin); p=max(d["partitions"],key=lambda p:p["size"]); print(p["number"],p["offset"],p["size"])')
set -- $place
number=$1 offset=$2 size=$3
work=$(mktemp -d)
loop=$(losetup -r -f --show -o "$offset" --sizelimit "$size" "$image")
finish() { umount "$work" 2>/dev/null || true; losetup -d "$loop"; rmdir "$work"; }
trap finish EXIT
cold() { sync; echo 3 > /proc/sys/vm/drop_caches; }
# Wall seconds and peak memory of the process.
timed() { name=$1; shift; /usr/bin/time -f "$name: %e s, %M KiB" "$@" > /dev/null; }

echo "load: $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) processors"
cold; echo "-- cold"; "$bench" "$image" 1 "any order"; cold; "$bench" "$image" 1 "crate ntfs"; cold; "$bench" "$image" 1 linear
echo "-- warm"; "$bench" "$image" 5
for pass in cold warm; do
    [ $pass = warm ] || cold
    timed "vmrescue find, $pass" "$tool" find "$image" "#$number:\\" --json
    [ $pass = warm ] || cold
    timed "fls -r -l, $pass" fls -r -l -o $((offset / 512)) "$image"
    [ $pass = warm ] || cold
    ntfs-3g -o ro,silent "$loop" "$work"
    timed "ntfs-3g, find -printf, $pass" find "$work" -printf '%p %s %T@ %C@ %A@ %n\n'
    umount "$work"
done
echo "-- 100 MB in sequence, warm"
ntfs-3g -o ro,silent "$loop" "$work"
for pass in 1 2; do
    timed "vmrescue cat" "$tool" cat "$image" "#$number:\\Windows\\bench\\big0.bin"
    timed "ntfs-3g, cat" cat "$work/Windows/bench/big0.bin"
done
