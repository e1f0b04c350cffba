#!/usr/bin/env bash
# Real Bazel through one Assetgate address that is both its cache and its downloader.
#
#   tests/bazel.sh embedded|buildgrid|bb_storage|bazel_remote
#
# The workspace is examples/bazel. A first client fills the cache from the origin; then the origin is stopped
# and a second client, with nothing of its own, must build every pinned target from what Assetgate remembers.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
kind=${1:?usage: bazel.sh embedded|buildgrid|bb_storage|bazel_remote}
needs bazel apt

# ---- Bazel -----------------------------------------------------------------------------------------------

# bazel_client NAME: a client with an output root, a home and a copy of the workspace of its own.
bazel_client() {
  CLIENT=$WORK/client-$1
  mkdir -p "$CLIENT/home"
  cp -r "$ROOT/examples/bazel" "$CLIENT/ws"
  printf 'machine localhost login alice password open-sesame\n' >"$CLIENT/home/.netrc"
  ON_EXIT+=("bazel_stop $CLIENT")
}

bazel_stop() { (cd "$1/ws" && HOME=$1/home timeout 60 bazel --output_user_root="$1/root" shutdown); }

# bz SECONDS COMMAND ARGUMENT...: with $CLIENT, against $GATE.
bz() {
  local limit=$1 command=$2
  shift 2
  (cd "$CLIENT/ws" && HOME=$CLIENT/home exec timeout "$limit" bazel --output_user_root="$CLIENT/root" \
    --host_jvm_args=-Xmx512m "$command" --remote_cache="grpc://$GATE" \
    --experimental_remote_downloader="grpc://$GATE" --repository_cache= --color=no --curses=no "$@")
}

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

# ---- the run ---------------------------------------------------------------------------------------------

mkdir -p "$WORK/files"
start_origin "$WORK/files"
cp -r "$ROOT/examples" "$WORK/examples" && "$WORK/examples/bazel/make_origin.sh" "$WORK/files" "$HTTP" "$HTTPS"
start_cache "$kind"
start_assetgate gate "${CACHE_ARGS[@]}" --origin-allow-cidr 127.0.0.0/8 --origin-ca "$CA"
GATE=$GRPC

step "a first client downloads everything from the origin"
bazel_client first
cp "$WORK/examples/bazel/origin.bzl" "$CLIENT/ws/"
out=$WORK/first.txt
succeeds "builds //:everything" "$out" bz 240 build //:everything
for f in file private unpinned; do
  original=$(find "$WORK/files" -maxdepth 1 -name "$f.*")
  same_file "$f has the origin's bytes" "$original" "$CLIENT/ws/bazel-bin/$f.out"
done
cat "$WORK"/files/archive-1.0/{numbers,one}.txt >"$WORK/archive.expected"
same_file "the archive came unpacked from its second mirror" "$WORK/archive.expected" "$CLIENT/ws/bazel-bin/archive.out"
same "requests for the first mirror" 1 "$(origin_count '^/status/404/archive')"
same "requests for the second mirror" 1 "$(origin_count '^/files/archive')"
same "downloads Assetgate counts" 4 "$(outcomes "$ADMIN" FetchBlob fetched)"
curl -sf "$HTTP/_log" >"$WORK/origin-log.json"
same "requests that carried credentials" "/auth/private.bin" "$(python3 -c 'import json,sys
print(" ".join(e["path"] for e in json.load(open(sys.argv[1])) if "authorization" in e["headers"] and e["status"] == 200))' "$WORK/origin-log.json")"

step "downloads that must fail, naming URL and reason"
fails "a wrong checksum fails" "$WORK/wrong.txt" bz 120 build @wrong_checksum//file
contains "it names the URL" "$WORK/wrong.txt" "$HTTP/files/file.bin"
contains "it names the reason" "$WORK/wrong.txt" 'checksum'
lacks "it is not the checksum of an empty file" "$WORK/wrong.txt" e3b0c44298fc1c149afbf4c8996fb924
fails "a 404 fails" "$WORK/gone.txt" bz 120 build @gone//file
contains "it names the URL" "$WORK/gone.txt" "$HTTP/status/404/gone.bin"
contains "it names the reason" "$WORK/gone.txt" '404'
lacks "it is not the checksum of an empty file" "$WORK/gone.txt" e3b0c44298fc1c149afbf4c8996fb924
fails "an unpinned 404 fails instead of giving an empty file" "$WORK/unpinned-gone.txt" bz 120 build @unpinned_gone//file
contains "it names the URL" "$WORK/unpinned-gone.txt" "$HTTPS/status/404/unpinned-gone.txt"
contains "it names the reason" "$WORK/unpinned-gone.txt" '404'

step "the origin stops; a second client has nothing but Assetgate"
hits_before=$(outcomes "$ADMIN" FetchBlob hit_) fetched_before=$(outcomes "$ADMIN" FetchBlob fetched)
halt origin
bazel_stop "$CLIENT" >/dev/null 2>&1
bazel_client second
cp "$WORK/examples/bazel/origin.bzl" "$CLIENT/ws/"
out=$WORK/second.txt
succeeds "builds every pinned target" "$out" bz 240 build //:pinned
contains "its actions are cache hits" "$out" '3 remote cache hit'
lacks "no action ran" "$out" 'processes:.* [0-9]+ (linux-sandbox|processwrapper-sandbox|local)'
for f in file private; do
  same_file "$f has the origin's bytes" "$WORK/files/$f.bin" "$CLIENT/ws/bazel-bin/$f.out"
done
same_file "archive has the origin's bytes" "$WORK/archive.expected" "$CLIENT/ws/bazel-bin/archive.out"
same "hits Assetgate counts" 3 "$(($(outcomes "$ADMIN" FetchBlob hit_) - hits_before))"
same "downloads Assetgate counts" 0 "$(($(outcomes "$ADMIN" FetchBlob fetched) - fetched_before))"
fails "the unpinned target fails" "$WORK/second-unpinned.txt" bz 240 build //:unpinned_copy
contains "it names the URL" "$WORK/second-unpinned.txt" "$HTTPS/files/unpinned.txt"
contains "it names the reason" "$WORK/second-unpinned.txt" 'refused|connect|unreachable'

step "the origin is back; a third client still asks it for nothing"
spawn origin python3 "$TESTS/origin.py" --dir "$WORK/files" --listen "${HTTP#http://}" --port-file "$WORK/origin.ports"
wait_for 20 origin curl -sf "$HTTP/_log"
bazel_stop "$CLIENT" >/dev/null 2>&1
bazel_client third
cp "$WORK/examples/bazel/origin.bzl" "$CLIENT/ws/"
succeeds "fetches every pinned target" "$WORK/third.txt" bz 240 build --nobuild //:pinned
same "hits Assetgate counts" 6 "$(($(outcomes "$ADMIN" FetchBlob hit_) - hits_before))"
same "requests in the origin's log" 0 "$(origin_count)"
no_secrets
