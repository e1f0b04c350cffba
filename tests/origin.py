#!/usr/bin/env python3
"""A download server that misbehaves on request. Standard library only.

    origin.py --dir FILES [--listen HOST:PORT] [--tls CERT KEY [--tls-listen HOST:PORT]] [--port-file FILE]

Without --listen a free port is taken. --tls opens a second, https listener that shares files and log.
--port-file gets JSON {"http": PORT, "https": PORT|null} once both listen.

    /files/NAME             a file of --dir: HEAD, Range (206, 416, If-Range), ETag, Last-Modified, 304
    /auth/NAME              the same behind Basic  alice:open-sesame
    /bearer/NAME            the same behind Bearer let-me-in
    /redirect/CODE/N/NAME   N redirects with CODE, then the file
    /redirect-to/CODE?URL   one redirect with CODE to URL
    /loop                   redirects to itself
    /status/CODE[/NAME]     CODE with a short text; ?retry-after=S adds the header
    /flaky/K/NAME           503 for the first K requests of this path, then the file
    /cut/K/N/NAME           drops the connection after N bytes for the first K requests, then the file
    /slow/MS/NAME           waits before the answer starts
    /drip/BYTES/NAME        BYTES per second
    /stall/N/NAME           N bytes, then silence (until the client leaves or 60 s)
    /chunked/NAME           no Content-Length, chunked
    /nolength/NAME          no Content-Length, ends with the connection
    /truncated/N/NAME       full Content-Length, only N bytes, then the connection ends
    /gzip/NAME              Content-Encoding: gzip
    /huge/BYTES             a made-up body of BYTES bytes: BLOCK over and over
    /hold/NAME              waits until /_open was asked for, then the file
    /faulty/PERCENT/FAULTS/SIZE/NAME
                            SIZE bytes made of NAME; PERCENT of the requests get one of FAULTS (a list with commas) instead:
                            cut, truncated, stall, reset, slow, endless, wrong, 429, 503. Not in the log.
    /_log /_reset           requests seen so far as JSON; forget them and all counters
    /_open                  lets go of what is held, now and later
    /_faults                how many requests /faulty had, and how many of each fault, as JSON
"""

import argparse
import base64
import email.utils
import gzip
import hashlib
import http.server
import json
import os
import random
import socket
import socketserver
import ssl
import struct
import sys
import threading
import time
import urllib.parse

BLOCK = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(2048))  # 64 KiB
BASIC = "Basic " + base64.b64encode(b"alice:open-sesame").decode()
BEARER = "Bearer let-me-in"
LOCK = threading.Lock()
LOG = []
SEEN = {}
OPEN = threading.Event()
FAULTS = {"requests": 0}


class Huge:
    """A body nobody has to keep: BLOCK repeated."""

    def __init__(self, size):
        self.size, self.tag, self.mtime = size, f'"huge-{size}"', 0

    def read(self, start, end):
        while start < end:
            offset = start % len(BLOCK)
            part = BLOCK[offset : offset + min(len(BLOCK) - offset, end - start)]
            start += len(part)
            yield part


class Made:
    """A body anybody can make up again from its name."""

    def __init__(self, name, size):
        self.size, self.tag, self.mtime = size, f'"made-{name}"', 0
        self.data = hashlib.shake_128(name.encode()).digest(size)

    def read(self, start, end):
        for offset in range(start, end, 1 << 16):
            yield self.data[offset : min(end, offset + (1 << 16))]


