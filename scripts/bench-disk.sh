#!/bin/sh
# Measures conversion, info, check and sequential reading beside qemu-img, in one run on one image.
# Both are asked to make the result durable: qemu-img does so with -t writeback only.
# Usage: scripts/bench-disk.sh IMAGE.vhdx SCRATCH_DIR   (needs twice the virtual size in SCRATCH_DIR)
set -eu
image=${1:?usage: scripts/bench-disk.sh IMAGE.vhdx SCRATCH_DIR}
scratch=${2:?usage: scripts/bench-disk.sh IMAGE.vhdx SCRATCH_DIR}
cd "$(dirname "$0")/.."
cargo build --release -q
tool=target/release/vmrescue
best() {
  name=$1; shift
  fastest=""
  for _ in 1 2 3; do
    rm -f "$scratch"/bench.*
    start=$(date +%s%N); "$@" >/dev/null 2>&1; end=$(date +%s%N)
    took=$(( (end - start) / 1000000 ))
    if [ -z "$fastest" ] || [ "$took" -lt "$fastest" ]; then fastest=$took; fi
  done
  echo "$name: $fastest ms (best of 3, warm)"
}
cat "$image" >/dev/null
best "vmrescue disk info" $tool disk info "$image"
best "qemu-img info" qemu-img info "$image"
best "vmrescue disk check" $tool disk check "$image"
best "qemu-img check" qemu-img check "$image"
best "vmrescue convert to raw" $tool disk convert "$image" "$scratch/bench.raw" --format raw
best "qemu-img convert to raw" qemu-img convert -t writeback -O raw "$image" "$scratch/bench.raw"
raw=$scratch/source.raw
rm -f "$raw"; $tool disk convert "$image" "$raw" --format raw >/dev/null
best "vmrescue convert raw to vhdx" $tool disk convert "$raw" "$scratch/bench.vhdx" --format vhdx-dynamic
best "qemu-img convert raw to vhdx" qemu-img convert -t writeback -O vhdx "$raw" "$scratch/bench.vhdx"
rm -f "$raw" "$scratch"/bench.*
