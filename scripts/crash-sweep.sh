#!/bin/sh
# Power cuts under commands on real files (scripts/crash-files.py): raw, VHD fixed and dynamic, VHDX, a chain, a bare hive, a boot
# store; changes, undo, redo, merges, and new files. Usage: scripts/crash-sweep.sh BINARY [CUTS]   (1,000 cuts by default, 0 for all)
set -eu
program=$(realpath "$1") cuts=${2:-1000} here=$(dirname "$(realpath "$0")")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"$program" demo demo > /dev/null
source=$(find demo -maxdepth 1 -name '*.vhdx' | head -n 1)
rm -rf demo/*.vmrescue
key='HKLM\SYSTEM\Select'
for kind in raw vhd-fixed vhd-dynamic vhdx-fixed vhdx-dynamic; do
    "$program" disk convert "$source" "d.$kind" --format "$kind" > /dev/null
done
"$program" get "$source" 'C:\Windows\System32\config\SOFTWARE' SOFTWARE > /dev/null
mkdir chain && cp --sparse=always d.vhdx-dynamic chain/base.vhdx
(cd chain && "$program" disk snapshot base.vhdx child.vhdx > /dev/null)
cp --sparse=always -r chain used && (cd used && "$program" reg set child.vhdx "$key" InChild REG_SZ x --yes > /dev/null && rm -rf child.vhdx.vmrescue)
share=$((cuts / 14))
total=0
run() {
    what=$1
    shift
    said=$(python3 "$here/crash-files.py" --cuts "$share" "$@") || { echo "FAILED: $what"; exit 1; }
    echo "$what: $said"
    total=$((total + ${said%% *}))
}
for kind in raw vhd-fixed vhd-dynamic vhdx-fixed vhdx-dynamic; do
    run "set a value, $kind" "$program" "d.$kind" reg set "d.$kind" "$key" Cut REG_SZ x --yes
done
run 'a bare hive' "$program" SOFTWARE reg set SOFTWARE Cut Value REG_SZ x --yes
run 'undo' --first "reg set d.vhdx-dynamic '$key' Cut REG_SZ x --yes" --back redo "$program" d.vhdx-dynamic undo d.vhdx-dynamic --yes
run 'redo' --first "reg set d.raw '$key' Cut REG_SZ x --yes" --first 'undo d.raw --yes' "$program" d.raw redo d.raw --yes
run 'a longer disk' "$program" d.vhd-dynamic disk resize d.vhd-dynamic 512M --yes
run 'an operation after another' --first "reg set d.raw '$key' One REG_SZ x --yes" "$program" d.raw reg set d.raw "$key" Two REG_SZ x --yes
run 'a child' --with chain/base.vhdx "$program" chain/child.vhdx reg set child.vhdx "$key" Cut REG_SZ x --yes
run 'a child is merged' --with used/child.vhdx "$program" used/base.vhdx disk merge child.vhdx --yes
run 'a new child' --makes new.vhdx "$program" d.vhdx-dynamic reg set d.vhdx-dynamic "$key" Cut REG_SZ x --yes --to child:new.vhdx
run 'a new image' --makes new.vhd "$program" d.vhd-dynamic reg set d.vhd-dynamic "$key" Cut REG_SZ x --yes --to new:new.vhd
echo "$total power cuts survived"
