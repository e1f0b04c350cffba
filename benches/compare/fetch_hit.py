"""FetchBlob hits: what one costs Assetgate, and bazel-remote's asset service on its own disk index.

Not for: forwarding (rounds.py). Called by: fetch_hit.sh, which explains the environment.
"""
import base64, contextlib, hashlib, http.server, json, os, re, signal, statistics, subprocess, sys, threading, time, urllib.request
from dataclasses import dataclass

from proxies import LOAD_CORE, PROXY_CORE, WORK, Broken, free_ports, started

E = os.environ
sys.path.insert(0, E["STUBS"])
import grpc
from build.bazel.remote.asset.v1 import remote_asset_pb2 as asset
from build.bazel.remote.asset.v1 import remote_asset_pb2_grpc as asset_grpc
from build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from build.bazel.remote.execution.v2 import remote_execution_pb2_grpc as reapi_grpc

ROUNDS, CALLS = int(E["ROUNDS"]), int(E.get("CALLS") or 30000)
CLIENTS, STREAMS = 4, 10
FETCH_BLOB = "/build.bazel.remote.asset.v1.Fetch/FetchBlob"
TICK = os.sysconf("SC_CLK_TCK")
CONTENT = hashlib.sha256(b"hit").digest() * 512  # 16 KiB
DIGEST = reapi.Digest(hash=hashlib.sha256(CONTENT).hexdigest(), size_bytes=len(CONTENT))
SRI = asset.Qualifier(name="checksum.sri", value="sha256-" + base64.b64encode(hashlib.sha256(CONTENT).digest()).decode())
URN = "urn:fdc:assetgate.example:2026:bench:hit"
# Title, key, target as a share of bazel-remote's (None: none).
ROWS = (
    ("bazel-remote's asset API, `checksum.sri`, in all", "bazel-remote", None),
    ("Assetgate before bb_storage, a pushed URN, its own part", "bb_storage:urn", 1.1),
    ("Assetgate before bb_storage, `checksum.sri`, its own part", "bb_storage:checksum", 1.1),
    ("Assetgate with the embedded cache, a pushed URN, in all", "embedded:urn", 0.9),
    ("Assetgate with the embedded cache, `checksum.sri`, in all", "embedded:checksum", 0.9),
)


@dataclass
class Case:
    """One kind of hit on one server."""

    key: str
    port: int
    pids: list
    admin: int
    request: asset.FetchBlobRequest
    outcome: str = ""
    answer_size: int = 0
    behind: tuple = ()  # processes of the cache behind it


class Origin(http.server.BaseHTTPRequestHandler):
    """Serves the content once to everybody, and counts."""

    asked = 0

    def do_GET(self):
        Origin.asked += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *_):
        pass


def cpu_s(pids):
    """Seconds of user and system time, those of threads that have ended included."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def hits(admin, outcome):
    """FetchBlob calls that Assetgate counts as hits of this kind, with OK."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    wanted = ('rpc="FetchBlob"', 'code="OK"', f'outcome="{outcome}"')
    lines = [s for s in lines if s.startswith("assetgate_asset_requests_total{") and all(w in s for w in wanted)]
    return int(sum(float(s.rsplit(" ", 1)[1]) for s in lines))


def ask(case):
    """The answer to the case's request; it must be the content's digest."""
    with grpc.insecure_channel(f"127.0.0.1:{case.port}") as channel:
        answer = asset_grpc.FetchStub(channel).FetchBlob(case.request, timeout=20, wait_for_ready=True)
    if answer.status.code or answer.blob_digest != DIGEST:
        raise Broken(f"{case.key}: no hit but {answer}")
    return answer


def prepare(case):
    """Puts the content there, and sees that it is a hit from now on."""
    with grpc.insecure_channel(f"127.0.0.1:{case.port}") as channel:
        cas = reapi_grpc.ContentAddressableStorageStub(channel)
        item = reapi.BatchUpdateBlobsRequest.Request(digest=DIGEST, data=CONTENT)
        request = reapi.BatchUpdateBlobsRequest(requests=[item])
        stored = cas.BatchUpdateBlobs(request, timeout=20, wait_for_ready=True).responses[0].status
        if stored.code:
            raise Broken(f"{case.key}: the content was not stored: {stored}")
        if case.outcome == "hit_exact":
            push = asset.PushBlobRequest(uris=case.request.uris, blob_digest=DIGEST)
            asset_grpc.PushStub(channel).PushBlob(push, timeout=20)
    ask(case)
    case.answer_size = len(ask(case).SerializeToString()) + 5
    message = case.request.SerializeToString()
    with open(f"{WORK}/{case.key}.bin", "wb") as f:
        f.write(b"\0" + len(message).to_bytes(4, "big") + message)


def measure(case):
    """Microseconds of CPU per call, of the server and of the cache behind it."""
    before = hits(case.admin, case.outcome) if case.admin else 0
    asked = Origin.asked
    command = ["taskset", "-c", LOAD_CORE, "h2load", "-c", str(CLIENTS), "-m", str(STREAMS), "-n", str(CALLS)]
    command += ["-d", f"{WORK}/{case.key}.bin", "-H", "content-type: application/grpc", "-H", "te: trailers"]
    command += [f"http://127.0.0.1:{case.port}{FETCH_BLOB}"]
    own, behind = cpu_s(case.pids), cpu_s(case.behind)
    with profiled(case):
        out = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    own, behind = cpu_s(case.pids) - own, cpu_s(case.behind) - behind
    ok = int((re.search(r"(\d+) succeeded", out) or [0, 0])[1])
    data = int((re.search(r"\((\d+)\) data", out) or [0, 0])[1])
    if ok != CALLS:
        raise Broken(f"{case.key}: {ok} of {CALLS} calls were answered\n{out}")
    if data != CALLS * case.answer_size:
        raise Broken(f"{case.key}: {data} bytes of answers, {CALLS * case.answer_size} if all were hits")
    if Origin.asked != asked:
        raise Broken(f"{case.key}: the origin was asked {Origin.asked - asked} times")
    if case.admin:
        await_hits(case, before + CALLS)
    return {"own_us": own / CALLS * 1e6, "behind_us": behind / CALLS * 1e6}


