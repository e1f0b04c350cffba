"""gRPC clients, digests and directories for the matrix, and where Assetgate keeps a reference (its public format).

STUBS, the folder of generated code, has to be on sys.path.
"""

import hashlib
import time
import uuid

import grpc
from build.bazel.remote.asset.v1 import remote_asset_pb2 as asset
from build.bazel.remote.asset.v1 import remote_asset_pb2_grpc as asset_grpc
from build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from build.bazel.remote.execution.v2 import remote_execution_pb2_grpc as reapi_grpc
from google.bytestream import bytestream_pb2 as bytestream
from google.bytestream import bytestream_pb2_grpc as bytestream_grpc
from google.protobuf import timestamp_pb2

LIMIT = 20  # seconds for one call
BATCH = 1 << 20  # bytes of blobs in one message of ours


def digest_of(data):
    return reapi.Digest(hash=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


EMPTY = digest_of(b"")


def tell(digest):
    return f"{digest.hash[:12]}/{digest.size_bytes}" if digest is not None and digest.hash else "nothing"


def stamp(seconds):
    return timestamp_pb2.Timestamp(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


class Server:
    """One address: Assetgate or a cache."""

    def __init__(self, address):
        self.address = address
        self.channel = grpc.insecure_channel(address, options=[
            ("grpc.initial_reconnect_backoff_ms", 20), ("grpc.min_reconnect_backoff_ms", 20),
            ("grpc.max_reconnect_backoff_ms", 200), ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", -1)])  # fmt: skip
        self.cas = reapi_grpc.ContentAddressableStorageStub(self.channel)
        self.ac = reapi_grpc.ActionCacheStub(self.channel)
        self.capabilities = reapi_grpc.CapabilitiesStub(self.channel)
        self.bytes = bytestream_grpc.ByteStreamStub(self.channel)
        self.fetch = asset_grpc.FetchStub(self.channel)
        self.push = asset_grpc.PushStub(self.channel)

    # ---- content ----

    def put(self, *blobs):
        """Uploads; the digests, or the one digest of one blob."""
        digests = [digest_of(b) for b in blobs]
        part, size = [], 0
        for data, digest in zip(blobs, digests):
            if part and size + len(data) > BATCH:
                self.put_batch(part)
                part, size = [], 0
            part.append({"digest": digest, "data": data})
            size += len(data)
        self.put_batch(part)
        return digests if len(digests) > 1 else digests[0]

    def put_batch(self, part):
        answer = self.cas.BatchUpdateBlobs(reapi.BatchUpdateBlobsRequest(requests=part), timeout=LIMIT)
        for r in answer.responses:
            if r.status.code:
                raise AssertionError(f"upload of {tell(r.digest)}: {r.status.code} {r.status.message}")

    def write(self, data):
        digest = digest_of(data)
        name = f"uploads/{uuid.uuid4()}/blobs/{digest.hash}/{digest.size_bytes}"

        def parts():
            for at in range(0, max(len(data), 1), 1 << 16):
                part = data[at : at + (1 << 16)]
                yield bytestream.WriteRequest(resource_name=name if at == 0 else "", write_offset=at, data=part,
                                              finish_write=at + len(part) == len(data))  # fmt: skip

        answer = self.bytes.Write(parts(), timeout=LIMIT)
        assert answer.committed_size == len(data), f"committed_size {answer.committed_size} of {len(data)}"
        return digest

    def read(self, digest):
        """The bytes, by ByteStream; None if it is not there."""
        if not digest.size_bytes:
            return b""
        name = f"blobs/{digest.hash}/{digest.size_bytes}"
        try:
            data = b"".join(r.data for r in self.bytes.Read(bytestream.ReadRequest(resource_name=name), timeout=LIMIT))
        except grpc.RpcError as e:
            if e.code() == grpc.StatusCode.NOT_FOUND:
                return None
            raise
        assert digest_of(data) == digest, f"{tell(digest)} reads as {tell(digest_of(data))}"
        return data

    def missing(self, digests):
        """Those of `digests` that are not there."""
        gone = []
        digests = list(digests)
        for at in range(0, len(digests), 5000):
            request = reapi.FindMissingBlobsRequest(blob_digests=digests[at : at + 5000])
            gone += self.cas.FindMissingBlobs(request, timeout=LIMIT).missing_blob_digests
        return gone

    def lost(self, root):
        """What is not there of a directory: walked by reading every Directory of it."""
        files, gone, todo, seen = [], [], [root], set()
        while todo:
            digest = todo.pop()
            if digest.hash in seen:
                continue
            seen.add(digest.hash)
            data = self.read(digest)
            if data is None:
                gone.append(digest)
                continue
            directory = reapi.Directory.FromString(data)
            files += [f.digest for f in directory.files]
            todo += [d.digest for d in directory.directories]
        return gone + self.missing(files)

    # ---- assets ----

    def push_blob(self, uris, digest, qualifiers=(), expire=None, blobs=(), directories=(), instance=""):
        return self.push.PushBlob(asset.PushBlobRequest(
            instance_name=instance, uris=uris, qualifiers=named(qualifiers), expire_at=expire and stamp(expire),
            blob_digest=digest, references_blobs=blobs, references_directories=directories), timeout=LIMIT)  # fmt: skip

    def push_directory(self, uris, digest, qualifiers=(), expire=None, blobs=(), directories=()):
        return self.push.PushDirectory(asset.PushDirectoryRequest(
            uris=uris, qualifiers=named(qualifiers), expire_at=expire and stamp(expire), root_directory_digest=digest,
            references_blobs=blobs, references_directories=directories), timeout=LIMIT)  # fmt: skip

    def blob(self, uris, qualifiers=(), oldest=None, instance=""):
        return self.fetch.FetchBlob(asset.FetchBlobRequest(
            instance_name=instance, uris=uris, qualifiers=named(qualifiers),
            oldest_content_accepted=oldest and stamp(oldest)), timeout=LIMIT)  # fmt: skip

    def directory(self, uris, qualifiers=(), oldest=None):
        return self.fetch.FetchDirectory(asset.FetchDirectoryRequest(
            uris=uris, qualifiers=named(qualifiers), oldest_content_accepted=oldest and stamp(oldest)), timeout=LIMIT)  # fmt: skip

    # ---- entries ----

    def entry(self, key):
        """The ActionResult under a key; None if there is none."""
        try:
            return self.ac.GetActionResult(reapi.GetActionResultRequest(action_digest=key), timeout=LIMIT)
        except grpc.RpcError as e:
            if e.code() == grpc.StatusCode.NOT_FOUND:
                return None
            raise

    def set_entry(self, key, result):
        request = reapi.UpdateActionResultRequest(action_digest=key, action_result=result)
        return self.ac.UpdateActionResult(request, timeout=LIMIT)


def named(qualifiers):
    pairs = qualifiers.items() if isinstance(qualifiers, dict) else qualifiers
    return [{"name": n, "value": v} for n, v in pairs]


def directory(files=(), directories=()):
    """A Directory message of {name: digest} each, and its digest."""
    message = reapi.Directory(
        files=[{"name": n, "digest": d} for n, d in sorted(dict(files).items())],
        directories=[{"name": n, "digest": d} for n, d in sorted(dict(directories).items())]).SerializeToString()
    return message, digest_of(message)


def exact_key(uri, qualifiers=(), kind="blob"):
    """Where Assetgate keeps a pushed asset."""
    return action_of("E", kind, uri.encode(), qualifiers=qualifiers)


def checksum_key(data):
    """Where Assetgate keeps a download that a sha256 checksum pins."""
    return action_of("X", "blob", b"sha256", hashlib.sha256(data).digest())


def action_of(space, kind, *what, qualifiers=()):
    """Salt and digest of the Action that is the key: format version 1, which is public."""
    pairs = sorted(dict(qualifiers).items())
    fields = [b"asset-ref", b"1", b"", space.encode(), kind.encode(), b"", b"SHA256", b"0", *what, str(len(pairs)).encode()]
    for name, value in pairs:
        fields += [name.encode(), value.encode()]
    salt = hashlib.sha256(b"".join(len(f).to_bytes(4, "big") + f for f in fields)).digest()
    command = reapi.Command(arguments=["assetgate-asset-reference", "v1"]).SerializeToString()
    action = reapi.Action(command_digest=digest_of(command), input_root_digest=EMPTY, salt=salt)
    action.platform.properties.add(name="asset-reference", value="v1")
    return salt, digest_of(action.SerializeToString())


def now():
    return time.time()
