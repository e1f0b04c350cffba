#!/usr/bin/env bash
# Real BuildStream through one Assetgate address that is its artifact cache and its source cache.
#
#   tests/buildstream.sh embedded|casd|bazel_remote|bb_storage|split
#
# split: two servers, Assetgate as BuildStream's index and casd as its storage. Clients never send content through
# Assetgate then, and it keeps references apart from it.
#
# One client builds and pushes, an empty one pulls. bst exits with 0 when it had to drop a server, so only its
# "Pushed ..." and "Pulled ..." lines count, and Assetgate's own counters.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
kind=${1:?usage: buildstream.sh embedded|casd|bazel_remote|bb_storage|split}
needs "$BST" buildstream
needs bwrap apt

elements=(base.bst numbers.bst greeting.bst sum.bst all.bst)

# bst_client NAME: an empty client.
bst_client() {
  CLIENT=$WORK/client-$1
  mkdir -p "$CLIENT"
  cp -r "$WORK/project" "$CLIENT/project"
  { printf 'cachedir: %s/state\n' "$CLIENT"; servers; } >"$CLIENT/user.conf"
}

# The client's servers: one for everything, or one for each of its two parts.
servers() {
  local section
  [ "$kind" = split ] || { sed "s#127.0.0.1:8980#$GRPC#" "$ROOT/examples/buildstream/assetgate.conf"; return; }
  for section in artifacts source-caches; do
    printf '%s:\n  servers:\n' "$section"
    printf '  - url: http://%s\n    type: %s\n    push: true\n' "$GRPC" index "$CACHE_ADDRESS" storage
  done
}

bst() {
  (cd "$CLIENT/project" && HOME=$CLIENT exec timeout 180 "$BST" --no-interactive --no-colors --config "$CLIENT/user.conf" "$@")
}

# lines FILE TEXT: how many elements a line such as "Pulled artifact" was printed for.
lines() { grep -c -- "$2" "$1" || true; }

prepare_origin() {
  mkdir -p "$WORK/files"
  seq 1 20000 >"$WORK/files/numbers.txt"
  start_origin "$WORK/files"
  cp -r "$ROOT/examples/buildstream" "$WORK/project"
  sed -i "s#http://127.0.0.1:8990#$HTTP#" "$WORK/project/project.conf"
  "$WORK/project/make_base.sh"
}

# Takes the content away and leaves the references.
evict() {
  case $kind in
    embedded)
      halt gate
      find "$WORK/data" -path '*/cas/*' -type f -delete
      start_assetgate gate "${CACHE_ARGS[@]}"
      ;;
    casd | split)
      halt cache
      rm -rf "$CACHE_DIR/cas/objects"
      start_cache casd "${CACHE_ADDRESS##*:}"
      ;;
    bazel_remote) # knows its files from when it starts
      halt cache
      find "$CACHE_DIR/cas.v2" -type f -delete
      start_cache bazel_remote "${CACHE_ADDRESS##*:}"
      ;;
    bb_storage) # holds everything in memory, so this takes the references away as well
      halt cache
      start_cache bb_storage "${CACHE_ADDRESS##*:}"
      ;;
    *) fail "nobody knows how to evict from $kind" ;;
  esac
}

prepare_origin
start_cache "${kind/split/casd}"
[ "$kind" != split ] || CACHE_ARGS+=(--references-upstream embedded)
start_assetgate gate "${CACHE_ARGS[@]}"

step "one client builds and pushes"
bst_client first
out=$WORK/first.txt
succeeds "builds all.bst" "$out" bst build all.bst
lacks "no server was dropped" "$out" 'Failed to initialize remote|does not implement|WARNING'
same "artifacts pushed" "${#elements[@]}" "$(lines "$out" 'Pushed artifact')"
at_least "sources pushed" 1 "$(lines "$out" 'Pushed source')"
at_least "pushes Assetgate counts" "${#elements[@]}" "$(outcomes "$ADMIN" PushBlob pushed)"
at_least "source pushes Assetgate counts" 1 "$(outcomes "$ADMIN" PushDirectory pushed)"
at_least "requests the origin saw" 1 "$(origin_count numbers)"

step "an empty client pulls, with the origin gone"
halt origin
bst_client second
bst artifact show --deps all all.bst >"$WORK/available.txt" 2>&1 || true
same "artifacts called available" "${#elements[@]}" "$(grep -Ec '^ *available' "$WORK/available.txt" || true)"
out=$WORK/second.txt
succeeds "pulls all.bst" "$out" bst artifact pull --deps all all.bst
same "artifacts pulled" "${#elements[@]}" "$(lines "$out" 'Pulled artifact')"
at_least "hits Assetgate counts" "${#elements[@]}" "$(outcomes "$ADMIN" FetchBlob hit_)"
succeeds "checks sum.bst out" "$WORK/checkout.txt" bst artifact checkout --directory "$WORK/checkout" --deps none sum.bst
same "the artifact's content" "$(cat "$WORK/project/files/greeting/greeting.txt" "$WORK/files/numbers.txt" | sha256sum)" \
  "$(cat "$WORK/checkout/sum.txt")"

step "an empty client fetches sources, with the origin gone"
bst_client third
out=$WORK/third.txt
succeeds "fetches the sources" "$out" bst source fetch --deps all all.bst
at_least "sources pulled" 1 "$(lines "$out" 'Pulled source')"

step "an element with one source more: the others are fetched one by one, as directories"
bst_client changed
printf -- '- kind: local\n  path: files/greeting\n  directory: more\n' >>"$CLIENT/project/elements/numbers.bst"
out=$WORK/changed.txt
succeeds "fetches the sources" "$out" bst source fetch numbers.bst
contains "the download was pulled" "$out" 'Pulled source'
at_least "source hits Assetgate counts" 1 "$(outcomes "$ADMIN" FetchDirectory hit_)"

step "the content is evicted; hits turn into misses"
misses_before=$(outcomes "$ADMIN" FetchBlob miss)
[ "$kind" != embedded ] || misses_before=0 # Assetgate itself restarts, and so do its counters
evict
bst_client fourth
out=$WORK/fourth.txt
bst artifact pull --deps all all.bst >"$out" 2>&1 || true
same "artifacts pulled" 0 "$(lines "$out" 'Pulled artifact')"
lacks "no server was dropped" "$out" 'Failed to initialize remote|does not implement'
lacks "no pull failed; each was a miss" "$out" 'Failed to pull'
at_least "misses Assetgate counts" "${#elements[@]}" "$(($(outcomes "$ADMIN" FetchBlob miss) - misses_before))"
bst artifact show --deps all all.bst >"$WORK/show.txt" 2>&1 || true
lacks "no artifact is called available" "$WORK/show.txt" '^ *available'

step "building again brings it all back"
spawn origin python3 "$TESTS/origin.py" --dir "$WORK/files" --listen "${HTTP#http://}" --port-file "$WORK/origin.ports"
wait_for 20 origin curl -sf "$HTTP/_log"
out=$WORK/again.txt
succeeds "builds all.bst" "$out" bst build all.bst
same "artifacts pushed" "${#elements[@]}" "$(lines "$out" 'Pushed artifact')"
bst_client fifth
out=$WORK/fifth.txt
succeeds "an empty client pulls all.bst" "$out" bst artifact pull --deps all all.bst
same "artifacts pulled" "${#elements[@]}" "$(lines "$out" 'Pulled artifact')"
