#!/usr/bin/env python3
"""Fetches from a real nginx, and what its access log says of them.

    origins.py STUBS ADDRESS FILES ACCESS_LOG NAME=PORT...

Names of ports: plain, h2, h2_only, http1, rate, connections; with `untrusted` alone, only that one is asked, and must be refused.
Prints a line for each check; ends with 1 when any failed.
"""

import base64
import concurrent.futures
import hashlib
import json
import os
import socket
import sys
import threading
import time
import traceback

STUBS, ADDRESS, FILES, ACCESS_LOG = sys.argv[1:5]
PORT = {name: int(port) for name, port in (word.split("=") for word in sys.argv[5:])}
sys.path.insert(0, STUBS)

import grpc
from build.bazel.remote.asset.v1 import remote_asset_pb2 as asset
from build.bazel.remote.asset.v1 import remote_asset_pb2_grpc as asset_grpc
from google.bytestream import bytestream_pb2 as bytestream
from google.bytestream import bytestream_pb2_grpc as bytestream_grpc

channel = grpc.insecure_channel(ADDRESS)
fetch_blob = asset_grpc.FetchStub(channel).FetchBlob
read_stream = bytestream_grpc.ByteStreamStub(channel).Read


class Failed(Exception):
    """What an origin's failure became, in the answer or instead of one."""


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").digest()


def local(name):
    return os.path.join(FILES, name)


def fetch(*uris, pin=None, timeout=None, headers=()):
    """The digest, as (hash, size). `pin` is a file of the origin."""
    request = asset.FetchBlobRequest(uris=uris)
    if pin:
        request.qualifiers.add(name="checksum.sri", value="sha256-" + base64.b64encode(sha256(local(pin))).decode())
    for name, value in headers:
        request.qualifiers.add(name=f"http_header:{name}", value=value)
    if timeout:
        request.timeout.FromSeconds(timeout)
    try:
        answer = fetch_blob(request, timeout=600)
    except grpc.RpcError as e:
        raise Failed(f"{e.code().name}: {e.details()}") from None
    if answer.status.code:
        raise Failed(f"inline {answer.status.code}: {answer.status.message}")
    return answer.blob_digest.hash, answer.blob_digest.size_bytes


def is_file(got, name):
    """The digest is that of the file, and its bytes are in the cache."""
    want = sha256(local(name)).hex(), os.path.getsize(local(name))
    assert got == want, f"{got}, {want} expected ({name})"
    h = hashlib.sha256()
    for part in read_stream(bytestream.ReadRequest(resource_name=f"blobs/{got[0]}/{got[1]}"), timeout=600):
        h.update(part.data)
    assert h.hexdigest() == got[0], "the cache has other bytes"


def url(server, path, host="127.0.0.1"):
    scheme = "http" if server in ("plain", "rate", "connections") else "https"
    return f"{scheme}://{host}:{PORT[server]}/{path}"


def new(name, size=700_000):
    """Puts new content there, so that no cache has it. Its name."""
    with open(local(name + ".new"), "wb") as f:
        f.write(os.urandom(size))
    os.replace(local(name + ".new"), local(name))
    return name


class Log:
    """What nginx writes from now on."""

    def __init__(self):
        self.start = os.path.getsize(ACCESS_LOG) if os.path.exists(ACCESS_LOG) else 0

    def lines(self, path="", wanted=1):
        """Requests for what begins so; nginx writes a line when it has sent the last byte, so that may be a moment away."""
        for _ in range(50):
            with open(ACCESS_LOG) as f:
                f.seek(self.start)
                # The line that is being written is not whole yet.
                seen = [json.loads(line) for line in f.read().rpartition("\n")[0].splitlines()]
            seen = [line for line in seen if line["path"].startswith("/" + path)]
            if len(seen) >= wanted:
                break
            time.sleep(0.1)
        return seen


class Cutter:
    """A TCP relay to nginx that ends the first `times` connections after `after` bytes of answers."""

    def __init__(self, after, times=1, server="plain", then=lambda: None):
        self.after, self.times, self.server, self.then = after, times, server, then
        self.connections, self.lock = 0, threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.port}/{path}"

    def serve(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.relay, args=(client,), daemon=True).start()

    def relay(self, client):
        upstream = socket.create_connection(("127.0.0.1", PORT[self.server]))
        threading.Thread(target=self.up, args=(client, upstream), daemon=True).start()
        with self.lock:
            self.connections += 1
            left = self.after if self.connections <= self.times else None
        try:
            while data := upstream.recv(1 << 16):
                client.sendall(data if left is None else data[:left])
                if left is not None and (left := left - len(data)) <= 0:
                    self.then()
                    break
        except OSError:
            pass
        for side in (client, upstream):
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    @staticmethod
    def up(client, upstream):
        try:
            while data := client.recv(1 << 16):
                upstream.sendall(data)
            upstream.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def refused(what, *words):
    try:
        got = what()
    except Failed as e:
        missing = [word for word in words if word.lower() not in str(e).lower()]
        assert not missing, f"the failure does not say {missing}: {e}"
        return f"{e}"[:160]
    raise AssertionError(f"expected a failure, got {got}")


