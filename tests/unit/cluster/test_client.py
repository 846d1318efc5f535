"""The client commands against a real HTTP server that answers as told."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.ask import show
from cluster.client import CallFailed, Client, wait_s
from cluster.documents import MAX_BATCH_BYTES, SourceFile, batches, document_id, find_files
from cluster.errors import OperatorError
from cluster.ingest import Outcome, send


class Server:
    """Answers with what `replies` holds, one after another, and keeps the requests."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, dict[str, str], str]] = []
        self.requests: list[dict[str, Any]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", 0))
                body = json.loads(self.rfile.read(length) or b"null")
                asked = {"method": self.command, "path": self.path}
                server.requests.append({**asked, "headers": self.headers, "body": body})
                status, headers, text = server.reply(body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_DELETE = do_POST

            def log_message(self, *_: object) -> None:
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.client = Client(f"http://127.0.0.1:{self._http.server_port}", "rs_key")
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def reply(self, body: Any) -> tuple[int, dict[str, str], str]:
        return self.replies.pop(0)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def error(message: str) -> str:
    return json.dumps({"error": {"message": message}})


def test_client_sends_its_key_and_hides_it(server: Server) -> None:
    server.replies = [(200, {}, "{}")]
    server.client.call("POST", "/x", {})
    assert server.requests[0]["headers"]["authorization"] == "Bearer rs_key"
    assert "rs_key" not in repr(server.client)


def test_client_waits_as_long_as_it_is_told_and_tries_again(server: Server) -> None:
    full = (503, {"retry-after": "0"}, error("full"))
    server.replies = [full, (429, {"retry-after": "0"}, error("slow")), (200, {}, '{"ok": 1}')]
    assert server.client.call("POST", "/x", {}) == {"ok": 1}


def test_client_gives_up_after_a_bounded_number_of_attempts(server: Server) -> None:
    server.replies = [(503, {"retry-after": "0"}, error("full"))] * 50
    with pytest.raises(CallFailed, match=r"full \(HTTP 503\)"):
        server.client.call("POST", "/x", {})
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("header", "attempt", "seconds"), [("7", 1, 7), ("9999", 1, 30), ("", 3, 4), ("soon", 1, 1)]
)
def test_wait_is_bounded(header: str, attempt: int, seconds: float) -> None:
    assert wait_s(httpx.Response(503, headers={"retry-after": header}), attempt) == seconds


def test_client_says_that_nothing_answers() -> None:
    with pytest.raises(OperatorError, match="is it up"):
        Client("http://127.0.0.1:9", "k").call("GET", "/x")


def test_client_refuses_a_page_that_is_not_ours(server: Server) -> None:
    server.replies = [(200, {}, "<html>")]
    with pytest.raises(OperatorError, match="does not answer like"):
        server.client.call("POST", "/x", {})


def test_ask_prints_text_then_sources(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    source = {"document_id": "d", "start": 0, "end": 3, "score": 0.5, "text": "abc"}
    events = [
        {"type": "sources", "sources": [source]},
        {"type": "delta", "index": 0, "text": "Hel"},
        {"type": "delta", "index": 0, "text": "lo"},
        {"type": "done", "finish_reason": "stop"},
    ]
    stream = ": beat\n\n" + "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    server.replies = [(200, {"content-type": "text/event-stream"}, stream)]
    show(server.client.stream("/v1/inference", {}))
    printed = capsys.readouterr().out
    assert printed.startswith("Hello\n")
    assert "d [0:3]" in printed


def test_ask_fails_when_the_stream_ends_with_an_error() -> None:
    with pytest.raises(OperatorError, match="engine died"):
        show([{"type": "error", "error": {"message": "engine died"}}])


def test_ask_fails_when_the_stream_has_no_end() -> None:
    with pytest.raises(OperatorError, match="broke off"):
        show([{"type": "delta", "text": "half"}])


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")


def test_find_files_takes_what_can_hold_text(tmp_path: Path) -> None:
    write(tmp_path / "d", "a.md", "sub/b.PDF", "c.png", ".hidden/d.md", ".e.md", "f.html")
    found = [file.document_id for file in find_files([tmp_path / "d"], "")]
    assert found == ["d/a.md", "d/f.html", "d/sub/b.PDF"]


def test_find_files_gives_the_same_ids_wherever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "d", "a.md", "sub/b.md")
    absolute = find_files([tmp_path / "d"], "*.md")
    monkeypatch.chdir(tmp_path / "d")
    relative = find_files([Path()], "*.md")
    assert [f.document_id for f in absolute] == [f.document_id for f in relative]


def test_find_files_refuses_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="does not exist"):
        find_files([tmp_path / "none"], "")


