"""What is fetched from an origin and remembered, and what the known clients do."""

import http.server
import threading
import time

from build.bazel.remote.asset.v1 import remote_asset_pb2 as asset

from checks import Code, case
from client import EMPTY, digest_of, now
from pushing import SECRET, sri, tree_of

FETCH, HABITS, EXPIRY = "fetch", "clients", "expiry"
WRONG = "sha256-" + "A" * 43 + "="


def pinned(data):
    return {"checksum.sri": sri(data)}


@case("3", FETCH, "a pinned download happens once, whoever asks")
def s3(m):
    url, data = m.file(5000)
    for server in (m.a, m.a, m.b):
        m.ok(server.blob([url], pinned(data)), digest_of(data), url)
    m.same("requests of the origin", 1, m.asked(url))
    m.same("bytes", digest_of(data), digest_of(m.b.read(digest_of(data))))


@case("U7", FETCH, "a hit by checksum alone names the first URI of the request")
def u7(m):
    url, data = m.file()
    m.a.blob([url], pinned(data))
    unknown = m.uri()
    m.ok(m.a.blob([unknown, url], pinned(data)), digest_of(data), unknown)
    m.ok(m.b.blob([unknown], pinned(data)), digest_of(data), unknown)
    m.same("requests of the origin", 1, m.asked(url))


@case("28", FETCH, "other credentials are still a hit; another canonical id is not")
def s28(m):
    url, data = m.file()
    q = pinned(data) | {"bazel.canonical_id": "one"}
    for token in SECRET + "-1", SECRET + "-2":
        m.ok(m.a.blob([url], q | {"http_header:Authorization": token}), digest_of(data))
        m.ok(m.a.blob([url], q | {"http_header_url:0:X-Token": token}), digest_of(data))
    m.same("requests of the origin", 1, m.asked(url))
    m.ok(m.a.blob([url], pinned(data) | {"bazel.canonical_id": "two"}), digest_of(data))
    m.true(m.asked(url) > 1, "the new canonical id did not reach the origin")


@case("32", EXPIRY, "a download is refetched when it is older than oldest_content_accepted, and only then")
def s32(m):
    url, data = m.file()
    loose, other = m.file()
    began = now() - 1
    m.ok(m.a.blob([url], pinned(data)), digest_of(data))
    m.ok(m.a.blob([url], pinned(data), oldest=began), digest_of(data))
    m.same("requests of the origin", 1, m.asked(url))
    m.ok(m.a.blob([loose], oldest=began), digest_of(other))
    m.ok(m.b.blob([loose], oldest=began), digest_of(other))
    m.same("requests for what is not pinned", 1, m.asked(loose))
    time.sleep(1.1)
    m.ok(m.a.blob([loose], oldest=now() - 0.5), digest_of(other))
    m.same("requests for what is not pinned", 2, m.asked(loose))
    m.ok(m.a.blob([url], pinned(data), oldest=now() - 0.5), digest_of(data))
    m.same("requests of the origin", 2, m.asked(url))


@case("N3", EXPIRY, "oldest_content_accepted in an hour and no checksum, as Bazel sends: fetched anew, OK")
def n3(m):
    url, data = m.file()
    for n in 1, 2:
        m.ok(m.a.blob([url], oldest=now() + 3600), digest_of(data), url)
        m.same("requests of the origin", n, m.asked(url))
        time.sleep(1.1)


@case("N6", EXPIRY, "without a limit, what is not pinned is asked for again")
def n6(m):
    url, data = m.file()
    m.ok(m.a.blob([url]), digest_of(data))
    m.ok(m.b.blob([url]), digest_of(data))
    m.same("requests of the origin", 2, m.asked(url))
    with open(f"{m.files}/{url.rsplit('/', 1)[1]}", "wb") as f:
        f.write(changed := m.data())
    m.ok(m.a.blob([url]), digest_of(changed))


@case("H1", FETCH, "what was fetched is in the CAS")
def h1(m):
    url, data = m.file(2000)
    m.ok(m.a.blob([url]), digest_of(data))
    m.same("bytes", digest_of(data), digest_of(m.cache.read(digest_of(data))))


@case("H3", FETCH, "a large body, an empty one, and bodies without a length")
def h3(m):
    for size, how in [(5 << 20, "files"), (0, "files"), (70_000, "chunked"), (70_000, "nolength"), (5 << 20, "chunked")]:
        url, data = m.file(size, how)
        m.ok(m.a.blob([url]), digest_of(data))
        m.ok(m.a.blob([url], pinned(data)), digest_of(data))
        m.same(f"{size} bytes, {how}", digest_of(data), digest_of(m.cache.read(digest_of(data))))


@case("11", FETCH, "text, with and without a length, however the cache wants it sent")
def s11(m):
    for how in "files", "chunked":
        url, seed = m.file(20, how)
        data = b"".join(b"%s line %d\n" % (seed.hex().encode(), n * 7919) for n in range(90_000))
        with open(f"{m.files}/{url.rsplit('/', 1)[1]}", "wb") as f:
            f.write(data)
        # The second one: with the embedded cache it has the first as its upstream.
        m.ok(m.b.blob([url], pinned(data)), digest_of(data))
        m.same(f"text, {how}", digest_of(data), digest_of(m.cache.read(digest_of(data))))


