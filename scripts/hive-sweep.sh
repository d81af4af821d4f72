#!/bin/sh
# The long form of the tests of writing hives: random edits of every good hive of the corpus, judged by our check, by tests/suite/hive_rules.py and,
# where VMRESCUE_CHKREG names Microsoft's chkreg.exe, by that (wine64); and hives with one wrong field, called wrong by us where chkreg does.
# Usage: scripts/hive-sweep.sh [EDITS of each hive]
set -eu
cd "$(dirname "$0")/.."
VMRESCUE_HIVE_EDITS=${1:-1500} cargo test --test suite -- registry_rules --nocapture
