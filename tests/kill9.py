#!/usr/bin/env python3
"""Writes through Assetgate while it is killed with SIGKILL again and again, and reads everything back.

    kill9.py STUBS embedded SECONDS ASSETGATE WORK              one process on its embedded cache
    kill9.py STUBS replicas SECONDS ASSETGATE WORK UPSTREAM     two processes in front of one cache

embedded: what was acknowledged (blobs, action results, pushed blobs and directories) must be there afterwards, byte
for byte; what was not acknowledged may be there or not, but never wrong.
replicas: every push that one replica acknowledged is read back through the other at once, while both are killed in turn.

Prints what it did; ends with 1 when anything was lost or wrong, or when too little happened to prove anything.
"""

import collections
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
import uuid

STUBS, MODE, SECONDS, ASSETGATE, WORK = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4], sys.argv[5]
UPSTREAM = sys.argv[6] if len(sys.argv) > 6 else None
sys.path.insert(0, STUBS)

import grpc
from build.bazel.remote.asset.v1 import remote_asset_pb2 as asset
from build.bazel.remote.asset.v1 import remote_asset_pb2_grpc as asset_grpc
from build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from build.bazel.remote.execution.v2 import remote_execution_pb2_grpc as reapi_grpc
from google.bytestream import bytestream_pb2 as bytestream
from google.bytestream import bytestream_pb2_grpc as bytestream_grpc

SEED = int(os.environ.get("SEED") or random.randrange(1 << 32))
BUDGET = 3 << 30  # bytes written at most, so that the cache has no reason to evict
Code = grpc.StatusCode
# What a client may see of a process that was killed: the call did not get through, or nobody knows.
GONE = {Code.UNAVAILABLE, Code.UNKNOWN, Code.CANCELLED, Code.DEADLINE_EXCEEDED, Code.INTERNAL}

stop = threading.Event()
lock = threading.Lock()
done = collections.Counter()
codes = collections.Counter()
problems = []
written = 0
servers = []


def problem(text):
    with lock:
        problems.append(text)
        if len(problems) <= 20:
            print("   PROBLEM " + text, flush=True)


class Server:
    """One Assetgate that keeps its port when it comes back."""

    def __init__(self, name, args):
        self.name, self.args, self.kills, self.slowest = name, args, 0, 0.0
        self.log = open(f"{WORK}/{name}.log", "ab")
        self.address = "127.0.0.1:0"
        self.process = None
        servers.append(self)
        self.start()

    def start(self):
        ports = f"{WORK}/{self.name}.ports"
        if os.path.exists(ports):
            os.unlink(ports)
        began = time.monotonic()
        self.process = subprocess.Popen(
            [ASSETGATE, "serve", "--listen", self.address, "--admin-listen", "off", "--port-file", ports, *self.args],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)  # fmt: skip
        while not self.read(ports):
            if self.process.poll() is not None:
                sys.exit(f"   {self.name} ended with {self.process.returncode} when it was started")
            if time.monotonic() - began > 30:
                sys.exit(f"   {self.name} did not serve within 30 s")
            time.sleep(0.005)
        self.slowest = max(self.slowest, time.monotonic() - began)

    def read(self, ports):
        try:
            with open(ports) as f:
                self.address = json.load(f)["grpc"]
            return True
        except (FileNotFoundError, ValueError):
            return False

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.kills += 1

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            problem(f"{self.name} did not stop on SIGTERM within 20 s")


