#!/bin/sh
# Measures `inspect` beside dissect.target's target-query on the same image, in one run: wall time of the best of five, and memory.
# Usage: scripts/bench-inspect.sh IMAGE [TARGET_QUERY]   (path of dissect's target-query; left out when absent)
set -eu
image=${1:?usage: scripts/bench-inspect.sh IMAGE [TARGET_QUERY]}
query=${2:-}
cd "$(dirname "$0")/.."
cargo build --release -q
tool=$PWD/target/release/vmrescue
page=$(mktemp -u).html
# Names what inspect tells too; dissect has no function for the rest (page files, dumps, firewall, recovery, boot store).
functions=hostname,version,architecture,ips,install_date,activity,domain,timezone,users,services
python3 - "$tool" "$image" "$page" "$query" "$functions" <<'P'
import os, resource, subprocess, sys, time
tool, image, page, query, functions = sys.argv[1:]
def measure(name, words, runs):
    best, processor, memory = 1e9, 1e9, 0
    for _ in range(runs):
        start = time.time()
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, _, usage = os.wait4(child.pid, 0)
        best = min(best, time.time() - start)
        processor = min(processor, usage.ru_utime + usage.ru_stime)
        memory = max(memory, usage.ru_maxrss)
    print(f"{name}: {best * 1000:.0f} ms ({processor * 1000:.0f} ms of processor), {memory // 1024} MiB")
    return best, processor
ours = measure("vmrescue inspect --json", [tool, "inspect", image, "--json"], 5)
measure("vmrescue inspect --html", [tool, "inspect", image, "--html", page], 5)
if query:
    theirs = measure(f"target-query -f {functions}", [query, image, "-q", "-f", functions], 3)
    print(f"vmrescue is {theirs[0] / ours[0]:.0f} times as fast by the clock, {theirs[1] / ours[1]:.0f} times by processor time")
P
rm -f "$page"
