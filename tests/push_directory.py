#!/usr/bin/env python3
"""Pushes a large directory, and makes the reads that this needs as a plain client would.

    push_directory.py STUBS CACHE ASSETGATE PID FILES TIME_GATE RSS_GATE

Ends with 1 when a push takes more than TIME_GATE times the bare reads, when Assetgate (PID) grows by more than RSS_GATE MiB
meanwhile, or when the pushed directory is not found.
"""

import hashlib
import statistics
import sys
import time

STUBS, CACHE, ASSETGATE, PID, FILES = *sys.argv[1:5], int(sys.argv[5])
TIME_GATE, RSS_GATE = map(float, sys.argv[6:8])
sys.path.insert(0, STUBS)

import grpc
from build.bazel.remote.asset.v1 import remote_asset_pb2 as asset
from build.bazel.remote.asset.v1 import remote_asset_pb2_grpc as asset_grpc
from build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from build.bazel.remote.execution.v2 import remote_execution_pb2_grpc as reapi_grpc

CAS = "/build.bazel.remote.execution.v2.ContentAddressableStorage/"
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
# As Assetgate does it (src/upstream/cas.rs).
FIND, READ, OVERHEAD, MAX_BATCH, PARALLEL = 10_000, 1_000, 256, (4 << 20) - (64 << 10), 4
PER_DIRECTORY, RUNS = 100, 5


def digest(data):
    return reapi.Digest(hash=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def batches(items, size, limit, count):
    """Items in order, at most `count` and `limit` bytes at a time."""
    batch, total = [], 0
    for item in items:
        cost = size(item) + OVERHEAD
        if batch and (total + cost > limit or len(batch) == count):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += cost
    if batch:
        yield batch


def tree():
    """Files, and Directory messages by level; the root alone in the first."""
    files = [b"file %d of a large tree\n" % n for n in range(FILES)]
    below = []
    for first in range(0, FILES, PER_DIRECTORY):
        nodes = [
            reapi.FileNode(name=f"file-{n:06}", digest=digest(files[n]))
            for n in range(first, min(first + PER_DIRECTORY, FILES))
        ]
        below.append(reapi.Directory(files=nodes).SerializeToString())
    nodes = [reapi.DirectoryNode(name=f"directory-{n:05}", digest=digest(d)) for n, d in enumerate(below)]
    return files, [[reapi.Directory(directories=nodes).SerializeToString()], below]


def upload(channel, blobs, limit):
    cas = reapi_grpc.ContentAddressableStorageStub(channel)
    for batch in batches(blobs, len, limit, READ):
        item = reapi.BatchUpdateBlobsRequest.Request
        requests = [item(digest=digest(data), data=data) for data in batch]
        answer = cas.BatchUpdateBlobs(reapi.BatchUpdateBlobsRequest(requests=requests), timeout=60)
        if any(r.status.code for r in answer.responses):
            sys.exit(f"   the tree could not be uploaded: {answer.responses[0].status}")


def parallel(method, requests):
    """The answers, as bytes, to requests that are bytes; some at a time."""
    under_way, answers = [], []
    for request in requests:
        if len(under_way) == PARALLEL:
            answers.append(under_way.pop(0).result())
        under_way.append(method.future(request, timeout=60))
    return answers + [call.result() for call in under_way]


def memory(key):
    with open(f"/proc/{PID}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(key + ":")) / 1024


cache, gate = (grpc.insecure_channel(address, options=OPTIONS) for address in (CACHE, ASSETGATE))
capabilities = reapi_grpc.CapabilitiesStub(cache)
told = capabilities.GetCapabilities(reapi.GetCapabilitiesRequest(), timeout=30, wait_for_ready=True)
limit = min(told.cache_capabilities.max_batch_total_size_bytes or MAX_BATCH, MAX_BATCH)
files, levels = tree()
for blobs in (files, *levels):
    upload(cache, blobs, limit)
root = digest(levels[0][0])

reads = []
for level in levels:
    digests = sorted((digest(data) for data in level), key=lambda d: d.hash)
    found = batches(digests, lambda d: d.size_bytes, limit, READ)
    reads.append([reapi.BatchReadBlobsRequest(digests=batch).SerializeToString() for batch in found])
wanted = sorted((digest(data) for data in files), key=lambda d: d.hash)
finds = [wanted[n : n + FIND] for n in range(0, FILES, FIND)]
finds = [reapi.FindMissingBlobsRequest(blob_digests=chunk).SerializeToString() for chunk in finds]
read, find = cache.unary_unary(CAS + "BatchReadBlobs"), cache.unary_unary(CAS + "FindMissingBlobs")
push, fetch = asset_grpc.PushStub(gate), asset_grpc.FetchStub(gate)


def bare():
    began = time.monotonic()
    read_bytes = sum(len(answer) for level in reads for answer in parallel(read, level))
    if any(parallel(find, finds)) or read_bytes < sum(len(d) for level in levels for d in level):
        sys.exit("   the cache does not hold what was uploaded")
    return time.monotonic() - began


def pushed(n):
    uri = f"urn:fdc:assetgate.example:2026:tree:{FILES}:{n}"
    request = asset.PushDirectoryRequest(uris=[uri], root_directory_digest=root)
    began = time.monotonic()
    push.PushDirectory(request, timeout=120)
    took = time.monotonic() - began
    answer = fetch.FetchDirectory(asset.FetchDirectoryRequest(uris=[uri]), timeout=120)
    if answer.status.code or answer.root_directory_digest != root:
        sys.exit(f"   what was pushed is not found: {answer}")
    return took, time.monotonic() - began - took


asset_grpc.FetchStub(gate).FetchBlob(asset.FetchBlobRequest(uris=["urn:none"]), timeout=30, wait_for_ready=True)
idle = memory("VmRSS")
with open(f"/proc/{PID}/clear_refs", "w") as f:
    f.write("5")  # sets VmHWM back to what is resident now
took = [(bare(), *pushed(n)) for n in range(RUNS)]
reading, pushing, fetching = (statistics.median(times) for times in zip(*took, strict=True))
peak, ratio = memory("VmHWM") - idle, pushing / reading
good = ratio <= TIME_GATE and peak <= RSS_GATE
print(f"   {'ok  ' if good else 'FAIL'} bare reads {reading * 1e3:.0f} ms, PushDirectory {pushing * 1e3:.0f} ms: {ratio:.2f} times, "
      f"{TIME_GATE:g} allowed; FetchDirectory {fetching * 1e3:.0f} ms; peak {peak:.0f} MiB over idle ({idle:.0f}), "
      f"{RSS_GATE:.0f} allowed", flush=True)  # fmt: skip
sys.exit(not good)
