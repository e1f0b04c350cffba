#!/usr/bin/env bash
# Threads do not wait for each other. On two listener threads under load:
# - there are next to no futex calls, which every lock makes that somebody had to wait for;
# - when one thread is held still at any moment, the other goes on, which it could not if the first had a lock that both need: this
#   finds locks that are held too briefly for anybody to meet at them;
# - a call costs about the CPU that it costs on one thread.
#
#   tests/scaling.sh [CALLS [SAMPLES]]     20,000 at 10 connections x 10 streams, 3,000 moments
#
# Gates: FUTEX_GATE=0.001 futex calls of listener threads per call; HELD_GATE=0.001 of the moments; CPU_GATE=1.6 times the CPU per
# call of one thread. The last is wide, as stub and load compete for the same cores; its figures are printed.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
calls=${1:-20000} samples=${2:-3000}
needs h2load apt
needs strace apt
[ "$(nproc)" -ge 2 ] || fail "two cores are needed: on one, two threads never meet"
METHOD=/build.bazel.remote.execution.v2.ActionCache/GetActionResult

(cd "$ROOT/benches/compare" && cargo build --release --quiet) || fail "benches/compare does not build"
stub_port=$(free_port)
spawn stub "${CARGO_TARGET_DIR:-$ROOT/benches/compare/target}/release/stub" --port "$stub_port"
wait_for 20 stub listening "$stub_port"
printf '\0\0\0\0\144%0100d' 0 >"$WORK/message"

# gate NAME THREADS
gate() {
  start_assetgate "$1" --threads "$2" --log-level warn --upstream "grpc://127.0.0.1:$stub_port" --data-dir "$WORK/data-$1"
}

# h2 NAME ARGUMENT...: sets H2, the command that loads it.
h2() {
  local to=${GRPC_OF[$1]}
  shift
  H2=(timeout 300 h2load -c 10 -m 10 -w 20 -W 20 -d "$WORK/message" -H "content-type: application/grpc" -H "te: trailers" "$@" "http://$to$METHOD")
}

# share N GATE: how many of N the gate allows.
share() { awk -v n="$1" -v gate="$2" 'BEGIN { printf "%d", n * gate }'; }

# load NAME: every call is answered, by the count of h2load and by ours.
load() {
  local before after
  before=$(handled "$1")
  h2 "$1" -n "$calls"
  "${H2[@]}" >"$WORK/h2load.txt" 2>&1 || fail "h2load ended with $?"
  after=$(handled "$1")
  [ $((after - before)) = "$calls" ] || { cat "$WORK/h2load.txt" >&2; fail "$calls calls: $((after - before)) ended with OK"; }
}
handled() { metric "${ADMIN_OF[$1]}" grpc_server_handled_total 'grpc_method="GetActionResult"' 'grpc_code="OK"'; }

# listeners PID: the ids of its listener threads.
listeners() {
  local task
  for task in "/proc/$1/task"/*; do
    case $(cat "$task/comm") in listener-*) basename "$task" ;; esac
  done
}

# cpu PID: nanoseconds of its listener threads.
cpu() {
  local task sum=0
  for task in $(listeners "$1"); do sum=$((sum + $(cut -d ' ' -f 1 "/proc/$1/task/$task/schedstat"))); done
  echo $sum
}

# futexes PID: futex calls of its listener threads so far; a call that was cut in two by another thread's counts once.
futexes() {
  local pattern
  pattern=$(listeners "$1" | paste -sd '|')
  grep -Ec "^($pattern) +futex\(" "$WORK/strace.txt" || true
}

step "futex calls on two threads"
# Only futex calls stop, so that threads meet as they do without strace.
ASSETGATE_PREFIX="strace -f --seccomp-bpf -e trace=futex -o $WORK/strace.txt" gate traced 2
traced=$(cat "/proc/${PID[traced]}/task/${PID[traced]}/children")
traced=${traced%% *}
# strace itself lives as long as what it runs.
ON_EXIT+=("kill $traced")
same "listener threads" 2 "$(listeners "$traced" | wc -l)"
load traced
before=$(futexes "$traced")
load traced
seen=$(($(futexes "$traced") - before))
for thread in $(listeners "$traced"); do
  at_least "ms of CPU of thread $thread: both take part" 20 $(($(cut -d ' ' -f 1 "/proc/$traced/task/$thread/schedstat") / 1000000))
done
at_most "futex calls for $calls calls" "$(share "$calls" "${FUTEX_GATE:-0.001}")" "$seen"
kill "$traced"
halt traced

step "one thread held still at $samples moments"
gate two 2
before=$(handled two)
h2 two -D 280
spawn load "${H2[@]}"
sleep 1
waited=$(timeout 240 python3 "$TESTS/scaling.py" "${PID[two]}" listener- "$samples") || fail "scaling.py ended with $?"
halt load
# While one thread is still, its calls are too.
at_least "calls meanwhile" "$samples" $(($(handled two) - before))
at_most "moments at which the other thread waited for it" "$(share "$samples" "${HELD_GATE:-0.001}")" "$waited"

step "CPU of a call on one thread and on two"
gate one 1
# per_call NAME: nanoseconds of one run.
per_call() {
  local before
  before=$(cpu "${PID[$1]}")
  load "$1"
  echo $((($(cpu "${PID[$1]}") - before) / calls))
}
median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
load one
load two
for _ in 1 2 3 4 5; do
  per_call one >>"$WORK/one"
  per_call two >>"$WORK/two"
done
one=$(median "$WORK/one") two=$(median "$WORK/two")
printf '   one thread %d ns, two threads %d ns, ratio %s\n' "$one" "$two" "$(awk "BEGIN { printf \"%.2f\", $two / $one }")"
at_most "ns of CPU per call on two threads" "$(share "$one" "${CPU_GATE:-1.6}")" "$two"
