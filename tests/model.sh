#!/usr/bin/env bash
# Random interleavings of pushes and fetches of two replicas, expiries, evictions, restarts and failed writes, judged by an oracle.
#
#   tests/model.sh [CASES]     of each of the two properties; 10,000 by default
#
# The tests are those of `cargo test`, which runs fewer cases. A failure prints its smallest case, step by step; with the same
# PROPTEST_RNG_SEED the same cases are drawn again.
set -euo pipefail
cd "$(dirname "$0")/.."
export ASSETGATE_MODEL_CASES=${1:-10000} CARGO_TERM_COLOR=never RUST_BACKTRACE=0
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-$(date +%s%N)}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

cargo test --quiet --lib -- --nocapture resolver::model:: >"$log" 2>&1 </dev/null || {
  echo "FAIL model.sh, with PROPTEST_RNG_SEED=$PROPTEST_RNG_SEED" >&2
  cat "$log" >&2
  exit 1
}
ran=$(grep -c "^model: $ASSETGATE_MODEL_CASES cases" "$log" || true)
[ "$ran" = 2 ] || {
  echo "FAIL model.sh: $ran of 2 properties ran" >&2
  exit 1
}
grep '^model: ' "$log"
