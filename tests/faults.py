#!/usr/bin/env python3
"""Fetches from an origin that misbehaves on 30 % of its requests, reads back every answer, and looks for leaks afterwards.

    faults.py STUBS ADDRESS ADMIN PID ORIGIN SPOOL SECONDS CALLERS

CALLERS threads ask for made-up files: new ones, ones others ask for at this moment, and earlier ones; with a checksum and without;
from one to four mirrors, all of which misbehave. Every OK must be the right bytes, read from the cache. Every failure must name a URL and
a reason. When nobody asks any more, memory, descriptors, spool files and gauges must be back where they were.

Prints counts; ends with 1 when anything was wrong, or when too little happened to prove anything.
"""

import base64
import collections
import hashlib
import json
import os
import random
import re
import sys
import threading
import time
import urllib.request

STUBS, ADDRESS, ADMIN, PID, ORIGIN, SPOOL = sys.argv[1:7]
SECONDS, CALLERS = float(sys.argv[7]), int(sys.argv[8])
sys.path.insert(0, STUBS)

import grpc
from build.bazel.remote.asset.v1 import remote_asset_pb2 as asset
from build.bazel.remote.asset.v1 import remote_asset_pb2_grpc as asset_grpc
from google.bytestream import bytestream_pb2 as bytestream
from google.bytestream import bytestream_pb2_grpc as bytestream_grpc

PERCENT = 30
FAULTS = ["cut", "truncated", "stall", "reset", "slow", "endless", "429", "503"]  # whoever pinned nothing cannot see "wrong"
# What a reason looks like: an HTTP status, or what became of the connection or the body.
REASON = re.compile(
    r"\b(429|503)\b|silen|stall|no (complete )?answer|nothing (came|arrived)|timed? ?out|time was up|clos|reset|broke|cut|short|incomplete|"
    r"ended|checksum|expected|larger|more than|too (large|big)|bytes"
)
SEED = int(os.environ.get("SEED") or random.randrange(1 << 32))
GROWTH_MIB = 24  # of resident memory between the first idle moment and the last
LATE = 64  # sockets that may stay: the connections of clients, to the cache, and pooled ones to the origin

lock = threading.Lock()
stop = threading.Event()
counts = collections.Counter()
reasons = collections.Counter()
problems = []
files = collections.deque(maxlen=300)
number = 0


def problem(text):
    with lock:
        problems.append(text)
        if len(problems) <= 20:
            print("   PROBLEM " + text, flush=True)


def count(what):
    with lock:
        counts[what] += 1


class File:
    def __init__(self, rng, number):
        self.name = f"{SEED:x}-{number}"
        # Most are small, some are larger than what stays in memory.
        self.size = rng.choice([0, 1, rng.randrange(1 << 10), rng.randrange(1 << 16), rng.randrange(1 << 18), rng.randrange(1 << 20), rng.randrange(3 << 20)])  # fmt: skip
        self.pinned = rng.random() < 0.6
        data = self.data()
        self.hash = hashlib.sha256(data).digest()
        faults = FAULTS + ["wrong"] if self.pinned else FAULTS
        url = f"{ORIGIN}/faulty/{PERCENT}/{','.join(faults)}/{self.size}/{self.name}"
        self.uris = [f"{url}?mirror={i}" for i in range(rng.choice([1, 1, 2, 3, 4]))]

    def data(self):
        return hashlib.shake_128(self.name.encode()).digest(self.size)

    def request(self, rng):
        request = asset.FetchBlobRequest(uris=self.uris)
        if self.pinned:
            request.qualifiers.add(name="checksum.sri", value="sha256-" + base64.b64encode(self.hash).decode())
        if rng.random() < 0.2:
            request.timeout.FromSeconds(rng.randrange(3, 20))
        return request


def pick(rng):
    global number
    with lock:
        if len(files) < 50 or rng.random() < 0.5:
            number += 1
            files.append(File(rng, number))
            return files[-1]
        # The newest are probably on their way still.
        return files[-rng.randrange(1, 20)] if rng.random() < 0.5 else rng.choice(files)


def explained(text, file):
    """Whether a failure says of which URL it speaks, and why."""
    if not any(uri.partition("?")[0] in text for uri in file.uris):
        problem(f"a failure that names no URL: {text}")
    elif not (found := REASON.search(re.sub(r"\bhttps?://\S+", "", text))):
        problem(f"a failure that names no reason: {text}")
    else:
        with lock:
            reasons[found.group(0)] += 1


def caller(index):
    rng = random.Random(SEED + index)
    with grpc.insecure_channel(ADDRESS, [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]) as channel:
        fetch, read = asset_grpc.FetchStub(channel).FetchBlob, bytestream_grpc.ByteStreamStub(channel).Read
        while not stop.is_set():
            one(rng, fetch, read)


