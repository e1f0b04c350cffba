#!/usr/bin/env bash
# kill -9 in a loop under load: nothing acknowledged is lost, nothing wrong is served.
#
#   tests/kill9.sh [SECONDS]      for each of its two parts; 25 by default, 600 and more to be thorough
#   SEED=N tests/kill9.sh         the same choices again (not the same timing)
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
seconds=${1:-25}
needs "$PYTHON_GRPC" grpc
[ -x "$ASSETGATE" ] || fail "$ASSETGATE is missing: run cargo build --release"

kill9() {
  local code=0
  mkdir -p "$WORK/$1"
  # On this script's own terminal: the run says what it does.
  timeout --kill-after=20 $((seconds * 4 + 240)) "$PYTHON_GRPC" "$TESTS/kill9.py" "$STUBS" "$1" "$seconds" "$ASSETGATE" "$WORK/$1" "${@:2}" || code=$?
  cp "$WORK/$1"/*.log "$LOGS/"
  [ $code = 0 ] || fail "kill9.py $1 ended with $code"
}

step "the embedded cache under SIGKILL"
kill9 embedded
ok "everything acknowledged was read back"

step "two replicas over casd under SIGKILL in turn"
start_cache casd
kill9 replicas "grpc://$CACHE_ADDRESS"
ok "every acknowledged push was read back through the other replica"
