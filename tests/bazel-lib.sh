# shellcheck shell=bash
# Real Bazel as a client: the workspace examples/bazel and the origin its downloads come from. Sourced after lib.sh.
# Set GATE (HOST:PORT) to the address under test.

needs bazel apt

# bazel_origin: starts the origin and puts a workspace that points at it into $WORK/workspace.
bazel_origin() {
  start_origin "$WORK/files"
  cp -r "$ROOT/examples/bazel" "$WORK/workspace"
  "$WORK/workspace/make_origin.sh" "$WORK/files" "$HTTP" "$HTTPS"
  cat "$WORK"/files/archive-1.0/{numbers,one}.txt >"$WORK/files/archive.expected"
}

# The same origin again, on the same port, with an empty log.
bazel_origin_again() {
  spawn origin python3 "$TESTS/origin.py" --dir "$WORK/files" --listen "${HTTP#http://}" \
    --tls "$WORK/certs/server.pem" "$WORK/certs/server.key" --tls-listen "${HTTPS#https://}"
  wait_for 20 origin curl -sf "$HTTP/_log"
}

# bazel_outputs NAME...: the client's outputs are the origin's files.
bazel_outputs() {
  local name original
  for name in "$@"; do
    original=$(find "$WORK/files" -maxdepth 1 -type f -name "$name.*" ! -name '*.tar')
    same_file "$name has the origin's bytes" "$original" "$CLIENT/ws/bazel-bin/$name.out"
  done
}

# bazel_client NAME: a client with an output root, a home and a copy of the workspace of its own.
bazel_client() {
  CLIENT=$WORK/client-$1
  mkdir -p "$CLIENT/home"
  cp -r "$WORK/workspace" "$CLIENT/ws"
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
