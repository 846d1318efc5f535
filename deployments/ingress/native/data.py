"""`/v1/data/…`: documents in, chunks and vectors out."""

import asyncio
import dataclasses
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.formparsers import MultiPartException

from deployments.errors import InvalidRequest
from deployments.ingress.errors import error_object
from deployments.ingress.generation import too_late
from deployments.ingress.native.documents import DocumentReader, Failure, from_form
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.data import IndexRequest, SearchBody, VectorizeRequest
from deployments.ingress.schemas.responses import IndexResult, SearchResult, Vectorized
from deployments.ingress.services import Services, json_response
from deployments.types import EmbeddedText


def data_router(services: Services) -> APIRouter:
    """Return the routes that index, search and vectorize."""
    router = APIRouter(tags=["Data"])
    graph, timeout_s = services.graph, services.args.request_timeout_s
    reader = DocumentReader(services.extract, services.args)
    described = describe("index", IndexRequest, IndexResult, errors=(404, 409, 422, 502))

    @router.post("/v1/data/index", **described)
    async def index(request: Request) -> Response:
        """Store documents from text or files; those with a known id replace the stored ones.

        Also as `multipart/form-data` with the fields `collection` and `file` (once or more), and
        for a single file `id`, `title` and `metadata`. Each document that cannot be read is
        reported in `errors`; when none can, the status is that of the first error.
        """
        body = await _index_request(services, request)
        try:
            async with asyncio.timeout(timeout_s):
                intake = await reader.read(body)
        except TimeoutError:
            raise too_late() from None
        request_id = request.state.request_id
        errors = [_failure(failure, request_id) for failure in intake.failures]
        if not intake.documents:
            first = intake.failures[0].error
            content = {"error": error_object(first, request_id), "errors": errors}
            return json_response(content, first.status)
        stored = await graph.index(body.collection, intake.documents, timeout_s=timeout_s)
        return json_response({"collection": body.collection, "documents": stored, "errors": errors})

    @router.post(
        "/v1/data/search", **describe("search", SearchBody, SearchResult, errors=(404, 409, 502))
    )
    async def search(request: Request) -> Response:
        """Return matching chunks, best first."""
        body = await services.read(request, SearchBody)
        results = await graph.search(body.request(), timeout_s=timeout_s, is_reranked=body.rerank)
        return json_response({"collection": body.collection, "results": results})

    @router.post(
        "/v1/data/vectorize", **describe("vectorize", VectorizeRequest, Vectorized, errors=(502,))
    )
    async def vectorize(request: Request) -> Response:
        """Return each text's segments, with offsets in code points, and their vectors."""
        body = await services.read(request, VectorizeRequest)
        texts = await graph.vectorize(body.texts, timeout_s=timeout_s)
        total = sum(segment.num_tokens for text in texts for segment in text.segments)
        services.metrics.count_tokens(total)
        return json_response(
            {
                "model": graph.embedding_models[0],
                "dim": texts[0].vectors.shape[1],
                "data": [{"index": i, "segments": _segments(text)} for i, text in enumerate(texts)],
                "usage": {"total_tokens": total},
            }
        )

    return router


async def _index_request(services: Services, request: Request) -> IndexRequest:
    content_type = request.headers.get("content-type", "")
    if not content_type.startswith("multipart/form-data"):
        return await services.read(request, IndexRequest)
    if "charset" in content_type.lower():
        raise InvalidRequest("a form's text is UTF-8; send no charset")
    max_files = services.args.max_documents_per_call
    try:
        async with request.form(
            max_files=max_files, max_fields=16, max_part_size=1024 * 1024
        ) as form:
            return await from_form(form, services.args.max_json_depth)
    except MultiPartException:
        raise InvalidRequest("the form could not be read") from None


def _failure(failure: Failure, request_id: str) -> dict[str, Any]:
    error = error_object(failure.error, request_id)
    return {"id": failure.id, "filename": failure.filename, "error": error}


def _segments(text: EmbeddedText) -> list[dict[str, Any]]:
    return [
        {**dataclasses.asdict(segment), "vector": vector}
        for segment, vector in zip(text.segments, text.vectors, strict=True)
    ]
