#!/usr/bin/env bash
# Real Bazel through one Assetgate address that is both its cache and its downloader.
#
#   tests/bazel.sh embedded|buildgrid|bb_storage|bazel_remote
#
# The workspace is examples/bazel. A first client fills the cache from the origin; then the origin is stopped
# and a second client, with nothing of its own, must build every pinned target from what Assetgate remembers.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/bazel-lib.sh
. "$TESTS/bazel-lib.sh"
kind=${1:?usage: bazel.sh embedded|buildgrid|bb_storage|bazel_remote}

# The origin's log may hold the credentials, and nothing else may.
no_secrets() {
  local secret
  for secret in open-sesame "$(printf 'alice:open-sesame' | base64)" \
    "$(printf 'Basic %s' "$(printf 'alice:open-sesame' | base64)" | sha256sum | cut -d ' ' -f 1)"; do
    if grep -rqaF -- "$secret" "$LOGS/gate.log" "$WORK/metrics.txt"; then fail "a credential is in Assetgate's log or metrics: $secret"; fi
    if [ "$kind" = embedded ] && grep -rqaF -- "$secret" "$WORK/data"; then fail "a credential is in the cache: $secret"; fi
  done
  ok "no credential in log, metrics or cache"
}

# explains FILE CODE URL REASON: what the user gets to read says all three, and is not about an empty file.
explains() {
  contains "it fails with $2" "$1" "StatusRuntimeException: $2"
  contains "it names the URL" "$1" "$3"
  contains "it names the reason" "$1" "$4"
  lacks "it is not the checksum of an empty file" "$1" e3b0c44298fc1c149afbf4c8996fb924
}

# ---- the run ---------------------------------------------------------------------------------------------

bazel_origin
start_cache "$kind"
start_assetgate gate "${CACHE_ARGS[@]}" --origin-allow-cidr 127.0.0.0/8 --origin-ca "$CA"
GATE=$GRPC

step "a first client downloads everything from the origin"
bazel_client first
out=$WORK/first.txt
succeeds "builds //:everything" "$out" bz 240 build //:everything
bazel_outputs file private unpinned archive
same "requests for the first mirror" 1 "$(origin_count '^/status/404/archive')"
same "requests for the second mirror" 1 "$(origin_count '^/files/archive')"
same "downloads Assetgate counts" 4 "$(outcomes "$ADMIN" FetchBlob fetched)"
curl -sf "$HTTP/_log" >"$WORK/origin-log.json"
same "requests that carried credentials" "/auth/private.bin" "$(python3 -c 'import json,sys
print(" ".join(e["path"] for e in json.load(open(sys.argv[1])) if "authorization" in e["headers"] and e["status"] == 200))' "$WORK/origin-log.json")"

step "downloads that must fail, naming URL and reason"
fails "a wrong checksum fails" "$WORK/wrong.txt" bz 120 build @mismatch//file
explains "$WORK/wrong.txt" ABORTED "$HTTP/files/file.bin" 'checksum'
fails "a 404 fails" "$WORK/gone.txt" bz 120 build @gone//file
explains "$WORK/gone.txt" NOT_FOUND "$HTTP/status/404/gone.bin" '404'
fails "an unpinned 404 fails instead of giving an empty file" "$WORK/unpinned-gone.txt" bz 120 build @unpinned_gone//file
explains "$WORK/unpinned-gone.txt" NOT_FOUND "$HTTPS/status/404/unpinned-gone.txt" '404'

step "the origin stops; a second client has nothing but Assetgate"
hits_before=$(outcomes "$ADMIN" FetchBlob hit_) fetched_before=$(outcomes "$ADMIN" FetchBlob fetched)
halt origin
bazel_stop "$CLIENT" >/dev/null 2>&1
bazel_client second
out=$WORK/second.txt
succeeds "builds every pinned target" "$out" bz 240 build //:pinned
contains "its actions are cache hits" "$out" '3 remote cache hit'
lacks "no action ran" "$out" 'processes:.* [0-9]+ (linux-sandbox|processwrapper-sandbox|local)'
bazel_outputs file private archive
same "hits Assetgate counts" 3 "$(($(outcomes "$ADMIN" FetchBlob hit_) - hits_before))"
same "downloads Assetgate counts" 0 "$(($(outcomes "$ADMIN" FetchBlob fetched) - fetched_before))"
fails "the unpinned target fails" "$WORK/second-unpinned.txt" bz 240 build //:unpinned_copy
explains "$WORK/second-unpinned.txt" UNAVAILABLE "$HTTPS/files/unpinned.txt" 'refused|connect|unreachable'

step "the origin is back; a third client still asks it for nothing"
bazel_origin_again
bazel_stop "$CLIENT" >/dev/null 2>&1
bazel_client third
succeeds "fetches every pinned target" "$WORK/third.txt" bz 240 build --nobuild //:pinned
same "hits Assetgate counts" 6 "$(($(outcomes "$ADMIN" FetchBlob hit_) - hits_before))"
same "requests in the origin's log" 0 "$(origin_count)"
no_secrets
