#!/usr/bin/env python3
"""Moves large blobs through Assetgate and watches its resident memory.

    memory.py STUBS ADDRESS PID ORIGIN BYTES LIMIT_MIB

Four moves of BYTES each: FetchBlob with a checksum, FetchBlob without, ByteStream.Write, ByteStream.Read. The peak of each
(VmHWM, set back before it) may be LIMIT_MIB over what the process held when it was idle. Every byte is checked.
"""

import base64
import hashlib
import sys
import time
import uuid

STUBS, ADDRESS, PID, ORIGIN, BYTES, LIMIT = sys.argv[1], sys.argv[2], *sys.argv[3:5], int(sys.argv[5]), float(sys.argv[6])
sys.path.insert(0, STUBS)

import grpc
from build.bazel.remote.asset.v1 import remote_asset_pb2 as asset
from build.bazel.remote.asset.v1 import remote_asset_pb2_grpc as asset_grpc
from google.bytestream import bytestream_pb2 as bytestream
from google.bytestream import bytestream_pb2_grpc as bytestream_grpc

# The body /huge of origin.py is made of.
BLOCK = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(2048))


def memory(key):
    with open(f"/proc/{PID}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(key + ":")) / 1024


def parts(size, block):
    while size > 0:
        yield block[:size]
        size -= len(block)


def sha256(size, block):
    h = hashlib.sha256()
    for part in parts(size, block):
        h.update(part)
    return h


def move(what, size, run):
    with open(f"/proc/{PID}/clear_refs", "w") as f:
        f.write("5")  # sets VmHWM back to what is resident now
    began = time.monotonic()
    run()
    seconds, peak = time.monotonic() - began, memory("VmHWM")
    good = peak - idle <= LIMIT
    print(f"   {'ok  ' if good else 'FAIL'} {what}: {size >> 20} MiB in {seconds:.1f} s ({size / seconds / 1e6:.0f} MB/s), "
          f"peak {peak:.1f} MiB, {peak - idle:.1f} over idle, {LIMIT:.0f} allowed", flush=True)  # fmt: skip
    return good


channel = grpc.insecure_channel(ADDRESS)
fetch, stream = asset_grpc.FetchStub(channel), bytestream_grpc.ByteStreamStub(channel)
pinned, plain, upload = BYTES + 1, BYTES + 2, BYTES + 3  # three sizes, so three blobs
hashes = {n: sha256(n, BLOCK) for n in (pinned, plain)}
other = BLOCK[::-1]
hashes[upload] = sha256(upload, other)


def fetch_blob(size, with_checksum):
    request = asset.FetchBlobRequest(uris=[f"{ORIGIN}/huge/{size}"])
    if with_checksum:
        sri = "sha256-" + base64.b64encode(hashes[size].digest()).decode()
        request.qualifiers.add(name="checksum.sri", value=sri)
    answer = fetch.FetchBlob(request, timeout=600)
    assert answer.status.code == 0, answer
    assert (answer.blob_digest.hash, answer.blob_digest.size_bytes) == (hashes[size].hexdigest(), size), answer


def write():
    name = f"uploads/{uuid.uuid4()}/blobs/{hashes[upload].hexdigest()}/{upload}"

    def requests():
        at = 0
        for part in parts(upload, other):
            yield bytestream.WriteRequest(resource_name=name if at == 0 else "", write_offset=at, data=part,
                                          finish_write=at + len(part) == upload)  # fmt: skip
            at += len(part)

    answer = stream.Write(requests(), timeout=600)
    assert answer.committed_size == upload, answer


def read(size):
    h = hashlib.sha256()
    for answer in stream.Read(bytestream.ReadRequest(resource_name=f"blobs/{hashes[size].hexdigest()}/{size}"), timeout=600):
        h.update(answer.data)
    assert h.digest() == hashes[size].digest(), "other bytes came back"


grpc.channel_ready_future(channel).result(20)
time.sleep(1)
idle = memory("VmRSS")
print(f"   idle: {idle:.1f} MiB resident", flush=True)
results = [
    move("FetchBlob with a checksum", pinned, lambda: fetch_blob(pinned, True)),
    move("FetchBlob without one", plain, lambda: fetch_blob(plain, False)),
    move("ByteStream.Write", upload, write),
    move("ByteStream.Read", pinned, lambda: read(pinned)),
    move("ByteStream.Read of what was written", upload, lambda: read(upload)),
]
sys.exit(not all(results))
