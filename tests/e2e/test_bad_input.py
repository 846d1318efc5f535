"""Whatever a client sends: a 4xx with the one error object, at once, and service goes on."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

MODEL = "smollm2-135m-instruct"
LIMIT_S = 5.0
MEGABYTE = 1024 * 1024
CHAT = "/v1/chat/completions"
ERROR_MEMBERS = {"message", "type", "code", "param", "request_id"}


@pytest.fixture(autouse=True)
def service_goes_on(client: httpx.Client) -> Iterator[None]:
    yield
    answer = client.post(CHAT, json=chat(max_tokens=1)).raise_for_status().json()
    assert answer["usage"]["completion_tokens"] == 1


def chat(content: Any = "Hello", **members: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": MODEL, "messages": messages, "max_tokens": 4, **members}


def refusal(client: httpx.Client, path: str, **request: Any) -> tuple[int, dict[str, Any]]:
    """Send, and return status and error of an early refusal."""
    started_s = time.monotonic()
    response = client.post(path, **request)
    assert time.monotonic() - started_s < LIMIT_S
    assert 400 <= response.status_code < 500
    body = response.json()
    each = {"errors"} if path == "/v1/data/index" else set()  # one for each document
    assert set(body) - each == {"error"}
    assert set(body["error"]) == ERROR_MEMBERS
    assert body["error"]["message"]
    return response.status_code, body["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"nonsense",
        b'{"model": "a", "model": "b"}',
        b'{"model": NaN}',
        b'{"max_tokens": 123456789012345678901234567890}',
        b'{"model": "\xff"}',
        b'{"model": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b"null",
        b"[]",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_malformed_body_is_refused(body: bytes, client: httpx.Client) -> None:
    for path in (CHAT, "/v1/inference", "/v1/data/search"):
        assert refusal(client, path, content=body)[0] == 400


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (chat(max_tokens="4"), "max_tokens"),
        (chat(max_tokens=True), "max_tokens"),
        (chat(max_tokens=-1), "max_tokens"),
        (chat(max_tokens=0), "max_tokens"),
        (chat(max_tokens=10**15), "max_tokens"),
        (chat(temperature=-0.1), "temperature"),
        (chat(temperature=1e300), "temperature"),
        (chat(top_p=7), "top_p"),
        (chat(top_k=-1), "top_k"),
        (chat(n=0), "n"),
        (chat(n=10_000), "n"),
        (chat(seed=-1), "seed"),
        (chat(stop=[""]), "stop[0]"),
        (chat(stop=["x"] * 99), "stop"),
        (chat(logit_bias={"-1": 1}), "logit_bias.-1"),
        (chat(logit_bias={"1": 1e9}), "logit_bias.1"),
        (chat(stream="yes"), "stream"),
        (chat(no_such_member=1), "no_such_member"),
        (chat(17), "messages[0].content"),
        ({"model": MODEL}, "messages"),
        ({"model": MODEL, "messages": []}, "messages"),
        ({"model": MODEL, "messages": [{"role": "king", "content": "?"}]}, "messages[0].role"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a8_wrong_value_is_refused_by_name(
    body: dict[str, Any], param: str, client: httpx.Client
) -> None:
    status, error = refusal(client, CHAT, json=body)
    assert (status, error["param"]) == (400, param)


def test_token_outside_the_vocabulary_is_refused(client: httpx.Client) -> None:
    assert refusal(client, CHAT, json=chat(logit_bias={"999999999": 1}))[0] == 400
    body = {"model": MODEL, "prompt": [2**31 - 1], "max_tokens": 1}
    assert refusal(client, "/v1/completions", json=body)[0] == 400


@pytest.mark.parametrize("pattern", ["(", "[z-a]", "(?<=a)b"])
def test_unusable_regex_is_refused(pattern: str, client: httpx.Client) -> None:
    body = chat(response_format={"type": "regex", "regex": pattern})
    assert refusal(client, CHAT, json=body)[0] == 400


def test_prompt_over_the_context_is_refused_in_every_mode(client: httpx.Client) -> None:
    long = "word " * 150_000
    for extra in ({}, {"stream": True}):
        status, error = refusal(client, CHAT, json=chat(long, **extra))
        assert (status, error["code"]) == (400, "context_length_exceeded")


def test_empty_texts_are_refused(client: httpx.Client) -> None:
    for text in ("", "  \n", []):
        body = {"model": "all-minilm-l6-v2", "input": text}
        assert refusal(client, "/v1/embeddings", json=body)[0] == 400
    assert refusal(client, "/v1/inference", json={"prompt": ""})[0] == 400
    assert refusal(client, "/v1/data/search", json={"collection": "x", "query": " "})[0] == 400
    body = {"collection": "x", "documents": [{"id": "empty", "text": ""}]}
    assert refusal(client, "/v1/data/index", json=body)[0] == 400


def test_a4_collection_names_and_ids_are_checked(client: httpx.Client) -> None:
    for name in ("", "../x", "A B", "x" * 65, "a/b", "é"):
        body = {"collection": name, "documents": [{"id": "one", "text": "text"}]}
        assert refusal(client, "/v1/data/index", json=body)[0] == 400
    for document_id in ("", "..", "a/../b", "x" * 300, "\x00"):
        body = {"collection": "x", "documents": [{"id": document_id, "text": "text"}]}
        assert refusal(client, "/v1/data/index", json=body)[0] == 400


def test_huge_body_with_a_length_is_refused(client: httpx.Client) -> None:
    status, error = refusal(client, CHAT, content=b" " * (100 * MEGABYTE))
    assert (status, error["code"]) == (413, "payload_too_large")


def test_a8_huge_chunked_body_is_refused(client: httpx.Client) -> None:
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += MEGABYTE
            yield b" " * MEGABYTE

    status, error = refusal(client, CHAT, content=pieces())
    assert (status, error["code"]) == (413, "payload_too_large")


def test_compressed_body_is_refused(client: httpx.Client) -> None:
    headers = {"content-encoding": "gzip"}
    assert refusal(client, CHAT, content=b"\x1f\x8b", headers=headers)[0] == 400


def test_unknown_address_and_method_have_the_error_object(client: httpx.Client) -> None:
    assert refusal(client, "/v1/nothing-here", json={})[0] == 404
    assert refusal(client, "/v1/models", json={})[0] == 405
