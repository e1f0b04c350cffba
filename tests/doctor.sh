#!/usr/bin/env bash
# `assetgate doctor` over every real cache: what the probe says of each has to be what that cache does
# (checked by hand with requests of their own when it was written), and its exit codes.
#
#   tests/doctor.sh
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

CHECKED="files_checked trees_checked pins_checked lost_trees_checked"

# doctor WHAT CODE ARGUMENT...: the report as JSON in $WORK/report.json.
doctor() {
  local what=$1 want=$2 code=0
  shift 2
  timeout 60 "$ASSETGATE" doctor "${CACHE_ARGS[@]}" "$@" --json >"$WORK/report.json" 2>"$WORK/doctor.err" || code=$?
  [ "$code" = "$want" ] || cat "$WORK/report.json" "$WORK/doctor.err" >&2
  same "$what: exit code" "$want" "$code"
}

# finds WHAT VALUE CHECK...: the report has this value for each.
finds() {
  local what=$1 want=$2 check
  shift 2
  for check in "$@"; do
    same "$what: $check" "$want" "$(python3 -c '
import json, sys
[report] = json.load(open(sys.argv[1]))
print(report["findings"][sys.argv[2]]["value"])' "$WORK/report.json" "$check")"
  done
}

# says WHAT REGEX: somewhere in the report.
says() { contains "$1" "$WORK/report.json" "$2"; }

# shellcheck disable=SC2086 # CHECKED is a list of words
checks() { finds "$1" "$2" $CHECKED; }

step "embedded"
start_cache embedded
doctor embedded 0
finds embedded yes content sizes writable payload root_digest overwrite instances
checks embedded yes

step "casd"
start_cache casd
doctor casd 0
finds casd yes content writable payload root_digest overwrite instances get_tree
finds casd no sizes
checks casd yes
halt cache

step "BuildGrid"
start_cache buildgrid
doctor BuildGrid 0 --require complete --require writable
finds BuildGrid yes content writable payload root_digest overwrite instances get_tree
finds BuildGrid no sizes
checks BuildGrid yes
halt cache

step "BuildGrid without updates"
start_cache buildgrid_no_updates
doctor "BuildGrid without updates" 1
finds "BuildGrid without updates" yes content
finds "BuildGrid without updates" refused writable
says "it names the code" 'UNIMPLEMENTED'
halt cache

step "BuildGrid, write once"
start_cache buildgrid_write_once
doctor "BuildGrid, write once" 1
finds "BuildGrid, write once" yes content writable payload
finds "BuildGrid, write once" refused overwrite
checks "BuildGrid, write once" yes
halt cache

step "bazel-remote"
start_cache bazel_remote
doctor bazel-remote 0
finds bazel-remote yes content sizes writable payload root_digest overwrite get_tree
finds bazel-remote no instances
checks bazel-remote yes
doctor "bazel-remote, instances required" 1 --require instances
halt cache

step "bb-storage with completeness checking"
COMPLETENESS=1 start_cache bb_storage
doctor bb-storage 0 --instance some/name
finds bb-storage yes content sizes writable payload root_digest overwrite instances
finds bb-storage no get_tree
checks bb-storage yes
halt cache

step "bb-storage without, sharded"
SHARDS=2 start_cache bb_storage_unchecked
doctor "bb-storage, unchecked" 0
finds "bb-storage, unchecked" yes content sizes writable payload root_digest overwrite instances
checks "bb-storage, unchecked" no
doctor "bb-storage, completeness required" 1 --require complete
contains "the condition in words" "$WORK/doctor.err" 'complete. is not met: the cache withholds entries'
halt cache

step "bb-storage that refuses writes"
start_cache bb_storage_read_only
doctor "bb-storage, read only" 1
finds "bb-storage, read only" yes content
finds "bb-storage, read only" refused writable
finds "bb-storage, read only" unknown payload overwrite
says "what to do" 'PERMISSION_DENIED.*give callers write access, or set references.upstream'
doctor "bb-storage, references embedded" 0 --references-upstream embedded
finds "bb-storage, references embedded" yes content writable payload overwrite
halt cache

step "a cache that is not there"
doctor "no cache" 69
says "which address" "$CACHE_ADDRESS"
