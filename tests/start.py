#!/usr/bin/env python3
"""Starts the embedded cache again and again and takes the time from exec to the port file.

    start.py STUBS ASSETGATE WORK BLOBS LIMIT_MS

Five starts each: after SIGTERM, after SIGKILL, and in another boot of the machine, which is played by another boot in the
file `state` of the cache: once with everything synced before the cut, once with nothing known to be synced, where every
blob has to be verified before it is served. After each start, what is served is right; at the end of each part, all of it
is served. Ends with 1 when a median is over the limit or anything is missing or wrong.
"""

import hashlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time

STUBS, ASSETGATE, WORK, BLOBS, LIMIT = *sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5])
sys.path.insert(0, STUBS)

import grpc
from build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from build.bazel.remote.execution.v2 import remote_execution_pb2_grpc as reapi_grpc

STARTS = 5
DATA, PORTS, LOG = f"{WORK}/data", f"{WORK}/start.ports", open(f"{WORK}/logs/start.log", "ab")
rng = random.Random(7)
process = None


def content(n):
    return b"blob %d\n" % n * 40


digests = [reapi.Digest(hash=hashlib.sha256(content(n)).hexdigest(), size_bytes=len(content(n))) for n in range(BLOBS)]


def start():
    """Milliseconds, and a stub of the CAS."""
    global process
    if os.path.exists(PORTS):
        os.unlink(PORTS)
    began = time.monotonic()
    process = subprocess.Popen(
        [ASSETGATE, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "off", "--port-file", PORTS,
         "--data-dir", DATA, "--max-size", "20GiB"], stdin=subprocess.DEVNULL, stdout=LOG, stderr=LOG)  # fmt: skip
    while True:
        try:
            with open(PORTS) as f:
                address = json.load(f)["grpc"]
            break
        except (FileNotFoundError, ValueError):
            if process.poll() is not None or time.monotonic() - began > 60:
                sys.exit(f"   it did not start (exit status {process.poll()})")
            time.sleep(0.001)
    took = (time.monotonic() - began) * 1000
    channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
    return took, reapi_grpc.ContentAddressableStorageStub(channel)


def stop(how):
    process.send_signal(how)
    process.wait(30)


def missing(cas, wanted):
    request = reapi.FindMissingBlobsRequest(blob_digests=wanted)
    return cas.FindMissingBlobs(request, timeout=60, wait_for_ready=True).missing_blob_digests


def check(cas, all_there):
    """Some blobs, read back: right if they are there, and there if they must be."""
    some = rng.sample(range(BLOBS), 200)
    request = reapi.BatchReadBlobsRequest(digests=[digests[n] for n in some])
    answers = cas.BatchReadBlobs(request, timeout=60, wait_for_ready=True).responses
    for n, answer in zip(some, answers, strict=True):
        if answer.status.code != 0 and all_there:
            sys.exit(f"   blob {n} cannot be read: {answer.status.message}")
        if answer.status.code == 0 and answer.data != content(n):
            sys.exit(f"   blob {n} has other content")


def check_all(cas):
    end = time.monotonic() + 120
    left = digests
    while left:
        left = [d for at in range(0, len(left), 10_000) for d in missing(cas, left[at : at + 10_000])]
        if left and time.monotonic() > end:
            sys.exit(f"   {len(left)} blobs are still missing")


def other_boot(synced):
    with open(f"{DATA}/state", "w") as f:
        f.write(f"another-boot {synced} .\n")


def part(what, how, prepare=lambda: None, all_there=True):
    """Starts, of which the last is looked at in whole."""
    times = []
    for _ in range(STARTS):
        stop(how)
        prepare()
        took, cas = start()
        check(cas, all_there)
        times.append(took)
    check_all(cas)
    median = statistics.median(times)
    good = median < LIMIT
    print(f"   {'ok  ' if good else 'FAIL'} {what}: min {min(times):.0f} ms, median {median:.0f} ms, max {max(times):.0f} ms, "
          f"{LIMIT:.0f} allowed", flush=True)  # fmt: skip
    return good


def fill():
    _, cas = start()
    began = time.monotonic()
    for at in range(0, BLOBS, 5000):
        requests = [{"digest": digests[n], "data": content(n)} for n in range(at, min(at + 5000, BLOBS))]
        answer = cas.BatchUpdateBlobs(reapi.BatchUpdateBlobsRequest(requests=requests), timeout=120, wait_for_ready=True)
        bad = [r for r in answer.responses if r.status.code != 0]
        if bad:
            sys.exit(f"   a blob was refused: {bad[0].status.message}")
    print(f"   {BLOBS} blobs written in {time.monotonic() - began:.1f} s", flush=True)
    time.sleep(7)  # so that all of them are older than the margin of file times


try:
    fill()
    now = int(time.time())
    results = [
        part("after SIGTERM", signal.SIGTERM),
        part("after SIGKILL", signal.SIGKILL),
        part("another boot, all synced", signal.SIGKILL, lambda: other_boot(now)),
        part("another boot, nothing synced", signal.SIGKILL, lambda: other_boot(0), all_there=False),
    ]
finally:
    if process:
        process.kill()
sys.exit(not all(results))
