"""What outlives what: content and references are taken from the cache, and everything is started again.

Phases: `before` records assets and notes what is to be evicted and what has to stay; `gone` follows the eviction of
content, `forgotten` that of references, `restarted` each restart.
"""

import time

from build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi

from checks import Code, case
from client import EMPTY, checksum_key, digest_of, exact_key, now
from pushing import missing_said, sri, tree_of

BLOB, DIRECTORY, REFERENCE, PINS, RESTART = "blob evicted", "directory evicted", "reference evicted", "references kept", "restart"


class State:
    """What the phases of one cache tell each other; a file between them."""

    def __init__(self, saved):
        self.saved = saved
        for name in ("victims", "kept", "victim_entries", "kept_entries"):
            saved.setdefault(name, [])
        saved.setdefault("notes", {})

    def evict(self, *digests):
        self.saved["victims"] += [[d.hash, d.size_bytes] for d in digests]

    def keep(self, *digests):
        self.saved["kept"] += [[d.hash, d.size_bytes] for d in digests if d.size_bytes]

    def digests(self, name):
        taken = set(map(tuple, self.saved["victims"])) if name == "kept" else set()
        return [reapi.Digest(hash=h, size_bytes=n) for h, n in self.saved[name] if (h, n) not in taken]

    def entries(self, name):
        return [(salt, reapi.Digest(hash=h, size_bytes=n)) for salt, h, n in self.saved[name]]

    def note(self, name, **facts):
        self.saved["notes"][name] = {k: [v.hash, v.size_bytes] if isinstance(v, reapi.Digest) else v for k, v in facts.items()}

    def recall(self, name):
        facts = self.saved["notes"][name]
        return {k: reapi.Digest(hash=v[0], size_bytes=v[1]) if isinstance(v, list) else v for k, v in facts.items()}


def hold(m, keys, then=None):
    """Keeps the Trees an entry names. `then` is what happens to the entry in the second round: kept or evicted."""
    salt, key = keys
    entry = m.cache.entry(key)
    m.true(entry is not None, "the entry is not under the key of format version 1")
    # BuildGrid keeps entries in its CAS.
    itself = digest_of(entry.SerializeToString())
    m.state.keep(*(d.tree_digest for d in entry.output_directories), *([] if m.cache.missing([itself]) else [itself]))
    if then is not None:
        m.state.saved[then].append([salt.hex(), key.hash, key.size_bytes])


KEPT, EVICTED = "kept_entries", "victim_entries"


def push(m, name, then=None, **more):
    """Pushes a new blob under a new URI and notes both."""
    uri, d = m.uri(name), m.stored()
    m.a.push_blob([uri], d, **more)
    m.ok(m.a.blob([uri]), d)
    hold(m, exact_key(uri), then)
    m.state.keep(d)
    m.state.note(name, uri=uri, d=d)
    return uri, d


def push_tree(m, name, victim):
    uri, tree = m.uri(name), tree_of(m, m.a)
    m.a.push_directory([uri], tree["root"])
    m.ok_tree(m.a.directory([uri]), tree["root"])
    hold(m, exact_key(uri, kind="directory"), None if victim else KEPT)
    m.state.keep(tree["root"], *tree["directories"], *tree["files"])
    if victim is not None:
        m.state.evict(victim(tree))
    m.state.note(name, uri=uri, d=tree["root"])
    return tree


# ---- content ----


@case("H2", BLOB, "recorded: pushed blobs to evict, and one to keep", "before")
def blobs(m):
    for name in "lost", "pushed again":
        _, d = push(m, name, expire=now() + 3600)
        m.state.evict(d)
    push(m, "control", KEPT)


@case("12", BLOB, "recorded: downloads to evict", "before")
def downloads(m):
    for name, qualified in ("pinned", True), ("loose", False):
        url, data = m.file(500)
        m.ok(m.a.blob([url], {"checksum.sri": sri(data)} if qualified else {}, oldest=now() - 1), digest_of(data))
        m.state.evict(digest_of(data))
        m.state.note(name, url=url, d=digest_of(data), sri=sri(data), asked=m.asked(url))


@case("D4", DIRECTORY, "recorded: directories to lose a leaf, a middle, a root, a file", "before")
def trees(m):
    push_tree(m, "no leaf", lambda t: t["directories"][0])
    push_tree(m, "no middle", lambda t: t["directories"][1])
    push_tree(m, "no root", lambda t: t["root"])
    push_tree(m, "no file", lambda t: t["files"][0])
    push_tree(m, "whole", None)