def await_hits(case, wanted):
    deadline = time.monotonic() + 2
    while (seen := hits(case.admin, case.outcome)) != wanted:
        if time.monotonic() > deadline:
            raise Broken(f"{case.key}: {seen} {case.outcome} in /metrics, {wanted} expected")
        time.sleep(0.05)


@contextlib.contextmanager
def profiled(case):
    command = E.get("PAUSE")
    tool = subprocess.Popen([*command.split(), str(case.pids[0])], stdout=sys.stderr) if command else None
    yield
    if tool:
        tool.send_signal(signal.SIGINT)
        tool.wait(30)


def bazel_remote(stack, url):
    grpc_port = free_ports(2)
    command = [E["BAZEL_REMOTE"], "--dir", f"{WORK}/bazel-remote", "--max_size", "2", "--experimental_remote_asset_api"]
    command += ["--http_address", f"127.0.0.1:{grpc_port + 1}", "--grpc_address", f"127.0.0.1:{grpc_port}"]
    pids = stack.enter_context(started("bazel-remote", command, PROXY_CORE, grpc_port))
    request = asset.FetchBlobRequest(uris=[url], qualifiers=[SRI])
    return [Case("bazel-remote", grpc_port, pids, 0, request)]


def bb_storage(stack):
    port = free_ports(1)
    setting = dict(LISTEN=f"127.0.0.1:{port}", COMPLETENESS=1, AC_WRITES=1, SHARDS=1, CAS_MIB=256, ZSTD=0)
    command = ["env", *(f"{k}={v}" for k, v in setting.items()), E["BB_STORAGE"], E["STORAGE_CONFIG"]]
    return port, stack.enter_context(started("bb_storage", command, PROXY_CORE, port))


def assetgate(stack, name, url, upstream=None, behind=()):
    port = free_ports(2)
    command = [E["ASSETGATE"], "serve", "--threads", "1", "--listen", f"127.0.0.1:{port}", "--admin-listen"]
    command += [f"127.0.0.1:{port + 1}", "--log-format", "json", "--origin-allow-cidr", "127.0.0.0/8"]
    command += ["--data-dir", f"{WORK}/{name}"] + (["--upstream", upstream] if upstream else [])
    pids = stack.enter_context(started(f"assetgate-{name}", command, PROXY_CORE, port))
    urn = asset.FetchBlobRequest(uris=[URN])
    checksum = asset.FetchBlobRequest(uris=[url], qualifiers=[SRI])
    return [
        Case(f"{name}:urn", port, pids, port + 1, urn, "hit_exact", behind=behind),
        Case(f"{name}:checksum", port, pids, port + 1, checksum, "hit_checksum", behind=behind),
    ]


def markdown(medians):
    lines = ["| FetchBlob hit, 4 clients x 10 streams | CPU µs per call | vs bazel-remote | target | the cache behind it, µs |", "|---|---|---|---|---|"]
    base = medians.get("bazel-remote", {}).get("own_us")
    for title, key, aim in ROWS:
        if key not in medians:
            continue
        own, behind = medians[key]["own_us"], medians[key]["behind_us"]
        share = own / base if base else None
        mark = "-" if aim is None or share is None else f"<= {aim:.2f} {'✓' if share <= aim else '✗'}"
        cells = (f"{own:.1f}", "-" if share is None else f"{share:.2f}", mark, f"{behind:.1f}" if behind else "-")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    only = E.get("ONLY", "").split()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/hit"
    with contextlib.ExitStack() as stack:
        cases = bazel_remote(stack, url)
        storage, storage_pids = bb_storage(stack)
        cases += assetgate(stack, "bb_storage", url, f"grpc://127.0.0.1:{storage}", tuple(storage_pids))
        cases += assetgate(stack, "embedded", url)
        cases = [c for c in cases if not only or c.key in only]
        for case in cases:
            prepare(case)
            measure(case)  # warms up
        seen = {case.key: [] for case in cases}
        for round_ in range(ROUNDS):
            for case in cases[round_ % len(cases):] + cases[:round_ % len(cases)]:
                seen[case.key].append(measure(case))
            told = ", ".join(f"{key} {got[-1]['own_us']:.1f}" for key, got in seen.items())
            print(f"  round {round_ + 1}: {told}", file=sys.stderr, flush=True)
    medians = {k: {f: statistics.median(g[f] for g in got) for f in got[0]} for k, got in seen.items()}
    text = markdown(medians)
    print(text)
    base = medians.get("bazel-remote", {}).get("own_us")
    ratios = {k: got["own_us"] / base for k, got in medians.items()} if base else {}
    for path, content in ((E.get("TABLE"), text + "\n"), (E.get("RESULTS"), json.dumps({"medians": medians, "ratios": ratios}))):
        if path:
            with open(path, "w") as f:
                f.write(content)


if __name__ == "__main__":
    try:
        main()
    except Broken as e:
        sys.exit(str(e))
