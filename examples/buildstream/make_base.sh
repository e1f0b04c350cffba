#!/usr/bin/env bash
# Makes files/base: a statically linked busybox under the names the example's command uses.
set -euo pipefail
cd "$(dirname "$0")"
[ -x /bin/busybox ] || { echo "a static busybox is missing (Debian: busybox-static)" >&2; exit 1; }
mkdir -p files/base/bin
cp /bin/busybox files/base/bin/busybox
for name in sh cat cp mkdir sha256sum true find touch; do ln -sf busybox "files/base/bin/$name"; done
