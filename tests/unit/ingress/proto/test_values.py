"""Messages read as the values that JSON gives."""

import json
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.errors import InvalidRequest
from deployments.ingress.proto import dify_pb2
from deployments.ingress.proto.stream import Splitter, delimited
from deployments.ingress.proto.values import MAX_VALUES, message_of, value_of

DEPTH = 32


def read(message: Any) -> dict[str, Any]:
    return value_of(message.SerializeToString(), type(message), DEPTH)


def struct(**members: Any) -> Struct:
    made = Struct()
    made.update(members)
    return made


def test_what_is_not_set_is_not_there_and_zero_is() -> None:
    assert read(dify_pb2.TextRequest()) == {}
    assert read(dify_pb2.TextRequest(temperature=0, stream=False, prompt="")) == {
        "temperature": 0.0,
        "stream": False,
        "prompt": "",
    }


def test_every_kind_of_field_is_read() -> None:
    request = dify_pb2.TextRequest(
        messages=[dify_pb2.ChatMessage(role="user", content="hi")],
        stop=["a", "b"],
        seed=2**62,
        logit_bias={7: -1.5},
        retrieval=dify_pb2.Retrieval(collection="docs", filter=struct(field="year", value=2020)),
    )
    assert read(request) == {
        "messages": [{"role": "user", "content": "hi"}],
        "stop": ["a", "b"],
        "seed": 2**62,
        "logit_bias": {"7": -1.5},
        "retrieval": {"collection": "docs", "filter": {"field": "year", "value": 2020}},
    }


def test_a_struct_is_read_as_json() -> None:
    content = {"a": [1, 2.5, None, True, {"b": "c"}], "d": 2**53, "e": 1e300, "f": {}}
    read_back = read(dify_pb2.SearchRequest(filter=struct(**content)))["filter"]
    assert json.dumps(read_back, sort_keys=True) == json.dumps(content, sort_keys=True)


def test_a_schema_keeps_its_order() -> None:
    text = '{"properties":{"z":{},"a":{}}}'
    form = dify_pb2.ResponseFormat(json_schema=dify_pb2.JsonSchema(schema=text))
    schema = read(form)["json_schema"]["schema"]
    assert list(schema["properties"]) == ["z", "a"]


def without_end() -> bytes:
    return b"\x0a\x05ab"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"\xff\xff", "not a Protobuf message"),
        (without_end(), "not a Protobuf message"),
        (b"\x0a\x01\xff", "not a Protobuf message"),
        (b"\xb8\x3e\x01", "TextRequest has no field with the number 999 here"),
        (b"\x12\x03\xb8\x3e\x01", "ChatMessage has no field with the number 999 here"),
        (b"\x12\x00" * (MAX_VALUES + 1), "more than"),
        (b"\x6a\x00" * (MAX_VALUES + 1), "more than"),
    ],
)
def test_what_json_would_refuse_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        value_of(raw, dify_pb2.TextRequest, DEPTH)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_struct_with_a_number_that_is_none_is_refused(number: float) -> None:
    with pytest.raises(InvalidRequest, match="a number that is none"):
        read(dify_pb2.SearchRequest(filter=Struct(fields={"value": Value(number_value=number)})))


@pytest.mark.parametrize("schema", ["", "{", "[" * 100, '{"a":1,"a":2}'])
def test_a_schema_that_is_no_json_is_refused(schema: str) -> None:
    form = dify_pb2.ResponseFormat(json_schema=dify_pb2.JsonSchema(schema=schema))
    with pytest.raises(InvalidRequest, match="the schema") as caught:
        read(form)
    assert caught.value.param == "response_format.json_schema.schema"


def test_answers_are_written_with_every_field() -> None:
    chunk = {
        "chunk_id": "c",
        "score": 0.5,
        "cosine": None,
        "metadata": {"year": 2020, "tags": ["a", None, True]},
        "highlights": ((1, 2), (3, 4)),
    }
    written = message_of({"collection": "docs", "results": [chunk]}, dify_pb2.SearchResponse)
    [result] = written.results
    assert not result.HasField("cosine")
    assert result.metadata == struct(year=2020, tags=["a", None, True])
    assert [(one.start, one.end) for one in result.highlights] == [(1, 2), (3, 4)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=8), st.data())
def test_a_stream_comes_apart_wherever_it_is_cut(messages: list[bytes], data: Any) -> None:
    stream = b"".join(map(delimited, messages))
    splitter, found, at = Splitter(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        found += splitter.split(stream[at : at + size])
        at += size
    assert found == messages