def one(rng, fetch, read):
    file = pick(rng)
    pinned = "pinned" if file.pinned else "unpinned"
    if rng.random() < 0.03:  # whoever leaves early harms nobody
        try:
            fetch(file.request(rng), timeout=rng.uniform(0.01, 1))
        except grpc.RpcError as e:
            if e.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
                explained(e.details() or "", file)
        return count("left early")
    try:
        answer = fetch(file.request(rng), timeout=90)
    except grpc.RpcError as e:
        count(f"{pinned} failed {e.code().name}")
        return explained(e.details() or "", file)
    if answer.status.code:
        count(f"{pinned} failed inline {answer.status.code}")
        if answer.blob_digest.hash:
            problem(f"a failure with a digest: {answer}")
        return explained(answer.status.message, file)
    count(f"{pinned} OK")
    if (answer.blob_digest.hash, answer.blob_digest.size_bytes) != (file.hash.hex(), file.size):
        return problem(f"a wrong digest for {file.uris[0]}: {answer.blob_digest}, {file.hash.hex()} {file.size} expected")
    try:
        name = f"blobs/{answer.blob_digest.hash}/{answer.blob_digest.size_bytes}"
        got = b"".join(part.data for part in read(bytestream.ReadRequest(resource_name=name), timeout=60))
    except grpc.RpcError as e:
        return problem(f"{file.uris[0]} was answered and could not be read: {e.code().name} {e.details()}")
    if got != file.data():
        problem(f"wrong bytes for {file.uris[0]}: {len(got)}, {file.size} expected")


# ---- leaks ----


def page(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def gauge(name):
    """The sum over its series; None when it has none."""
    lines = [s for s in page(f"http://{ADMIN}/metrics").splitlines() if re.match(re.escape(name) + r"[ {]", s)]
    return int(sum(float(s.rsplit(" ", 1)[1]) for s in lines)) if lines else None


def resident():
    with open(f"/proc/{PID}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:")) / 1024


def descriptors():
    """All, those that lead into the spool folder, and those whose file is gone."""
    links = []
    for fd in os.listdir(f"/proc/{PID}/fd"):
        try:
            links.append(os.readlink(f"/proc/{PID}/fd/{fd}"))
        except FileNotFoundError:
            pass
    return len(links), sum(link.startswith(SPOOL) for link in links), sum(link.endswith("(deleted)") for link in links)


GAUGES = ("assetgate_fetch_in_flight", "assetgate_spool_bytes", "assetgate_fetches_unattended")


def state():
    count_, spooled, deleted = descriptors()
    seen = {"descriptors": count_, "spool files open": spooled, "deleted files open": deleted, "spool files": len(os.listdir(SPOOL))}
    return seen | {name: gauge(name) for name in GAUGES}


def idle(before=None):
    """Waits until nothing is under way; then what is held."""
    for _ in range(900):
        seen = state()
        # The gauge of a kind of fetch that never was is not there, which is zero.
        busy = {k: v for k, v in seen.items() if k != "descriptors" and v}
        if not busy and (before is None or seen["descriptors"] <= before + LATE):
            return seen, resident()
        time.sleep(0.1)
    problem(f"90 s after the last call this is still held: {seen}")
    return seen, resident()


def run(seconds):
    stop.clear()
    threads = [threading.Thread(target=caller, args=(i + 1000 * int(time.time()),)) for i in range(CALLERS)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()


def main():
    print(f"   seed {SEED}, {CALLERS} callers", flush=True)
    with grpc.insecure_channel(ADDRESS) as channel:
        grpc.channel_ready_future(channel).result(20)
    before, at_start = idle()
    run(SECONDS / 3)
    _, first = idle()
    run(SECONDS * 2 / 3)
    after, last = idle(before["descriptors"])
    faults = json.loads(page(f"{ORIGIN}/_faults"))
    total = faults.pop("requests")
    print(f"   origin: {total} requests, {sum(faults.values())} with a fault: {faults}")
    print(f"   answers: {dict(sorted(counts.items()))}")
    print(f"   reasons of failures: {dict(reasons.most_common())}")
    print(f"   resident: {at_start:.1f} MiB at the start, {first:.1f} after a third, {last:.1f} at the end")
    print(f"   held at the start: {before}")
    print(f"   held at the end: {after}", flush=True)
    good = counts["pinned OK"] + counts["unpinned OK"]
    failed = sum(n for what, n in counts.items() if "failed" in what)
    print(f"   {good} OK, {failed} failed ({100 * failed / max(1, good + failed):.1f} %)")
    if last - first > GROWTH_MIB:
        problem(f"resident memory grew from {first:.1f} to {last:.1f} MiB")
    for name in GAUGES:
        if after[name] is None:
            problem(f"/metrics has no {name}")
    if sum(faults.values()) < 0.2 * total or any(kind not in faults for kind in [*FAULTS, "wrong"]) or good < 5 * SECONDS:
        problem("too little happened to prove anything")
    if failed > float(os.environ.get("MOST_FAILED", "6")) / 100 * (good + failed):
        problem(f"{failed} of {good + failed} fetches failed: retries and mirrors are there to prevent that")
    return bool(problems)


sys.exit(main())
