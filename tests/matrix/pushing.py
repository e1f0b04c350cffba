"""What is pushed and fetched again: URIs, qualifiers, expiry, kinds, overwriting, replicas."""

import base64
import concurrent.futures
import hashlib
import itertools
import time

from build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from google.rpc import error_details_pb2

from checks import Code, Failed, case
from client import EMPTY, digest_of, directory, exact_key, now, tell

PUSH, OVER, EXPIRY, SUBSET, REPLICAS = "push", "overwrite", "expiry", "subset", "replicas"
SECRET = "matrix-secret"  # the script looks for it in logs and in the cache's files
THREE = {"a": "1", "b": "2", "c": "3"}


def sri(data, name="sha256"):
    return f"{name}-{base64.b64encode(hashlib.new(name, data).digest()).decode()}"


@case("U1", PUSH, "the first URI that is known answers, in request order")
def u1(m):
    one, two, d, e = m.uri(), m.uri(), m.stored(), m.stored()
    m.a.push_blob([two], d)
    m.ok(m.a.blob([one, two]), d, two)
    m.a.push_blob([one], e)
    m.ok(m.a.blob([one, two]), e, one)


@case("U2", PUSH, "each URI of a push answers, alone and in any list")
def u2(m):
    one, two, d = m.uri(), m.uri(), m.stored()
    m.a.push_blob([one, two], d)
    m.ok(m.a.blob([one]), d, one)
    m.ok(m.a.blob([two]), d, two)
    m.ok(m.a.blob([two, m.uri()]), d, two)
    m.ok(m.a.blob([m.uri(), two]), d, two)


@case("U3", PUSH, "qualifiers apply to every URI: one whose push differs is skipped")
def u3(m):
    one, two, d, e = m.uri(), m.uri(), m.stored(), m.stored()
    m.a.push_blob([one], d, {"v": "1"})
    m.a.push_blob([two], e, {"v": "2"})
    m.ok(m.a.blob([one, two], {"v": "2"}), e, two)
    m.miss(m.a.blob([one, two], {"v": "3"}))


@case("U6", PUSH, "URNs and unknown schemes are opaque: nothing is normalised")
def u6(m):
    base, d = m.uri("Opaque"), m.stored()
    for pushed, other in [(base + "%41", base + "A"), ("odd+scheme:" + base, "ODD+scheme:" + base), (base + "/./a", base + "/a")]:
        m.a.push_blob([pushed], d)
        m.ok(m.a.blob([pushed]), d, pushed)
        m.miss(m.a.blob([other]), other)


@case("U8", PUSH, "URIs with different content and no checksum: the first is returned")
def u8(m):
    one, two, d, e = m.uri(), m.uri(), m.stored(), m.stored()
    m.a.push_blob([one], d)
    m.a.push_blob([two], e)
    m.ok(m.a.blob([one, two]), d, one)
    m.ok(m.a.blob([two, one]), e, two)


@case("N1", EXPIRY, "what was pushed before oldest_content_accepted is not returned")
def n1(m):
    urn, d = m.uri(), m.stored()
    url, data = m.file()
    m.a.push_blob([urn, url], d)
    m.ok(m.a.blob([url]), d)
    time.sleep(1.1)
    m.miss(m.a.blob([urn], oldest=now()))
    m.ok(m.a.blob([url], oldest=now() - 0.5), digest_of(data))
    m.same("requests of the origin", 1, m.asked(url))


@case("N2", EXPIRY, "what was pushed after oldest_content_accepted is returned")
def n2(m):
    urn, d, before = m.uri(), m.stored(), now() - 1
    m.a.push_blob([urn], d)
    m.ok(m.a.blob([urn], oldest=before), d)


@case("N7", EXPIRY, "expire_at in 3 s: returned before, not afterwards")
def n7(m):
    urn, other, d = m.uri(), m.uri(), m.stored()
    end = now() + 3
    m.a.push_blob([urn, other], d, expire=end)
    m.ok(m.a.blob([urn]), d)
    time.sleep(max(0, end + 0.2 - now()))
    m.miss(m.a.blob([urn]))
    m.miss(m.b.blob([other]))


