#!/usr/bin/env python3
"""Small gRPC calls by hand, for what no real client does. Needs the grpc component of components.sh.

    probe.py STUBS echo PORT_FILE              a server that says which metadata reached it
    probe.py STUBS metadata VIA DIRECT         metadata of a call through VIA is that of one straight to the echo server
    probe.py STUBS silent VIA SECONDS          a stream that says nothing for a while goes on afterwards
    probe.py STUBS assets ADDRESS              pushes an asset and fetches it again, byte for byte
    probe.py STUBS health ADDRESS SERVICE      prints what the health service says of SERVICE

Addresses are HOST:PORT. STUBS is where components.sh put the generated code.
"""

import json
import os
import sys
import threading
import time
import uuid

STUBS, COMMAND, ARGS = sys.argv[1], sys.argv[2], sys.argv[3:]
sys.path.insert(0, STUBS)

import hashlib
from concurrent import futures

import grpc
from build.bazel.remote.asset.v1 import remote_asset_pb2 as asset
from build.bazel.remote.asset.v1 import remote_asset_pb2_grpc as asset_grpc
from build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from build.bazel.remote.execution.v2 import remote_execution_pb2_grpc as reapi_grpc
from google.bytestream import bytestream_pb2 as bytestream
from google.bytestream import bytestream_pb2_grpc as bytestream_grpc

EVERY_BYTE = bytes(range(256))
SENT = [
    ("x-plain", "one"),
    ("x-twice", "first"),
    ("x-twice", "second"),
    ("x_underscore", "kept"),
    ("authorization", "Bearer not-a-real-token"),
    ("x-request-id", "the-clients-own"),
    ("build.bazel.remote.execution.v2.requestmetadata-bin", EVERY_BYTE),
]


# ---- echo ----


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.stream_stream_rpc_method_handler(
            {"/grpc.health.v1.Health/Check": self.health, "/echo.Echo/Silent": self.silent}.get(
                details.method, self.metadata
            )
        )

    def health(self, requests, context):
        for _ in requests:
            yield b"\x08\x01"

    def metadata(self, requests, context):
        for _ in requests:
            pass
        seen = sorted((k, v.hex() if isinstance(v, bytes) else v) for k, v in context.invocation_metadata())
        context.send_initial_metadata([("x-back", "again"), ("x-back-bin", EVERY_BYTE)])
        context.set_trailing_metadata([("x-end", "fin"), ("x-end-bin", EVERY_BYTE)])
        yield json.dumps({"metadata": seen, "deadline": context.time_remaining()}).encode()

    def silent(self, requests, context):
        for request in requests:
            yield b"before"
            time.sleep(float(request))
            yield b"after"


def echo(port_file):
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with open(port_file + ".new", "w") as f:
        json.dump({"grpc": f"127.0.0.1:{port}"}, f)
    os.replace(port_file + ".new", port_file)
    threading.Event().wait()


def ask(address):
    channel = grpc.insecure_channel(address)
    call = channel.unary_unary("/echo.Echo/Metadata")
    answer, state = call.with_call(b"", timeout=20, metadata=SENT, wait_for_ready=True)
    seen = json.loads(answer)
    back = sorted((k, str(v)) for k, v in list(state.initial_metadata()) + list(state.trailing_metadata()))
    return seen, back


def metadata(via, direct):
    (seen, back), (want, want_back) = ask(via), ask(direct)
    # Every HTTP server may date its answers; that one header is Envoy's by the HTTP specification.
    back = [pair for pair in back if pair[0] != "date"]
    assert seen["metadata"] == want["metadata"], f"arrived\n  {seen['metadata']}\nsent\n  {want['metadata']}"
    assert back == want_back, f"came back\n  {back}\nanswered\n  {want_back}"
    assert 0 < seen["deadline"] <= 20, f"the deadline arrived as {seen['deadline']} s, sent was 20 s"
    print(f"{len(seen['metadata'])} + {len(back)} entries of metadata untouched, deadline kept")


def silent(via, seconds):
    call = grpc.insecure_channel(via).unary_stream("/echo.Echo/Silent")
    started = time.monotonic()
    got = list(call(seconds.encode(), wait_for_ready=True))
    assert got == [b"before", b"after"], got
    assert time.monotonic() - started >= float(seconds)
    print(f"a stream that was silent for {seconds} s went on")


# ---- assets ----


def upload(channel, data):
    digest = reapi.Digest(hash=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
    name = f"uploads/{uuid.uuid4()}/blobs/{digest.hash}/{digest.size_bytes}"

    def chunks():
        for offset in range(0, len(data), 1 << 16):
            part = data[offset : offset + (1 << 16)]
            yield bytestream.WriteRequest(
                resource_name=name if offset == 0 else "",
                write_offset=offset,
                data=part,
                finish_write=offset + len(part) == len(data),
            )

    answer = bytestream_grpc.ByteStreamStub(channel).Write(chunks(), timeout=30)
    assert answer.committed_size == len(data), answer
    return digest


def assets(address):
    channel = grpc.insecure_channel(address)
    capabilities = reapi_grpc.CapabilitiesStub(channel).GetCapabilities(
        reapi.GetCapabilitiesRequest(), timeout=20, wait_for_ready=True
    )
    assert reapi.DigestFunction.SHA256 in capabilities.cache_capabilities.digest_functions, capabilities
    uri = f"urn:example:{uuid.uuid4()}"
    fetch, push = asset_grpc.FetchStub(channel), asset_grpc.PushStub(channel)
    try:
        answer = fetch.FetchBlob(asset.FetchBlobRequest(uris=[uri]), timeout=20)
        assert answer.status.code == 5 and not answer.blob_digest.hash, answer
    except grpc.RpcError as e:
        assert e.code() == grpc.StatusCode.NOT_FOUND, e
    data = os.urandom(300_000)
    digest = upload(channel, data)
    push.PushBlob(asset.PushBlobRequest(uris=[uri], blob_digest=digest), timeout=20)
    answer = fetch.FetchBlob(asset.FetchBlobRequest(uris=[uri]), timeout=20)
    assert answer.status.code == 0 and answer.blob_digest == digest and answer.uri == uri, answer
    name = f"blobs/{answer.blob_digest.hash}/{answer.blob_digest.size_bytes}"
    got = b"".join(
        r.data
        for r in bytestream_grpc.ByteStreamStub(channel).Read(bytestream.ReadRequest(resource_name=name), timeout=30)
    )
    assert got == data, f"{len(got)} other bytes came back"
    print(f"pushed {uri}, fetched it again, {len(data)} bytes the same")


def health(address, service):
    ask = grpc.insecure_channel(address).unary_unary("/grpc.health.v1.Health/Check")
    request = b"\x0a" + bytes([len(service)]) + service.encode() if service else b""
    answer = ask(request, timeout=10, wait_for_ready=True)
    print({b"\x08\x01": "SERVING", b"\x08\x02": "NOT_SERVING"}.get(answer, answer))


{"echo": echo, "metadata": metadata, "silent": silent, "assets": assets, "health": health}[COMMAND](*ARGS)
