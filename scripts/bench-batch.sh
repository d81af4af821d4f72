#!/bin/sh
# Measures images per minute of `batch` beside a loop over dissect.target, in one run, and the memory in 20 and in 200 images.
# Usage: scripts/bench-batch.sh SCRATCH_DIR [TARGET_QUERY]   (path of dissect's target-query; left out when absent)
set -eu
scratch=${1:?usage: scripts/bench-batch.sh SCRATCH_DIR [TARGET_QUERY]}
query=${2:-}
cd "$(dirname "$0")/.."
cargo build --release -q
tool=$PWD/target/release/vmrescue
mkdir -p "$scratch/model" "$scratch/disks"
rm -rf "$scratch"/model/* "$scratch"/disks/* "$scratch"/out-*
$tool demo "$scratch/model" >/dev/null
many() {
  rm -rf "$scratch"/disks/* "$scratch"/out-*
  i=0; while [ "$i" -lt "$1" ]; do
    cp --sparse=always "$scratch/model/broken.vhdx" "$scratch/disks/vm$(printf %04d $i).vhdx"; i=$((i + 1))
  done
  cat "$scratch"/disks/* >/dev/null
}
rate() {
  name=$1 count=$2; shift 2
  start=$(date +%s%N); "$@" >/dev/null 2>&1 || true; end=$(date +%s%N)
  echo "$name: $(( count * 60000000 / ((end - start) / 1000) )) images a minute ($(( (end - start) / 1000000 / count )) ms each)"
}
memory() {
  python3 -c 'import resource,subprocess,sys
subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL,stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, "MiB at most in one process")' "$@"
}
many 200
for jobs in 1 2; do
  rate "vmrescue batch inspect, $jobs jobs" 200 $tool batch inspect "$scratch/disks" --out "$scratch/out-i$jobs" --jobs $jobs
  rate "vmrescue batch diagnose, $jobs jobs" 200 $tool batch diagnose "$scratch/disks" --out "$scratch/out-d$jobs" --jobs $jobs
done
if [ -n "$query" ]; then
  peer() { for disk in "$scratch"/disks/vm000?.vhdx; do "$query" "$disk" -f hostname,version,services; done; }
  rate "target-query hostname,version,services, one after the other" 10 peer
fi
rate "vmrescue batch repair, 1 jobs" 200 $tool batch repair "$scratch/disks" --out "$scratch/out-r1" --jobs 1 --yes
many 200
echo "repair of 200: $(memory $tool batch repair "$scratch/disks" --out "$scratch/out-m200" --jobs 2 --yes)"
many 20
echo "repair of 20: $(memory $tool batch repair "$scratch/disks" --out "$scratch/out-m20" --jobs 2 --yes)"
many 200
rate "vmrescue batch repair, 2 jobs" 200 $tool batch repair "$scratch/disks" --out "$scratch/out-r2" --jobs 2 --yes
rm -rf "$scratch"/disks "$scratch"/model "$scratch"/out-*
