#!/usr/bin/env bash
# Clients and upstreams that flood, stall, refuse, restart and die: what it costs the others, in figures.
#
#   tests/survival.sh [SECONDS]     how long each load goes on; 10 by default, 1 is the short form
#
# The tests are those of `cargo test`, built as for a release, one process each: resident memory (proxy, stub upstream and
# clients together) is that of the one test.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-10}
export SURVIVAL_SECONDS=$seconds CARGO_TERM_COLOR=never RUST_BACKTRACE=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A test that hangs ends by its own patience; this is for what that does not catch.
limit=$((seconds * 10 + 300))

cargo test --release --quiet --lib --no-run
names=$(cargo test --release --quiet --lib -- --list | sed -n 's/^\(server::tests::\(isolation\|restart\|pressure\|failures\|floods\|floods_slow\)::.*\): test$/\1/p')
for area in isolation restart pressure failures; do
  grep -q "::$area::" <<<"$names" || {
    echo "FAIL survival.sh: there are no tests server::tests::$area" >&2
    exit 1
  }
done

passed=0
while read -r name; do
  timeout --kill-after=10 "$limit" cargo test --release --quiet --lib -- --exact --nocapture "$name" </dev/null >"$log" 2>&1 || {
    echo "FAIL $name" >&2
    tail -n 50 "$log" >&2
    exit 1
  }
  passed=$((passed + 1))
  sed -n 's/^.*\(\(isolation\|survival\): \)/\1/p' "$log"
done <<<"$names"
echo "survival: $passed tests passed, loads of $seconds s"
