"""Models that are loaded, switched and unloaded at run time, on a real Ray with fake engines."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

OPTIONS = {"fake_token_delay_s": 0.001}


def load(client: httpx.Client, model: str, **body: Any) -> dict[str, Any]:
    sent = {"model_id": model, "engine": "fake", "wait": True, **body}
    return client.post("/v1/models/load", json=sent).raise_for_status().json()


def switch(client: httpx.Client, alias: str, to: str, **body: Any) -> httpx.Response:
    return client.post("/v1/models/switch", json={"alias": alias, "to": to, **body})


def unload(client: httpx.Client, model: str, **body: Any) -> httpx.Response:
    sent = {"model_id": model, "wait": True, **body}
    return client.post("/v1/models/unload", json=sent)


def ask(client: httpx.Client, model: str, **body: Any) -> httpx.Response:
    messages = [{"role": "user", "content": "hello"}]
    return client.post(
        "/v1/chat/completions", json={"model": model, "messages": messages, **body}
    )


def text_of(response: httpx.Response) -> str:
    return str(response.raise_for_status().json()["choices"][0]["message"]["content"])


def streamed(client: httpx.Client, model: str, content: str = "hello") -> str:
    body = {"model": model, "messages": [{"role": "user", "content": content}], "stream": True}
    text = ""
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: {"):
                text += json.loads(line[6:])["choices"][0]["delta"].get("content", "")
    return text


def state_of(client: httpx.Client, model: str) -> dict[str, Any]:
    models = client.get("/v1/models/status").raise_for_status().json()["models"]
    return next(one for one in models if one["id"] == model)


@pytest.fixture
def clean(client: httpx.Client) -> Iterator[None]:
    """Unload whatever a test has left."""
    yield
    for one in client.get("/v1/models/status").json()["models"]:
        if one["state"] not in ("configured", "unloaded"):
            unload(client, one["id"], force=True).raise_for_status()


@pytest.mark.usefixtures("clean")
def test_model_is_loaded_answers_is_switched_to_and_goes(client: httpx.Client) -> None:
    assert ask(client, "small@1").status_code == 404
    state = load(client, "small@1", options=OPTIONS)
    assert (state["id"], state["state"], state["error"]) == ("small@1", "ready", None)
    assert text_of(ask(client, "small@1")) == "Echo: hello"
    assert streamed(client, "small@1") == "Echo: hello"
    assert text_of(ask(client, "small")) == "Echo: hello"
    assert "small@1" in [one["id"] for one in client.get("/v1/models").json()["data"]]

    alias = switch(client, "chat", "small@1").raise_for_status().json()
    assert alias["targets"] == [{"model": "small@1", "percent": 100}]
    assert streamed(client, "chat") == "Echo: hello"
    assert unload(client, "small@1").status_code == 409

    switch(client, "chat", "fake", drain_s=0).raise_for_status()
    assert text_of(ask(client, "chat")) == "Echo: hello"
    deadline = time.monotonic() + 60
    while state_of(client, "small@1")["state"] != "unloaded":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert ask(client, "small@1").status_code == 404
