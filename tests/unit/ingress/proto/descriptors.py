"""The rules by which a description of messages may change without breaking a client."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto


def breaks(old: FileDescriptorProto, new: FileDescriptorProto) -> list[str]:
    """Return what of `old` a client of it would miss in `new`."""
    found = [] if old.package == new.package else ["package"]
    found += _lost("message", _messages(old), _messages(new), _of_message)
    services = ({one.name: one for one in file.service} for file in (old, new))
    return found + _lost("service", *services, _of_service)


def _messages(file: FileDescriptorProto) -> dict[str, Any]:
    return dict(_nested("", file.message_type))


def _nested(prefix: str, messages: Any) -> Iterator[tuple[str, Any]]:
    for message in messages:
        name = f"{prefix}{message.name}"
        yield name, message
        yield from _nested(f"{name}.", message.nested_type)


def _lost(kind: str, old: dict[str, Any], new: dict[str, Any], inside: Any) -> list[str]:
    found: list[str] = []
    for name, one in old.items():
        if name not in new:
            found.append(f"{kind} {name} is gone")
        else:
            found += [f"{name}: {what}" for what in inside(one, new[name])]
    return found


def _of_service(old: Any, new: Any) -> list[str]:
    methods = {one.name: one for one in new.method}
    return [f"method {one.name}" for one in old.method if methods.get(one.name) != one]


def _of_message(old: Any, new: Any) -> list[str]:
    numbers = {one.number: one for one in new.field}
    return [
        f"field {one.name}" for one in old.field if _form(one) != _form(numbers.get(one.number))
    ]


def _form(field: Any) -> tuple[object, ...]:
    if field is None:
        return ()
    in_oneof = field.HasField("oneof_index")
    kind = (field.type, field.type_name, field.label)
    return (field.name, field.json_name, *kind, in_oneof, field.proto3_optional)
