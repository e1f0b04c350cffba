#!/usr/bin/env bash
# One reference suite over every real cache: references that survive, and never lie.
#
#   tests/matrix.sh [CACHE...]     all of: embedded casd buildgrid bazel_remote bb_storage bb_storage_unchecked
#                                  bb_storage_sharded buildgrid_write_once buildgrid_no_updates bb_storage_read_only
#
# Prints a line for each check, with its id in the conformance list (or the number of its scenario), and at the end a table
# with a row for each cache. Goes on after a failed check and fails at the end. What is evicted is really taken out of the
# cache, in a way each cache has, and the suite looks whether exactly that is gone before it goes on.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
needs "$PYTHON_GRPC" grpc
[ -x "$ASSETGATE" ] || fail "$ASSETGATE is missing: run cargo build --release"
[ $# -gt 0 ] || set -- embedded casd buildgrid bazel_remote bb_storage bb_storage_unchecked bb_storage_sharded \
  buildgrid_write_once buildgrid_no_updates bb_storage_read_only

FAILED=0
GATE=(--origin-allow-cidr 127.0.0.0/8)

settings() {
  SETTINGS=$WORK/$CACHE_KIND.json
  cat >"$SETTINGS" <<J
{"kind": "$CACHE_KIND", "cache": "$CACHE_ADDRESS", "a": "${GRPC_OF[a]}", "b": "${GRPC_OF[b]}", "no_push": "${GRPC_OF[no_push]}",
 "admin_a": "${ADMIN_OF[a]}", "admin_b": "${ADMIN_OF[b]}", "log_a": "$LOGS/a.log", "origin": "$HTTP", "files": "$WORK/files"}
J
}

# suite PHASE [ARGUMENT...]: a phase that fails is told and counted; one that breaks ends the script.
suite() {
  local code=0 out=$WORK/phase.txt
  timeout --kill-after=10 "${LIMIT:-120}" "$PYTHON_GRPC" -B "$TESTS/matrix/main.py" "$STUBS" "$SETTINGS" "$@" >"$out" 2>&1 || code=$?
  cat "$out"
  CHECKS=$((CHECKS + $(grep -c '^   ok ' "$out" || true)))
  FAILED=$((FAILED + $(grep -c '^   FAIL ' "$out" || true)))
  [ $code -le 1 ] || fail "$CACHE_KIND: phase $1 ended with $code"
}

# The upstream of all replicas but the first of the embedded cache, whose process holds the cache.
gates_up() {
  local upstream=("${CACHE_ARGS[@]}")
  start_assetgate a "${CACHE_ARGS[@]}" "${GATE[@]}"
  [ -n "$CACHE_ADDRESS" ] || upstream=(--upstream "grpc://${GRPC_OF[a]}" --data-dir "$WORK/data-b")
  start_assetgate b "${upstream[@]}" "${GATE[@]}"
  ASSETGATE__PUSH__ENABLED=false start_assetgate no_push "${upstream[@]}" "${GATE[@]}"
  settings
}

gates_down() {
  halt no_push
  halt b
  halt a
}

cache_again() { [ -z "$CACHE_ADDRESS" ] || start_cache "$CACHE_KIND" "${CACHE_ADDRESS##*:}"; }

# with_cache_down COMMAND...: for caches whose index is in memory and read at start.
with_cache_down() {
  gates_down
  halt cache
  "$@"
  cache_again
  gates_up
}

# evict cas|ac: takes out what phase `before` noted, and nothing else.
evict() {
  case $CACHE_KIND in
    embedded) with_cache_down suite "delete-$1" "$WORK/data" ;;
    bazel_remote) with_cache_down suite "delete-$1" "$CACHE_DIR" ;;
    casd) suite "delete-$1" "$CACHE_DIR" ;;
    buildgrid) if [ "$1" = cas ]; then suite fill-cas "$CAS_MIB"; else suite fill-ac "$AC_REFS" 20; fi ;;
    bb_storage*)
      # More than it holds, as shards fill unevenly.
      if [ "$1" = cas ]; then suite fill-cas $((CAS_MIB * 3 / 2)); else suite fill-ac 400 65536; fi
      ;;
  esac
}

# Which caches find their content and entries again after a restart.
keeps_its_data() { case $CACHE_KIND in embedded | casd | bazel_remote) true ;; *) false ;; esac; }

writable() {
  step "$CACHE_KIND: push and fetch"
  suite live
  step "$CACHE_KIND: content is evicted"
  suite before
  evict cas
  suite check-cas
  suite gone
  step "$CACHE_KIND: references are evicted"
  evict ac
  suite check-ac
  suite forgotten
  step "$CACHE_KIND: Assetgate starts again"
  gates_down
  gates_up
  suite restarted
  keeps_its_data || return 0
  step "$CACHE_KIND: the cache starts again"
  with_cache_down true
  suite restarted
}

# unseen WHAT TEXT PATH...
unseen() {
  local what=$1 text=$2 path seen=
  shift 2
  for path in "$@"; do
    [ ! -e "$path" ] || seen+=$(grep -rlaF -- "$text" "$path" || true)
  done
  if [ -z "$seen" ]; then ok "$CACHE_KIND $what"; else
    printf '   FAIL %s %s: %s\n' "$CACHE_KIND" "$what" "$seen"
    FAILED=$((FAILED + 1))
  fi
}

one_cache() {
  export CAS_MIB=48 AC_REFS=1500
  case $1 in
    # Blobs of some MiB must be few beside a block, which is an eighth of a shard: a block goes as a whole.
    bb_storage_sharded) CAS_MIB=160 ;;
    bb_storage*) CAS_MIB=96 ;;
  esac
  rm -rf "$WORK/data" "$WORK/data-b"
  rm -f "$LOGS"/{a,b,no_push,cache}.log # checks look into them
  start_cache "$1"
  gates_up
  case $1 in
    buildgrid_no_updates | bb_storage_read_only) suite read_only ;;
    buildgrid_write_once) suite write_once ;;
    *) writable ;;
  esac
  gates_down
  halt cache
  unseen "no credential in logs or in the cache's files" matrix-secret "$LOGS" "$WORK/data" "$CACHE_DIR"
  unseen "no panic in the logs" panicked "$LOGS"
  suite row >/dev/null
  cat "$WORK/phase.txt" >>"$WORK/table.md"
}

start_origin "$WORK/files"
for kind in "$@"; do
  since=$SECONDS
  one_cache "$kind"
  printf -- '-- %s: %d s\n' "$kind" $((SECONDS - since))
done
step "the table"
suite head
cat "$WORK/table.md"
[ "$FAILED" = 0 ] || LOG_LINES=0 fail "$FAILED checks failed, see above"
