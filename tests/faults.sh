#!/usr/bin/env bash
# Fetches from an origin that cuts, truncates, stalls, resets, dawdles, never ends, answers wrong bytes, 429 or 503 on 30 % of its requests:
# every OK has the right bytes, every failure names URL and reason, nothing leaks.
#
#   tests/faults.sh [SECONDS [CACHE...]]     all caches together; 60 by default, 600 to be thorough. CACHE: embedded bb_storage
#
#   SEED=N           the same files again
#   MOST_FAILED=6    percent of all fetches that may fail: a body without end, or wrong bytes, from an only mirror
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
seconds=${1:-60}
shift $(($# < 1 ? $# : 1))
[ $# -gt 0 ] || set -- embedded bb_storage
needs "$PYTHON_GRPC" grpc

for cache in "$@"; do
  step "$cache: $((seconds / $#)) s of faults"
  start_origin "$WORK/files"
  CAS_MIB=1024 start_cache "$cache"
  mkdir "$WORK/spool"
  export ASSETGATE__FETCH__STALL_TIMEOUT=2s ASSETGATE__FETCH__SPOOL_DIR=$WORK/spool
  start_assetgate gate "${CACHE_ARGS[@]}" --max-size 1GiB --fetch-max-size 8MiB --origin-allow-cidr 127.0.0.0/8
  timeout $((seconds + 300)) "$PYTHON_GRPC" "$TESTS/faults.py" "$STUBS" "$GRPC" "$ADMIN" "${PID[gate]}" "$HTTP" "$WORK/spool" \
    $((seconds / $#)) 48 || fail "$cache: faults.py ended with $?"
  ok "$cache: right bytes, explained failures, no leak"
  lacks "$cache: no panic" "$LOGS/gate.log" 'panicked'
  halt gate
  halt cache
  halt origin
  rm -rf "$WORK/data" "$WORK/spool" "$WORK/origin.ports" "${CACHE_DIR:?}"
done