@case("N8", EXPIRY, "a later push alters expire_at: earlier, later, none, past (scenario 31)")
def n8(m):
    d = m.stored()
    longer, shorter, cleared, withdrawn = (m.uri(w) for w in ["longer", "shorter", "cleared", "withdrawn"])
    m.a.push_blob([longer, cleared], d, expire=now() + 2)
    m.a.push_blob([shorter, withdrawn], d, expire=now() + 600)
    m.a.push_blob([longer], d, expire=now() + 600)
    m.a.push_blob([cleared], d)
    m.a.push_blob([shorter], d, expire=now() + 1)
    m.a.push_blob([withdrawn], d, expire=now() - 10)
    m.miss(m.a.blob([withdrawn]), "withdrawn")
    m.miss(m.b.blob([withdrawn]), "withdrawn, through the other replica")
    time.sleep(2.3)
    m.ok(m.a.blob([longer]), d)
    m.ok(m.a.blob([cleared]), d)
    m.miss(m.a.blob([shorter]), "shortened")
    m.a.push_blob([withdrawn], d)
    m.ok(m.a.blob([withdrawn]), d)


@case("N8", EXPIRY, "withdrawing one set of qualifiers leaves the others")
def n8_others(m):
    urn, d, e = m.uri(), m.stored(), m.stored()
    m.a.push_blob([urn], d, {"v": "1"})
    m.a.push_blob([urn], e, {"v": "2"})
    m.a.push_blob([urn], d, {"v": "1"}, expire=now() - 10)
    m.miss(m.a.blob([urn], {"v": "1"}))
    m.ok(m.a.blob([urn], {"v": "2"}), e)


@case("N10", EXPIRY, "no expires_at is promised")
def n10(m):
    urn, d = m.uri(), m.stored()
    m.a.push_blob([urn], d, expire=now() + 600)
    m.true(not m.ok(m.a.blob([urn]), d).HasField("expires_at"), "the answer has expires_at")


@case("H1", PUSH, "what an OK answer names is in the CAS")
def h1(m):
    urn, d = m.uri(), m.stored(3000)
    m.a.push_blob([urn], d)
    m.ok(m.a.blob([urn]), d)
    m.same("bytes", digest_of(m.a.read(d)), d)


@case("H5", SUBSET, "the answer names the pushed qualifiers, all and no secret")
def h5(m):
    urn, d = m.uri(), m.stored()
    m.a.push_blob([urn], d, {"b": "2", "a": "1", "http_header:Authorization": f"Bearer {SECRET}"})
    whole = m.ok(m.a.blob([urn], {"a": "1", "b": "2"}), d)
    part = m.ok(m.a.blob([urn], {"a": "1"}), d)
    for answer in whole, part:
        seen = sorted((q.name, q.value) for q in answer.qualifiers)
        m.same("qualifiers", [("a", "1"), ("b", "2")], seen)
    entry = m.cache.entry(exact_key(urn, {"a": "1", "b": "2"})[1])
    m.true(SECRET.encode() not in entry.SerializeToString(), "the entry holds the secret")


def tree_of(m, server, size=40):
    """A new directory of three levels in the CAS: its root, every Directory and every file."""
    files = [m.data(size) for _ in range(4)]
    leaf, leaf_digest = directory({"deep": digest_of(files[0]), "empty": EMPTY})
    middle, middle_digest = directory({"mid": digest_of(files[1])}, {"leaf": leaf_digest, "void": EMPTY})
    root, root_digest = directory({"top": digest_of(files[2]), "again": digest_of(files[3])},
                                  {"middle": middle_digest, "same": leaf_digest})  # fmt: skip
    server.put(*files, leaf, middle, root)
    return {"root": root_digest, "directories": [leaf_digest, middle_digest], "files": [digest_of(f) for f in files],
            "bytes": {"leaf": leaf, "middle": middle, "root": root}}  # fmt: skip


@case("D1", PUSH, "a directory comes back with everything in it (scenario 38)")
def d1(m):
    urn, tree = m.uri(), tree_of(m, m.a)
    m.a.push_directory([urn], tree["root"])
    m.ok_tree(m.a.directory([urn]), tree["root"])
    m.ok_tree(m.b.directory([urn]), tree["root"])
    empty = m.uri("empty")
    m.a.push_directory([empty], EMPTY)
    m.ok(m.a.directory([empty]), EMPTY)


@case("D3", PUSH, "blobs and directories are apart, under one URI too (scenario 40)")
def d3(m):
    blob, folder, both, d, tree = m.uri(), m.uri(), m.uri(), m.stored(), tree_of(m, m.a)
    m.a.push_blob([blob, both], d)
    m.a.push_directory([folder, both], tree["root"])
    m.miss(m.a.directory([blob]), "FetchDirectory of a blob")
    m.miss(m.a.blob([folder]), "FetchBlob of a directory")
    m.ok(m.a.blob([both]), d)
    m.ok_tree(m.a.directory([both]), tree["root"])