@case("41", PINS, "recorded: pushes to lose what they reference", "before")
def pins(m):
    one, tree = m.stored(), tree_of(m, m.a)
    push(m, "pinned blob", blobs=[one, EMPTY])
    m.state.evict(one)
    push(m, "pinned tree", directories=[tree["root"]])
    m.state.keep(tree["root"], *tree["directories"], *tree["files"])
    m.state.evict(tree["files"][0])
    other, whole = m.stored(), tree_of(m, m.a)
    push(m, "all pins", KEPT, blobs=[other], directories=[whole["root"], EMPTY])
    m.state.keep(other, whole["root"], *whole["directories"], *whole["files"])


@case("P10", REFERENCE, "recorded: a push of two URIs to lose one", "before")
def references(m):
    uri, second, d = m.uri("forgotten"), m.uri("second"), m.stored()
    m.a.push_blob([uri, second], d)
    hold(m, exact_key(uri), EVICTED)
    hold(m, exact_key(second), KEPT)
    m.state.keep(d)
    m.state.note("forgotten", uri=uri, second=second, d=d)


@case("42", RESTART, "recorded: an overwritten push and a download to keep", "before")
def overwritten(m):
    uri, first, second = m.uri("overwritten"), m.stored(), m.stored()
    m.a.push_blob([uri], first)
    m.b.push_blob([uri], second)
    hold(m, exact_key(uri), KEPT)
    url, data = m.file(300)
    m.ok(m.a.blob([url], {"checksum.sri": sri(data)}), digest_of(data))
    hold(m, checksum_key(data), KEPT)
    m.state.keep(second, digest_of(data))
    m.state.note("overwritten", uri=uri, d=second, url=url, data=digest_of(data), sri=sri(data))


@case("H2", BLOB, "a pushed blob that is gone is NOT_FOUND, before its expire_at too (N9)", "gone")
def lost(m):
    lost_ = m.state.recall("lost")
    for server in m.a, m.b:
        m.miss(server.blob([lost_["uri"]]))
    control = m.state.recall("control")
    m.ok(m.a.blob([control["uri"]]), control["d"])
    m.ok(m.a.blob([lost_["uri"], control["uri"]]), control["d"], control["uri"])


@case("P5", BLOB, "a push of what is gone is refused; with the content it heals", "gone")
def pushed_again(m):
    was = m.state.recall("pushed again")
    m.true(missing_said(m.refused(Code.FAILED_PRECONDITION, m.a.push_blob, [was["uri"]], was["d"])), "no detail says what is missing")
    m.miss(m.a.blob([was["uri"]]))
    d = m.stored()
    m.a.push_blob([was["uri"]], d)
    m.ok(m.b.blob([was["uri"]]), d)


@case("12", BLOB, "a pinned download that is gone is fetched again", "gone")
def refetched(m):
    was = m.state.recall("pinned")
    for server in m.a, m.b:
        m.ok(server.blob([was["url"]], {"checksum.sri": was["sri"]}), was["d"])
    m.same("requests of the origin", was["asked"] + 1, m.asked(was["url"]))
    m.same("bytes", was["d"], digest_of(m.cache.read(was["d"])))


@case("N5", BLOB, "what is gone is fetched again for a newer oldest_content_accepted", "gone")
def newer(m):
    was = m.state.recall("loose")
    m.ok(m.a.blob([was["url"]], oldest=now() - 0.2), was["d"])
    m.same("requests of the origin", was["asked"] + 1, m.asked(was["url"]))


def whole_or_miss(m, name):
    """After an OK answer everything must be there. Says how it went."""
    was = m.state.recall(name)
    there = not m.cache.lost(was["d"])
    answers = [server.directory([was["uri"]]) for server in (m.a, m.b)]
    for answer in answers:
        if answer.status.code:
            m.miss(answer)
        else:
            m.ok_tree(answer, was["d"])
    m.true(not there, "the Directory was there all the time")
    return "NOT_FOUND" if answers[0].status.code else "healed"


@case("D4", DIRECTORY, "a leaf that is gone", "gone")
def no_leaf(m):
    return whole_or_miss(m, "no leaf")


@case("D4", DIRECTORY, "a directory in the middle that is gone", "gone")
def no_middle(m):
    return whole_or_miss(m, "no middle")


@case("D4", DIRECTORY, "a root that is gone", "gone")
def no_root(m):
    return whole_or_miss(m, "no root")


@case("D4", DIRECTORY, "a file of a directory that is gone is NOT_FOUND; nothing else is lost", "gone")
def no_file(m):
    m.miss(m.a.directory([m.state.recall("no file")["uri"]]))
    whole = m.state.recall("whole")
    m.ok_tree(m.a.directory([whole["uri"]]), whole["d"])


