#!/usr/bin/env bash
# Real Envoy with the two configurations in envoy/, and real Bazel through each.
#
#   tests/envoy.sh
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/bazel-lib.sh
. "$TESTS/bazel-lib.sh"
needs "$ENVOY" envoy
needs "$PYTHON_GRPC" grpc

# start_envoy FILE FROM=TO...: the configuration with other ports, as those in the file may be taken here.
# Sets GATE and ENVOY_ADMIN.
start_envoy() {
  local file=$1 pair script=() ports=()
  shift
  GATE=127.0.0.1:$(free_port) ENVOY_ADMIN=127.0.0.1:$(free_port)
  ports=("8980=${GATE##*:}" "9901=${ENVOY_ADMIN##*:}" "$@")
  for pair in "${ports[@]}"; do
    grep -q "port_value: ${pair%%=*} " "$ROOT/envoy/$file" || fail "envoy/$file has no port ${pair%%=*}"
    script+=(-e "s/port_value: ${pair%%=*} /port_value: ${pair#*=} /")
  done
  sed "${script[@]}" "$ROOT/envoy/$file" >"$WORK/$file"
  spawn envoy "$ENVOY" -c "$WORK/$file" --use-dynamic-base-id --concurrency 1 -l warn
  wait_for 30 envoy curl -sf -m 2 "http://$ENVOY_ADMIN/ready"
  wait_for 10 envoy listening "${GATE##*:}"
}

# envoy_stat REGEX: the sum of the statistics that match.
envoy_stat() { curl -sf -m 5 "http://$ENVOY_ADMIN/stats" | awk -v want="$1" '$1 ~ want { sum += $2 } END { print sum + 0 }'; }

# calls_to PORT: calls Envoy sent to that server.
calls_to() { curl -sf -m 5 "http://$ENVOY_ADMIN/clusters" | sed -n "s/^[a-z]*::127.0.0.1:$1::rq_total:://p"; }

healthy() { [ "$(envoy_stat '^cluster\.assetgate\.membership_healthy:')" = "$1" ]; }

probe() { timeout 90 "$PYTHON_GRPC" "$TESTS/probe.py" "$STUBS" "$@"; }

step "the files are valid as they are"
for file in front.yaml split.yaml; do
  succeeds "envoy/$file" "$WORK/validate.txt" "$ENVOY" --mode validate -c "$ROOT/envoy/$file"
done

step "front.yaml: metadata and long streams, seen by a server that tells"
spawn echo "$PYTHON_GRPC" "$TESTS/probe.py" "$STUBS" echo "$WORK/echo.ports"
wait_for 20 echo test -s "$WORK/echo.ports"
ECHO=$(json "$WORK/echo.ports" grpc)
start_envoy front.yaml "8981=${ECHO##*:}" "8982=${ECHO##*:}"
succeeds "metadata is untouched in both directions" "$WORK/metadata.txt" probe metadata "$GATE" "$ECHO"
# Envoy's own default would end a call after 15 s.
succeeds "a silent stream lives on" "$WORK/silent.txt" probe silent "$GATE" 17
halt envoy
start_envoy split.yaml "8981=${ECHO##*:}" "9092=${ECHO##*:}"
succeeds "split.yaml: metadata is untouched as well" "$WORK/metadata.txt" probe metadata "$GATE" "$ECHO"
halt envoy
halt echo

step "front.yaml: Bazel through Envoy and two replicas"
bazel_origin
start_cache bb_storage
common=("${CACHE_ARGS[@]}" --origin-allow-cidr 127.0.0.0/8 --origin-ca "$CA")
start_assetgate one "${common[@]}"
start_assetgate two "${common[@]}"
one=${GRPC_OF[one]##*:} two=${GRPC_OF[two]##*:}
start_envoy front.yaml "8981=$one" "8982=$two"
wait_for 20 envoy healthy 2
ok "Envoy's gRPC health checks pass for both replicas"
bazel_client first
succeeds "builds //:everything" "$WORK/first.txt" bz 240 build //:everything
bazel_outputs file private unpinned archive
at_least "calls that replica one got" 1 "$(calls_to "$one")"
at_least "calls that replica two got" 1 "$(calls_to "$two")"

step "front.yaml: one replica leaves, the origin too; a second client notices nothing"
bazel_stop "$CLIENT" >/dev/null 2>&1
halt origin
before=$(envoy_stat '^cluster\.assetgate\.upstream_rq_total:')
halt one
wait_for 20 envoy healthy 1
bazel_client second
succeeds "builds every pinned target" "$WORK/second.txt" bz 240 build //:pinned
contains "its actions are cache hits" "$WORK/second.txt" '3 remote cache hit'
bazel_outputs file private archive
at_least "calls that went through Envoy" 10 "$(($(envoy_stat '^cluster\.assetgate\.upstream_rq_total:') - before))"
at_least "hits the remaining replica counts" 3 "$(outcomes "${ADMIN_OF[two]}" FetchBlob hit_)"
at_least "calls the remaining replica forwarded" 3 \
  "$(metric "${ADMIN_OF[two]}" grpc_server_handled_total 'grpc_service="google.bytestream.ByteStream"')"
bazel_stop "$CLIENT" >/dev/null 2>&1
halt envoy
halt two
halt cache

step "split.yaml: Envoy sends assets to Assetgate and the rest to the cache"
bazel_origin_again
start_cache bb_storage
start_assetgate split --upstream "grpc://$CACHE_ADDRESS" --origin-allow-cidr 127.0.0.0/8 --origin-ca "$CA"
start_envoy split.yaml "8981=${GRPC##*:}" "9092=${CACHE_ADDRESS##*:}"
wait_for 20 envoy healthy 1
bazel_client third
succeeds "builds //:everything" "$WORK/third.txt" bz 240 build //:everything
bazel_outputs file private unpinned archive
bazel_stop "$CLIENT" >/dev/null 2>&1
halt origin
bazel_client fourth
succeeds "builds every pinned target with the origin gone" "$WORK/fourth.txt" bz 240 build //:pinned
contains "its actions are cache hits" "$WORK/fourth.txt" '3 remote cache hit'
same "hits Assetgate counts" 3 "$(outcomes "$ADMIN" FetchBlob hit_)"
same "calls that Assetgate had to forward" 0 \
  "$(metric "$ADMIN" grpc_server_handled_total 'grpc_service="google.bytestream.ByteStream"')"
at_least "calls the cache got straight from Envoy" 10 "$(calls_to "${CACHE_ADDRESS##*:}")"