@case("39", PUSH, "a blob that happens to be a Directory stays a blob")
def s39(m):
    urn, tree = m.uri(), tree_of(m, m.a)
    m.a.push_blob([urn], tree["root"])
    m.ok(m.a.blob([urn]), tree["root"])
    m.miss(m.a.directory([urn]))


@case("43", PUSH, "a directory nobody pushed is NOT_FOUND")
def s43(m):
    m.miss(m.a.directory([m.uri()]))
    m.miss(m.a.directory([m.file()[0]]), "FetchDirectory of a URL")


@case("P1", PUSH, "all qualifiers, in any order, give the same answer (scenario 34)")
def p1(m):
    urn, d = m.uri(), m.stored()
    m.a.push_blob([urn], d, THREE)
    for order in itertools.permutations(THREE.items()):
        m.ok(m.a.blob([urn], order), d)


@case("P2", SUBSET, "more qualifiers than were pushed, or another value, never match")
def p2(m):
    urn, d = m.uri(), m.stored()
    m.a.push_blob([urn], d, THREE)
    for wrong in [THREE | {"d": "4"}, THREE | {"b": "3"}, {"b": "3"}, {"a": "1", "B": "2"}, {"d": "4"}, {"a": "1", "d": "4"}]:
        m.miss(m.a.blob([urn], wrong), f"fetch with {wrong}")
    plain = m.uri()
    m.a.push_blob([plain], d)
    m.miss(m.a.blob([plain], {"a": "1"}), "fetch with a qualifier of a push without")
    m.miss(m.a.blob([plain], {"checksum.sri": "sha256-" + "A" * 43 + "="}), "fetch with another checksum")


@case("P3", SUBSET, "any subset of three pushed qualifiers matches")
def p3(m):
    urn, d = m.uri(), m.stored()
    m.a.push_blob([urn], d, THREE)
    for n in range(3):
        for some in itertools.combinations(THREE.items(), n):
            try:
                m.ok(m.b.blob([urn], some), d)
            except Failed as e:
                raise Failed(f"fetch with {dict(some)}: {e}") from None


@case("P3", SUBSET, "an exact match is preferred to a subset of a later push; the latest push answers subsets")
def p3_exact(m):
    urn, d, e, f = m.uri(), m.stored(), m.stored(), m.stored()
    m.a.push_blob([urn], d, {"a": "1"})
    m.b.push_blob([urn], e, {"a": "1", "b": "2"})
    m.ok(m.a.blob([urn], {"a": "1"}), d)
    m.ok(m.a.blob([urn], {"b": "2"}), e)
    m.b.push_blob([urn], f, {"a": "1", "b": "2"})
    m.ok(m.a.blob([urn], {"b": "2"}), f)


@case("P3", SUBSET, "a directory answers subsets as well, and a withdrawn push does not")
def p3_directory(m):
    urn, tree = m.uri(), tree_of(m, m.a)
    m.a.push_directory([urn], tree["root"], {"a": "1", "b": "2"})
    m.ok_tree(m.a.directory([urn], {"b": "2"}), tree["root"])
    m.miss(m.a.blob([urn], {"b": "2"}), "FetchBlob of it")
    m.a.push_directory([urn], tree["root"], {"a": "1", "b": "2"}, expire=now() - 10)
    m.miss(m.a.directory([urn], {"b": "2"}), "a subset of the withdrawn push")


@case("35", SUBSET, "URI and qualifiers cannot be confused with each other")
def s35(m):
    base, d, e = m.uri(), m.stored(), m.stored()
    m.a.push_blob([base + "ab"], d, {"c": "1"})
    m.miss(m.a.blob([base + "a"], {"bc": "1"}))
    m.miss(m.a.blob([base + "ab"], {"c1": ""}))
    m.a.push_blob([base], d, {"x": "1", "y": "2"})
    m.a.push_blob([base], e, {"x": "2", "y": "1"})
    m.ok(m.a.blob([base], {"x": "1", "y": "2"}), d)
    m.ok(m.a.blob([base], {"x": "2", "y": "1"}), e)


@case("P4", PUSH, "who may not push is told so (scenario 37)")
def p4(m):
    urn, d = m.uri(), m.stored()
    m.refused(Code.PERMISSION_DENIED, m.no_push.push_blob, [urn], d)
    m.miss(m.a.blob([urn]))


