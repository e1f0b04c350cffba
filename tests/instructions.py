#!/usr/bin/env python3
"""Compares instruction counts of the forward path with the recorded ones; tests/instructions.sh runs it.

    instructions.py compare RECORDED FOLDER SCRIPT:CALLS...    fails when a script's total rose by more than 5 %
    instructions.py record  RECORDED FOLDER SCRIPT:CALLS...    writes RECORDED anew
    instructions.py top     RECORDED FOLDER SCRIPT:CALLS...    prints the costliest functions

FOLDER holds callgrind's output of each script, as SCRIPT.out. All counts are per call and leave out what the canned
peers spend, with all that is below them. Copying, comparing and allocating are charged to the function that asks for
it: that memcpy costs more would help nobody. So the functions of a script add up to its total.
"""
import json
import os
import re
import sys
from collections import defaultdict

LIMIT = 0.05
TOP = 40
# Functions below this share of their script's total are not recorded one by one.
SMALLEST = 0.002
PEERS = re.compile(r"\bcanned::(peer|frames)::")
LIBRARY = re.compile(
    r"^(_?_?(int_)?(mem(cpy|move|set|cmp|chr|rchr)|bcmp|strlen|malloc|free|realloc|calloc|aligned_alloc|posix_memalign)"
    r"|_int_(malloc|free|realloc|memalign)|malloc_consolidate|unlink_chunk|tcache_|_mid_memalign|sysmalloc|systrim"
    r"|alloc::(raw_vec|slice|vec)::|bytes::bytes::Bytes::copy_from_slice|__rust_(alloc|dealloc|realloc)|__rustc::|__rdl_|_?mi_)"
)


def clean(name):
    """A name that is the same in every build."""
    name = re.sub(r"'\d+$", "", name)
    name = re.sub(r"::h[0-9a-f]{16}$", "", name)
    name = re.sub(r"\[[0-9a-f]{16}\]", "", name)
    name = re.sub(r"\.(llvm|cold|part|constprop)\.?\d*", "", name)
    return re.sub(r"^(__mem\w+?)_(sse\w*|avx\w*|evex\w*|erms|ssse3\w*)$", r"\1", name)


class Profile:
    """One callgrind output: what each function spends itself, and in what it calls."""

    def __init__(self, path):
        self.own = defaultdict(int)
        self.calls = defaultdict(int)  # (caller, callee) -> instructions in the callee, inclusive
        self.names = {}
        current = callee = None
        for line in open(path, encoding="utf-8", errors="replace"):
            if line.startswith("fn="):
                current = self.name(line[3:])
            elif line.startswith("cfn="):
                callee = self.name(line[4:])
            elif line[0] in "0123456789+-*":
                cost = int(line.split()[1])
                if callee is None:
                    self.own[current] += cost
                else:
                    self.calls[current, callee] += cost
                    callee = None
        if not self.own:
            sys.exit(f"{path}: callgrind counted nothing; is `measured` still the name in benches/instructions/main.rs?")

    def name(self, text):
        number, _, name = text.strip().partition(" ")
        if name:
            self.names[number] = clean(name)
        return self.names[number]


def account(profile):
    """Of the proxy alone: the total, {function: [instructions, of these in libraries]}, {function: its main caller}."""
    own = dict(profile.own)
    callers, theirs = defaultdict(lambda: defaultdict(int)), 0
    for (caller, callee), cost in profile.calls.items():
        callers[callee][caller] += cost
        if PEERS.search(callee) and not PEERS.search(caller):
            theirs += cost
    share = peers_share(own, callers)
    charged = defaultdict(lambda: [0.0, 0.0])
    for function, cost in own.items():
        cost *= 1 - share.get(function, 0.0)
        for name, part in owners(function, callers, share, set()):
            charged[name][0] += cost * part
            charged[name][1] += cost * part if name != function else 0
    main = {function: max(by, key=by.get) for function, by in callers.items()}
    return sum(own.values()) - theirs, charged, main


def peers_share(own, callers):
    """Which part of each function's calls is made by the canned peers, directly or not."""
    share = {function: 1.0 for function in own if PEERS.search(function)}
    for _ in range(30):
        for function, by in callers.items():
            if PEERS.search(function):
                continue
            whole = sum(by.values())
            part = sum(cost * share.get(caller, 0.0) for caller, cost in by.items())
            share[function] = part / whole if whole else 0.0
    return share