@pytest.mark.parametrize("relative", ["a(1)/b#2.md", "x" * 300 + ".md", "..odd.md"])
def test_document_id_of_an_odd_path_is_valid_and_stable(relative: str) -> None:
    identity = document_id(relative)
    assert identity == document_id(relative) != relative
    assert len(identity) <= 200
    assert document_id(identity) == identity


def test_batches_are_bounded_and_keep_every_file() -> None:
    sizes = [10] * 40 + [MAX_BATCH_BYTES * 2] + [MAX_BATCH_BYTES // 2] * 3
    files = [SourceFile(Path(str(n)), str(n), size) for n, size in enumerate(sizes)]
    made = list(batches(files))
    assert [file for batch in made for file in batch] == files
    assert all(len(batch) <= 32 for batch in made)
    assert all(len(b) == 1 or sum(f.num_bytes for f in b) <= MAX_BATCH_BYTES for b in made)


def test_ingest_isolates_the_file_that_spoils_its_batch(server: Server, tmp_path: Path) -> None:
    write(tmp_path / "d", "bad.md", "good.md", "other.md")

    def reply(body: Any) -> tuple[int, dict[str, str], str]:
        if any(document["id"] == "d/bad.md" for document in body["documents"]):
            return 413, {}, error("too large")
        stored = [
            {"id": document["id"], "status": "created", "num_chunks": 2}
            for document in body["documents"]
        ]
        return 200, {}, json.dumps({"documents": stored, "errors": []})

    server.reply = reply  # type: ignore[method-assign]
    outcome = Outcome()
    send(server.client, "docs", find_files([tmp_path / "d"], ""), outcome)
    assert outcome.stored == {"created": 2}
    assert outcome.num_chunks == 4
    assert outcome.failures == {"d/bad.md": "too large (HTTP 413)"}


def test_ingest_sends_files_as_they_are_and_notes_failures(server: Server, tmp_path: Path) -> None:
    write(tmp_path / "d", "a.md", "b.md")
    failed = {"id": "d/b.md", "filename": "b.md", "error": {"message": "unreadable"}}
    stored = {"id": "d/a.md", "status": "replaced", "num_chunks": 1}
    server.replies = [(200, {}, json.dumps({"documents": [stored], "errors": [failed]}))]
    outcome = Outcome()
    send(server.client, "docs", find_files([tmp_path / "d"], ""), outcome)
    sent = server.requests[0]["body"]["documents"][0]["file"]
    assert base64.b64decode(sent["content_base64"]) == b"text of a.md"
    assert (outcome.stored, outcome.failures) == ({"replaced": 1}, {"d/b.md": "unreadable"})


def test_ingest_stops_when_the_key_is_refused(server: Server, tmp_path: Path) -> None:
    write(tmp_path, "a.md")
    server.replies = [(401, {}, error("the API key is not valid"))]
    with pytest.raises(CallFailed, match="API key"):
        send(server.client, "docs", find_files([tmp_path / "a.md"], ""), Outcome())


REQUIRED = '{"error": {"code": "second_factor_required", "message": "a code, please"}}'


def test_code_of_the_environment_is_sent_where_it_is_asked_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGSERVE_CODE", "123456")
    server.replies = [(403, {}, REQUIRED), (200, {}, '{"a": 1}')]
    assert server.client.call("POST", "/x", {}) == {"a": 1}
    sent = [request["headers"].get("x-second-factor") for request in server.requests]
    assert sent == [None, "123456"]


def test_code_that_nobody_can_type_is_an_error(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAGSERVE_CODE", raising=False)
    server.replies = [(403, {}, REQUIRED)]
    with pytest.raises(CallFailed, match="a code, please"):
        server.client.call("POST", "/x", {})
    assert len(server.requests) == 1
