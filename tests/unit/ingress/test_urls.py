"""Requests name places: the server opens no connection to any of them, whatever they are."""

import socket
from typing import Any

import httpx
import pytest

from tests.unit.ingress.conftest import OPERATOR
from tests.unit.ingress.fake_graph import FakeGraph

HOSTS = (
    "127.0.0.1",
    "2130706433",
    "0x7f.1",
    "0177.0.0.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "169.254.169.254",
    "100.64.0.1",
    "10.0.0.1",
    "localhost.",
    "user@127.0.0.1",
    "example.org#@127.0.0.1",
    "example.org\\@127.0.0.1",
    "ⓛⓞⓒⓐⓛhost",
)
URLS = [f"{scheme}://{host}/x" for scheme in ("http", "https", "file", "gopher") for host in HOSTS]


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return where anything in this process has connected to, or asked a resolver for."""
    made: list[Any] = []
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def connecting(self: socket.socket, address: Any) -> None:
        made.append(address)
        connect(self, address)

    def resolving(*args: Any, **options: Any) -> Any:
        made.append(args)
        return resolve(*args, **options)

    monkeypatch.setattr(socket.socket, "connect", connecting)
    monkeypatch.setattr(socket, "getaddrinfo", resolving)
    return made


def image(url: str) -> list[dict[str, Any]]:
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What?"}]


@pytest.mark.parametrize("url", URLS)
async def test_a3_a7_b4_images_by_url_are_refused_and_nobody_is_asked(
    client: httpx.AsyncClient, graph: FakeGraph, connections: list[Any], url: str
) -> None:
    body = {"model": "fake-model", "messages": [{"role": "user", "content": image(url)}]}
    refused = await client.post("/v1/chat/completions", json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"].startswith("messages")
    assert url not in refused.text
    for path, fields in (
        ("/v1/inference", {"prompt": "What?", "images": [url]}),
        ("/v1/data/index", {"collection": "docs", "documents": [{"id": "a", "url": url}]}),
        ("/v1/data/clean", {"url": url}),
    ):
        assert (await client.post(path, json=fields)).status_code in (400, 422), path
    assert not connections
    assert not graph.requests
    assert not graph.stored


@pytest.mark.parametrize("url", URLS)
async def test_a3_b4_text_that_holds_a_url_is_only_text(
    client: httpx.AsyncClient, connections: list[Any], url: str
) -> None:
    body = {"prompt": f"Read {url} and say what it says."}
    assert (await client.post("/v1/inference", json=body, headers=OPERATOR)).status_code == 200
    assert not connections
