"""Cases with a conformance id, run some at a time, and a line told for each."""

import concurrent.futures
import json
import random
import re
import time
import traceback
import urllib.request
import uuid

import grpc
from grpc_status import rpc_status
from google.rpc import error_details_pb2

from client import Server, tell

Code = grpc.StatusCode
AT_ONCE = 4  # cases running at a time; most wait, for a clock or for the cache


class Failed(Exception):
    """What was expected and what was seen."""


class Matrix:
    """What a case works with: two Assetgates `a` and `b` over one cache, the cache itself, and the download server."""

    def __init__(self, settings):
        self.settings = settings
        self.kind = settings["kind"]
        self.a, self.b = Server(settings["a"]), Server(settings["b"])
        self.cache = Server(settings["cache"]) if settings["cache"] else self.a
        self.no_push = Server(settings["no_push"]) if settings.get("no_push") else None
        self.origin = settings["origin"]
        self.files = settings["files"]

    # ---- making ----

    def uri(self, what="x"):
        return f"urn:matrix:{what}:{uuid.uuid4()}"

    def data(self, size=60):
        return random.randbytes(size)

    def stored(self, size=60):
        """The digest of a new blob in the CAS."""
        return self.a.put(self.data(size))

    def file(self, size=100, how="files"):
        """A URL of a new file at the origin, and its content."""
        name, data = f"{uuid.uuid4()}", self.data(size)
        with open(f"{self.files}/{name}", "wb") as f:
            f.write(data)
        return f"{self.origin}/{how}/{name}", data

    def asked(self, url):
        """How often the origin was asked for a URL."""
        path = url.removeprefix(self.origin)
        with urllib.request.urlopen(f"{self.origin}/_log", timeout=10) as f:
            return sum(e["path"] == path for e in json.load(f))

    def metric(self, name, which="a"):
        with urllib.request.urlopen(f"http://{self.settings['admin_' + which]}/metrics", timeout=10) as f:
            lines = f.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(re.escape(name) + r"[ {]", line))

    # ---- demanding ----

    def true(self, fact, text):
        if not fact:
            raise Failed(text)

    def same(self, what, expected, seen):
        if expected != seen:
            raise Failed(f"{what}: expected {expected}, saw {seen}")

    def ok(self, answer, digest, uri=None):
        """An OK answer with this digest, whose content is there (H1)."""
        said = answer.status
        seen = getattr(answer, "blob_digest", None) or getattr(answer, "root_directory_digest", None)
        if said.code:
            raise Failed(f"expected {tell(digest)}, saw status {said.code} inside the answer: {said.message}")
        if digest is not None:
            self.same("digest", tell(digest), tell(seen))
        if uri is not None:
            self.same("uri of the answer", uri, answer.uri)
        if gone := self.cache.missing([seen]):
            raise Failed(f"OK although the CAS does not have {tell(gone[0])}")
        return answer

    def ok_tree(self, answer, root):
        self.ok(answer, root)
        if gone := self.cache.lost(root):
            raise Failed(f"OK although the CAS lacks {len(gone)} of the directory, {tell(gone[0])} for one")
        return answer

    def miss(self, answer, what="the fetch"):
        """NOT_FOUND inside the answer, without a digest, and a sentence."""
        seen = getattr(answer, "blob_digest", None) or getattr(answer, "root_directory_digest", None)
        if answer.status.code != Code.NOT_FOUND.value[0]:
            raise Failed(f"{what}: expected NOT_FOUND, saw {answer.status.code or 'OK'} with {tell(seen)}")
        self.true(not seen or not seen.hash, f"{what}: a NOT_FOUND with digest {tell(seen)}")
        self.true(" " in answer.status.message, f"{what}: a NOT_FOUND without a sentence: '{answer.status.message}'")

    def refused(self, code, call, *args, words="", **kwargs):
        """The call fails with this code; returns its details by type."""
        try:
            answer = call(*args, **kwargs)
        except grpc.RpcError as e:
            if e.code() != code:
                raise Failed(f"expected {code.name}, saw {e.code().name}: {e.details()}") from None
            self.true(" " in e.details(), f"{code.name} without a sentence: '{e.details()}'")
            self.true(re.search(words, e.details()), f"expected a text that matches '{words}', saw: {e.details()}")
            return details(e)
        raise Failed(f"expected {code.name}, saw OK {str(answer)[:200]!r}")


def details(error):
    status = rpc_status.from_call(error)
    found = []
    for any_ in status.details if status else []:
        for kind in (error_details_pb2.BadRequest, error_details_pb2.PreconditionFailure, error_details_pb2.RetryInfo):
            message = kind()
            if any_.Unpack(message):
                found.append(message)
    return found


# ---- cases ----

CASES = []


def case(id_, column, title, phase="live", alone=False):
    """Registers a function as a case. `column` is where it counts in the table; an `alone` one runs beside no other."""

    def register(run):
        CASES.append((phase, alone, id_, column, title, run))
        return run

    return register


def attempt(run, matrix):
    began = time.monotonic()
    try:
        note = run(matrix)
        return None, note, time.monotonic() - began
    except Failed as e:
        why = str(e)
    except grpc.RpcError as e:
        where = traceback.extract_tb(e.__traceback__)
        line = next((f.lineno for f in reversed(where) if "/matrix/" in f.filename and "client.py" not in f.filename), 0)
        why = f"line {line}: {e.code().name}: {e.details()}"
    except Exception as e:  # noqa: BLE001 - a case that breaks is a case that fails
        traceback.print_exc()
        why = f"{type(e).__name__}: {e}"
    return why, None, time.monotonic() - began


def run_phase(phase, matrix, results):
    """Runs the cases of a phase; writes a line for each to the file `results`; returns how many failed."""
    chosen = [c for c in CASES if c[0] == phase]
    assert chosen, f"no case belongs to phase {phase}"
    failures = 0
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool, open(results, "a") as out:
        together = [(c, pool.submit(attempt, c[5], matrix)) for c in chosen if not c[1]]
        outcomes = [(c, future.result()) for c, future in together]
        outcomes += [(c, attempt(c[5], matrix)) for c in chosen if c[1]]
        for (_, _, id_, column, title, _), (why, note, seconds) in outcomes:
            failures += why is not None
            text = f"{matrix.kind} {id_} {title}" + (f": {note}" if note else "")
            print(f"   ok   {text}" if why is None else f"   FAIL {text}: {why}", flush=True)
            out.write(json.dumps({"id": id_, "column": column, "ok": why is None, "note": note, "why": why,
                                  "seconds": round(seconds, 2)}) + "\n")  # fmt: skip
    return failures
