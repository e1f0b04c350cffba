#!/usr/bin/env bash
# Real Bazel where its downloads are hard: an origin slower than its deadline, and a fleet of cold clients at once.
#
#   tests/bazel_fetch.sh [short|long]     short: a deadline of 6 s and an origin that takes 15; long: Bazel's own 60 s and 150
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
needs bazel apt
case ${1:-short} in
  short) deadline=6 answer_ms=15000 ;;
  long) deadline=60 answer_ms=150000 ;;
  *) fail "usage: bazel_fetch.sh [short|long]" ;;
esac
CLIENTS=8
ARCHIVES=(one two three four)

# ---- clients ---------------------------------------------------------------------------------------------

# workspace PATH_PREFIX NAME...: a workspace of http_files, and a rule that joins them to all.out.
workspace() {
  local prefix=$1 name
  shift
  mkdir -p "$WORK/workspace"
  {
    printf 'load("@bazel_tools//tools/build_defs/repo:http.bzl", "http_file")\n'
    for name in "$@"; do
      printf 'http_file(name = "%s", urls = ["%s/%s/%s.bin"], sha256 = "%s")\n' "$name" "$HTTP" "$prefix" "$name" \
        "$(sha256sum "$WORK/files/$name.bin" | cut -d ' ' -f 1)"
    done
  } >"$WORK/workspace/WORKSPACE"
  printf 'genrule(name = "all", outs = ["all.out"], srcs = [%s], cmd = "cat %s > %s")\n' \
    "$(printf '"@%s//file", ' "$@")" "\$(SRCS)" "\$@" >"$WORK/workspace/BUILD"
}

# client NAME SECONDS FLAG...: a cold client builds //:all. They share nothing.
client() {
  local home=$WORK/client-$1 limit=$2
  shift 2
  mkdir -p "$home"
  cp -r "$WORK/workspace" "$home/ws"
  (cd "$home/ws" && HOME=$home exec timeout --kill-after=10 "$limit" bazel --batch --output_user_root="$home/root" \
    --host_jvm_args=-Xmx256m build --remote_cache="grpc://$GRPC" --experimental_remote_downloader="grpc://$GRPC" \
    --repository_cache= --color=no --curses=no --jobs=1 "$@" //:all)
}

same_outputs() {
  local name files=()
  for name in "${@:2}"; do files+=("$WORK/files/$name.bin"); done
  cat "${files[@]}" >"$WORK/expected"
  same_file "$1 has the origin's bytes" "$WORK/expected" "$WORK/client-$1/ws/bazel-bin/all.out"
}

# ---- the run ---------------------------------------------------------------------------------------------

start_origin "$WORK/files"
for name in late "${ARCHIVES[@]}"; do head -c 300000 /dev/urandom >"$WORK/files/$name.bin"; done
start_cache embedded
start_assetgate gate "${CACHE_ARGS[@]}" --origin-allow-cidr 127.0.0.0/8

step "a deadline of $deadline s, and an origin that answers after $((answer_ms / 1000)) s"
workspace "slow/$answer_ms" late
began=$SECONDS
succeeds "the build succeeds" "$WORK/late.txt" client late 400 --remote_timeout="$deadline"
at_least "seconds it took" $((answer_ms / 1000)) $((SECONDS - began))
same_outputs late late
same "requests to the origin" 1 "$(origin_count '^/slow/')"
at_least "calls Bazel made" 2 "$(metric "$ADMIN" grpc_server_handled_total 'grpc_method="FetchBlob"')"

step "$CLIENTS cold clients at once, ${#ARCHIVES[@]} archives"
# The answers take a moment, so that all clients are there before the first one has them.
workspace slow/3000 "${ARCHIVES[@]}"
fleet=()
for ((i = 0; i < CLIENTS; i++)); do
  client "$i" 300 >"$LOGS/client-$i.log" 2>&1 &
  fleet+=($!)
done
for ((i = 0; i < CLIENTS; i++)); do wait "${fleet[i]}" || fail "client $i failed"; done
for ((i = 0; i < CLIENTS; i++)); do same_outputs "$i" "${ARCHIVES[@]}"; done
for name in "${ARCHIVES[@]}"; do same "requests for $name" 1 "$(origin_count "^/slow/3000/$name")"; done
printf '   %s fetches joined another, %s were hits\n' "$(metric "$ADMIN" assetgate_fetches_joined_total)" "$(outcomes "$ADMIN" FetchBlob hit_)"
