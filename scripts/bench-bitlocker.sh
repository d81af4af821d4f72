#!/bin/sh
# Read throughput of BitLocker volumes: ours, then libbde's on the same files (python3 with pybde). Usage: bench-bitlocker.sh DIR [MIB]
set -eu
dir=$1
cargo bench --bench bitlocker_read -- "$dir" "${2:-256}"
python3 - "$dir" <<'PY'
import sys, time, pathlib, pybde
for path in sorted(pathlib.Path(sys.argv[1]).glob("800?.img")):
    begun = time.time()
    v = pybde.volume()
    v.set_recovery_password("000011-000022-000033-000044-000055-000066-000077-720885")
    v.open(str(path))
    if v.is_locked():
        v.unlock()
    opened, times = time.time() - begun, []
    for _ in range(3):
        begun, at = time.time(), 0
        v.seek(0)
        while at < v.get_size():
            at += len(v.read_buffer(min(1 << 20, v.get_size() - at)))
        times.append(time.time() - begun)
    print(f"libbde {path.name}: {v.get_size() / (1 << 20) / sorted(times)[1]:.0f} MiB/s, opened in {opened:.3f} s")
PY