@case("H4", FETCH, "pinned content answers when its origin is gone")
def h4(m):
    data = m.data(400)

    class Origin(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/gone"
    m.ok(m.a.blob([url], pinned(data)), digest_of(data))
    server.shutdown()
    server.server_close()
    for replica in m.a, m.b:
        m.ok(replica.blob([url], pinned(data)), digest_of(data))


@case("S3", FETCH, "a wrong checksum is ABORTED, and nothing is remembered")
def wrong(m):
    url, data = m.file()
    for _ in range(2):
        answer = m.a.blob([url], {"checksum.sri": WRONG})
        m.same("status", Code.ABORTED.value[0], answer.status.code)
        m.true(not answer.blob_digest.hash, "a failure with a digest")
    m.ok(m.a.blob([url], pinned(data)), digest_of(data))


@case("30", HABITS, "no URI and a checksum, as bazel-remote asks: the size, or NOT_FOUND")
def s30(m):
    url, data = m.file()
    m.miss(m.a.blob([], pinned(data)), "a checksum nobody has seen")
    m.ok(m.a.blob([url], pinned(data)), digest_of(data))
    m.ok(m.b.blob([], pinned(data)), digest_of(data))
    m.refused(Code.INVALID_ARGUMENT, m.a.blob, [])


@case("P1", HABITS, "Please's list of checksums, and sha512 beside SHA256 digests")
def please(m):
    url, data = m.file()
    listed = {"checksum.sri": f"{WRONG} {sri(data)}"}
    m.ok(m.a.blob([url], listed), digest_of(data))
    m.ok(m.b.blob([url], listed), digest_of(data))
    m.same("requests of the origin", 1, m.asked(url))
    url, data = m.file()
    for server in m.a, m.b:
        m.ok(server.blob([url], {"checksum.sri": sri(data, "sha512")}), digest_of(data))
    m.same("requests of the origin", 1, m.asked(url))


@case("V1", HABITS, "BuildStream's probes: an empty fetch and an empty push are INVALID_ARGUMENT")
def probes(m):
    for call, request in [(m.a.fetch.FetchBlob, asset.FetchBlobRequest()), (m.a.push.PushBlob, asset.PushBlobRequest()),
                          (m.a.fetch.FetchDirectory, asset.FetchDirectoryRequest()),
                          (m.a.push.PushDirectory, asset.PushDirectoryRequest())]:  # fmt: skip
        m.refused(Code.INVALID_ARGUMENT, call, request, timeout=20)


@case("33", HABITS, "BuildStream: fetch of [strong, weak] before the push of both, and again afterwards")
def buildstream(m):
    base = f"urn:fdc:buildstream.build:2020:artifact:matrix/{m.uri()}/"
    strong, weak, newer = base + "strong", base + "weak", base + "newer"
    first, second, tree = m.stored(), m.stored(), tree_of(m, m.a)
    m.miss(m.a.blob([strong, weak]))
    m.a.push_blob([strong, weak], first, blobs=[tree["files"][0], EMPTY], directories=[tree["root"], EMPTY])
    m.ok(m.a.blob([strong, weak]), first, strong)
    m.ok(m.b.blob([weak]), first, weak)
    # A rebuild: another strong key, the same weak one.
    m.ok(m.a.blob([newer, weak]), first, weak)
    m.a.push_blob([newer, weak], second, blobs=[tree["files"][0]], directories=[tree["root"]])
    m.ok(m.a.blob([newer, weak]), second, newer)
    m.ok(m.b.blob([weak]), second, weak)
    m.ok(m.b.blob([strong]), first, strong)
    source = f"urn:fdc:buildstream.build:2020:source:local/{m.uri()}"
    m.miss(m.a.directory([source]))
    m.a.push_directory([source], tree["root"])
    m.ok_tree(m.b.directory([source]), tree["root"])


@case("P7", HABITS, "BuildGrid: nih: URIs, and an expire_at skewed into the past is a withdrawal, never an error")
def buildgrid(m):
    d, tree = m.stored(), tree_of(m, m.a)
    urn, q = f"nih:sha-256;{d.hash}", {"resource_type": "application/x-protobuf"}
    m.a.push_blob([urn], d, q, expire=now() + 3600, blobs=[tree["files"][1]], directories=[tree["root"]])
    m.ok(m.a.blob([urn], q), d)
    m.a.push_blob([urn], d, q, expire=now() - 7200, blobs=[tree["files"][1]], directories=[tree["root"]])
    m.miss(m.a.blob([urn], q), "after the skewed push")
    m.a.push_blob([urn], d, q, expire=now() + 3600, blobs=[tree["files"][1]], directories=[tree["root"]])
    m.ok(m.b.blob([urn], q), d)
