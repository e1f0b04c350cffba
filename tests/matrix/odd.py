"""Caches that take no references, or each only once (conformance C6)."""

import concurrent.futures

from build.bazel.remote.asset.v1 import remote_asset_pb2 as asset
from build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi

import pushing
from checks import Code, case
from client import digest_of, now
from fetching import pinned
from pushing import sri, tree_of

FETCH, PUSH, OVER, EXPIRY, REPLICAS, REST = "fetch", "push", "overwrite", "expiry", "replicas", "rest"


def logged(m, words):
    with open(m.settings["log_a"], encoding="utf-8", errors="replace") as f:
        return any(words in line and '"WARN"' in line.upper() for line in f)


@case("C6", FETCH, "fetching is OK; that nothing was recorded is counted and logged (scenario 46)", "read_only", alone=True)
def fetches(m):
    before = m.metric("assetgate_reference_write_failures_total")
    url, data = m.file(3000)
    for n in 1, 2:
        m.ok(m.a.blob([url], pinned(data)), digest_of(data), url)
    loose, other = m.file()
    m.ok(m.a.blob([loose]), digest_of(other), loose)
    m.same("bytes", digest_of(data), digest_of(m.cache.read(digest_of(data))))
    m.true(m.metric("assetgate_reference_write_failures_total") > before, "references that could not be recorded were not counted")
    m.true(logged(m, "could not be recorded"), "no warning says that content could not be recorded")
    wrong = m.a.blob([url], {"checksum.sri": sri(b"other")})
    m.same("status of a wrong checksum", Code.ABORTED.value[0], wrong.status.code)


@case("C6", PUSH, "a push is refused with a sentence, and nothing is found afterwards", "read_only")
def pushes(m):
    urn, d, tree = m.uri(), m.stored(), tree_of(m, m.a)
    m.refused(Code.PERMISSION_DENIED, m.a.push_blob, [urn], d, words="(?i)reference|Action Cache")
    m.refused(Code.PERMISSION_DENIED, m.a.push_directory, [urn], tree["root"], words="(?i)reference|Action Cache")
    m.miss(m.a.blob([urn]))
    m.miss(m.a.directory([urn]))
    return "refused"


@case("V1", PUSH, "BuildStream's probes are INVALID_ARGUMENT all the same", "read_only")
def probes(m):
    for call, request in (m.a.fetch.FetchBlob, asset.FetchBlobRequest()), (m.a.push.PushBlob, asset.PushBlobRequest()):
        m.refused(Code.INVALID_ARGUMENT, call, request, timeout=20)


@case("45", REST, "capabilities, CAS and ByteStream are the cache's own; so is its refusal", "read_only")
def rest(m):
    request = reapi.GetCapabilitiesRequest()
    through, direct = (s.capabilities.GetCapabilities(request, timeout=20) for s in (m.a, m.cache))
    m.same("capabilities", direct.SerializeToString(), through.SerializeToString())
    digest = m.a.write(m.data(300_000))
    m.same("bytes", digest, digest_of(m.b.read(digest)))
    key = digest_of(m.data())
    m.true(m.a.entry(key) is None, "an Action Cache entry nobody wrote")
    try:
        m.cache.set_entry(key, reapi.ActionResult(stdout_raw=b"x"))
    except Exception as e:
        m.refused(e.code(), m.a.set_entry, key, reapi.ActionResult(stdout_raw=b"x"))
        return f"UpdateActionResult: {e.code().name}"
    m.true(False, "the cache takes UpdateActionResult")


# ---- each entry once ----


@case("C6", PUSH, "the first push works, through both replicas", "write_once")
def first(m):
    one, two, d, tree = m.uri(), m.uri(), m.stored(), tree_of(m, m.a)
    m.a.push_blob([one, two], d, {"a": "1"}, blobs=[tree["files"][0]], directories=[tree["root"]])
    m.ok(m.b.blob([two], {"a": "1"}), d, two)
    m.miss(m.b.blob([two], {"a": "2"}))
    m.a.push_directory([one], tree["root"])
    m.ok_tree(m.b.directory([one]), tree["root"])


@case("C6", OVER, "an overwrite is refused with a sentence; what was there stays", "write_once")
def again(m):
    urn, fresh, d, e = m.uri(), m.uri(), m.stored(), m.stored()
    m.a.push_blob([urn], d)
    m.refused(Code.FAILED_PRECONDITION, m.b.push_blob, [urn], e, words="last write")
    m.ok(m.a.blob([urn]), d)
    m.refused(Code.FAILED_PRECONDITION, m.a.push_blob, [fresh, urn], e, words="last write")
    m.ok(m.b.blob([urn]), d)
    tree, other = tree_of(m, m.a), tree_of(m, m.a)
    m.a.push_directory([urn], tree["root"])
    m.refused(Code.FAILED_PRECONDITION, m.b.push_directory, [urn], other["root"], words="last write")
    m.ok_tree(m.a.directory([urn]), tree["root"])
    return "refused"


@case("C6", EXPIRY, "a withdrawal is refused with a sentence, never silently lost", "write_once")
def withdrawn(m):
    urn, d = m.uri(), m.stored()
    m.a.push_blob([urn], d)
    m.refused(Code.FAILED_PRECONDITION, m.a.push_blob, [urn], d, expire=now() - 10, words="last write")
    m.ok(m.a.blob([urn]), d)
    return "changes refused"


@case("P9", REPLICAS, "of pushes of one URI at once, one is acknowledged and both replicas tell it", "write_once", alone=True)
def race(m):
    urn, digests = m.uri(), [m.stored() for _ in range(8)]

    def push(i):
        try:
            (m.a, m.b)[i % 2].push_blob([urn], digests[i])
            return True
        except Exception as e:
            m.same("code", Code.FAILED_PRECONDITION, e.code())
            return False

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        taken = [d for d, done in zip(digests, pool.map(push, range(8))) if done]
    seen = m.ok(m.a.blob([urn]), None).blob_digest
    m.ok(m.b.blob([urn]), seen)
    m.true(seen in digests, "what is told was never pushed")
    m.true(taken, "no push was acknowledged")


@case("C6", FETCH, "a pinned download is recorded once and found by both", "write_once")
def download(m):
    url, data = m.file(3000)
    for server in m.a, m.a, m.b:
        m.ok(server.blob([url], pinned(data)), digest_of(data), url)
    m.same("requests of the origin", 1, m.asked(url))


@case("N6", FETCH, "a download that is not pinned stays OK when its reference cannot be renewed", "write_once")
def loose(m):
    url, data = m.file()
    for _ in range(3):
        m.ok(m.a.blob([url]), digest_of(data))


for id_, column, title, run in [("P5", PUSH, "a push of content that is not there is refused", pushing.p5),
                                ("P6", PUSH, "a pushed root that is no Directory is refused", pushing.p6),
                                ("D3", PUSH, "blobs and directories are apart", pushing.d3),
                                ("N7", EXPIRY, "expire_at is kept", pushing.n7),
                                ("36", PUSH, "malformed pushes are refused", pushing.s36)]:  # fmt: skip
    case(id_, column, title, "write_once")(run)
case("45", REST, "capabilities, CAS, ByteStream and Action Cache are the cache's own", "write_once")(pushing.s45)
