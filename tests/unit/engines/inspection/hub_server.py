"""A hub on this machine: what it offers, and how it fails, is said by a test."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

COMMIT = "0123456789abcdef" * 2 + "01234567"


class Hub:
    """What the server does; `asked` has the paths and ranges that files were asked by."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.status = 200
        self.error_code = ""
        self.break_after: int | None = None
        self.has_ranges = True
        self.hashes: dict[str, str] = {}
        self.gate = Event()
        self.gate.set()
        self.asked: list[tuple[str, str]] = []
        self.url = ""

    def listing(self) -> bytes:
        siblings = [
            {
                "rfilename": name,
                "size": len(data),
                "lfs": {"sha256": self.hashes.get(name) or hashlib.sha256(data).hexdigest()}
                if name.endswith(".safetensors")
                else None,
            }
            for name, data in self.files.items()
        ]
        return json.dumps({"sha": COMMIT, "siblings": siblings}).encode()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:  # noqa: N802
            if hub.status != 200:
                self.send_response(hub.status)
                self.send_header("x-error-code", hub.error_code)
                self.send_header("content-length", "0")
                self.end_headers()
                return
            if self.path.startswith("/api/models/org/name/revision/"):
                self._answer(200, hub.listing())
                return
            name = self.path.partition(f"/resolve/{COMMIT}/")[2]
            if name not in hub.files:
                self._answer(404, b"")
                return
            self._file(name)

        def _file(self, name: str) -> None:
            asked = self.headers.get("range", "")
            hub.asked.append((name, asked))
            data = hub.files[name]
            if not asked or not hub.has_ranges:
                self._answer(200, data)
                return
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            self._answer(206, data[start:])

        def _answer(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            end = len(data)
            if hub.break_after is not None and len(data) > hub.break_after:
                end, hub.break_after = hub.break_after, None
            self.wfile.write(data[:end])
            self.wfile.flush()
            if not hub.gate.is_set():
                hub.gate.wait(20)
            self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
