"""Protobuf messages as the values that the same JSON would give, and values as messages.

So whatever checks a JSON body checks a message, and names its fields alike. As JSON, a message is
read strictly: fields that are not known here are refused, and not skipped.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from deployments.errors import InvalidRequest
from deployments.ingress.json_body import parse
from deployments.ingress.proto.messages import Message
from deployments.stores.content import invalid

STRUCT = "google.protobuf.Struct"
JSON_SCHEMA = "ragserve.v1.JsonSchema"
MAX_VALUES = 100_000
"""In one message: two bytes make an empty one, which costs a hundred times that here."""


def value_of(raw: bytes, kind: Any, max_depth: int) -> dict[str, Any]:
    """Return the value of a serialised message.

    Args:
        raw: the message.
        kind: its class.
        max_depth: of JSON texts in it.

    Raises:
        InvalidRequest: it is malformed, has fields that `kind` has not, or far too many.
    """
    try:
        message = kind.FromString(raw)
    except DecodeError:
        text = f"the body is not a Protobuf message of type {kind.DESCRIPTOR.full_name}"
        raise InvalidRequest(text) from None
    return _Reader(max_depth).value(message)


class _Reader:
    """Reads one message."""

    def __init__(self, max_depth: int) -> None:
        self._max_depth = max_depth
        self._num_values = 0

    def value(self, message: Message) -> dict[str, Any]:
        if unknown := UnknownFieldSet(message):
            number, name = unknown[0].field_number, message.DESCRIPTOR.name
            raise InvalidRequest(f"{name} has no field with the number {number} here")
        self._count(1)
        value = {field.name: self._field(field, given) for field, given in message.ListFields()}
        if message.DESCRIPTOR.full_name == JSON_SCHEMA and "schema" in value:
            value["schema"] = self._schema(value["schema"])
        return value

    def _field(self, field: Any, given: Any) -> Any:
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            self._count(len(given))
            return {str(key): one for key, one in given.items()}
        read = self._read_as(kind)
        if not field.is_repeated:
            return read(given)
        self._count(len(given))
        return list(map(read, given)) if kind is not None else list(given)

    def _read_as(self, kind: Any) -> Any:
        if kind is None:
            return lambda given: given
        return self._struct if kind.full_name == STRUCT else self.value

    def _struct(self, struct: Message) -> dict[str, Any]:
        self._count(1 + len(struct.fields))
        return {name: self._dynamic(one) for name, one in struct.fields.items()}

    def _dynamic(self, one: Message) -> Any:
        kind = one.WhichOneof("kind")
        if kind == "struct_value":
            return self._struct(one.struct_value)
        if kind == "list_value":
            self._count(1 + len(one.list_value.values))
            return list(map(self._dynamic, one.list_value.values))
        if kind == "number_value":
            return _number(one.number_value)
        return None if kind in (None, "null_value") else getattr(one, kind)

    def _count(self, num_values: int) -> None:
        self._num_values += num_values
        if self._num_values > MAX_VALUES:
            raise InvalidRequest(f"the body holds more than {MAX_VALUES} values")

    def _schema(self, text: str) -> Any:
        try:
            return parse(text.encode(), self._max_depth)
        except InvalidRequest as error:
            message = error.message.replace("the body", "the schema")
            raise invalid(message, "response_format.json_schema.schema") from None


def _number(given: float) -> float:
    """Return a number of a Struct, which knows no integers, as JSON would have it."""
    if not math.isfinite(given):
        raise InvalidRequest("the body holds a number that is none")
    return int(given) if given.is_integer() and abs(given) <= 2**53 else given


def message_of(value: Any, kind: Any) -> Message:
    """Return a value as a message; what is null is left out."""
    message = kind()
    _fill(message, value)
    return message


def _fill(message: Message, value: Any) -> None:
    fields = message.DESCRIPTOR.fields_by_name
    message.SetInParent()
    for name, given in _members(value, fields):
        if given is None:
            continue
        field, kind = fields[name], fields[name].message_type
        if kind is None:
            _set(message, field, given)
        elif kind.full_name == STRUCT:
            getattr(message, name).update(given)
        elif field.is_repeated:
            items = getattr(message, name)
            for one in given:
                _fill(items.add(), one)
        else:
            _fill(getattr(message, name), given)


def _set(message: Message, field: Any, given: Any) -> None:
    if field.is_repeated:
        getattr(message, field.name).extend(given)
    else:
        is_bytes = field.type == field.TYPE_BYTES
        setattr(message, field.name, bytes(given) if is_bytes else given)


def _members(value: Any, fields: Any) -> Iterable[tuple[str, Any]]:
    """Return names and values; an array's members are fields in their order."""
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, list | tuple):
        return zip(fields, value, strict=True)
    return ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