@case("P8", PUSH, "where pushing is off, fetching works")
def p8(m):
    url, data = m.file()
    m.ok(m.no_push.blob([url], {"checksum.sri": sri(data)}), digest_of(data))
    m.miss(m.no_push.blob([m.uri()]))


@case("37", PUSH, "another instance name: its own references, or the cache's refusal")
def s37(m):
    urn, d = m.uri(), m.stored()
    m.a.push_blob([urn], d)
    try:
        m.a.cas.FindMissingBlobs(reapi.FindMissingBlobsRequest(instance_name="elsewhere", blob_digests=[d]), timeout=20)
    except Exception as direct:
        m.refused(direct.code(), m.a.blob, [urn], instance="elsewhere")
        m.refused(direct.code(), m.a.push_blob, [urn], d, instance="elsewhere")
        return "refused as the cache refuses it"
    m.miss(m.a.blob([urn], instance="elsewhere"))
    m.a.push_blob([urn], d, instance="elsewhere")
    m.ok(m.a.blob([urn], instance="elsewhere"), d)


def missing_said(found):
    for message in found:
        if isinstance(message, error_details_pb2.PreconditionFailure):
            return sorted((v.type, v.subject) for v in message.violations)
    return None


@case("P5", PUSH, "a push of content that is not there is refused and stored nowhere (scenario 36)")
def p5(m):
    urn, absent = m.uri(), digest_of(m.data())
    subject = ("MISSING", f"blobs/{absent.hash}/{absent.size_bytes}")
    m.same("detail", [subject], missing_said(m.refused(Code.FAILED_PRECONDITION, m.a.push_blob, [urn], absent)))
    m.miss(m.a.blob([urn]))
    m.same("detail", [subject], missing_said(m.refused(Code.FAILED_PRECONDITION, m.a.push_directory, [urn], absent)))
    file, _ = directory({"f": absent}), None
    child, _ = directory({}, {"d": absent}), None
    for root, _ in (file, child):
        digest = m.a.put(root)
        m.same("detail", [subject], missing_said(m.refused(Code.FAILED_PRECONDITION, m.a.push_directory, [urn], digest)))
    m.miss(m.a.directory([urn]))


@case("P6", PUSH, "a pushed root that is no Directory is refused")
def p6(m):
    digest = m.a.put(b"\xff\xff this is no Directory " + m.data(20))
    m.refused(Code.INVALID_ARGUMENT, m.a.push_directory, [m.uri()], digest)


@case("P7", PUSH, "references that do not hold are dropped and counted; empty ones are ignored")
def p7(m):
    urn, d, tree, absent = m.uri(), m.stored(), tree_of(m, m.a), digest_of(m.data())
    before = m.metric("assetgate_push_references_dropped_total")
    m.a.push_blob([urn], d, blobs=[EMPTY, absent, tree["files"][0]], directories=[EMPTY, tree["root"], digest_of(m.data())])
    m.ok(m.a.blob([urn]), d)
    m.true(m.metric("assetgate_push_references_dropped_total") >= before + 2, "the two that do not hold were not counted")
    none = m.uri()
    m.a.push_blob([none], d, blobs=[EMPTY], directories=[EMPTY, EMPTY])
    m.ok(m.a.blob([none]), d)


@case("36", PUSH, "malformed pushes are refused")
def s36(m):
    d = m.stored()
    bad = [(["uris"], [], d), (["no digest"], [m.uri()], None), (["size"], [m.uri()], reapi.Digest(hash=d.hash, size_bytes=-1)),
           (["hash"], [m.uri()], reapi.Digest(hash="zz" * 32, size_bytes=5)),
           (["length"], [m.uri()], reapi.Digest(hash=d.hash[:60], size_bytes=5)),
           (["case"], [m.uri()], reapi.Digest(hash=d.hash.upper() if d.hash.upper() != d.hash else "A" * 64, size_bytes=5))]  # fmt: skip
    for _, uris, digest in bad:
        m.refused(Code.INVALID_ARGUMENT, m.a.push_blob, uris, digest)
        m.refused(Code.INVALID_ARGUMENT, m.a.push_directory, uris, digest)


@case("42", OVER, "the last push wins, at once and through every replica")
def s42(m):
    urn, digests = m.uri(), [m.stored() for _ in range(6)]
    for i, d in enumerate(digests):
        (m.a, m.b)[i % 2].push_blob([urn], d)
        m.ok(m.a.blob([urn]), d)
        m.ok(m.b.blob([urn]), d)


