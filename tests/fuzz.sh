#!/usr/bin/env bash
# Fuzzes everything that reads what others wrote. Every target of fuzz/ runs for SECONDS (60), as many at once as there
# are cores, in bounded memory; it fails on any finding and prints the bytes that lead to it.
#
#   tests/fuzz.sh [SECONDS]
#
# TARGETS="entry tree" runs some. The corpus in fuzz/corpus grows from run to run; it begins with the seeds that the
# targets write themselves. To go on from a finding: fuzz/target/TRIPLE/release/TARGET fuzz/artifacts/TARGET/FILE
#
# No sanitizer: the program has no unsafe code, and without one the stable compiler will do.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/lib.sh
. tests/lib.sh

seconds=${1:-60}
MEMORY_MIB=512 INPUT_BYTES=4096 INPUT_SECONDS=10 EXECUTIONS=1000

all=$(sed -n '/^\[\[bin\]\]/,/^$/s/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml)
TARGETS=${TARGETS:-$all}
[ -n "$TARGETS" ] || fail "fuzz/Cargo.toml names no target"

tests/components.sh fuzz
needs "$CARGO_FUZZ_BIN" fuzz
triple=$(rustc -vV | sed -n 's/^host: //p')

step "building"
# One code unit of the linker's is slower to build than 16, and this runs for a minute.
succeeds "the targets build" "$LOGS/build.log" env -u CARGO_TARGET_DIR \
  "$CARGO_FUZZ_BIN" build --sanitizer none --codegen-units 16 --target "$triple" --fuzz-dir fuzz

# fuzz TARGET: runs one; its log says how it went.
fuzz() {
  mkdir -p "fuzz/corpus/$1" "fuzz/artifacts/$1"
  ulimit -v $((4 * MEMORY_MIB * 1024))
  exec env ASSETGATE_FUZZ_SEEDS="fuzz/corpus/$1" RUST_BACKTRACE=0 "fuzz/target/$triple/release/$1" \
    -max_total_time="$seconds" -rss_limit_mb="$MEMORY_MIB" -timeout="$INPUT_SECONDS" -max_len="$INPUT_BYTES" \
    -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$1/" "fuzz/corpus/$1"
}

step "running each for $seconds s"
cores=$(nproc)
waiting=()
# judge: waits for the target that was started first.
judge() {
  local target=${waiting[0]} code=0
  waiting=("${waiting[@]:1}")
  wait "${PID[$target]}" || code=$?
  unset "PID[$target]"
  if [ $code != 0 ]; then
    printf '   ---- finding in %s (exit status %s)\n' "$target" "$code" >&2
    grep -aE -A 3 'panicked at|ERROR: libFuzzer|Test unit written to|^Base64: ' "$LOGS/$target.log" | cut -c -2000 >&2 || true
    fail "$target: expected no finding"
  fi
  at_least "$target ran" $EXECUTIONS "$(sed -n 's/^stat::number_of_executed_units: *//p' "$LOGS/$target.log")"
}
for target in $TARGETS; do
  [ ${#waiting[@]} -lt "$cores" ] || judge
  spawn "$target" fuzz "$target"
  waiting+=("$target")
done
while [ ${#waiting[@]} -gt 0 ]; do judge; done
