"""A web server for tests: it knows byte ranges, keeps a list of what it is asked for, and fails as an address tells it to.

It runs as a process of its own: rasterio holds Python's lock while GDAL opens a file, so no thread beside it could answer.
The first part of a path says how the server behaves:

- ``/plain/a.tif``: as a server should.
- ``/each3-503/a.tif``: every third GET of a file is answered by that status.
- ``/each3-cut/a.tif``: every third is cut off in the middle.
- ``/after2-500/a.tif``, ``/after2-cut/a.tif``: from the third on, all are.
- ``/all-403/a.tif``: nothing else, whatever is asked.
- ``/bare/a.tif``: without ETag and time of change.

``/log`` returns what was asked for since it was last read.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Site:
    """A folder that is served."""

    address: str

    def url(self, name: str, way: str = "plain") -> str:
        """Return the address of a file, and with it how the server behaves."""
        return f"{self.address}/{way}/{name}"

    def asked(self) -> list[dict[str, Any]]:
        """Return the requests since the last call: method, path, range, status."""
        with urllib.request.urlopen(f"{self.address}/log") as answer:
            return list(json.load(answer))


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Site]:
    """Serve a folder on a free port of this machine."""
    server = subprocess.Popen([sys.executable, "-S", __file__, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield Site(f"http://127.0.0.1:{int(server.stdout.readline())}")
    finally:
        server.kill()
        server.communicate()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder = Path()
    log: list[dict[str, Any]] = []  # noqa: RUF012 - one server, one list
    seen: Counter[str] = Counter()  # noqa: RUF012
    lock = threading.Lock()

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        if self.path == "/log":
            with self.lock:
                asked = json.dumps(self.log).encode()
                self.log.clear()
            self.send_response(200)
            self.send_header("Content-Length", str(len(asked)))
            self.end_headers()
            self.wfile.write(asked)
            return
        _, way, name = self.path.partition("?")[0].split("/", 2)
        wanted, path = self.headers.get("Range", ""), self.folder / name
        fault = self.fault(way, body=body)
        status = int(fault) if fault.isdigit() else 404 if not path.is_file() else 206 if wanted else 200
        with self.lock:
            self.log.append({"method": self.command, "path": self.path, "range": wanted, "status": status})
        if status >= 400:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content, stat = path.read_bytes(), path.stat()
        first, last = 0, len(content) - 1
        if wanted:
            low, _, high = wanted.removeprefix("bytes=").partition("-")
            first, last = int(low), min(int(high) if high else last, last)
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        if way != "bare":
            self.send_header("ETag", f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"')
            self.send_header("Last-Modified", self.date_time_string(int(stat.st_mtime)))
        self.send_header("Content-Length", str(last - first + 1))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        if fault == "cut":
            last, self.close_connection = (first + last) // 2, True
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content[first : last + 1] if body else b"")

    def fault(self, way: str, *, body: bool) -> str:
        """Return what goes wrong with this request: a status, "cut", or nothing."""
        found = re.fullmatch(r"(each|after|all)(\d*)-(\w+)", way)
        if found is None:
            return ""
        rule, number, kind = found.groups()
        if rule == "all":
            return kind
        if not body:
            return ""
        with self.lock:
            self.seen[self.path] += 1
            n = self.seen[self.path]
        return kind if (n % int(number) == 0 if rule == "each" else n > int(number)) else ""


if __name__ == "__main__":
    _Handler.folder = Path(sys.argv[1])
    _server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    _server.daemon_threads = True
    print(_server.server_address[1], flush=True)
    _server.serve_forever()
