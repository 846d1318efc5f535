"""TEI's rerank: a bare array, best first, and errors in TEI's own form and statuses."""

import math
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from deployments.errors import (
    ContextTooLong,
    EngineFailed,
    InvalidRequest,
    Overloaded,
    PayloadTooLarge,
    RagError,
    RateLimited,
    StoreUnavailable,
)
from deployments.ingress.errors import RETRY_AFTER_S
from deployments.ingress.json_body import validated
from deployments.ingress.rerank.order import best_first
from deployments.ingress.schemas.rerank import TeiRerankRequest
from deployments.ingress.services import Services, json_response

ERRORS: tuple[tuple[type[RagError], int, str], ...] = (
    (PayloadTooLarge, 413, "Validation"),
    (ContextTooLong, 413, "Validation"),
    (InvalidRequest, 422, "Validation"),
    (Overloaded, 429, "Overloaded"),
    (RateLimited, 429, "Overloaded"),
    (StoreUnavailable, 503, "Unhealthy"),
    (EngineFailed, 424, "Backend"),
    (RagError, 424, "Backend"),
)
"""The first class that fits says which status and `error_type` a failure has."""

CLOSEST = 1e-12
"""Scores nearer to 0 or 1 than this have the logit of this, so that it is finite."""


async def rerank_texts(services: Services, request: Request, value: dict[str, Any]) -> Response:
    """Answer TEI's body."""
    try:
        return await _rows(services, request, validated(value, TeiRerankRequest))
    except RagError as error:
        return _failure(error)


async def _rows(services: Services, request: Request, body: TeiRerankRequest) -> Response:
    if not body.texts:
        return json_response({"error": "`texts` cannot be empty", "error_type": "Empty"}, 400)
    timeout_s = services.args.request_timeout_s
    graph = services.graph_of(request)
    await reserve_pairs(services, request, body.query, body.texts, "texts")
    found = await graph.rerank(body.query, body.texts, timeout_s=timeout_s)
    services.count_tokens(request, found.num_tokens)
    rows: list[dict[str, Any]] = []
    for index in best_first(found.scores):
        score = found.scores[index]
        row: dict[str, Any] = {"index": index, "score": logit(score) if body.raw_scores else score}
        if body.return_text:
            row["text"] = body.texts[index]
        rows.append(row)
    return json_response(rows)


async def reserve_pairs(
    services: Services, request: Request, query: str, texts: Sequence[str], param: str
) -> None:
    """Reserve what it costs to read a query beside each text; raises as `Services.reserve`."""
    await services.reserve(request, [*texts, *[query] * len(texts)], param=param)


def logit(score: float) -> float:
    """Return the number that a sigmoid turns into a score."""
    bounded = min(max(score, CLOSEST), 1 - CLOSEST)
    return math.log(bounded) - math.log1p(-bounded)


def _failure(error: RagError) -> Response:
    status, kind = next((code, kind) for one, code, kind in ERRORS if isinstance(error, one))
    response = json_response({"error": error.message, "error_type": kind}, status)
    if status in {429, 503}:
        response.headers["retry-after"] = str(error.retry_after_s or RETRY_AFTER_S)
    return response
