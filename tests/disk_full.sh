#!/usr/bin/env bash
# A disk that is really full: the embedded cache and the spool of downloads on a small tmpfs, with a bound that is larger.
# Writers are told RESOURCE_EXHAUSTED, what was acknowledged goes on being served, and after room is made writes work again.
#
#   tests/disk_full.sh [MIB]      size of the file system; 64 by default. Needs root, to mount it.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
mib=${1:-64}
needs "$PYTHON_GRPC" grpc
[ "$(id -u)" = 0 ] || fail "mounting a small file system needs root: run this as root, or in a container where you are"

disk=$WORK/disk
release() {
  halt gate
  umount "$disk"
}
mkdir "$disk"
mount -t tmpfs -o "size=${mib}m,mode=700" tmpfs "$disk" || fail "a tmpfs of $mib MiB cannot be mounted on $disk"
ON_EXIT+=(release)
mkdir "$disk/data" "$disk/spool"
# Removed later, which makes room.
dd if=/dev/zero of="$disk/ballast" bs=1M count=$((mib / 4)) status=none
printf '[fetch]\nspool_dir = "%s"\nmemory = "1MiB"\n' "$disk/spool" >"$WORK/gate.toml"

start() {
  start_assetgate gate --config "$WORK/gate.toml" --data-dir "$disk/data" --max-size "$((mib * 4))MiB" --origin-allow-cidr 127.0.0.0/8
}

# client WHAT: what disk_full.py is to do now.
client() {
  timeout 300 "$PYTHON_GRPC" "$TESTS/disk_full.py" "$STUBS" "$1" "$GRPC" "$HTTP" "$WORK/record.json" || fail "disk_full.py $1 ended with $?"
}

left_over() { find "$disk/data/tmp" "$disk/spool" -type f | wc -l; }
nothing_left() { [ "$(left_over)" = 0 ]; }
free_kib() { df --output=avail -k "$disk" | tail -n 1 | tr -d ' '; }
counted() { same "$1" 0 "$(metric "$ADMIN" "$2")"; }

intact() {
  wait_for 15 gate nothing_left
  same "temporary files" 0 "$(left_over)"
  client verify
  ok "everything acknowledged is served, byte for byte"
  counted "damaged files" assetgate_embedded_corrupt_total
  counted "evictions" assetgate_embedded_evictions_total
  counted "panics" assetgate_panics_total
}

start_origin "$WORK/files"
start
step "until the disk is full"
client fill
at_most "KiB free" 64 "$(free_kib)"
intact

step "killed and started on the full disk"
halt gate KILL
start
client refused
intact

step "room is made"
rm "$disk/ballast"
client again
ok "writes work again"
intact
