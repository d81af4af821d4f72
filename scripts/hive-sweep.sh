#!/bin/sh
# The long form of the tests of writing hives: random edits of every good hive of the corpus, held to a model and judged by our check, by
# tests/suite/hive_rules.py, by hivex and, where VMRESCUE_CHKREG names Microsoft's chkreg.exe, by that (wine64); repairs of damaged copies,
# judged the same; hives with one wrong field, called wrong by us where chkreg does; the bodies of the fuzz targets.
# Usage: scripts/hive-sweep.sh [EDITS of each hive] [RUNS of each fuzz body]
# VMRESCUE_HIVE_NAMES=part takes only hives whose path has that part.
set -eu
cd "$(dirname "$0")/.."
export VMRESCUE_HIVE_EDITS=${1:-1500} VMRESCUE_FUZZ_RUNS=${2:-20000}
cargo test --test suite -- registry_edits registry_rules registry_fuzz --nocapture
