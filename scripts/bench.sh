#!/bin/sh
# Measures `inspect` on a disk that you give, beside qemu-img and ntfs-3g's tools where they are installed.
# Usage: scripts/bench.sh IMAGE.vhdx
set -eu
image=${1:?usage: scripts/bench.sh IMAGE.vhdx}
cd "$(dirname "$0")/.."
cargo build --release -q
tool=target/release/vmrescue
best() {
  name=$1; shift
  fastest=""
  for _ in 1 2 3 4 5; do
    start=$(date +%s%N); "$@" >/dev/null 2>&1 || true; end=$(date +%s%N)
    took=$(( (end - start) / 1000000 ))
    if [ -z "$fastest" ] || [ "$took" -lt "$fastest" ]; then fastest=$took; fi
  done
  echo "$name: $fastest ms (best of 5, warm)"
}
$tool inspect "$image" --io | grep read
best "vmrescue info" $tool info "$image"
best "vmrescue inspect" $tool inspect "$image"
best "vmrescue diagnose" $tool diagnose "$image"
best "vmrescue check" $tool check "$image"
if command -v qemu-img >/dev/null 2>&1; then
  best "qemu-img info" qemu-img info "$image"
  best "qemu-img check" qemu-img check "$image"
fi
