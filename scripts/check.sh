#!/bin/sh
# The gate: format, clippy, documentation, tests. The same for a developer and for .ci/run.
set -eu
cd "$(dirname "$0")/.."
cargo fmt --all --check
cargo clippy --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
cargo test
if command -v cargo-deny >/dev/null 2>&1; then cargo deny check; else echo "cargo-deny is not installed: licences were not checked"; fi
