#!/usr/bin/env python3
"""The reference suite of tests/matrix.sh, a phase at a time; the script starts, stops and evicts in between.

    main.py STUBS SETTINGS PHASE            live, before, check-cas, gone, check-ac, forgotten, restarted, read_only, write_once
    main.py STUBS SETTINGS fill-cas MIB     evicts content nobody uses by writing MIB more
    main.py STUBS SETTINGS fill-ac N SIZE   the same for references: N entries of SIZE bytes
    main.py STUBS SETTINGS delete-cas DIR   removes the files of what is to be evicted
    main.py STUBS SETTINGS delete-ac DIR
    main.py STUBS SETTINGS head | row       prints the head of the table, the row of this cache

SETTINGS is a JSON file that the script writes; beside it stand what phases tell each other (.state) and results (.results).
"""

import json
import os
import sys

STUBS, SETTINGS, PHASE, ARGS = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
sys.path.insert(0, STUBS)

import durable
import fetching
import odd
import pushing
from checks import Failed, Matrix, run_phase

COLUMNS = ["push", "fetch", "blob evicted", "directory evicted", "reference evicted", "references kept", "overwrite", "expiry",
           "subset", "restart", "replicas", "clients", "rest"]  # fmt: skip
TOLD = {"healed", "NOT_FOUND", "refused", "changes refused"}  # notes of checks that belong into the table


def load(path, default):
    try:
        with open(path) as f:
            return json.load(f)
    except FileNotFoundError:
        return default


def files_of(folder, under):
    for at, _, names in os.walk(folder):
        if f"{os.sep}{under}" in at[len(folder):]:
            yield from (os.path.join(at, name) for name in names)


def delete_cas(m, folder):
    victims = {d.hash for d in m.state.digests("victims")}
    # Objects are named by their hash, some with the first two digits as the folder.
    for path in files_of(folder, "cas"):
        name = "".join(path.split(os.sep)[-2:])
        if any(v in name for v in victims):
            os.unlink(path)


def delete_ac(m, folder):
    """An entry holds the hash of its key's material, whatever the cache calls its file."""
    salts = [bytes.fromhex(salt) for salt, _ in m.state.entries("victim_entries")]
    for path in files_of(folder, "ac"):
        with open(path, "rb") as f:
            data = f.read()
        if any(s in data for s in salts):
            os.unlink(path)


def row(kind, results):
    """A column is fine when all its checks passed; else it names those that did not."""
    cells = []
    for column in COLUMNS:
        mine = [r for r in results if r["column"] == column]
        failed = sorted({r["id"] for r in mine if not r["ok"]})
        notes = sorted({r["note"] for r in mine} & TOLD)
        cells.append("-" if not mine else "✗ " + " ".join(failed) if failed else " ".join(["✓", *notes]))
    return "| " + " | ".join([kind, *cells]) + " |"


def main():
    settings = load(SETTINGS, None)
    state_file, results_file = SETTINGS + ".state", SETTINGS + ".results"
    if PHASE == "row":
        with open(results_file) as f:
            print(row(settings["kind"], [json.loads(line) for line in f]))
        return 0
    if PHASE == "head":
        print("| " + " | ".join(["cache", *COLUMNS]) + " |\n|" + "---|" * (len(COLUMNS) + 1))
        return 0
    matrix = Matrix(settings)
    saved = load(state_file, {})
    matrix.state = durable.State(saved)
    try:
        if PHASE == "fill-cas":
            failures = durable.fill_cas(matrix, int(ARGS[0])) or 0
        elif PHASE == "fill-ac":
            failures = durable.fill_ac(matrix, int(ARGS[0]), int(ARGS[1])) or 0
        elif PHASE == "delete-cas":
            failures = delete_cas(matrix, ARGS[0]) or 0
        elif PHASE == "delete-ac":
            failures = delete_ac(matrix, ARGS[0]) or 0
        else:
            failures = run_phase(PHASE, matrix, results_file)
    except Failed as e:
        print(f"   FAIL {settings['kind']} {PHASE}: {e}", flush=True)
        return 2
    with open(state_file, "w") as f:
        json.dump(saved, f)
    return 1 if failures else 0


assert fetching and odd and pushing
sys.exit(main())
