#!/usr/bin/env python3
"""Fills a disk through Assetgate and looks at what comes of it.

    disk_full.py STUBS WHAT ADDRESS ORIGIN RECORD

fill: writes in all ways at once, ever smaller blobs, until each way is refused;
refused: each way is still refused;
again: each way works, and what was refused is accepted now;
verify: what was acknowledged is served, and nothing is served wrong.
RECORD is a JSON file with what was acknowledged and what was refused. Ends with 1 when anything is not as it must be.
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
import uuid

STUBS, WHAT, ADDRESS, ORIGIN, RECORD = sys.argv[1:]
sys.path.insert(0, STUBS)

import grpc
from build.bazel.remote.asset.v1 import remote_asset_pb2 as asset
from build.bazel.remote.asset.v1 import remote_asset_pb2_grpc as asset_grpc
from build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from build.bazel.remote.execution.v2 import remote_execution_pb2_grpc as reapi_grpc
from google.bytestream import bytestream_pb2 as bytestream
from google.bytestream import bytestream_pb2_grpc as bytestream_grpc

FULL = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
BLOCK = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(2048))  # as origin.py has it
SIZES = [1_500_000, 300_000, 40_000, 5_000, 100]
REFUSALS = 5  # in a row, of the smallest size, before a way counts as closed

channel = grpc.insecure_channel(ADDRESS)
cas, stream = reapi_grpc.ContentAddressableStorageStub(channel), bytestream_grpc.ByteStreamStub(channel)
fetch, push = asset_grpc.FetchStub(channel), asset_grpc.PushStub(channel)
lock = threading.Lock()
problems, counts, sentences = [], collections.Counter(), set()

if os.path.exists(RECORD):
    with open(RECORD) as f:
        record = json.load(f)
else:
    # Contents are said by how to make them: ["noise", seed, size] or ["origin", size].
    record = {"next": 0, "stored": [], "refused": [], "uris": {}}


def problem(text):
    with lock:
        problems.append(text)
        if len(problems) <= 20:
            print("   PROBLEM " + text, flush=True)


def number():
    with lock:
        record["next"] += 1
        return record["next"]


def content(how):
    if how[0] == "noise":
        return random.Random(how[1]).randbytes(how[2])
    return (BLOCK * (how[1] // len(BLOCK) + 1))[: how[1]]


def digest_of(data):
    return reapi.Digest(hash=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def noise(size):
    return ["noise", number(), size]


class Refused(Exception):
    """RESOURCE_EXHAUSTED with a sentence."""


def judge(what, code, message):
    if code == 0:
        return
    if code != FULL:
        problem(f"{what}: code {code}, must be {FULL}: {message}")
    elif " " not in message or "os error" in message:
        problem(f"{what}: this is no sentence: {message!r}")
    with lock:
        # Without the URI in front and the request's name behind.
        sentences.add(re.sub(r"^(http|urn)\S+ | \[request \w+\]$", "", message))
    raise Refused


def call(what, method, request):
    try:
        return method(request, timeout=60)
    except grpc.RpcError as e:
        judge(what, e.code().value[0], e.details())


# The ways to write. Each says what it stored, or raises Refused.


def by_batch(how):
    data = content(how)
    request = reapi.BatchUpdateBlobsRequest(requests=[{"digest": digest_of(data), "data": data}])
    status = call("BatchUpdateBlobs", cas.BatchUpdateBlobs, request).responses[0].status
    judge("BatchUpdateBlobs", status.code, status.message)


def by_write(how):
    data = content(how)
    digest = digest_of(data)
    name = f"uploads/{uuid.uuid4()}/blobs/{digest.hash}/{len(data)}"
    steps = range(0, len(data), 1 << 16)
    parts = (bytestream.WriteRequest(resource_name=name, write_offset=at, data=data[at : at + (1 << 16)],
                                     finish_write=at + (1 << 16) >= len(data)) for at in steps)  # fmt: skip
    answer = call("Write", stream.Write, parts)
    if answer.committed_size != len(data):
        problem(f"Write of {len(data)} bytes answered committed_size {answer.committed_size}")


def by_fetch(how, pinned):
    uri, data = f"{ORIGIN}/huge/{how[1]}", content(how)
    request = asset.FetchBlobRequest(uris=[uri])
    if pinned:
        sri = "sha256-" + base64.b64encode(hashlib.sha256(data).digest()).decode()
        request.qualifiers.add(name="checksum.sri", value=sri)
    answer = call("FetchBlob", fetch.FetchBlob, request)
    judge("FetchBlob", answer.status.code, answer.status.message)
    if answer.blob_digest != digest_of(data):
        problem(f"{uri} was answered with {answer.blob_digest}")


def by_push(how):
    """A reference to what is stored: it takes room, too."""
    with lock:
        how = random.choice(record["stored"])
    uri, digest = f"urn:full:{number()}", digest_of(content(how))
    call("PushBlob", push.PushBlob, asset.PushBlobRequest(uris=[uri], blob_digest=digest))
    with lock:
        record["uris"][uri] = how
    return uri


# Sizes of what the origin makes up tell blobs apart.
def made_up(size):
    return ["origin", size + number()]


WAYS = {
    "batch": (noise, by_batch),
    "write": (noise, by_write),
    "pinned fetch": (made_up, lambda how: by_fetch(how, True)),
    "fetch": (made_up, lambda how: by_fetch(how, False)),
    "push": (noise, by_push),
}


def attempt(way, size):
    make, write = WAYS[way]
    how = make(size)
    try:
        write(how)
    except Refused:
        with lock:
            counts[f"{way} refused"] += 1
            if way != "push":
                record["refused"].append(how)
        return False
    with lock:
        counts[f"{way} acknowledged"] += 1
        if way != "push":
            record["stored"].append(how)
    return True


def until_refused(way):
    try:
        for size in SIZES:
            refusals, enough = 0, REFUSALS if size == SIZES[-1] else 1
            while refusals < enough:
                refusals = 0 if attempt(way, size) else refusals + 1
    except Exception as e:
        problem(f"{way}: {e!r}")


def fill():
    attempt("batch", 5_000)
    threads = [threading.Thread(target=until_refused, args=(way,)) for way in WAYS]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    # What one of them gave back when it was refused, others may have found room in.
    for _ in range(50):
        if not any([attempt(way, SIZES[-1]) for way in WAYS]):
            return
    problem("some way to write is never refused")


def refused():
    for way in WAYS:
        if attempt(way, SIZES[0]) and way != "push":
            problem(f"{way}: {SIZES[0]} bytes were accepted on a full disk")


def again():
    for way in WAYS:
        if not attempt(way, 40_000):
            problem(f"{way}: still refused")
    retried, record["refused"] = record["refused"][:6], record["refused"][6:]
    for how in retried:
        try:
            by_write(how)
            record["stored"].append(how)
            counts["refused ones written again"] += 1
        except Refused:
            problem(f"{how}: still refused")


def read(digest):
    name = f"blobs/{digest.hash}/{digest.size_bytes}"
    try:
        return b"".join(r.data for r in stream.Read(bytestream.ReadRequest(resource_name=name), timeout=60))
    except grpc.RpcError as e:
        if e.code() != grpc.StatusCode.NOT_FOUND:
            problem(f"Read: {e.code().name}: {e.details()}")
        return None


def verify():
    for how in record["stored"]:
        data = content(how)
        digest = digest_of(data)
        if cas.FindMissingBlobs(reapi.FindMissingBlobsRequest(blob_digests=[digest])).missing_blob_digests:
            problem(f"{how} was acknowledged and is missing")
        if read(digest) != data:
            problem(f"{how} was acknowledged and is not what is read")
        counts["acknowledged and read"] += 1
    for how in record["refused"]:
        data = content(how)
        if read(digest_of(data)) not in (None, data):
            problem(f"{how} was refused and is served wrong")
        counts["refused and not served wrong"] += 1
    for uri, how in record["uris"].items():
        answer = fetch.FetchBlob(asset.FetchBlobRequest(uris=[uri]), timeout=20)
        if answer.status.code != 0 or answer.blob_digest != digest_of(content(how)):
            problem(f"{uri} was acknowledged and is answered with {answer.status.code} {answer.status.message}")
        counts["pushed and answered"] += 1


grpc.channel_ready_future(channel).result(20)
{"fill": fill, "refused": refused, "again": again, "verify": verify}[WHAT]()
for what, n in sorted(counts.items()):
    print(f"   {n:6} {what}")
for sentence in sorted(sentences):
    print(f"   said: {sentence}")
with open(RECORD, "w") as f:
    json.dump(record, f)
sys.stdout.flush()
os._exit(bool(problems))
