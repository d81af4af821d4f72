#!/bin/bash
# The mount against ntfs-3g over the same image, in one run: bench-mount.sh IMAGE.raw [PARTITION] [RUNS]
# IMAGE is a raw disk; PARTITION the number of an NTFS partition of it (its largest when absent). Needs root and a release build.
# The two take turns; the median of the runs counts, and the load of the machine stands beside it. With SVG=FILE also draws a graph.
# Works on a copy (reflinked where it can be) in ${BENCH_DIR:-/tmp/vmrescue-bench}, prints one line a measurement: what, ours, theirs, ratio.
set -euo pipefail
image=$1 number=${2:-} runs=${3:-5}
root=$(cd "$(dirname "$0")/.." && pwd)
tool=${VMRESCUE:-$root/target/release/vmrescue}
dir=${BENCH_DIR:-/tmp/vmrescue-bench}
mkdir -p "$dir/ours" "$dir/theirs"
part=$("$tool" info "$image" --json | python3 -c '
import json, sys
parts = json.load(sys.stdin)["partitions"]
want = sys.argv[1]
chosen = [p for p in parts if str(p["number"]) == want] or [max(parts, key=lambda p: p["size"])]
print(chosen[0]["number"], chosen[0]["offset"], chosen[0]["size"])' "$number")
read -r number offset size <<< "$part"
now() { python3 -c 'import time; print(time.monotonic())'; }
timed() { local begin end; begin=$(now); "$@" > /dev/null; end=$(now); python3 -c "print(f'{$end - $begin:.4f}')"; }
cold() { sync; echo 3 > /proc/sys/vm/drop_caches; }
pid= loop=

up() { # KIND ro|rw FILE
    if [ "$1" = ours ]; then
        local more=; [ "$2" = rw ] && more="--write --interval 0"
        "$tool" mount "$3" "$dir/ours" --volume "#$number:" $more > "$dir/log" 2>&1 &
        pid=$!
        until grep -q mounted "$dir/log"; do kill -0 $pid || { cat "$dir/log" >&2; exit 1; }; sleep 0.02; done
    else
        local ro=; [ "$2" = ro ] && ro=-r
        loop=$(losetup $ro -f --show -o "$offset" --sizelimit "$size" "$3")
        ntfs-3g -o "$2,big_writes,no_detach" "$loop" "$dir/theirs" 2> "$dir/log" &
        pid=$!
        until mountpoint -q "$dir/theirs"; do kill -0 $pid || { cat "$dir/log" >&2; exit 1; }; sleep 0.02; done
    fi
}
down() { # KIND: unmount and wait until everything is on the host's disk
    if [ "$1" = ours ]; then fusermount3 -u "$dir/ours"; wait $pid; else
        umount "$dir/theirs"; wait $pid
        losetup -d "$loop"
    fi
    sync -f "$dir"
}
values=$dir/values
: > "$values"
note() { # WHAT KIND VALUE
    echo "$1|$2|$3|$(cut -d' ' -f1 /proc/loadavg)" >> "$values"
}
memory() { awk '/VmHWM/ {print $2}' "/proc/$pid/status"; }
small_create() { python3 - "$1" <<'P'
import os, sys
os.mkdir(sys.argv[1])
for n in range(5000):
    with open(f"{sys.argv[1]}/f{n}", "wb") as f: f.write(b"x" * 1000)
P
}
small_read() { python3 - "$1" <<'P'
import sys
for n in range(5000):
    with open(f"{sys.argv[1]}/f{n}", "rb") as f: assert len(f.read()) == 1000
P
}
small_delete() { python3 - "$1" <<'P'
import os, sys
for n in range(5000): os.unlink(f"{sys.argv[1]}/f{n}")
os.rmdir(sys.argv[1])
P
}
closed() { # KIND: what was written counts when it is on the disk
    down "$1"
}

work=$dir/work.raw
cp --sparse=always --reflink=auto "$image" "$work"
# A file to read, written by ntfs-3g.
up theirs rw "$work"; head -c 500M /dev/urandom > "$dir/theirs/bench-500.bin"; down theirs
for run in $(seq "$runs"); do
    # Who begins changes from run to run.
    kinds="ours theirs"; [ $((run % 2)) = 1 ] || kinds="theirs ours"
    for kind in $kinds; do
        cold; up $kind ro "$work"
        note "find, cold" $kind "$(timed find "$dir/$kind" -size +100M)"
        note "find, warm" $kind "$(timed find "$dir/$kind" -size +100M)"
        down $kind
        cold; up $kind ro "$work"
        note "read 500 MB, cold" $kind "$(timed dd if="$dir/$kind/bench-500.bin" of=/dev/null bs=1M)"
        note "memory" $kind "$(memory)"
        down $kind
        # The image is in the page cache now, the mount's own pages are not.
        up $kind ro "$work"
        note "read 500 MB, image cached" $kind "$(timed dd if="$dir/$kind/bench-500.bin" of=/dev/null bs=1M)"
        down $kind
        up $kind rw "$work"
        begin=$(now); head -c 500M /dev/zero | tr '\0' 'a' > "$dir/$kind/new.bin"; middle=$(now)
        down $kind; end=$(now)
        note "write 500 MB, until close" $kind "$(python3 -c "print($middle - $begin)")"
        note "write 500 MB, until durable" $kind "$(python3 -c "print($end - $begin)")"
        up $kind rw "$work"; rm "$dir/$kind/new.bin"; down $kind
        up $kind rw "$work"
        begin=$(now)
        note "create 5,000 files" $kind "$(timed small_create "$dir/$kind/small")"
        down $kind; end=$(now)
        note "create 5,000 files, until durable" $kind "$(python3 -c "print($end - $begin)")"
        up $kind ro "$work"
        note "read 5,000 files" $kind "$(timed small_read "$dir/$kind/small")"
        down $kind
        up $kind rw "$work"
        note "delete 5,000 files" $kind "$(timed small_delete "$dir/$kind/small")"
        note "memory writing" $kind "$(memory)"
        down $kind
    done
    rm -rf "$work.vmrescue"
done
rm -rf "$dir/work.raw" "$dir/work.raw.vmrescue"
# The table, and with SVG=FILE a graph of it: seconds, the shorter bar is the better one.
python3 - "$values" "${SVG:-}" <<'P'
import sys, statistics, collections
found, loads = collections.defaultdict(list), []
for line in open(sys.argv[1]):
    what, kind, value, load = line.rstrip("\n").split("|")
    found[what, kind].append(float(value))
    loads.append(float(load))
rows = [(what, *(statistics.median(found[what, kind]) for kind in ("ours", "theirs"))) for what in dict.fromkeys(what for what, _ in found)]
print(f"{'what':<36} {'ours':>10} {'ntfs-3g':>10} {'ratio':>8}   ours, ntfs-3g from to")
for what, ours, theirs in rows:
    spread = "  ".join(f"{min(found[what, kind]):.2f} {max(found[what, kind]):.2f}" for kind in ("ours", "theirs"))
    print(f"{what:<36} {ours:>10.3f} {theirs:>10.3f} {theirs / ours:>7.2f}x   {spread}")
print(f"load average from {min(loads)} to {max(loads)}, median {statistics.median(loads)}")
if sys.argv[2]:
    rows = [row for row in rows if not row[0].startswith("memory")]
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="820" height="{60 + 46 * len(rows)}" role="img" aria-label="vmrescue mount beside ntfs-3g, seconds, medians">',
           '<rect width="100%" height="100%" fill="#ffffff"/><g font-family="sans-serif" font-size="13">',
           '<rect x="240" y="14" width="12" height="12" fill="#2a78d6"/><text x="258" y="25">vmrescue mount</text>',
           '<rect x="390" y="14" width="12" height="12" fill="#9aa0a6"/><text x="408" y="25">ntfs-3g; seconds, shorter is better, each pair to its longer bar</text>']
    for n, (what, ours, theirs) in enumerate(rows):
        y, most = 44 + 46 * n, max(float(ours), float(theirs))
        out.append(f'<text x="10" y="{y + 19}">{what}</text>')
        for k, (value, colour) in enumerate([(float(ours), "#2a78d6"), (float(theirs), "#9aa0a6")]):
            width = 480 * value / most
            out.append(f'<rect x="240" y="{y + 17 * k}" width="{width:.1f}" height="14" fill="{colour}"/>')
            out.append(f'<text x="{246 + width:.1f}" y="{y + 12 + 17 * k}">{value:.2f}</text>')
    open(sys.argv[2], "w").write("\n".join(out + ["</g></svg>"]) + "\n")
P
