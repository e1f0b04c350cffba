#!/usr/bin/env bash
# What a FetchBlob hit costs: Assetgate in front of bb_storage and with its embedded cache, beside bazel-remote's own asset
# service. Interleaved rounds of h2load, 4 clients x 10 streams; figures are medians, printed as a Markdown table.
#
#   fetch_hit.sh [ROUNDS]             5 by default
#
# Environment:
#   ASSETGATE=target/release/assetgate
#   CALLS=30000                       per measurement
#   TABLE=file RESULTS=file           the table, also as a file; the figures as JSON
#   PROXY_CORE=0 LOAD_CORE=1          where all servers run, and where the load runs
#   ONLY="embedded:urn ..."           only these cases: bazel-remote, bb_storage:urn, bb_storage:checksum, embedded:urn,
#                                     embedded:checksum
#   PAUSE=command                     runs it with the process id of each server while that is under load, to profile
#
# The logs are those of production: JSON, one event per asset call, into a file. A run counts only if every call was a hit:
# by Assetgate's own metrics, by the size of the answers, and by the origin, which nobody may ask again.
# Needs: h2load, taskset, bazel-remote, bb_storage, gRPC for Python (tests/components.sh apt bazel_remote bb_storage grpc).
# Loopback only.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=tests/paths.sh
. "$root/tests/paths.sh"
die() { printf 'fetch_hit: %s\n' "$*" >&2; exit 2; }
[ $# -le 1 ] || die "usage: fetch_hit.sh [ROUNDS]"

ROUNDS=${1:-5} PROXY_CORE=${PROXY_CORE:-0} LOAD_CORE=${LOAD_CORE:-1}
ASSETGATE=${ASSETGATE:-${CARGO_TARGET_DIR:-$root/target}/release/assetgate}
needs() { command -v "$1" >/dev/null || die "$1 is missing: run tests/components.sh $2"; }
needs h2load apt
needs taskset apt
needs "$PYTHON_GRPC" grpc
needs "$BAZEL_REMOTE" bazel_remote
needs "$BB_STORAGE" bb_storage
[ -x "$ASSETGATE" ] || die "$ASSETGATE is missing: run cargo build --release, or name another with ASSETGATE"
taskset -c "$PROXY_CORE,$LOAD_CORE" true 2>/dev/null || die "cores $PROXY_CORE and $LOAD_CORE are needed: choose others with PROXY_CORE and LOAD_CORE"

WORK=$(mktemp -d "${TMPDIR:-/tmp}/assetgate-bench.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
BIN=$WORK STORAGE_CONFIG=$root/tests/peers/buildbarn/storage.jsonnet
export ROUNDS ASSETGATE PROXY_CORE LOAD_CORE WORK BIN STUBS BAZEL_REMOTE BB_STORAGE STORAGE_CONFIG
export ENVOY='' PYTHONDONTWRITEBYTECODE=1
"$PYTHON_GRPC" "$here/fetch_hit.py" &
driver=$!
trap '{ kill "$driver" && wait "$driver"; } 2>/dev/null || true; rm -rf "$WORK"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
wait "$driver"
