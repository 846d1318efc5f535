"""The same request in JSON, Protobuf and gRPC: same result, limits, audit record and error."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf import json_format

from deployments.errors import DatabaseDamaged, EngineFailed, Overloaded, RagError
from deployments.ingress.proto import dify_pb2
from deployments.types import Document
from tests.unit.ingress.conftest import KEY, Build
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.rpc.conftest import Serving
from tests.unit.ingress.rpc.forms import CODES, Recorder, ask_json, ask_protobuf, ask_rpc

OK = CODES[200]
INFER, SEARCH = "/v1/inference", "/v1/data/search"
REQUESTS = {INFER: dify_pb2.TextRequest, SEARCH: dify_pb2.SearchRequest}
DOCUMENT = Document(id="d1", text="Ray Serve", title="Ray", metadata={"year": 2020, "of": ["a"]})
CHAT = [{"role": "system", "content": "be"}, {"role": "user", "content": "you"}]
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
FILTER = {"and": [{"field": "year", "op": "gte", "value": 2020}]}


@dataclass(frozen=True)
class Case:
    path: str
    body: dict[str, Any]
    status: int = 200
    bearer: str = KEY
    args: dict[str, Any] = field(default_factory=dict)
    error: Exception | None = None

    def message(self) -> Any:
        body = dict(self.body)
        if "response_format" in body:  # where JSON has an object, Protobuf has its text
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": '{"type": "object"}'},
            }
        return json_format.ParseDict(body, REQUESTS[self.path]())


CASES = {
    "prompt": Case(INFER, {"prompt": "hi you", "max_tokens": 7}),
    "chat": Case(INFER, {"messages": CHAT, "model": "second-model", "temperature": 0.5}),
    "choices": Case(INFER, {"prompt": "hi", "n": 2, "logprobs": 2, "seed": 2**61}),
    "sampling": Case(INFER, {"prompt": "hi", "stop": ["a"], "logit_bias": {"5": 1.5}, "top_k": 0}),
    "format": Case(INFER, {"prompt": "hi", "response_format": FORMAT}),
    "grounded": Case(INFER, {"prompt": "hi", "retrieval": {"collection": "docs", "top_k": 2}}),
    "filtered": Case(
        INFER, {"prompt": "hi", "retrieval": {"collection": "docs", "filter": FILTER}}
    ),
    "search": Case(SEARCH, {"collection": "docs", "query": "ray", "filter": FILTER}),
    "by vector": Case(SEARCH, {"collection": "docs", "vector": [0.5, 0.25], "mode": "dense"}),
    "reranked": Case(
        SEARCH, {"collection": "docs", "query": "ray", "rerank": True, "highlights": True}
    ),
    "nothing": Case(INFER, {}, 400),
    "both": Case(INFER, {"prompt": "a", "messages": CHAT}, 400),
    "too hot": Case(INFER, {"prompt": "a", "temperature": 3}, 400),
    "bad role": Case(INFER, {"messages": [{"role": "king", "content": "x"}]}, 400),
    "no content": Case(INFER, {"messages": [{"role": "user"}]}, 400),
    "bad filter": Case(SEARCH, {"collection": "docs", "query": "x", "filter": {"or": []}}, 400),
    "no collection": Case(SEARCH, {"query": "x"}, 400),
    "bad name": Case(SEARCH, {"collection": "..", "query": "x"}, 400),
    "too many": Case(SEARCH, {"collection": "docs", "query": "x", "top_k": 101}, 400),
    "bad token": Case(INFER, {"prompt": "x", "logit_bias": {"4000000000": 1}}, 400),
    "bad key": Case(INFER, {"prompt": "x"}, 401, "rk-nobody"),
    "wrong scope": Case(INFER, {"prompt": "x"}, 403, f"{KEY}-with-data"),
    "not from here": Case(INFER, {"prompt": "x"}, 403, args={"addresses": {"deny": ["0.0.0.0/0"]}}),
    "no such model": Case(INFER, {"prompt": "x", "model": "nope"}, 404),
    "no such collection": Case(SEARCH, {"collection": "nope", "query": "x"}, 404),
    "another tenant's": Case(SEARCH, {"collection": "docs", "query": "x"}, 404, f"{KEY}-of-b"),
    "too large": Case(INFER, {"prompt": "x" * 3000}, 413, args={"max_body_bytes": 2048}),
    "too much": Case(
        INFER, {"prompt": "x", "max_tokens": 9}, 400, args={"key_limits": {"tokens_per_minute": 5}}
    ),
    "engine lost": Case(INFER, {"prompt": "x"}, 502, error=EngineFailed("the replica is gone")),
    "overloaded": Case(SEARCH, {"collection": "docs", "query": "x"}, 503, error=Overloaded("full")),
    "our fault": Case(
        SEARCH, {"collection": "docs", "query": "x"}, 500, error=DatabaseDamaged("x")
    ),
    "a bug": Case(SEARCH, {"collection": "docs", "query": "x"}, 500, error=ValueError("a secret")),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_all_forms_are_answered_alike(
    case: Case, build: Build, graph: FakeGraph, serving: Serving
) -> None:
    graph.stored["docs"] = {"d1": DOCUMENT}
    graph.error = case.error
    audit = Recorder()
    app = build(audit=audit, **({"key_limits": {"tokens_per_minute": 10_000}} | case.args))
    async with serving(app) as served:
        told = [
            await ask_json(served.http, case.path, case.body, case.bearer),
            await ask_protobuf(served.http, case.path, case.message(), case.bearer),
            await ask_rpc(served, case.path, case.message(), case.bearer),
        ]
    assert told[0].code is CODES[case.status]
    assert "secret" not in str(told)
    assert told[0] == told[1] == told[2]
    first, second, third = audit.told()
    assert first == second == third
    assert third[5] == case.status
    assert graph.requests[0:1] == graph.requests[1:2] or _but_for_ids(graph)


def _but_for_ids(graph: FakeGraph) -> bool:
    asked = [(one.sampling, one.messages, one.n, one.model) for one in graph.requests]
    return len(asked) == 3 and asked[0] == asked[1] == asked[2]


async def test_limits_are_counted_for_all_forms_together(build: Build, serving: Serving) -> None:
    app = build(key_limits={"requests_per_minute": 2})
    body = {"prompt": "x"}
    message = dify_pb2.TextRequest(prompt="x")
    async with serving(app) as served:
        assert (await ask_json(served.http, INFER, body, KEY)).code is OK
        assert (await ask_rpc(served, INFER, message, KEY)).code is OK
        refused = [
            await ask_json(served.http, INFER, body, KEY),
            await ask_protobuf(served.http, INFER, message, KEY),
            await ask_rpc(served, INFER, message, KEY),
        ]
    assert {one.code for one in refused} == {CODES[429]}
    assert {one.content["code"] for one in refused} == {"rate_limit_exceeded"}
    assert all(one.retry_after for one in refused)
    assert {one.limits["x-ratelimit-limit-requests"] for one in refused} == {"2"}


def test_every_error_of_ours_has_a_code_of_its_own_kind() -> None:
    from deployments.ingress.rpc.ending import CODES as ENDINGS
    from deployments.ingress.rpc.ending import _tree

    statuses = {kind.status for kind in _tree(RagError)}
    assert statuses - {*ENDINGS} <= {405}
