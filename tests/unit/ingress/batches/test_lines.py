"""Inputs of batches: every fault has its code, its field and its line."""

import json
from typing import Any

import pytest

from deployments.ingress.batches.lines import LineBounds, checked, collection_of, numbered
from deployments.types.batches import BatchState, LineCounts, LineFault

BOUNDS = LineBounds(max_lines=3, max_line_bytes=200, max_depth=8)
BATCH = BatchState(
    id="batch_1",
    tenant="acme",
    key_id="key_1",
    task_id="task_1",
    endpoint="/v1/completions",
    input_file_id="file_1",
    status="validating",
    metadata=None,
    counts=LineCounts(),
    faults=(),
    created_at=0.0,
    expires_at=0.0,
    moments={},
)


def line(custom_id: str = "a", **changes: Any) -> dict[str, Any]:
    body = {"model": "m", "prompt": "x"}
    return {"custom_id": custom_id, "method": "POST", "url": BATCH.endpoint, "body": body} | changes


def faults_of(*lines: Any, bounds: LineBounds = BOUNDS) -> list[LineFault]:
    raw = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines]
    numbers = numbered([b"\n".join(raw)], bounds.max_line_bytes)
    return checked(BATCH, numbers, bounds)[1]


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in line().items() if key != name}


@pytest.mark.parametrize(
    ("bad", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b'{"custom_id": 1, "custom_id": 2}', "invalid_json_line", None),
        (b"\xff", "invalid_json_line", None),
        (b"[" * 60, "invalid_json_line", None),
        (b"[]", "invalid_json_line", None),
        (b"NaN", "invalid_json_line", None),
        *((without(name), "missing_required_parameter", name) for name in line()),
        (line(priority=1), "unknown_parameter", "priority"),
        (line(custom_id=""), "invalid_custom_id", "custom_id"),
        (line(custom_id=7), "invalid_custom_id", "custom_id"),
        (line(custom_id="x\x00"), "invalid_custom_id", "custom_id"),
        (line(custom_id="good"), "duplicate_custom_id", "custom_id"),
        (line(method="GET"), "invalid_method", "method"),
        (line(url="/v1/embeddings"), "invalid_url", "url"),
        (line(url="http://elsewhere/v1/completions"), "invalid_url", "url"),
        (line(body=[]), "invalid_body", "body"),
        (line(body={"stream": True}), "stream_not_supported", "body.stream"),
        (line(body={"x": "y" * 200}), "line_too_long", None),
    ],
)
def test_fault_names_line_and_field(bad: Any, code: str, param: str | None) -> None:
    (fault,) = faults_of(line("good"), bad)
    assert (fault.code, fault.param, fault.line) == (code, param, 2)
    assert fault.message


def test_every_bad_line_is_named_up_to_a_number() -> None:
    faults = faults_of(b"{", line(), b"}")
    assert [(fault.code, fault.line) for fault in faults] == [
        ("invalid_json_line", 1),
        ("invalid_json_line", 3),
    ]
    bounds = LineBounds(max_lines=1000, max_line_bytes=200, max_depth=8)
    assert len(faults_of(*[b"{"] * 500, bounds=bounds)) == 100


def test_number_of_lines_is_bounded_and_not_zero() -> None:
    (fault,) = faults_of(*(line(str(n)) for n in range(4)))
    assert (fault.code, fault.line) == ("too_many_requests", None)
    for empty in (b"", b"\n \n\r\n", b"\xef\xbb\xbf"):
        (fault,) = faults_of(empty)
        assert (fault.code, fault.line) == ("empty_file", None)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_are_the_same_however_the_file_is_cut(size: int) -> None:
    text = b'\xef\xbb\xbf{"a": 1}\r\n\n  {"b": 2}\n' + b"x" * 300 + b"\nend"
    cut = [text[start : start + size] for start in range(0, len(text), size)]
    if size < 3:
        cut = [text[:3], *cut[3:]] if size == 1 else [text[:4], *cut[2:]]
    assert list(numbered(cut, 200)) == [(1, b'{"a": 1}'), (3, b'{"b": 2}'), (4, None), (5, b"end")]


def test_last_line_may_be_too_long() -> None:
    assert list(numbered([b"a\n", b"x" * 150, b"x" * 150], 200)) == [(1, b"a"), (2, None)]


@pytest.mark.parametrize(
    ("body", "collection"),
    [
        ({"model": "m"}, ""),
        ({"model": "rag/docs"}, "docs"),
        ({"retrieval": {"collection": "docs"}}, "docs"),
        ({"model": "rag/docs", "retrieval": {"collection": "other"}}, "other"),
        ({"model": "rag/../up"}, ""),
        ({"model": 7, "retrieval": "docs"}, ""),
        ({"retrieval": {"collection": ["docs"]}}, ""),
    ],
)
def test_collection_is_the_one_that_is_asked(body: dict[str, Any], collection: str) -> None:
    assert collection_of(body) == collection


def test_sound_line_knows_the_path_of_its_collection() -> None:
    asked = line(body={"model": "rag/docs"})
    (sound,), faults = checked(BATCH, numbered([json.dumps(asked).encode()], 200), BOUNDS)
    assert (sound.number, sound.custom_id, sound.collection) == (1, "a", "acme/docs")
    assert faults == []
