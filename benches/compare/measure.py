"""One measurement: sends load to a target and reads what that cost, and whether every call counted.

Not for: starting anything (proxies.py), repeating or comparing (rounds.py).
Called by: rounds.py.
"""
import contextlib, os, re, socket, subprocess, time, urllib.request

from proxies import BIN, CERTS, WORK

AC = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult"
FMB = "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs"
CIPHER = "TLS_AES_128_GCM_SHA256"
SIZE = float(os.environ.get("SIZE") or 1)  # 0.1 runs a tenth of each measurement


def cpu_ns(pids):
    total = 0
    for p in pids:
        with contextlib.suppress(FileNotFoundError):
            for t in os.listdir(f"/proc/{p}/task"):
                with contextlib.suppress(FileNotFoundError), open(f"/proc/{p}/task/{t}/schedstat") as f:
                    total += int(f.read().split()[0])
    return total


def stub_counters(port):
    """The stub's counters by name; TLS handshakes by what they settled on."""
    with socket.create_connection(("127.0.0.1", port), 5) as s:
        words = s.makefile().read().split()
    return {k: int(v) for k, v in zip(words[::2], words[1::2])}


def handled_ok(admin):
    """Calls Assetgate counts as ended with OK."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return int(sum(float(s.rsplit(" ", 1)[1]) for s in lines if s.startswith("grpc_server_handled_total{") and 'grpc_code="OK"' in s))


def counters(target):
    """Every count of completed calls there is for this target."""
    seen = {"the stub": stub_counters(target.stats)["h2load_ok"]} if target.stats else {}
    return seen | ({"/metrics": handled_ok(target.admin)} if target.admin else {})


def miscounted(target, before, claimed):
    """Calls by which the counters differ from what h2load calls success: it takes any HTTP 200 for one."""
    deadline = time.monotonic() + 2
    while True:
        off = {k: v - before[k] - claimed for k, v in counters(target).items()}
        if not any(off.values()) or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    for who, by in off.items():
        if by:
            print(f"  {target.name}: h2load calls {claimed} a success, {who} counts {claimed + by}", flush=True)
    return max((abs(n) for n in off.values()), default=0)


def h2load(target, conns, streams, n, body="small", path=AC):
    n = max(int(n * SIZE), conns * streams)
    before = counters(target)
    scheme = "https" if target.variant.client_tls else "http"
    command = ["taskset", "-c", target.cores, "h2load", "-c", str(conns), "-m", str(streams), "-n", str(n), "-w", "20", "-W", "20"]
    command += ["-d", f"{WORK}/{body}.bin", "-H", "content-type: application/grpc", "-H", "te: trailers"]
    command += [f"--tls13-ciphers={CIPHER}", f"{scheme}://127.0.0.1:{target.port}{path}"]
    used = cpu_ns(target.pids)
    try:
        out = subprocess.run(command, capture_output=True, text=True, timeout=90).stdout
    except subprocess.TimeoutExpired:
        return {"line": "h2load did not finish within 90 s", "errors": n}
    used = cpu_ns(target.pids) - used
    ok = int((re.search(r"(\d+) succeeded", out) or [0, 0])[1])
    rate = re.search(r"finished in [\d.]+\w*, ([\d.]+) req/s", out)
    cipher = re.search(r"Cipher: (\S+)", out)
    if target.variant.client_tls and (not cipher or cipher[1] != CIPHER):
        print(f"  {target.name}: h2load agreed on {cipher and cipher[1]}, not {CIPHER}", flush=True)
        return {"errors": n}
    errors = n - ok + miscounted(target, before, ok)
    return {"rps": float(rate[1]) if rate else 0.0, "cpu_us_per_req": used / 1e3 / max(ok, 1), "errors": errors}


def load(target, command, **flags):
    """Runs the load client; its `key value` pairs, numbers as numbers."""
    args = ["taskset", "-c", target.cores, f"{BIN}/load", command, "--port", str(target.port)]
    if target.variant.client_tls:
        args += ["--tls-ca", f"{CERTS}/ca.pem"]
    flags.setdefault("frame", target.variant.frame)
    for k, v in flags.items():
        args += ["--" + k.replace("_", "-"), str(v)]
    for p in target.pids:
        args += ["--pid", str(p)]
    try:
        run = subprocess.run(args, capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired:
        return {"line": "did not finish within 90 s", "errors": 1}
    line = run.stdout.strip()
    if run.returncode or not line:
        return {"line": f"load ended with {run.returncode}: {run.stderr.strip()[-300:]}", "errors": 1}
    words, got = line.split(), {"line": line}
    for k, v in zip(words, words[1:]):
        if k not in got:
            with contextlib.suppress(ValueError):
                got[k] = float(v)
            if k.startswith("bystander_"):
                got[k] = got.get(k, v)
    return got


def handshakes(target):
    """What TLS handshakes at the stub have settled on so far."""
    return {k: v for k, v in stub_counters(target.stats).items() if k.startswith("TLS")}


def bulk(command, streams=1, conns=1, chunk=65536):
    count = max(int(16 * SIZE), 2)
    return "cpu_ms_per_gib", lambda t: load(t, command, streams=streams, conns=conns, size=64 << 20, count=count, chunk=chunk)


def unary(conns, streams, n, body="small", path=AC):
    return "cpu_us_per_req", lambda t: h2load(t, conns, streams, n, body, path)


def latency(**flags):
    return "p50_us", lambda t: load(t, "unary", secs=max(round(2 * SIZE), 1), **flags)


# Each with the figure that is compared.
RUNS = {
    "u_1x1": unary(1, 1, 4000),
    "u_1x10": unary(1, 10, 15000),
    "u_1x100": unary(1, 100, 20000),
    "u_10x10": unary(10, 10, 20000),
    "u_10x100": unary(10, 100, 20000),
    "fmb": unary(10, 10, 5000, "large", FMB),
    "refused": unary(1, 10, 1000, path="/none.None/Refused"),
    "read1": bulk("read"),
    "read8": bulk("read", streams=8),
    "read10c": bulk("read", streams=10, conns=10),
    "write1": bulk("write"),
    "write8": bulk("write", streams=8),
    "read1m": bulk("read", chunk=1 << 20),
    "write1m": bulk("write", chunk=1 << 20),
    "lat1": latency(streams=1),
    "paced1k": latency(conns=10, streams=20, rate=1000),
}

STALLS = {
    "hold": ("hold", dict(conns=10, streams=1000, take=1024, secs=2)),
    "hold-write": ("hold-write", dict(conns=10, streams=1000, take=4 << 20, secs=2, stall_ms=60000)),
}

CHECKS = {
    "idle writers (1000 streams)": ("hold-write", dict(conns=10, streams=1000, take=65536, secs=2)),
    "cancellation": ("cancel", dict(streams=200)),
    "cancel burst (proxy stopped 50 ms)": ("cancel-burst", dict(streams=100)),
    # A small connection window makes the h2 client itself refuse many small frames: keep it out of the way.
    "64-byte messages, read": ("read", dict(streams=4, count=8, chunk=64, size=1 << 20, win_conn=1 << 30)),
    "64-byte messages, write": ("write", dict(streams=4, count=8, chunk=64, size=1 << 20)),
}
