#!/bin/bash
# POSIX suites over the mount: pjdfstest, with the exceptions of tests/pjdfstest-exceptions.txt, and the file system kinds of stress-ng.
# mount-posix.sh [SECONDS]; needs root, /dev/fuse, mkntfs, ntfsfix, stress-ng, and pjdfstest (`cargo install pjdfstest`).
# VMRESCUE names the program; a debug build serves.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
tool=${VMRESCUE:-$root/target/debug/vmrescue} seconds=${1:-5}
dir=$(mktemp -d)
trap 'fusermount3 -uqz "$dir/m" || true; rm -rf "$dir"' EXIT
mkdir "$dir/m"
# Other users have to get there.
chmod 755 "$dir"
cd "$dir"
truncate -s 256M "$dir/v.raw"
mkntfs -FQq "$dir/v.raw" 2> /dev/null
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
grep -v '^#' "$root/tests/pjdfstest-exceptions.txt" | awk '{print "^" $1 "$"}' > "$dir/exceptions"
failed=0
if awk '$2 == "FAILED" {print $1}' "$dir/pjdfstest" | grep -vEf "$dir/exceptions"; then
    echo "these cases of pjdfstest failed and are no exceptions"
    failed=1
fi

# All but "access", which asks for modes that NTFS does not keep. By a relative path: absolute links into the mount become relative.
for kind in dentry dir dirdeep fallocate filename flock getdent hdd iomix link locka lockf open readahead rename symlink sync-file touch utime xattr; do
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
ntfsfix -n "$dir/v.raw" > "$dir/ntfsfix" || { cat "$dir/ntfsfix"; failed=1; }
[ $failed = 0 ] && echo "nothing else failed; the volume is in order"
exit $failed
