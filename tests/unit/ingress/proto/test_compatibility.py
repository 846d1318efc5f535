"""What was released of `dify.proto` stays: clients have been made from it.

`python -m tests.unit.ingress.proto.test_compatibility` writes down what a release has.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from deployments.ingress.proto import dify_pb2
from tests.unit.ingress.proto.descriptors import breaks

RELEASED = Path(__file__).with_name("released.json")


def current() -> FileDescriptorProto:
    file = FileDescriptorProto()
    dify_pb2.DESCRIPTOR.CopyToProto(file)
    return file


def changed(change: Callable[[Any], object]) -> FileDescriptorProto:
    file = current()
    change(file)
    return file


def message(file: Any, name: str) -> Any:
    return next(one for one in file.message_type if one.name == name)


def test_nothing_that_was_released_has_changed() -> None:
    released = json_format.Parse(RELEASED.read_text(), FileDescriptorProto())
    assert breaks(released, current()) == []


def of(name: str, change: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda file: change(message(file, name))


def method(number: int, **form: object) -> Callable[[Any], object]:
    return lambda f: [setattr(f.service[0].method[number], k, v) for k, v in form.items()]


def field(**form: object) -> Callable[[Any], object]:
    return of("Error", lambda m: [setattr(m.field[0], k, v) for k, v in form.items()])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda f: f.message_type.pop(0), "message TextRequest is gone"),
        (of("Error", lambda m: m.field.pop()), "Error: field request_id"),
        (field(number=9), "Error: field message"),
        (field(type=12), "Error: field message"),
        (field(label=3), "Error: field message"),
        (field(name="text"), "Error: field message"),
        (field(proto3_optional=True), "Error: field message"),
        (
            of("TextDelta", lambda m: m.field[0].ClearField("oneof_index")),
            "TextDelta: field sources",
        ),
        (lambda f: f.service[0].method.pop(), "DifyService: method VectorSearch"),
        (method(1, server_streaming=False), "DifyService: method StreamText"),
        (method(0, input_type=".x.Y"), "DifyService: method GenerateText"),
        (lambda f: f.service.pop(), "service DifyService is gone"),
        (lambda f: setattr(f, "package", "ragserve.v2"), "package"),
    ],
)
def test_every_break_is_found(change: Callable[[Any], object], found: str) -> None:
    assert found in breaks(current(), changed(change))


def test_what_is_added_breaks_nothing() -> None:
    def add(file: Any) -> None:
        message(file, "Error").field.add(name="new", json_name="new", number=99, type=9, label=1)
        file.message_type.add(name="New")

    assert breaks(current(), changed(add)) == []


if __name__ == "__main__":
    RELEASED.write_text(json_format.MessageToJson(current(), indent=1) + "\n")
