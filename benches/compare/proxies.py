"""The processes a comparison needs: the stub, Assetgate and its peers. Starts, awaits, describes and stops them.

Not for: measuring them (measure.py), or the order in which that happens (rounds.py).
Called by: rounds.py. What it starts is stopped by process id when the block that started it ends.
"""
import contextlib, os, random, re, shutil, signal, socket, subprocess, time
from dataclasses import dataclass, field

E = os.environ
HERE = os.path.dirname(os.path.abspath(__file__))
BIN, WORK = E["BIN"], E["WORK"]
PROXY_CORE, LOAD_CORE = E["PROXY_CORE"], E["LOAD_CORE"]
BOTH = f"{PROXY_CORE},{LOAD_CORE}"
CERTS = f"{WORK}/certs"
ASSETGATE, ENVOY = E["ASSETGATE"], E["ENVOY"]


class Broken(Exception):
    """A process that does not start, answer or stop: which, and what it said."""


@dataclass(frozen=True)
class Variant:
    """What the wires on both sides of the proxies are like."""

    name: str
    client_tls: bool = False
    upstream_tls: bool = False
    frame: int = 16384


VARIANTS = {
    v.name: v
    for v in (
        Variant("plain"),
        Variant("frames", frame=262144),
        Variant("tls", client_tls=True, upstream_tls=True),
        Variant("tls-client", client_tls=True),
        Variant("tls-upstream", upstream_tls=True),
    )
}


@dataclass
class Target:
    """Something to send calls to."""

    name: str
    port: int
    pids: list = field(default_factory=list)
    admin: int = 0
    stats: int = 0
    variant: Variant = VARIANTS["plain"]
    cores: str = LOAD_CORE  # where the load runs


def tree(pid):
    """The process and all below it."""
    out = [pid]
    for p in out:
        with contextlib.suppress(FileNotFoundError):
            for t in os.listdir(f"/proc/{p}/task"):
                with open(f"/proc/{p}/task/{t}/children") as f:
                    out += [int(x) for x in f.read().split()]
    return out


def memory_mib(pids):
    """Resident memory and the part of it that no file backs."""
    sums = {"VmRSS": 0, "RssAnon": 0}
    for p in pids:
        with open(f"/proc/{p}/status") as f:
            for line in f:
                key, _, value = line.partition(":")
                if key in sums:
                    sums[key] += int(value.split()[0])
    return {"idle_rss_mib": sums["VmRSS"] / 1024, "idle_anon_mib": sums["RssAnon"] / 1024}


def free_ports(n):
    """`n` neighbouring ports, outside the range the kernel hands to outgoing connections."""
    while True:
        first = random.randint(15000, 30000)
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + n):
                s = held.enter_context(socket.socket())
                s.bind(("127.0.0.1", port))
            return first


def listens(port):
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) == 0


def tail(path):
    with contextlib.suppress(FileNotFoundError), open(path, errors="replace") as f:
        return "".join(f.readlines()[-15:])
    return ""