class File:
    def __init__(self, path):
        info = os.stat(path)
        self.path, self.size, self.mtime = path, info.st_size, int(info.st_mtime)
        with open(path, "rb") as f:
            self.tag = f'"{hashlib.sha256(f.read()).hexdigest()[:16]}"'

    def read(self, start, end):
        with open(self.path, "rb") as f:
            f.seek(start)
            while start < end:
                part = f.read(min(1 << 16, end - start))
                if not part:
                    return
                start += len(part)
                yield part


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "origin"
    disable_nagle_algorithm = True
    root = "."

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.started, self.sent, self.code = time.time(), 0, None
        url = urllib.parse.urlsplit(self.path)
        parts = [urllib.parse.unquote(p) for p in url.path.split("/")[1:]]
        entry = {
            "method": self.command,
            "scheme": self.server.scheme,
            "path": self.path,
            "headers": {k.lower(): v for k, v in self.headers.items()},
        }
        if not parts[0].startswith("_") and parts[0] != "faulty":
            with LOCK:
                LOG.append(entry)
        try:
            self.route(parts, urllib.parse.unquote(url.query))
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True
        finally:
            entry.update(status=self.code, sent=self.sent, seconds=round(time.time() - self.started, 3))

    do_HEAD = do_GET

    def route(self, parts, query):
        what, rest = parts[0], parts[1:]
        try:
            handler = getattr(self, "on_" + what.replace("-", "_"), None)
            if handler is None:
                return self.text(404, "no such page")
            return handler(rest, query)
        except (IndexError, ValueError) as e:
            return self.text(400, f"bad path: {e}")
        except FileNotFoundError:
            return self.text(404, "no such file")

    # ---- pages ----

    def on_files(self, rest, _):
        self.body(self.find(rest))

    def on_auth(self, rest, _):
        self.guarded(rest, BASIC, 'Basic realm="origin"')

    def on_bearer(self, rest, _):
        self.guarded(rest, BEARER, "Bearer")

    def guarded(self, rest, want, challenge):
        if self.headers.get("authorization") != want:
            return self.text(401, "who are you?", {"WWW-Authenticate": challenge})
        self.body(self.find(rest))

    def on_redirect(self, rest, _):
        code, left = int(rest[0]), int(rest[1])
        name = "/".join(rest[2:])
        target = f"/redirect/{code}/{left - 1}/{name}" if left > 1 else f"/files/{name}"
        self.text(code, "over there", {"Location": urllib.parse.quote(target)})

    def on_redirect_to(self, rest, query):
        self.text(int(rest[0]), "over there", {"Location": query})

    def on_loop(self, _, __):
        self.text(302, "round and round", {"Location": "/loop"})

    def on_status(self, rest, query):
        extra = {"Retry-After": query.removeprefix("retry-after=")} if query.startswith("retry-after=") else {}
        self.text(int(rest[0]), f"this is status {rest[0]}", extra)

    def count(self):
        with LOCK:
            SEEN[self.path] = SEEN.get(self.path, 0) + 1
            return SEEN[self.path]

    def on_flaky(self, rest, _):
        if self.count() <= int(rest[0]):
            return self.text(503, "not yet")
        self.body(self.find(rest[1:]))

    def on_cut(self, rest, _):
        if self.count() <= int(rest[0]):
            return self.body(self.find(rest[2:]), stop=int(rest[1]))
        self.body(self.find(rest[2:]))

    def on_slow(self, rest, _):
        time.sleep(int(rest[0]) / 1000)
        self.body(self.find(rest[1:]))

    def on_drip(self, rest, _):
        self.body(self.find(rest[1:]), rate=int(rest[0]))

    def on_stall(self, rest, _):
        self.body(self.find(rest[1:]), stop=int(rest[0]), then=lambda: self.wait_for_close(60))

    def on_chunked(self, rest, _):
        content = self.find(rest)
        self.head(200, {"Transfer-Encoding": "chunked", "ETag": content.tag})
        if self.command != "HEAD":
            for part in content.read(0, content.size):
                self.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.write(b"0\r\n\r\n")

    def on_nolength(self, rest, _):
        content = self.find(rest)
        self.close_connection = True
        self.head(200, {"Connection": "close"})
        if self.command != "HEAD":
            for part in content.read(0, content.size):
                self.write(part)

    def on_truncated(self, rest, _):
        self.body(self.find(rest[1:]), stop=int(rest[0]))

    def on_gzip(self, rest, _):
        content = self.find(rest)
        packed = gzip.compress(b"".join(content.read(0, content.size)))
        self.head(200, {"Content-Encoding": "gzip", "Content-Length": len(packed)})
        if self.command != "HEAD":
            self.write(packed)

    def on_huge(self, rest, _):
        self.body(Huge(int(rest[0])))

    def on_hold(self, rest, _):
        OPEN.wait(300)
        self.body(self.find(rest))

    def on_faulty(self, rest, _):
        percent, faults, size, name = int(rest[0]), rest[1].split(","), int(rest[2]), rest[3]
        fault = random.choice(faults) if random.randrange(100) < percent else None
        with LOCK:
            FAULTS["requests"] += 1
            if fault:
                FAULTS[fault] = FAULTS.get(fault, 0) + 1
        content = Made(name, size)
        if fault is None:
            return self.body(content)
        {
            "cut": self.cut,
            "truncated": lambda c: self.body(c, stop=random.randrange(c.size or 1)),
            "stall": lambda c: self.body(c, stop=random.randrange(c.size or 1), then=lambda: self.wait_for_close(30)),
            "reset": lambda c: self.body(c, stop=random.randrange(c.size or 1), then=self.abort),
            "slow": self.slow,
            "endless": self.endless,
            "wrong": self.wrong,
            "429": lambda _: self.text(429, "not so fast", random.choice([{}, {"Retry-After": "1"}])),
            "503": lambda _: self.text(503, "not now", random.choice([{}, {"Retry-After": "1"}])),
        }[fault](content)

    def cut(self, content):
        """A chunked body whose end does not come."""
        self.head(200, {"Transfer-Encoding": "chunked", "ETag": content.tag})
        for part in content.read(0, random.randrange(content.size or 1)):
            self.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.close_connection = True

    def slow(self, content):
        time.sleep(random.uniform(0.1, 4))
        self.body(content)

    def endless(self, content):
        """The right bytes first; there is no length, and the end does not come before 256 MiB."""
        self.close_connection = True
        self.head(200, {"Connection": "close"})
        for part in content.read(0, content.size):
            self.write(part)
        for _ in range(4096):
            self.write(BLOCK)

    def wrong(self, content):
        """As long as it should be, one bit is not."""
        data = bytearray(content.data)
        if data:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        content.data = bytes(data)
        self.body(content)

    def abort(self):
        """Ends the connection with RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def on__open(self, _, __):
        OPEN.set()
        self.text(200, "open")

    def on__faults(self, _, __):
        with LOCK:
            page = json.dumps(FAULTS)
        self.text(200, page, {"Content-Type": "application/json"})

    def on__log(self, _, __):
        with LOCK:
            page = json.dumps(LOG, indent=1)
        self.text(200, page, {"Content-Type": "application/json"})

    def on__reset(self, _, __):
        with LOCK:
            LOG.clear()
            SEEN.clear()
            OPEN.clear()
            FAULTS.clear()
            FAULTS["requests"] = 0
        self.text(200, "forgotten")

    # ---- how they are sent ----

    def find(self, rest):
        path = os.path.realpath(os.path.join(self.root, *rest))
        if not path.startswith(os.path.realpath(self.root) + os.sep) or not os.path.isfile(path):
            raise FileNotFoundError(path)
        return File(path)

    def head(self, code, headers):
        self.code = code
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def write(self, data):
        self.wfile.write(data)
        self.sent += len(data)

    def text(self, code, text, headers=None):
        data = (text + "\n").encode()
        self.head(code, {"Content-Type": "text/plain", "Content-Length": len(data)} | (headers or {}))
        if self.command != "HEAD" and code not in (204, 304):
            self.write(data)

    def wait_for_close(self, seconds):
        self.connection.settimeout(seconds)
        try:
            self.connection.recv(1)
        except OSError:
            pass

    def span(self, content):
        """The byte span asked for, None for the whole, or False when it cannot be met."""
        asked = self.headers.get("range", "")
        if_range = self.headers.get("if-range")
        if not asked.startswith("bytes=") or "," in asked or (if_range and if_range != content.tag):
            return None
        first, _, last = asked[6:].partition("-")
        if not first:
            return (max(0, content.size - int(last)), content.size) if int(last) else False
        end = min(int(last) + 1, content.size) if last else content.size
        return (int(first), end) if int(first) < end else False

    def body(self, content, stop=None, rate=None, then=None):
        headers = {
            "ETag": content.tag,
            "Last-Modified": email.utils.formatdate(content.mtime, usegmt=True),
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        none_match = self.headers.get("if-none-match")
        since = self.headers.get("if-modified-since")
        if none_match == content.tag or (none_match is None and since == headers["Last-Modified"]):
            return self.head(304, headers)
        start, end, code = 0, content.size, 200
        span = self.span(content)
        if span is False:
            return self.text(416, "no such range", {"Content-Range": f"bytes */{content.size}"})
        if span:
            (start, end), code = span, 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{content.size}"
        self.head(code, headers | {"Content-Length": end - start})
        if self.command == "HEAD":
            return
        limit = end if stop is None else min(end, start + stop)
        for part in content.read(start, limit):
            if rate:
                for i in range(0, len(part), max(1, rate // 10)):
                    piece = part[i : i + max(1, rate // 10)]
                    self.write(piece)
                    time.sleep(len(piece) / rate)
            else:
                self.write(part)
        if limit < end:
            self.wfile.flush()
            if then:
                then()
            self.close_connection = True


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128
    scheme, context = "http", None

    def finish_request(self, request, client_address):
        # The handshake runs on the connection's own thread, so a client that stalls in it harms nobody.
        if self.context:
            request.settimeout(30)
            request = self.context.wrap_socket(request, server_side=True)
            request.settimeout(None)
        super().finish_request(request, client_address)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (OSError, ssl.SSLError)):
            super().handle_error(request, client_address)


def serve(listen, context=None):
    host, port = listen.rsplit(":", 1)
    server = Server((host, int(port)), Handler)
    if context:
        server.scheme, server.context = "https", context
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--dir", default=".")
    ap.add_argument("--listen", default="127.0.0.1:0")
    ap.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    ap.add_argument("--tls-listen", default="127.0.0.1:0")
    ap.add_argument("--port-file")
    args = ap.parse_args()
    Handler.root = args.dir
    ports = {"http": serve(args.listen), "https": None}
    if args.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*args.tls)
        ports["https"] = serve(args.tls_listen, context)
    if args.port_file:
        with open(args.port_file + ".new", "w") as f:
            json.dump(ports, f)
        os.replace(args.port_file + ".new", args.port_file)
    print(json.dumps(ports), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