@case("P9", OVER, "the same push twice changes nothing")
def p9(m):
    urn, d, tree = m.uri(), m.stored(), tree_of(m, m.a)
    for _ in range(2):
        m.a.push_blob([urn], d, blobs=[tree["files"][0]])
        m.a.push_directory([urn], tree["root"])
        m.ok(m.a.blob([urn]), d)
        m.ok_tree(m.a.directory([urn]), tree["root"])


@case("P9", REPLICAS, "pushes of one URI through both replicas at once: both tell the same one of them", alone=True)
def p9_race(m):
    urns, digests = [m.uri() for _ in range(5)], [m.stored() for _ in range(8)]

    def push(i):
        for urn in urns:
            (m.a, m.b)[i % 2].push_blob([urn], digests[i])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(push, range(8)))
    for urn in urns:
        seen = m.ok(m.a.blob([urn]), None).blob_digest
        m.true(seen in digests, f"{tell(seen)} was never pushed")
        m.ok(m.b.blob([urn]), seen)


@case("P10", REPLICAS, "every push that was acknowledged is seen through the other replica", alone=True)
def p10(m):
    trees = [tree_of(m, m.a) for _ in range(2)]
    digests = [m.a.put(m.data()) for _ in range(8)]

    def push(i):
        mine, other = ((m.a, m.b), (m.b, m.a))[i % 2]
        for n in range(6):
            urn, weak = m.uri(), m.uri()
            if n % 3 == 2:
                mine.push_directory([urn, weak], trees[i % 2]["root"], {"n": str(n)})
                m.ok(other.directory([urn], {"n": str(n)}), trees[i % 2]["root"])
            else:
                mine.push_blob([urn, weak], digests[i])
                m.ok(other.blob([weak]), digests[i])
                m.ok(other.blob([urn]), digests[i])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(push, range(8)))


@case("47", PUSH, "a foreign or corrupt entry under our key is a miss, and the next push heals it")
def s47(m):
    urn, other, d, e = m.uri(), m.uri(), m.stored(), m.stored()
    salt, key = exact_key(urn)
    m.a.push_blob([urn], d)
    m.a.push_blob([other], e)
    ours = m.cache.entry(key)
    m.true(ours is not None, "the entry is not under the key of format version 1")
    payload = ours.execution_metadata.auxiliary_metadata[0]
    wrong = [reapi.ActionResult(exit_code=1, stdout_raw=b"somebody else's"), reapi.ActionResult()]
    wrong[1].CopyFrom(ours)
    del wrong[1].execution_metadata.auxiliary_metadata[:]
    for cut in (0, 7, len(payload.value) - 3):
        entry = reapi.ActionResult()
        entry.CopyFrom(ours)
        entry.execution_metadata.auxiliary_metadata[0].value = payload.value[:cut]
        wrong.append(entry)
    swapped = reapi.ActionResult()
    swapped.CopyFrom(ours)
    swapped.output_files[0].digest.CopyFrom(e)
    wrong += [swapped, m.cache.entry(exact_key(other)[1])]
    for entry in wrong:
        m.cache.set_entry(key, entry)
        m.miss(m.a.blob([urn]), f"an entry of {entry.ByteSize()} bytes")
    m.a.push_blob([urn], d)
    m.ok(m.a.blob([urn]), d)
    m.same("panics", 0, m.metric("assetgate_panics_total"))


@case("45", PUSH, "capabilities, CAS, ByteStream and Action Cache are the cache's own")
def s45(m):
    request = reapi.GetCapabilitiesRequest()
    through, direct = (s.capabilities.GetCapabilities(request, timeout=20) for s in (m.a, m.cache))
    m.same("capabilities", direct.SerializeToString(), through.SerializeToString())
    small, large = m.stored(), m.data(1_000_000)
    digest = m.a.write(large)
    m.same("missing", [], list(m.cache.missing([small, digest])))
    m.same("bytes", digest, digest_of(m.cache.read(digest)))
    m.same("bytes", digest, digest_of(m.b.read(digest)))
    key = digest_of(m.data())
    m.true(m.a.entry(key) is None, "an Action Cache entry nobody wrote")
    m.a.set_entry(key, reapi.ActionResult(output_files=[{"path": "out", "digest": small}], stdout_raw=b"told"))
    seen = m.cache.entry(key)
    m.same("entry", (b"told", small), (seen.stdout_raw or m.cache.read(seen.stdout_digest), seen.output_files[0].digest))
