#!/usr/bin/env bash
# Memory: idle, and while large blobs go through, on the embedded cache and in front of casd.
#
#   tests/memory.sh [MIB]     size of each blob; 512 by default, 4096 to be thorough (needs three times that on disk)
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
mib=${1:-512}
needs "$PYTHON_GRPC" grpc

# resident NAME: kibibytes of process NAME.
resident() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/${PID[$1]}/status"; }

move() {
  timeout 1800 "$PYTHON_GRPC" "$TESTS/memory.py" "$STUBS" "$GRPC" "${PID[gate]}" "$HTTP" $((mib << 20)) 64 ||
    fail "memory.py ended with $?"
  ok "large blobs went through in bounded memory"
}

start_origin "$WORK/files"
for kind in embedded casd; do
  step "$kind: idle"
  start_cache "$kind"
  # The size the program's own limit on cache and downloads must hold.
  start_assetgate gate "${CACHE_ARGS[@]}" --max-size "$((mib * 5))MiB" --origin-allow-cidr 127.0.0.0/8
  sleep 3
  at_most "KiB resident when idle" $((15 * 1024)) "$(resident gate)"
  step "$kind: $mib MiB at a time"
  move
  halt gate
  halt cache
  rm -rf "$WORK/data" "${CACHE_DIR:?}"
done