@contextlib.contextmanager
def started(name, command, cores, port):
    """Runs the command on these cores until the block ends; gives its process ids once it listens."""
    log = f"{WORK}/{name}-{port}.log"
    with open(log, "w") as out:
        pinned = ["taskset", "-c", cores, *command]
        p = subprocess.Popen(pinned, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 20
        while not listens(port):
            if p.poll() is not None or time.monotonic() > deadline:
                how = "did not listen within 20 s" if p.poll() is None else f"ended with {p.returncode}"
                raise Broken(f"{name} {how}: {' '.join(command)}\n{tail(log)}")
            time.sleep(0.05)
        time.sleep(0.5)
        pids = tree(p.pid)
        allowed = {int(c) for c in cores.split(",")}
        if stray := [q for q in pids if not os.sched_getaffinity(q) <= allowed]:
            raise Broken(f"{name}: processes {stray} are not pinned to core {cores}")
        yield pids
    finally:
        p.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            p.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(p.pid, signal.SIGKILL)  # the session of this one process: workers that outlive their parent
        p.wait(5)


@contextlib.contextmanager
def stub(variant, cores=LOAD_CORE, port=0):
    """The upstream; its counters are at the next port."""
    port = port or free_ports(2)
    command = [f"{BIN}/stub", "--port", str(port), "--frame", str(variant.frame), *E.get("STUB_FLAGS", "").split()]
    if variant.upstream_tls:
        command += ["--tls-cert", f"{CERTS}/server.pem", "--tls-key", f"{CERTS}/server.key"]
    with started("stub", command, cores, port):
        yield port


def filled(template, variant, port, up):
    """A peer's configuration: placeholders filled in, lines like `#client-tls#...` uncovered when they apply."""
    with open(f"{HERE}/configs/{template}") as f:
        text = f.read()
    for side, tls in (("client", variant.client_tls), ("upstream", variant.upstream_tls)):
        text = text.replace(f"#{side}-{'tls' if tls else 'plain'}#", "")
    for key, value in (("PORT", port), ("UP", up), ("CERTS", CERTS), ("DIR", WORK)):
        text = text.replace(f"@{key}@", str(value))
    path = f"{WORK}/{port}-{template}"
    with open(path, "w") as f:
        f.write(text)
    return path


def assetgate_command(variant, port, up, admin, threads=1, flags=()):
    scheme = "grpcs" if variant.upstream_tls else "grpc"
    command = [ASSETGATE, "serve", "--threads", str(threads), "--log-level", "warn", "--listen", f"127.0.0.1:{port}"]
    command += ["--admin-listen", f"127.0.0.1:{admin}", "--upstream", f"{scheme}://127.0.0.1:{up}"]
    if variant.upstream_tls:
        command += ["--upstream-ca", f"{CERTS}/ca.pem"]
    if variant.client_tls:
        command += ["--tls-cert", f"{CERTS}/server.pem", "--tls-key", f"{CERTS}/server.key"]
    return command + list(flags)


def command_of(name, variant, port, up, threads):
    """What starts a peer, or None when this peer cannot do the variant."""
    plain = not (variant.client_tls or variant.upstream_tls)
    if name == "envoy":
        config = filled("envoy.yaml", variant, port, up)
        return [ENVOY, "-c", config, "--concurrency", str(threads), "-l", "error", "--use-dynamic-base-id"]
    if name == "nghttpx":
        return ["nghttpx", f"--conf={filled('nghttpx.conf', variant, port, up)}"]
    if name == "tcp" and variant.client_tls == variant.upstream_tls:
        return [f"{BIN}/relay", "--port", str(port), "--to", str(up)]
    if name == "haproxy" and plain:
        return ["haproxy", "-f", filled("haproxy.cfg", variant, port, up)]
    if name == "nginx" and plain:
        return ["nginx", "-c", filled("nginx.conf", variant, port, up), "-p", WORK]
    return None


@contextlib.contextmanager
def proxy(name, variant, up, cores=PROXY_CORE, threads=1, flags=(), load=LOAD_CORE):
    """A proxy in front of the stub at port `up`; gives a Target, or None when it cannot do the variant."""
    port = free_ports(2)
    admin = port + 1 if name == "assetgate" else 0
    if admin:
        command = assetgate_command(variant, port, up, admin, threads, flags)
    else:
        command = command_of(name, variant, port, up, threads)
    if command is None:
        yield None
        return
    with started(name, command, cores, port) as pids:
        yield Target(name, port, pids, admin, up + 1, variant, load)


def missing(peers):
    """What to install, as sentences; empty when everything is there."""
    wants = {
        "envoy": (ENVOY, "tests/components.sh envoy"),
        "nghttpx": ("nghttpx", "tests/components.sh apt (Debian: nghttp2-proxy)"),
        "haproxy": ("haproxy", "Debian's haproxy"),
        "nginx": ("nginx", "Debian's nginx"),
    }
    told = []
    for n in (n for n in peers if n != "tcp"):
        if n not in wants:
            told.append(f"no peer is called '{n}'; there are: tcp {' '.join(wants)}")
        elif not shutil.which(wants[n][0]):
            told.append(f"{n} ({wants[n][0]}) is missing: install it with {wants[n][1]}, or choose others with PEERS")
    return told


def knows_flag(flag):
    """Whether `assetgate serve` has this flag."""
    return flag in subprocess.run([ASSETGATE, "serve", "--help"], capture_output=True, text=True, timeout=20).stdout


def version(name):
    """Name and version, as a heading says it."""
    program = {"envoy": ENVOY, "assetgate": ASSETGATE}.get(name, name)
    command = [program, "-v" if name in ("nginx", "haproxy") else "--version"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        out = subprocess.run(command, capture_output=True, text=True, timeout=20)
        if found := re.search(r"\d+\.\d+\.\d+", out.stdout + out.stderr):
            return f"{name} {found[0]}"
    return name
