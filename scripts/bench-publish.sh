#!/bin/sh
# What one registry value costs, set safely through the program, on a raw disk and on a VHDX, and how many waits for the disk
# (fsync, fdatasync) are in it. Usage: scripts/bench-publish.sh BINARY FOLDER
set -eu
program=$1 dir=$2
for kind in raw vhdx-dynamic; do
    rm -rf "$dir/made" && mkdir -p "$dir/made"
    "$program" demo "$dir/made" > /dev/null
    source=$(find "$dir/made" -maxdepth 1 -name '*.vhdx' | head -n 1)
    image=$dir/bench.$kind
    rm -rf "$image" "$image".vmrescue
    "$program" disk convert "$source" "$image" --format "$kind" > /dev/null
    i=0
    begin=$(date +%s%N)
    while [ $i -lt 20 ]; do
        i=$((i + 1))
        "$program" reg set "$image" 'HKLM\SYSTEM\ControlSet001\Control' Bench REG_DWORD $i --yes > /dev/null
    done
    end=$(date +%s%N)
    echo "$kind: $(((end - begin) / 20000000)) ms for one value"
    if command -v strace > /dev/null; then
        strace -f -c -e trace=fsync,fdatasync -o "$dir/waits" \
            "$program" reg set "$image" 'HKLM\SYSTEM\ControlSet001\Control' Bench REG_DWORD 99 --yes > /dev/null
        awk '/sync/ { print "  " $NF ": " $4 " calls" }' "$dir/waits"
    fi
done