def owners(function, callers, share, seen):
    """Who pays for a function: itself, or its callers in proportion if it is of a library."""
    by = {c: cost * (1 - share.get(c, 0.0)) for c, cost in callers.get(function, {}).items() if c not in seen}
    whole = sum(by.values())
    if not LIBRARY.match(function) or not whole:
        return [(function, 1.0)]
    found = []
    for caller, cost in by.items():
        for name, part in owners(caller, callers, share, seen | {function}):
            found.append((name, part * cost / whole))
    return found


def load(folder, scripts):
    result = {}
    for script in scripts:
        name, calls = script.split(":")
        calls = int(calls)
        total, charged, callers = account(Profile(os.path.join(folder, f"{name}.out")))
        functions = {f: [all_ / calls, library / calls] for f, (all_, library) in charged.items()}
        result[name] = (total / calls, functions, callers)
    return result


def top(_, counted):
    for name, (total, functions, _) in counted.items():
        print(f"{name}: {total:,.0f} instructions per call; per function, and of these copying and allocating")
        for function, (cost, library) in sorted(functions.items(), key=lambda f: -f[1][0])[:TOP]:
            print(f"{cost:10,.0f} {cost / total:6.1%} {library:10,.0f}  {function}")


def record(path, counted):
    scripts = {}
    for name, (total, functions, _) in counted.items():
        large = {f: round(cost) for f, (cost, _) in functions.items() if cost >= total * SMALLEST}
        scripts[name] = {"total": round(total), "functions": dict(sorted(large.items()))}
    recorded = {
        "about": "instructions per call of the forward path; tests/instructions.sh compares, --record writes this",
        "compiler": os.environ.get("COMPILER", "unknown"),
        "scripts": scripts,
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(recorded, file, indent=1)
        file.write("\n")
    for name, script in scripts.items():
        print(f"   {name}: {script['total']:,} instructions per call")
    print(f"   recorded in {path}")


def compare(path, counted):
    with open(path, encoding="utf-8") as file:
        recorded = json.load(file)
    unlike = set(recorded["scripts"]) ^ set(counted)
    if unlike:
        sys.exit(f"{', '.join(sorted(unlike))}: recorded or counted, not both; tests/instructions.sh --record")
    risen, fallen = [], []
    for name, (total, functions, callers) in counted.items():
        before = recorded["scripts"][name]
        change = total / before["total"] - 1
        print(f"   {name}: {before['total']:,} -> {total:,.0f} instructions per call ({change:+.2%})")
        if change > LIMIT:
            risen.append(name)
            rises(before, functions, callers)
        elif change < -LIMIT:
            fallen.append(name)
    if recorded["compiler"] != os.environ.get("COMPILER", "unknown") and (risen or fallen):
        print(f"   recorded with {recorded['compiler']}, this is {os.environ.get('COMPILER', 'unknown')}")
    if fallen:
        print(f"   {', '.join(fallen)}: more than {LIMIT:.0%} cheaper; tests/instructions.sh --record keeps it so")
    if risen:
        sys.exit(
            f"   FAIL instructions: {', '.join(risen)}: more than {LIMIT:.0%} above {path}, by the functions named"
            " above. If it is worth it, tests/instructions.sh --record, with the reason in the commit."
        )


def rises(before, functions, callers):
    """Names the functions that rose most. One that was not recorded cost less than the smallest that was."""
    known, unknown = before["functions"], before["total"] * SMALLEST
    rises = [(cost - known.get(f, min(cost, unknown)), f, cost) for f, (cost, _) in functions.items()]
    for rise, function, cost in sorted(rises, reverse=True)[:5]:
        if rise >= 1:
            was = f"{known[function]:,}" if function in known else f"below {unknown:,.0f}"
            print(f"      {function}: {was} -> {cost:,.0f} (+{rise:,.0f}), called by {callers.get(function, '(nobody)')}")


if __name__ == "__main__":
    {"compare": compare, "record": record, "top": top}[sys.argv[1]](sys.argv[2], load(sys.argv[3], sys.argv[4:]))
