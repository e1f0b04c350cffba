#!/usr/bin/env bash
# Makes the files the workspace downloads, and origin.bzl, which says where they are and what their hashes are.
#
#   make_origin.sh DIR [HTTP_BASE] [HTTPS_BASE]
#
# DIR is what the download server serves (tests/origin.py --dir DIR).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:?usage: make_origin.sh DIR [HTTP_BASE] [HTTPS_BASE]}
http=${2:-http://127.0.0.1:8990} https=${3:-https://127.0.0.1:8991}
mkdir -p "$dir/archive-1.0"
dir=$(cd "$dir" && pwd)

printf 'one\n' >"$dir/archive-1.0/one.txt"
seq 1 20000 >"$dir/archive-1.0/numbers.txt"
tar -C "$dir" --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rw,go=r,a+X \
  -cf "$dir/archive-1.0.tar" archive-1.0
seq 1 200000 >"$dir/file.bin"
printf 'for members only\n' >"$dir/private.bin"
date +%s.%N >"$dir/unpinned.txt"

{
  printf '"""Written by make_origin.sh."""\n\nHTTP = "%s"\n\nHTTPS = "%s"\n\nPRIVATE = "%s"\n\nSHA256 = {\n' \
    "$http" "$https" "${http/127.0.0.1/localhost}"
  for f in archive-1.0.tar file.bin private.bin; do
    printf '    "%s": "%s",\n' "$f" "$(sha256sum "$dir/$f" | cut -d ' ' -f 1)"
  done
  printf '}\n'
} >"$here/origin.bzl"
