"""JSON as it arrives: what is refused, and how fast."""

import json
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.errors import InvalidRequest
from deployments.ingress.json_body import parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False,
    allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(JSON, st.booleans())
def test_parse_returns_what_json_does(value: object, is_ascii: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=is_ascii).encode(), 64) == value


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"  ",
        b"{",
        b"{} {}",
        b"[1,]",
        b'{"a":1,"a":2}',
        b'{"x":{"\\u0061":1,"a":2}}',
        b'[{"a":1,"a":1}]',
        b'{"a":NaN}',
        b"Infinity",
        b"1e999",
        b"100000000000000000000",
        b'{"a":-18446744073709551617}',
        b'"\\ud800"',
        b'{"a":"\\udfff\\ud800"}',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf{}",
        b"'a'",
        b'{"a":1}//x',
    ],
)
def test_parse_refuses_what_is_malformed_or_ambiguous(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse(raw, 32)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":"x:y","b":":"}',
        b'{"a\\":1,\\"a":2,"b":"{[[[["}',
        b'["\\\\","{","\\\\\\"{","\\u005c"]',
        b'{"a":"[{","b":"\\"}"}',
        b"[0.123456789012345678901234567890,1e25]",
        b"-9223372036854775808",
    ],
)
def test_parse_is_not_misled_by_strings(raw: bytes) -> None:
    assert parse(raw, 2) == json.loads(raw)


def test_a8_parse_bounds_depth_exactly() -> None:
    assert parse(b"[" * 32 + b"]" * 32, 32) is not None
    assert parse(b'{"a":' * 32 + b"1" + b"}" * 32, 32) is not None
    for raw in (b"[" * 33 + b"]" * 33, b'{"a":[' * 17 + b"]}" * 17, b"[" * 1_000_000):
        with pytest.raises(InvalidRequest, match="nested"):
            parse(raw, 32)


def test_parse_is_fast_on_what_is_made_to_be_slow() -> None:
    size = 4_000_000
    hostile = [
        b'"' + b"\\" * size,
        b'["' + b'\\"' * (size // 2),
        b"[]" * (size // 2),
        b"[" * size,
        b"1" * size,
        b'{"":0' + b',"":0' * (size // 5) + b"}",
    ]
    started = time.process_time()
    for raw in hostile:
        with pytest.raises(InvalidRequest):
            parse(raw, 32)
    assert time.process_time() - started < 6


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": True}, "n"),
        ({"n": 17}, "n"),
        ({"n": 1.5}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1_000_001}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [""]}, "stop[0]"),
        ({"stop": "x" * 129}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"logit_bias": {str(i): 1 for i in range(301)}}, "logit_bias"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"stream": 1}, "stream"),
        ({"logprobs": 21}, "logprobs"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}]}, "prompt"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": []}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]},
         "messages[0].content[0].text"),
        ({"retrieval": {"collection": "A"}}, "retrieval.collection"),
        ({"retrieval": {"collection": "a", "top_k": 101}}, "retrieval.top_k"),
        ({"retrieval": {"top_k": 1}}, "retrieval.collection"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "regex"}}, "response_format.regex"),
        ({"response_format": {"type": "json_object"}, "format": "json"}, "format"),
        ({"images": []}, "images"),
        ({"unknown\n" + "x" * 200: 1}, "unknown?" + "x" * 92),
        ({"ключ": 1}, "????"),
    ],
)  # fmt: skip
async def test_body_error_names_the_field(
    client: httpx.AsyncClient, fields: dict[str, object], param: str
) -> None:
    response = await client.post("/v1/inference", json={"prompt": "SECRET", **fields})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert "SECRET" not in response.text
    assert len(response.content) < 1000


async def test_body_must_be_an_object(client: httpx.AsyncClient) -> None:
    for body in ([], "x", 5, None):
        response = await client.post("/v1/inference", content=json.dumps(body).encode())
        assert response.status_code == 400


async def test_body_too_deep_is_refused(client: httpx.AsyncClient) -> None:
    content = b'{"prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    response = await client.post("/v1/inference", content=content)
    assert response.status_code == 400
    assert "nested" in response.json()["error"]["message"]


async def test_prompt_may_hold_nul(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/inference", json={"prompt": "a\x00b"})
    assert response.json()["output"] == "echo: a\x00b"