# ---- checks: the docstring is what is checked, the result is shown ----


def plain():
    """plain, pinned and not"""
    log = Log()
    is_file(fetch(url("plain", "file.bin?1"), pin="file.bin"), "file.bin")
    is_file(fetch(url("plain", "text.txt?1")), "text.txt")
    assert [line["status"] for line in log.lines(wanted=2)] == [200, 200], log.lines()


def tls(server, protocol):
    log = Log()
    is_file(fetch(url(server, "text.txt")), "text.txt")
    seen = [(line["status"], line["protocol"]) for line in log.lines("text.txt")]
    assert seen == [(200, protocol)], seen
    return protocol


def tls_http2():
    """TLS under our own CA, the origin speaks HTTP/2"""
    return tls("h2", "HTTP/2.0")


def tls_http1():
    """TLS, the origin speaks HTTP/1.1 only"""
    return tls("http1", "HTTP/1.1")


def tls_only_http2():
    """TLS, the origin serves HTTP/2 only"""
    return tls("h2_only", "HTTP/2.0")


def by_name():
    """an origin by name: localhost"""
    is_file(fetch(url("h2", "file.bin?name", host="localhost")), "file.bin")


def redirects():
    """301, 302, 303, 307, 308 in a row"""
    log = Log()
    is_file(fetch(url("plain", "r301")), "file.bin")
    seen = [line["status"] for line in log.lines(wanted=6)]
    assert seen == [301, 302, 303, 307, 308, 200], seen


def redirect_to_tls():
    """a redirect from http to https"""
    log = Log()
    is_file(fetch(url("plain", "to-tls")), "file.bin")
    assert [line["protocol"] for line in log.lines("file.bin")] == ["HTTP/2.0"], log.lines()


def redirects_and_credentials():
    """Authorization stays with its host: kept on the way to it, dropped on the way to another"""
    log, secret = Log(), [("Authorization", "Bearer let-me-in")]
    fetch(url("plain", "r308?kept"), headers=secret)
    assert [line["authorization"] for line in log.lines(wanted=2)] == ["Bearer let-me-in"] * 2, log.lines()
    log = Log()
    fetch(url("plain", "to-other-host"), headers=secret)
    assert [line["authorization"] for line in log.lines(wanted=2)] == ["Bearer let-me-in", ""], log.lines()


def redirects_that_lead_nowhere():
    """in a circle, and to ftp: refused; the next mirror is asked"""
    refused(lambda: fetch(url("plain", "to-itself")), "to-itself", "circle")
    refused(lambda: fetch(url("plain", "to-ftp")), "to-ftp")
    is_file(fetch(url("plain", "to-ftp"), url("plain", "file.bin?after-ftp")), "file.bin")


def resume():
    """cut in the middle: the rest is asked for, and only that"""
    return resumed(new("cut.bin"), pin="cut.bin")


def resume_without_pin():
    """the same without a checksum: the validator says that it is the same file"""
    return resumed(new("cut-unpinned.bin"), pin=None)


def resumed(name, pin):
    cutter, log, size = Cutter(300_000), Log(), os.path.getsize(local(name))
    is_file(fetch(cutter.url(name), pin=pin), name)
    return only_the_rest(log.lines(name, 2), size, 300_000)


def only_the_rest(lines, size, cut):
    assert [line["status"] for line in lines] == [200, 206], lines
    second = lines[1]
    begin = int(second["range"].removeprefix("bytes=").partition("-")[0])
    # What the relay let through is that many bytes with the head.
    assert cut - 2000 < begin <= cut, f"asked from {begin} on, {cut} bytes with the head had come"
    assert second["if_range"].startswith('"'), f"no strong validator in If-Range: {second}"
    assert second["sent"] == size - begin, second
    return f"{begin} + {second['sent']} bytes"


def resume_of_another_file():
    """cut, and the file changes before the rest is asked for: all of the new one"""

    new("changing.bin")
    cutter, log = Cutter(200_000, then=lambda: new("changing.bin", 600_000)), Log()
    is_file(fetch(cutter.url("changing.bin")), "changing.bin")
    seen = [line["status"] for line in log.lines("changing.bin", 2)]
    assert seen == [200, 200], seen


def another_pin():
    """the file changes, and somebody asks for it with its new checksum at once"""
    for _ in range(2):
        is_file(fetch(url("plain", new("released.bin")), pin="released.bin"), "released.bin")


def many_cuts():
    """cut five times"""
    cutter = Cutter(130_000, times=5)
    is_file(fetch(cutter.url(new("five.bin")), pin="five.bin"), "five.bin")
    assert cutter.connections == 6, f"{cutter.connections} connections"
    return f"{cutter.connections} connections"


