#!/usr/bin/env bash
# Counts the instructions of the forward path and compares them with benches/instructions.json: a rise of more than 5 %
# fails and names the functions that rose.
#
#   tests/instructions.sh             compares
#   tests/instructions.sh --record    writes the file anew
#   tests/instructions.sh --top       prints the costliest functions of each script
#
# What is counted is the release build's code between two canned peers in memory (benches/canned), on one thread, with
# metrics and limits as in the product. Two runs differ by less than 0.01 %, by what the seeds of hash tables move. It
# is built with the release profile, whose dependencies then serve both, and only keeps the names.
set -euo pipefail
cd "$(dirname "$0")/.."
recorded=benches/instructions.json
case ${1:-} in
  "") action=compare ;;
  --record) action=record ;;
  --top) action=top ;;
  *) echo "tests/instructions.sh: no option $1; there are --record and --top" >&2 && exit 64 ;;
esac
for tool in valgrind python3; do
  command -v "$tool" >/dev/null || { echo "   FAIL instructions: $tool is missing: apt-get install $tool" >&2 && exit 1; }
done

cargo rustc --release --quiet --features instructions --bin forward-instructions -- -C strip=none
program=forward-instructions
built=${CARGO_TARGET_DIR:-target}/release
folder=$(mktemp -d "${TMPDIR:-/tmp}/assetgate-instructions.XXXXXX")
trap 'rm -rf "$folder"' EXIT

# The C library picks its copying by the processor: this is the one that every x86-64 has. And `rep movsb` would count
# an instruction per byte. Where the stack begins depends on the environment and the program's name, and what a copy
# costs on where its ends are: so these are always the same.
tunables=glibc.cpu.hwcaps=-AVX2,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM:glibc.cpu.x86_rep_movsb_threshold=1000000000
scripts=()
while read -r name calls; do
  scripts+=("$name:$calls")
  env -i -C "$built" PATH=/usr/local/bin:/usr/bin:/bin GLIBC_TUNABLES="$tunables" timeout --kill-after=10 120 \
    valgrind --tool=callgrind --callgrind-out-file="$folder/$name.out" \
    --collect-atstart=no --toggle-collect='*measured*' "./$program" "$name" 2>"$folder/$name.log" || {
    tail -n 20 "$folder/$name.log" >&2
    echo "   FAIL instructions: $name did not run to its end under valgrind, see above" >&2
    exit 1
  }
done < <("$built/$program" list)

COMPILER=$(rustc --version) python3 tests/instructions.py "$action" "$recorded" "$folder" "${scripts[@]}"
