"""The messages of `dify.proto`, from the module that its compiler has made."""

from importlib import import_module
from typing import Any

STUBS = "deployments.ingress.proto.dify_pb2"

try:
    _stubs: Any = import_module(STUBS)
except ModuleNotFoundError as error:
    if error.name != STUBS:
        raise
    raise ImportError("dify.proto is not compiled: run `make stubs`, or install us") from None

Message = Any
"""A Protobuf message; the library has no types."""

DIFY_SERVICE: str = _stubs.DESCRIPTOR.services_by_name["DifyService"].full_name

TextRequest: Any = _stubs.TextRequest
TextResponse: Any = _stubs.TextResponse
TextDelta: Any = _stubs.TextDelta
SearchRequest: Any = _stubs.SearchRequest
SearchResponse: Any = _stubs.SearchResponse
Error: Any = _stubs.Error
