#!/usr/bin/env bash
# How long the embedded cache takes to start: from exec to the port file, with many blobs, after SIGTERM, after SIGKILL and
# in another boot of the machine.
#
#   tests/start.sh [BLOBS] [LIMIT_MS]     100000 and 1000 by default; the median of five starts must be below the limit
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
blobs=${1:-100000} limit=${2:-1000}
needs "$PYTHON_GRPC" grpc
[ -x "$ASSETGATE" ] || fail "$ASSETGATE is missing: run cargo build --release"

step "$blobs blobs, $limit ms"
code=0
timeout --kill-after=20 800 "$PYTHON_GRPC" "$TESTS/start.py" "$STUBS" "$ASSETGATE" "$WORK" "$blobs" "$limit" || code=$?
[ $code = 0 ] || fail "start.py ended with $code"
ok "the starts are quick, and everything is there after each"
