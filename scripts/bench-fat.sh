#!/bin/sh
# FAT: 10,000 files in one directory listed and walked, 2,000 files of 4 KiB written; beside mtools. bench-fat.sh [BINARY]
set -eu
v=$(realpath "${1:-target/release/vmrescue}")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
now() { date +%s.%N; }
took() { echo "$1 $(echo "$(now) - $2" | bc) s"; }
mkdir many few
for n in $(seq 10000); do : > "many/a file with a long name $n.txt"; done
for n in $(seq 2000); do head -c 4096 /dev/urandom > "few/file number $n.bin"; done
truncate -s 512M a.img
mkfs.fat -F 32 a.img > /dev/null
"$v" put a.img many '#1:\many' -r --yes > /dev/null
t=$(now); "$v" ls a.img '#1:\many' > /dev/null; took "ls of 10,000 files:" "$t"
t=$(now); "$v" find a.img '#1:\' > /dev/null; took "find, with times:" "$t"
t=$(now); mdir -i a.img ::many > /dev/null; took "mdir of 10,000 files:" "$t"
cp --sparse=always a.img b.img
t=$(now); "$v" put a.img few '#1:\few' -r --yes > /dev/null; took "put of 2,000 files of 4 KiB, with journal and check:" "$t"
t=$(now); mcopy -s -i b.img few ::; took "mcopy of the same:" "$t"
t=$(now); "$v" check a.img > /dev/null; took "check:" "$t"
fsck.fat -n a.img | tail -1
