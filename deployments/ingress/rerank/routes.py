"""`POST /v1/rerank`, `/v2/rerank`, `/rerank`: texts by how well they answer a query.

The body tells who asks: `texts` is TEI's form, `documents` Cohere's and Jina's. Every route takes
both. Exactly `top_n` rows come back, never fewer for a low score: clients match them by index.
"""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from deployments.ingress.access import guarded
from deployments.ingress.generation import default_of, version_of
from deployments.ingress.ids import derived_id
from deployments.ingress.json_body import parse, validated
from deployments.ingress.openapi import REF, describe
from deployments.ingress.rerank.order import best_first
from deployments.ingress.rerank.tei import rerank_texts, reserve_pairs
from deployments.ingress.schemas.compatible import Reranked, RerankedText, TeiErrorResponse
from deployments.ingress.schemas.rerank import RerankRequest, TeiRerankRequest
from deployments.ingress.schemas.responses import ErrorResponse
from deployments.ingress.services import Services, json_response

VERSIONS = {"/v1/rerank": "1", "/v2/rerank": "2", "/rerank": "1"}
"""Which version of Cohere's API each route says to be."""


def rerank_router(services: Services) -> APIRouter:
    """Return the rerank routes."""
    router = guarded(tags=["Rerank"])

    async def rerank(request: Request) -> Response:
        """Score each document against the query, best first; TEI's body gets TEI's answer."""
        body = parse(await request.body(), services.args.max_json_depth)
        if isinstance(body, dict) and "texts" in body and "documents" not in body:
            return await rerank_texts(services, request, body)
        version = VERSIONS[request.scope["route"].path]
        return await _rerank_documents(services, request, validated(body, RerankRequest), version)

    for path in VERSIONS:
        name = "rerank" + path.removesuffix("/rerank").removeprefix("/").upper()
        router.add_api_route(path, rerank, methods=["POST"], **_described(name))
    return router


async def _rerank_documents(
    services: Services, request: Request, body: RerankRequest, version: str
) -> Response:
    graph = services.graph_of(request)
    model = body.model
    if model is not None:
        model = await version_of(graph, model, "reranking", graph.reranking_models)
    await reserve_pairs(services, request, body.query, body.texts(), "documents")
    found = await graph.rerank(
        body.query, body.texts(), model=model, timeout_s=services.args.request_timeout_s
    )
    services.count_tokens(request, found.num_tokens)
    results: list[dict[str, Any]] = []
    for index in best_first(found.scores)[: body.top_n]:
        row: dict[str, Any] = {"index": index, "relevance_score": found.scores[index]}
        if body.return_documents:
            row["document"] = body.document(index)
        results.append(row)
    return json_response(
        {
            "id": derived_id("rerank", request.state.request_id),
            "model": body.model or default_of(graph.reranking_models),
            "results": results,
            "meta": {"api_version": {"version": version}, "billed_units": {"search_units": 1}},
            "usage": {"prompt_tokens": found.num_tokens, "total_tokens": found.num_tokens},
        }
    )


def _described(name: str) -> dict[str, Any]:
    described = describe(name, RerankRequest, Reranked, errors=(404, 422, 424, 429, 502))
    request = described["openapi_extra"]["requestBody"]["content"]
    request["application/json"]["schema"] = _any_of(RerankRequest, TeiRerankRequest)
    for status, response in described["responses"].items():
        failed = _any_of(ErrorResponse, TeiErrorResponse)
        response["content"] = {"application/json": {"schema": ROWS if status == 200 else failed}}
    return described


def _any_of(*models: type[BaseModel]) -> dict[str, Any]:
    return {"anyOf": [{"$ref": REF.format(model=one.__name__)} for one in models]}


ROWS = _any_of(Reranked)
ROWS["anyOf"].append({"type": "array", "items": _any_of(RerankedText)})
