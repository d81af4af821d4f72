#!/bin/bash
# POSIX suites over the mount: pjdfstest, with the exceptions of tests/pjdfstest-exceptions.txt, and the file system kinds of stress-ng.
# mount-posix.sh [SECONDS] [ntfs|fat12|fat16|fat32]; needs root, /dev/fuse, mkntfs and ntfsfix or mkfs.fat and fsck.fat, stress-ng,
# and pjdfstest (`cargo install pjdfstest`). Lines of the exceptions that begin with "fat " count on FAT only.
# VMRESCUE names the program; a debug build serves.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
tool=${VMRESCUE:-$root/target/debug/vmrescue} seconds=${1:-5} fs=${2:-ntfs}
dir=$(mktemp -d)
trap 'fusermount3 -uqz "$dir/m" || true; rm -rf "$dir"' EXIT
mkdir "$dir/m"
# Other users have to get there.
chmod 755 "$dir"
cd "$dir"
case $fs in
    ntfs) truncate -s 256M "$dir/v.raw"; mkntfs -FQq "$dir/v.raw" 2> /dev/null ;;
    # The largest that FAT12 can be.
    fat12) truncate -s 120M "$dir/v.raw"; mkfs.fat -F 12 -s 64 "$dir/v.raw" > /dev/null ;;
    fat16) truncate -s 256M "$dir/v.raw"; mkfs.fat -F 16 "$dir/v.raw" > /dev/null ;;
    # A file of 2 GiB has no holes here.
    fat32) truncate -s 4G "$dir/v.raw"; mkfs.fat -F "${fs#fat}" "$dir/v.raw" > /dev/null ;;
    *) echo "unknown file system $fs" >&2; exit 2 ;;
esac
"$tool" mount "$dir/v.raw" "$dir/m" --volume '#1:' --write --interval 1 --allow-other --umask 000 > "$dir/log" 2>&1 &
pid=$!
until grep -q mounted "$dir/log"; do kill -0 $pid; sleep 0.05; done

cat > "$dir/pjdfstest.toml" << 'T'
[features]
posix_fallocate = {}
rename_ctime = {}
utimensat = {}
utime_now = {}
[settings]
naptime = 0.01
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
T
pjdfstest -c "$dir/pjdfstest.toml" -p "$dir/m" > "$dir/pjdfstest" 2> "$dir/pjdfstest.err" || true
grep '^Summary' "$dir/pjdfstest"
grep -v '^#' "$root/tests/pjdfstest-exceptions.txt" | awk -v fs="$fs" '
    $1 == "fat" { if (fs != "ntfs") print "^" $2 "$"; next }
    { print "^" $1 "$" }' > "$dir/exceptions"
failed=0
if awk '$2 == "FAILED" {print $1}' "$dir/pjdfstest" | grep -vEf "$dir/exceptions"; then
    echo "these cases of pjdfstest failed and are no exceptions"
    failed=1
fi

# All but "access", which asks for modes that NTFS does not keep. By a relative path: absolute links into the mount become relative.
kinds="dentry dir dirdeep fallocate filename flock getdent hdd iomix locka lockf open readahead rename sync-file touch"
# FAT has neither links nor attributes, and the time of reading is a date.
[ "$fs" = ntfs ] && kinds="$kinds link symlink utime xattr"
for kind in $kinds; do
    if ! stress-ng --verify --timeout "$seconds" --hdd-bytes 16m --fallocate-bytes 16m --iomix-bytes 16m --readahead-bytes 16m \
        --sync-file-bytes 16m "--$kind" 2 --temp-path m > "$dir/stress" 2>&1; then
        echo "stress-ng --$kind:"
        cat "$dir/stress"
        failed=1
    fi
done
fusermount3 -u "$dir/m"
wait $pid
"$tool" check "$dir/v.raw" > "$dir/check" || { cat "$dir/check"; failed=1; }
case $fs in
    ntfs) ntfsfix -n "$dir/v.raw" > "$dir/other" || { cat "$dir/other"; failed=1; } ;;
    *) fsck.fat -n "$dir/v.raw" > "$dir/other" || { cat "$dir/other"; failed=1; } ;;
esac
[ $failed = 0 ] && echo "nothing else failed; the volume is in order"
exit $failed
