#!/usr/bin/env bash
# PushDirectory of a large tree: how long it takes beside the bare CAS reads it needs, and in how much memory.
#
#   tests/push_directory.sh [FILES [CACHE...]]     10,000 by default; bb_storage, casd and embedded
#
# The tree has FILES / 100 directories of 100 files. A plain client that looks at no byte of an answer makes the same reads in
# batches of the same size, as many at a time: every Directory, level by level, and FindMissingBlobs of all files. Medians of
# several runs, one beside the other.
# Gates: TIME_GATE, times the bare reads (2 from 50,000 files on, 3 below, where fixed costs count), and memory: RSS_GATE, MiB
# over idle at the peak (64 + 1 for each 600 files).
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
files=${1:-10000}
shift $(($# > 0 ? 1 : 0))
caches=("$@")
[ ${#caches[@]} -gt 0 ] || caches=(bb_storage casd embedded)
needs "$PYTHON_GRPC" grpc
time_gate=${TIME_GATE:-$([ "$files" -ge 50000 ] && echo 2 || echo 3)}
rss_gate=${RSS_GATE:-$((64 + files / 600))}

for kind in "${caches[@]}"; do
  step "$files files, $kind"
  start_cache "$kind"
  start_assetgate gate "${CACHE_ARGS[@]}" --log-level warn
  timeout 600 "$PYTHON_GRPC" "$TESTS/push_directory.py" "$STUBS" "${CACHE_ADDRESS:-$GRPC}" "$GRPC" "${PID[gate]}" "$files" \
    "$time_gate" "$rss_gate" || fail "push_directory.py ended with $?"
  ok "$kind: in time, in bounded memory, and what was pushed is found"
  halt gate
  [ "$kind" = embedded ] || halt cache
  rm -rf "$WORK/data" "${CACHE_DIR:?}"
done
