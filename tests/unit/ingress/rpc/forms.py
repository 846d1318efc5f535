"""One request in three forms: JSON and Protobuf over HTTP, and gRPC."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx

from deployments.ingress.proto import dify_pb2
from deployments.ingress.proto.media import PROTOBUF
from deployments.ingress.proto.messages import Error
from deployments.ingress.proto.values import value_of
from deployments.types.audit import AuditRecord
from tests.unit.ingress.rpc.conftest import Served

CODES = {
    200: grpc.StatusCode.OK,
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
ANSWERS = {
    "/v1/inference": dify_pb2.TextResponse,
    "/v1/data/search": dify_pb2.SearchResponse,
}
METHODS = {"/v1/inference": "GenerateText", "/v1/data/search": "VectorSearch"}


@dataclass
class Recorder:
    """An audit log in memory."""

    records: list[AuditRecord] = field(default_factory=list)
    num_dropped = 0
    is_well = True

    def record(self, record: AuditRecord) -> None:
        self.records.append(record)

    def submit(self, record: AuditRecord) -> "Future[None]":
        raise AssertionError("nothing here changes anything")

    def pseudonym(self, name: str) -> str:
        return f"hashed:{name}"

    def told(self) -> list[tuple[object, ...]]:
        """Return what each record says that is not different each time."""
        return [
            (r.tenant, r.key_id, r.operation, r.method, r.address, r.status, r.error)
            + (r.tokens_in, r.tokens_out, r.touched)
            for r in self.records
        ]


@dataclass(frozen=True)
class Told:
    """What a caller is told, whatever the form."""

    code: grpc.StatusCode
    content: Any
    limits: dict[str, str]
    retry_after: bool


async def ask_json(http: httpx.AsyncClient, path: str, value: Any, bearer: str) -> Told:
    answer = await http.post(path, json=value, headers={"authorization": f"Bearer {bearer}"})
    content = answer.json()
    return _told(CODES[answer.status_code], content.get("error", content), answer.headers.items())


async def ask_protobuf(http: httpx.AsyncClient, path: str, message: Any, bearer: str) -> Told:
    headers = {"authorization": f"Bearer {bearer}", "content-type": PROTOBUF}
    answer = await http.post(path, content=message.SerializeToString(), headers=headers)
    assert answer.headers["content-type"] == PROTOBUF
    kind = ANSWERS[path] if answer.status_code == 200 else Error
    content = value_of(answer.content, kind, 32)
    return _told(CODES[answer.status_code], content, answer.headers.items())


async def ask_rpc(served: Served, path: str, message: Any, bearer: str) -> Told:
    metadata = (("authorization", f"Bearer {bearer}"),)
    call = getattr(served.stub, METHODS[path])(message, metadata=metadata)
    code, trailers = await call.code(), list(await call.trailing_metadata())
    if code is grpc.StatusCode.OK:
        answer = (await call).SerializeToString()
        return _told(code, value_of(answer, ANSWERS[path], 32), trailers)
    metadata = dict(trailers)
    error = {"message": await call.details(), "code": metadata["x-error-code"]}
    error["param"] = metadata.get("x-error-param")
    return _told(code, error, trailers)


def _told(code: grpc.StatusCode, content: Any, headers: Any) -> Told:
    pairs = dict(headers)
    limits = {k: v for k, v in pairs.items() if k.startswith("x-ratelimit-limit")}
    assert pairs["x-request-id"].startswith("req_")
    content = {k: v for k, v in content.items() if k not in ("id", "type", "request_id")}
    return Told(code, pruned(content), limits, "retry-after" in pairs)


def pruned(value: Any) -> Any:
    """Return a value without what a message leaves out: null, zero and what is empty."""
    if isinstance(value, dict):
        kept = {name: pruned(one) for name, one in value.items()}
        return {name: one for name, one in kept.items() if one}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [pruned(one) for one in value]
    return list(value) if isinstance(value, bytes) else value
