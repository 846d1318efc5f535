"""Messages have the fields of the JSON bodies and answers, each in its place."""

from typing import Any

import pytest
from pydantic import BaseModel

from deployments.ingress.proto import dify_pb2
from deployments.ingress.schemas.error import Error
from deployments.ingress.schemas.generated import Inference
from deployments.ingress.schemas.native import InferenceRequest
from deployments.ingress.schemas.responses import SearchResult
from deployments.ingress.schemas.search import SearchBody

PAIRS = {
    InferenceRequest: dify_pb2.TextRequest,
    SearchBody: dify_pb2.SearchRequest,
    Inference: dify_pb2.TextResponse,
    SearchResult: dify_pb2.SearchResponse,
    Error: dify_pb2.Error,
}
TYPES = {"string": 9, "boolean": 8, "integer": 5, "number": 1}
"""Of JSON Schema, and of Protobuf."""

OTHERWISE = {
    "TextRequest.seed": "it needs 64 bits",
    "TextRequest.stop": "one or many texts: many",
    "ChatMessage.content": "text or parts of text, which are joined: text",
    "JsonSchema.schema": "JSON text, which keeps the order of members",
    "SearchRequest.vector": "numbers of 32 bits, as they are stored",
    "TextResponse.logprobs": "described as any object in JSON",
    "Output.logprobs": "described as any object in JSON",
    "Chunk.highlights": "pairs of numbers",
}
"""Fields whose types are not simply each other's."""


def resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema itself, without references and null."""
    if "$ref" in schema:
        return resolved(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    options = [one for one in schema.get("anyOf", []) if one != {"type": "null"}]
    return resolved(options[0], definitions) if len(options) == 1 else schema


def members(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return an object's members; of a union, those of all its objects."""
    schema = resolved(schema, definitions)
    if "oneOf" in schema:
        found: dict[str, Any] = {}
        for one in schema["oneOf"]:
            found |= members(one, definitions)
        return found
    kept = schema["properties"].items()
    return {name: one for name, one in kept if one.get("type") != "null"}  # others are refused


def differences(schema: dict[str, Any], definitions: Any, message: Any, path: str) -> list[str]:
    json, proto = members(schema, definitions), message.fields_by_name
    found = [f"{path}: only in one: {name}" for name in {*json} ^ {*proto}]
    for name in {*json} & {*proto}:
        if f"{message.name}.{name}" not in OTHERWISE:
            one = resolved(json[name], definitions)
            found += field_differences(one, definitions, proto[name], f"{path}.{name}")
    return found


def field_differences(schema: Any, definitions: Any, field: Any, path: str) -> list[str]:
    if (schema.get("type") == "array") != field.is_repeated and not is_map(field):
        return [f"{path}: one is a list"]
    if schema.get("type") == "array":
        schema = resolved(schema["items"], definitions)
    if field.message_type is None:
        kind = schema.get("type") or {"str": "string"}[type(schema["const"]).__name__]
        return [] if TYPES[kind] == field.type else [f"{path}: {kind} is another type"]
    if is_map(field) or field.message_type.full_name == "google.protobuf.Struct":
        return [] if schema.get("type") == "object" else [f"{path}: one is an object"]
    return differences(schema, definitions, field.message_type, path)


def is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


@pytest.mark.parametrize("model", PAIRS)
def test_messages_have_the_fields_of_the_json(model: type[BaseModel]) -> None:
    schema = model.model_json_schema()
    assert not differences(schema, schema.get("$defs", {}), PAIRS[model].DESCRIPTOR, model.__name__)


def test_a_difference_is_found() -> None:
    schema = SearchBody.model_json_schema()
    definitions = schema["$defs"]
    del schema["properties"]["nprobe"]
    schema["properties"]["query"] = {"type": "integer"}
    schema["properties"]["mode"] = {"type": "array", "items": {"type": "string"}}
    del definitions["Weights"]["properties"]["lexical"]
    found = differences(schema, definitions, dify_pb2.SearchRequest.DESCRIPTOR, "x")
    assert sorted(found) == [
        "x.mode: one is a list",
        "x.query: integer is another type",
        "x.weights: only in one: lexical",
        "x: only in one: nprobe",
    ]


def test_exceptions_name_fields_that_are_there() -> None:
    names = {
        f"{name}.{field.name}"
        for name, message in dify_pb2.DESCRIPTOR.message_types_by_name.items()
        for field in message.fields
    }
    assert {*OTHERWISE} <= names
