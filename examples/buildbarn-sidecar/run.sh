#!/usr/bin/env bash
# Buildbarn's storage with Assetgate beside it, on this machine. Ctrl-C stops both.
#
#   examples/buildbarn-sidecar/run.sh
#
# Environment:
#   LISTEN=127.0.0.1:8980     where clients connect: Assetgate
#   ADMIN=127.0.0.1:9980      Assetgate's metrics and health
#   STORAGE=127.0.0.1:8983    bb_storage; only Assetgate needs to reach it
#   DIR=./buildbarn-data      where bb_storage keeps its blobs
#   BB_STORAGE=bb_storage     its program (tests/components.sh bb_storage builds one)
#   ASSETGATE=assetgate       Assetgate's program
#   ASSETGATE_FLAGS=          more flags for it, such as --origin-ca FILE
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
LISTEN=${LISTEN:-127.0.0.1:8980} ADMIN=${ADMIN:-127.0.0.1:9980} STORAGE=${STORAGE:-127.0.0.1:8983}
DIR=${DIR:-$PWD/buildbarn-data} BB_STORAGE=${BB_STORAGE:-bb_storage} ASSETGATE=${ASSETGATE:-assetgate}

for program in "$BB_STORAGE" "$ASSETGATE"; do
  command -v "$program" >/dev/null || {
    echo "$program is not there: set BB_STORAGE and ASSETGATE to the two programs" >&2
    exit 1
  }
done

running=()
# shellcheck disable=SC2329 # the trap below calls it
stop() {
  trap - EXIT
  trap '' INT TERM   # a second Ctrl-C must not leave one of them behind
  # Assetgate first: it finishes what it has begun, for which it needs the storage.
  for ((i = ${#running[@]} - 1; i >= 0; i--)); do
    kill "${running[i]}" 2>/dev/null || true
    wait "${running[i]}" 2>/dev/null || true
  done
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir -p "$DIR"/{cas,ac}/persistent_state
# In sessions of their own, so that Ctrl-C reaches this script only, which then stops them one after the other.
LISTEN=$STORAGE DIR=$DIR setsid "$BB_STORAGE" "$here/storage.jsonnet" &
running+=($!)
# Assetgate starts and serves while its cache is down, so the order does not matter.
# shellcheck disable=SC2086 # a list of flags
setsid "$ASSETGATE" serve --listen "$LISTEN" --admin-listen "$ADMIN" --upstream "grpc://$STORAGE" ${ASSETGATE_FLAGS:-} &
running+=($!)

for ((i = 0; i < 300; i++)); do
  curl -sf -m 2 "http://$ADMIN/readyz" >/dev/null && break
  for pid in "${running[@]}"; do
    kill -0 "$pid" 2>/dev/null || { echo "one of the two programs has ended" >&2; exit 1; }
  done
  sleep 0.1
done
curl -sf -m 2 "http://$ADMIN/readyz" >/dev/null || { echo "not ready after 30 s" >&2; exit 1; }

cat <<END

Ready. Clients use one address for everything:

  Bazel, in .bazelrc:
    build --remote_cache=grpc://$LISTEN
    build --experimental_remote_downloader=grpc://$LISTEN

  BuildStream, in buildstream.conf:
    artifacts:
      servers:
      - url: http://$LISTEN
        push: true
    source-caches:
      servers:
      - url: http://$LISTEN
        push: true

END
wait -n
echo "one of the two programs has ended" >&2
exit 1