@case("41", PINS, "a push whose references are gone is NOT_FOUND (P7)", "gone")
def unpinned(m):
    m.miss(m.a.blob([m.state.recall("pinned blob")["uri"]]), "without the referenced blob")
    m.miss(m.a.blob([m.state.recall("pinned tree")["uri"]]), "without a file of the referenced directory")
    kept = m.state.recall("all pins")
    m.ok(m.a.blob([kept["uri"]]), kept["d"])


# ---- references ----


@case("P10", REFERENCE, "a reference that is gone is NOT_FOUND; its other URI answers alone; a push heals it", "forgotten")
def forgotten(m):
    was = m.state.recall("forgotten")
    m.same("missing content", [], m.cache.missing([was["d"]]))
    for server in m.a, m.b:
        m.miss(server.blob([was["uri"]]))
        m.ok(server.blob([was["second"]]), was["d"], was["second"])
        # BuildStream asks so before it pushes: an OK would leave the first URI lost for ever.
        m.miss(server.blob([was["uri"], was["second"]]), "both URIs of the push")
    m.a.push_blob([was["uri"], was["second"]], was["d"])
    m.ok(m.b.blob([was["uri"], was["second"]]), was["d"], was["uri"])


@case("P10", REFERENCE, "what was not evicted answers", "forgotten")
def others(m):
    for name in "control", "all pins", "overwritten":
        kept = m.state.recall(name)
        m.ok(m.a.blob([kept["uri"]]), kept["d"])
    whole = m.state.recall("whole")
    m.ok_tree(m.a.directory([whole["uri"]]), whole["d"])


# ---- restarts ----


@case("42", RESTART, "references, the last push of several among them, are all there", "restarted")
def survived(m):
    for name in "control", "all pins", "overwritten":
        kept = m.state.recall(name)
        for server in m.a, m.b:
            m.ok(server.blob([kept["uri"]]), kept["d"])
    whole = m.state.recall("whole")
    m.ok_tree(m.b.directory([whole["uri"]]), whole["d"])


@case("3", RESTART, "a pinned download is not repeated", "restarted")
def not_repeated(m):
    was = m.state.recall("overwritten")
    for server in m.a, m.b:
        m.ok(server.blob([was["url"]], {"checksum.sri": was["sri"]}), was["data"])
    m.same("requests of the origin", 1, m.asked(was["url"]))


# ---- how a cache loses things ----


ROUNDS = 4  # Shards fill unevenly: what one round leaves behind goes in the next.


def fill_cas(m, mib):
    """Writes until what nobody touches is gone, touching what has to stay. To ask for a victim is to touch it, so that is done
    once a round."""
    victims, kept = m.state.digests("victims"), m.state.digests("kept")
    for _ in range(ROUNDS):
        for _ in range(mib):
            m.cache.put(*(m.data(256 << 10) for _ in range(4)))
            m.same("kept content that is missing", [], m.cache.missing(kept))
        if len(m.cache.missing(victims)) == len(victims):
            return


def fill_ac(m, entries, size):
    """The same with Action Cache entries."""
    for _ in range(ROUNDS):
        for n in range(entries):
            m.cache.set_entry(digest_of(m.data()), reapi.ActionResult(stdout_raw=m.data(size), exit_code=0))
            if n % 8 == 0:
                for _, key in m.state.entries("kept_entries"):
                    m.cache.entry(key)
        if all(m.cache.entry(key) is None for _, key in m.state.entries("victim_entries")):
            return


def evicted(m):
    """Says what is gone and what is not; it must be exactly what was asked for."""
    victims, kept = m.state.digests("victims"), m.state.digests("kept")
    time.sleep(0.1)
    gone = m.cache.missing(victims)
    m.same("evicted digests", len(victims), len(gone))
    m.same("kept digests that are missing", [], m.cache.missing(kept))
    return f"{len(gone)} gone, {len(kept)} kept"


def entries_evicted(m):
    for salt, key in m.state.entries("victim_entries"):
        m.true(m.cache.entry(key) is None, f"the entry of {salt[:8]} is still there")
    for salt, key in m.state.entries("kept_entries"):
        m.true(m.cache.entry(key) is not None, f"the entry of {salt[:8]} is gone")
    return f"{len(m.state.entries('victim_entries'))} gone"


@case("H2", BLOB, "exactly what should be is gone from the CAS", "check-cas", alone=True)
def check_cas(m):
    return evicted(m)


@case("P10", REFERENCE, "exactly what should be is gone from the Action Cache", "check-ac", alone=True)
def check_ac(m):
    return entries_evicted(m)