class Client:
    def __init__(self, address):
        channel = grpc.insecure_channel(address, options=[
            ("grpc.initial_reconnect_backoff_ms", 20), ("grpc.min_reconnect_backoff_ms", 20),
            ("grpc.max_reconnect_backoff_ms", 100), ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", -1)])  # fmt: skip
        self.cas = reapi_grpc.ContentAddressableStorageStub(channel)
        self.ac = reapi_grpc.ActionCacheStub(channel)
        self.bytes = bytestream_grpc.ByteStreamStub(channel)
        self.fetch = asset_grpc.FetchStub(channel)
        self.push = asset_grpc.PushStub(channel)

    def batch(self, blobs):
        answer = self.cas.BatchUpdateBlobs(
            reapi.BatchUpdateBlobsRequest(requests=[{"digest": digest_of(b), "data": b} for b in blobs]), timeout=20)
        return [r.digest for r in answer.responses if r.status.code == 0]

    def stream(self, data):
        digest = digest_of(data)
        name = f"uploads/{uuid.uuid4()}/blobs/{digest.hash}/{digest.size_bytes}"

        def parts():
            for at in range(0, len(data), 1 << 16):
                part = data[at : at + (1 << 16)]
                yield bytestream.WriteRequest(resource_name=name if at == 0 else "", write_offset=at, data=part,
                                              finish_write=at + len(part) == len(data))  # fmt: skip

        answer = self.bytes.Write(parts(), timeout=30)
        if answer.committed_size != len(data):
            problem(f"Write of {len(data)} bytes answered committed_size {answer.committed_size}")
        return digest

    def read(self, digest):
        if digest.size_bytes <= 1 << 20:
            answer = self.cas.BatchReadBlobs(reapi.BatchReadBlobsRequest(digests=[digest]), timeout=20).responses[0]
            return None if answer.status.code == Code.NOT_FOUND.value[0] else answer.data
        name = f"blobs/{digest.hash}/{digest.size_bytes}"
        return b"".join(r.data for r in self.bytes.Read(bytestream.ReadRequest(resource_name=name), timeout=60))

    # Both say the digest, or None for a miss, whether it came as a gRPC status or inside the answer.
    def asset(self, uri):
        answer = self.fetch.FetchBlob(asset.FetchBlobRequest(uris=[uri]), timeout=20)
        return None if answer.status.code == 5 else answer.blob_digest

    def directory(self, uri):
        answer = self.fetch.FetchDirectory(asset.FetchDirectoryRequest(uris=[uri]), timeout=20)
        return None if answer.status.code == 5 else answer.root_directory_digest


def digest_of(data):
    return reapi.Digest(hash=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def tell(digest):
    return f"{digest.hash[:12]}/{digest.size_bytes}" if digest is not None else "nothing"


def attempt(call, *args):
    """The answer, or None when the process went away; any other failure is somebody's to judge."""
    try:
        return call(*args)
    except grpc.RpcError as e:
        if e.code() not in GONE:
            raise
        with lock:
            codes[e.code().name] += 1
        return None


class Record:
    """What this run wrote. `acked` must be there; `tried` may be."""

    def __init__(self):
        self.blobs, self.tried, self.actions, self.uris, self.dirs = [], [], {}, {}, {}


def spend(n):
    global written
    with lock:
        written += n
        return written < BUDGET


def writer(number, client, record):
    rng = random.Random(f"{SEED}-{number}")
    mine = []  # digests this thread was told are stored
    while not stop.is_set():
        kind = rng.choices(["batch", "stream", "action", "push", "pushdir"], [3, 2, 3, 4, 1])[0]
        try:
            if kind == "batch":
                blobs = [rng.randbytes(rng.choice([1, 100, 5_000, 60_000])) for _ in range(rng.randint(1, 8))]
                if not spend(sum(map(len, blobs))):
                    return
                record.tried += [digest_of(b) for b in blobs]
                stored = attempt(client.batch, blobs) or []
                mine += stored
                record.blobs += stored
                done["blobs in batches"] += len(stored)
            elif kind == "stream":
                data = rng.randbytes(rng.choice([10_000, 300_000, 3_000_000]))
                if not spend(len(data)):
                    return
                record.tried.append(digest_of(data))
                digest = attempt(client.stream, data)
                if digest:
                    mine.append(digest)
                    record.blobs.append(digest)
                    done["blobs by ByteStream"] += 1
            elif not mine:
                continue
            elif kind == "action":
                key = digest_of(rng.randbytes(40))
                result = reapi.ActionResult(
                    output_files=[{"path": "out", "digest": rng.choice(mine)}], stdout_raw=rng.randbytes(200))
                if attempt(client.ac.UpdateActionResult,
                           reapi.UpdateActionResultRequest(action_digest=key, action_result=result), 20):  # fmt: skip
                    record.actions[(key.hash, key.size_bytes)] = result
                    done["action results"] += 1
            elif kind == "push":
                # One in four goes to a URI pushed before: the last acknowledged wins, or one tried since.
                uri = f"urn:kill9:{SEED}:{number}:" + (
                    f"again{rng.randrange(3)}" if rng.random() < 0.25 else str(uuid.UUID(int=rng.getrandbits(128))))
                digest = rng.choice(mine)
                before = record.uris.get(uri, [])
                record.uris[uri] = (before or [None]) + [digest]
                if attempt(client.push.PushBlob, asset.PushBlobRequest(uris=[uri], blob_digest=digest), 20) is not None:
                    record.uris[uri] = [digest]
                    done["pushed blobs"] += 1
            else:
                leaf = reapi.Directory(files=[{"name": "f", "digest": rng.choice(mine)}]).SerializeToString()
                root = reapi.Directory(
                    directories=[{"name": "d", "digest": digest_of(leaf)}],
                    files=[{"name": "g", "digest": rng.choice(mine)}]).SerializeToString()
                if len(attempt(client.batch, [leaf, root]) or []) < 2:
                    continue
                uri = f"urn:kill9:{SEED}:{number}:dir:{uuid.UUID(int=rng.getrandbits(128))}"
                if attempt(client.push.PushDirectory,
                           asset.PushDirectoryRequest(uris=[uri], root_directory_digest=digest_of(root)), 20) is not None:  # fmt: skip
                    record.dirs[uri] = digest_of(root)
                    done["pushed directories"] += 1
        except grpc.RpcError as e:
            problem(f"{kind}: {e.code().name}: {e.details()}")


def check_blob(client, digest, must):
    try:
        data = attempt(client.read, digest)
    except grpc.RpcError as e:
        if must or e.code() != Code.NOT_FOUND:
            problem(f"blob {tell(digest)}: {e.code().name}: {e.details()}")
        return False
    if data is None:
        return False
    if digest_of(data) != digest:
        problem(f"blob {tell(digest)} came back as {tell(digest_of(data))}")
    return True


def check_uri(lookup, uri, allowed):
    try:
        got = attempt(lookup, uri)
    except grpc.RpcError as e:
        if e.code() != Code.NOT_FOUND:
            problem(f"{uri}: {e.code().name}: {e.details()}")
            return
        got = None
    if got not in allowed:
        problem(f"{uri} is {tell(got)}, must be {' or '.join(map(tell, allowed))}")


def reader(client, record):
    """Reads back while the killing goes on; a process that is away is not a fault."""
    rng = random.Random(f"{SEED}-reader")
    while not stop.is_set():
        if record.blobs:
            done["reads meanwhile"] += check_blob(client, rng.choice(record.blobs), True)
        if record.tried:
            check_blob(client, rng.choice(record.tried), False)
        time.sleep(0.002)


def embedded():
    server = Server("embedded", ["--data-dir", f"{WORK}/data", "--max-size", "20GiB"])
    records = [Record() for _ in range(4)]
    threads = [threading.Thread(target=writer, args=(i, Client(server.address), r)) for i, r in enumerate(records)]
    threads += [threading.Thread(target=reader, args=(Client(server.address), r)) for r in records[:2]]
    for t in threads:
        t.start()
    rng = random.Random(f"{SEED}-killer")
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        # Mostly in the middle of work, sometimes right after the start.
        time.sleep(rng.choice([0.02, 0.1, 0.4, 0.8, 1.5, 2.5]) * rng.random() * 1.3)
        server.kill()
        server.start()
    stop.set()
    for t in threads:
        t.join(60)
    server.kill()
    server.start()

    client = Client(server.address)
    for r in records:
        for i in range(0, len(r.blobs), 500):
            missing = client.cas.FindMissingBlobs(
                reapi.FindMissingBlobsRequest(blob_digests=r.blobs[i : i + 500]), timeout=60, wait_for_ready=True)
            for digest in missing.missing_blob_digests:
                problem(f"blob {tell(digest)} was acknowledged and is missing")
        for digest in r.blobs:
            if not check_blob(client, digest, True):
                problem(f"blob {tell(digest)} was acknowledged and cannot be read")
        acknowledged = {d.hash for d in r.blobs}
        for digest in r.tried:
            if digest.hash not in acknowledged:
                done["unacknowledged blobs that are there"] += check_blob(client, digest, False)
        for (hash_, size), result in r.actions.items():
            key = reapi.Digest(hash=hash_, size_bytes=size)
            try:
                got = client.ac.GetActionResult(reapi.GetActionResultRequest(action_digest=key), timeout=20)
                if got != result:
                    problem(f"action {tell(key)} has another result")
            except grpc.RpcError as e:
                problem(f"action {tell(key)}: {e.code().name}: {e.details()}")
        for uri, allowed in r.uris.items():
            check_uri(client.asset, uri, allowed)
        for uri, root in r.dirs.items():
            check_uri(client.directory, uri, [root])
    server.end()
    return ["blobs in batches", "blobs by ByteStream", "action results", "pushed blobs", "pushed directories"]


def read_back(lookup, uri, allowed):
    """Until the other replica answers, which may be on its way back from being killed."""
    end = time.monotonic() + 30
    while True:
        try:
            got = attempt(lookup, uri)
        except grpc.RpcError as e:
            if e.code() != Code.NOT_FOUND:
                return problem(f"{uri}: {e.code().name}: {e.details()}")
            return problem(f"{uri} was acknowledged, and the other replica does not know it")
        if got is not None and got.hash:
            if got not in allowed:
                problem(f"{uri} is {tell(got)} at the other replica, must be {' or '.join(map(tell, allowed))}")
            done["read back through the other"] += 1
            return None
        if time.monotonic() > end:
            return problem(f"{uri} could not be read back within 30 s")
        time.sleep(0.01)


def pusher(number):
    rng = random.Random(f"{SEED}-{number}")
    clients = [Client(s.address) for s in servers]
    turn = 0
    while not stop.is_set():
        turn += 1
        writer_, other = clients[turn % 2], clients[(turn + 1) % 2]
        again = rng.random() < 0.3
        uri = f"urn:kill9:{SEED}:{number}:" + (f"again{rng.randrange(3)}" if again else str(turn))
        data = rng.randbytes(rng.choice([10, 2_000, 50_000]))
        try:
            stored = attempt(writer_.batch, [data])
            if not stored:
                time.sleep(0.01)
                continue
            digest = stored[0]
            if rng.random() < 0.2:
                root = reapi.Directory(files=[{"name": "f", "digest": digest}]).SerializeToString()
                if not attempt(writer_.batch, [root]):
                    continue
                request = asset.PushDirectoryRequest(uris=[uri], root_directory_digest=digest_of(root))
                acked, lookup, want = attempt(writer_.push.PushDirectory, request, 20), other.directory, digest_of(root)
            else:
                request = asset.PushBlobRequest(uris=[uri], blob_digest=digest)
                acked, lookup, want = attempt(writer_.push.PushBlob, request, 20), other.asset, digest
            if acked is None:
                # The killed process may have sent its write; let that settle before this URI is used again.
                time.sleep(0.3)
                continue
            done["pushes acknowledged"] += 1
            read_back(lookup, uri, [want])
        except grpc.RpcError as e:
            problem(f"push: {e.code().name}: {e.details()}")


def replicas():
    for name in ("one", "two"):
        Server(name, ["--upstream", UPSTREAM])
    threads = [threading.Thread(target=pusher, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    rng = random.Random(f"{SEED}-killer")
    end, turn = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        time.sleep(rng.choice([0.05, 0.3, 0.8, 1.5]) * rng.random() * 1.5)
        turn += 1
        servers[turn % 2].kill()
        time.sleep(rng.random() * 0.2)
        servers[turn % 2].start()
    stop.set()
    for t in threads:
        t.join(60)
    for s in servers:
        s.end()
    return ["pushes acknowledged", "read back through the other"]


def main():
    print(f"   seed {SEED} (SEED={SEED} repeats the choices), {SECONDS:.0f} s", flush=True)
    wanted = {"embedded": embedded, "replicas": replicas}[MODE]()
    kills = sum(s.kills for s in servers)
    for what, n in sorted(done.items()):
        print(f"   {n:7} {what}")
    print(f"   {kills:7} times killed, slowest start {max(s.slowest for s in servers) * 1000:.0f} ms; "
          f"calls that met a dead process: {dict(codes)}")  # fmt: skip
    least = SECONDS / 4
    if kills < least:
        problem(f"killed {kills} times only, {least:.0f} are needed to prove anything")
    for what in wanted:
        if done[what] < least:
            problem(f"{done[what]} {what} only, {least:.0f} are needed to prove anything")
    print(f"   {len(problems)} problems")
    sys.exit(bool(problems))


signal.signal(signal.SIGTERM, lambda *_: sys.exit("   stopped from outside"))
code = 1
try:
    main()
except SystemExit as e:
    code = e.code if isinstance(e.code, int) else 1
    if isinstance(e.code, str):
        print(e.code)
except BaseException:
    traceback.print_exc()
finally:
    for s in servers:
        if s.process:
            s.process.kill()
    # Threads that still wait for an answer must not hold up the end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
