#!/usr/bin/env bash
# The Buildbarn sidecar example, as a reader would start it, used by a probe and by real Bazel. The other two examples
# are the workspaces of bazel.sh and buildstream.sh.
#
#   tests/examples.sh
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/bazel-lib.sh
. "$TESTS/bazel-lib.sh"
needs "$BB_STORAGE" bb_storage
needs "$PYTHON_GRPC" grpc

bazel_origin
GATE=127.0.0.1:$(free_port) ADMIN=127.0.0.1:$(free_port)
sidecar() {
  spawn sidecar env LISTEN="$GATE" ADMIN="$ADMIN" STORAGE="127.0.0.1:$(free_port)" DIR="$WORK/buildbarn" \
    BB_STORAGE="$BB_STORAGE" ASSETGATE="$ASSETGATE" \
    ASSETGATE_FLAGS="--origin-allow-cidr 127.0.0.0/8 --origin-ca $CA" "$ROOT/examples/buildbarn-sidecar/run.sh"
  wait_for 60 sidecar grep -q '^Ready' "$LOGS/sidecar.log"
}

step "one script starts bb_storage and Assetgate"
sidecar
contains "it prints the line for Bazel" "$LOGS/sidecar.log" "build --remote_cache=grpc://$GATE"
contains "it prints the line for BuildStream" "$LOGS/sidecar.log" "url: http://$GATE"
succeeds "an asset is pushed and fetched" "$WORK/probe.txt" \
  timeout 60 "$PYTHON_GRPC" "$TESTS/probe.py" "$STUBS" assets "$GATE"
bazel_client first
succeeds "Bazel builds //:everything" "$WORK/first.txt" bz 240 build //:everything
bazel_outputs file private unpinned archive
bazel_stop "$CLIENT" >/dev/null 2>&1

step "it stops both, and nothing is left running"
halt sidecar
for port in "${GATE##*:}" "${ADMIN##*:}"; do
  if listening "$port"; then fail "something still listens on port $port"; fi
done
ok "the ports are free again"
