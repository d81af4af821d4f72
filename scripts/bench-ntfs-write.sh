#!/bin/sh
# Writing to NTFS against ntfs-3g, in one run: 5,000 small files, one of 500 MB, a tree deleted. Each tool works on its own copy of the
# same new volume, the two take turns, and a run has ended when all is on the host's disk. vmrescue does each as one operation that
# `undo` takes back (every changed byte is written three times); "the writer alone" is the same without the transaction.
# Needs root (loop device), mkntfs and ntfs-3g. Usage: scripts/bench-ntfs-write.sh [PASSES]
set -eu
passes=${1:-3}
cd "$(dirname "$0")/.."
cargo build --release --bench ntfs_write --bin vmrescue 2>/dev/null
bench=$(ls -t target/release/deps/ntfs_write-* | grep -v '\.d$' | head -1)
tool=target/release/vmrescue
work=$(mktemp -d)
trap 'umount "$work/mount" 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir "$work/mount" "$work/small"
truncate -s 3G "$work/base.raw"
mkntfs -q -F -f "$work/base.raw" > /dev/null 2>&1
python3 - "$work" <<'P'
import os, random, sys
r = random.Random(1)
for i in range(5000):
    folder = f"{sys.argv[1]}/small/{i // 100:02}"
    os.makedirs(folder, exist_ok=True)
    open(f"{folder}/file{i:05}.txt", "wb").write(r.randbytes(r.randrange(200, 8000)))
open(f"{sys.argv[1]}/large.bin", "wb").write(b"".join(r.randbytes(5_000_000) for _ in range(100)))
P
timed() { name=$1; shift; /usr/bin/time -f "$name: %e s, %M KiB" "$@" > /dev/null; }
echo "load: $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) processors"
for pass in $(seq "$passes"); do
    cp --sparse=always "$work/base.raw" "$work/ours.raw"
    cp --sparse=always "$work/base.raw" "$work/alone.raw"
    cp --sparse=always "$work/base.raw" "$work/theirs.raw"
    sync
    timed "5,000 files, vmrescue put -r" "$tool" put -r "$work/ours.raw" "$work/small" '#1:\small' --yes
    ntfs-3g "$work/theirs.raw" "$work/mount"
    timed "5,000 files, ntfs-3g cp -r" sh -c "cp -r '$work/small' '$work/mount/' && umount '$work/mount' && sync '$work/theirs.raw'"
    timed "500 MB, vmrescue put" "$tool" put "$work/ours.raw" "$work/large.bin" '#1:\large.bin' --yes
    ntfs-3g "$work/theirs.raw" "$work/mount"
    timed "500 MB, ntfs-3g cp" sh -c "cp '$work/large.bin' '$work/mount/' && umount '$work/mount' && sync '$work/theirs.raw'"
    timed "tree deleted, vmrescue rm -r" "$tool" rm -r "$work/ours.raw" '#1:\small' --yes
    ntfs-3g "$work/theirs.raw" "$work/mount"
    timed "tree deleted, ntfs-3g rm -r" sh -c "rm -r '$work/mount/small' && umount '$work/mount' && sync '$work/theirs.raw'"
    "$bench" "$work/alone.raw" "$work/small" "$work/large.bin"
    rm -rf "$work"/ours.raw.vmrescue
done