def failover():
    """one mirror always cuts: the other one serves it"""
    cutter = Cutter(3_000, times=1000)
    is_file(fetch(cutter.url(new("two.bin")), url("plain", "two.bin"), pin="two.bin"), "two.bin")
    assert cutter.connections, "the first mirror was not asked"
    return f"{cutter.connections} connections to the first"


def encodings():
    """Content-Encoding is left alone: identity where the origin would compress, the served bytes where it insists"""
    log = Log()
    is_file(fetch(url("plain", "text.txt?encoding")), "text.txt")
    seen = [line["accept_encoding"] for line in log.lines("text.txt?encoding")]
    assert seen in (["identity"], [""]), seen
    is_file(fetch(url("plain", "packed/text.txt")), "packed/text.txt.gz")
    return f"Accept-Encoding: {seen[0] or 'not sent'}"


def conditional():
    """unpinned a second time: 304; changed since: fetched again"""
    with open(local("fresh.bin"), "wb") as f:
        f.write(b"one" * 1000)
    log = Log()
    is_file(fetch(url("plain", "fresh.bin")), "fresh.bin")
    is_file(fetch(url("plain", "fresh.bin")), "fresh.bin")
    lines = log.lines("fresh.bin", 2)
    assert [line["status"] for line in lines] == [200, 304], lines
    assert lines[1]["if_none_match"], lines
    with open(local("fresh.bin"), "wb") as f:
        f.write(b"other" * 1000)
    is_file(fetch(url("plain", "fresh.bin")), "fresh.bin")
    assert [line["status"] for line in log.lines("fresh.bin", 3)] == [200, 304, 200], log.lines("fresh.bin")


def burst(server, count):
    """All succeed in the end; how many requests were refused meanwhile, and how long it took."""
    log, began = Log(), time.monotonic()
    names = [f"burst-{i}.bin" for i in range(count)]
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        futures = {name: pool.submit(fetch, url(server, name)) for name in names}
    for name, future in futures.items():
        is_file(future.result(), name)
    lines = log.lines(wanted=count)
    refused = [line["status"] for line in lines if line["status"] != 200]
    assert refused, "the limit was never reached"
    return f"{count} fetches, {len(refused)} refusals ({refused[0]}), {time.monotonic() - began:.1f} s"


def rate_limit():
    """a burst into limit_req: 429 with Retry-After"""
    return burst("rate", 40)


def connection_limit():
    """a burst into limit_conn: 503"""
    return burst("connections", 24)


def slow_first_byte():
    """three seconds before the answer begins; and longer than fetch.stall_timeout"""
    is_file(fetch(url("plain", "slow/3000/" + new("slow.bin")), pin="slow.bin"), "slow.bin")
    began = time.monotonic()
    said = refused(lambda: fetch(url("plain", "slow/60000/text.txt"), timeout=12), "slow/60000/text.txt")
    assert time.monotonic() - began < 30, f"{time.monotonic() - began:.1f} s"
    return said


def large():
    """a large file, cut in the middle"""
    size = os.path.getsize(local("large.bin"))
    cutter, log, began = Cutter(size // 2), Log(), time.monotonic()
    got = fetch(cutter.url("large.bin"), pin="large.bin")
    took = time.monotonic() - began
    rest = only_the_rest(log.lines("large.bin", 2), size, size // 2)
    is_file(got, "large.bin")
    return f"{rest}, {took:.1f} s"


def large_http2():
    """a large file without a checksum over TLS and HTTP/2"""
    began = time.monotonic()
    got = fetch(url("h2", "large.bin"))
    took = time.monotonic() - began
    is_file(got, "large.bin")
    return f"{took:.1f} s"


def untrusted():
    """a certificate of an unknown CA"""
    said = refused(lambda: fetch(f"https://127.0.0.1:{PORT['untrusted']}/file.bin"), f":{PORT['untrusted']}/file.bin", "certificate")
    return said


CHECKS = [
    plain, by_name, tls_http2, tls_http1, tls_only_http2, redirects, redirect_to_tls, redirects_and_credentials, redirects_that_lead_nowhere,
    resume, resume_without_pin, resume_of_another_file, another_pin, many_cuts, failover, encodings, conditional, rate_limit, connection_limit,
    slow_first_byte, large, large_http2,
]  # fmt: skip


def main():
    grpc.channel_ready_future(channel).result(20)
    failures = 0
    for check in [untrusted] if "untrusted" in PORT else CHECKS:
        began = time.monotonic()
        try:
            said, mark = check(), "ok  "
        except (AssertionError, Failed) as e:
            said, mark = e, "FAIL"
        except Exception:
            said, mark = traceback.format_exc(), "FAIL"
        failures += mark == "FAIL"
        print(f"   {mark} {check.__doc__}{f' ({said})' if said else ''}, {time.monotonic() - began:.1f} s", flush=True)
    return failures > 0


sys.exit(main())
