"""`/v1/data/…`: documents in, chunks and vectors out."""

import asyncio
import dataclasses
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from deployments.engines.cleaning.child import clean_in_child
from deployments.engines.cleaning.options import Cleaned, Draft
from deployments.errors import RagError
from deployments.ingress.access import guarded
from deployments.ingress.errors import error_object
from deployments.ingress.generation import default_of, too_late, version_of
from deployments.ingress.native.documents import DocumentReader, Failure, from_form
from deployments.ingress.native.files import read_body
from deployments.ingress.native.tasks import accepted
from deployments.ingress.openapi import describe
from deployments.ingress.proto.messages import SearchResponse
from deployments.ingress.schemas.cleaning import CleaningOptions
from deployments.ingress.schemas.data import IndexRequest, VectorizeRequest
from deployments.ingress.schemas.responses import SearchResult, Vectorized
from deployments.ingress.schemas.search import SearchBody
from deployments.ingress.schemas.stored import IndexResult
from deployments.ingress.schemas.task_states import TaskInfo
from deployments.ingress.services import Services, json_response, response_of
from deployments.ingress.tasks.ordering import index_order
from deployments.types import EmbeddedText, ScoredChunk

Background = Annotated[
    bool | None, Query(description="whether it is done as a task; left out: where it is large")
]


def data_router(services: Services) -> APIRouter:
    """Return the routes that index, search and vectorize."""
    router = guarded(tags=["Data"])
    timeout_s = services.args.request_timeout_s
    limits = services.args.tasks
    reader = DocumentReader(services.extract, services.args)
    errors = (404, 409, 422, 502)
    described = describe("index", IndexRequest, IndexResult, errors=errors, later=TaskInfo)

    @router.post("/v1/data/index", **described)
    async def index(request: Request, background: Background = None) -> Response:
        """Store documents from text or files; those with a known id replace the stored ones.

        Also as `multipart/form-data` with the fields `collection`, `file` (once or more) and
        `clean` (JSON), and for a single file `id`, `title`, `metadata` and `subject`. Each document
        that cannot be read is reported in `errors`; when none can, the status is that of the first
        error. What is cleaned is stored clean: offsets are into that text. A document's metadata is
        stored with the collection's `default_metadata` where it does not say itself.

        A large body is accepted as a task (202), which says how many documents are done.
        """
        body = await read_body(services, request, IndexRequest, from_form)
        if _is_for_later(services, request, background):
            order = index_order(request.state.key, body.collection, body.to_json(), limits)
            return accepted(await services.tasks.submit(order))
        graph = services.graph_of(request)
        space = partial(graph.space, body.collection, timeout_s=timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                intake = await reader.read(body, space)
        except TimeoutError:
            raise too_late() from None
        request_id = request.state.request_id
        errors = [_failure(failure, request_id) for failure in intake.failures]
        if not intake.documents:
            first = intake.failures[0].error
            content = {"error": error_object(first, request_id), "errors": errors}
            return json_response(content, first.status)
        texts = (document.text for document in intake.documents)
        await services.reserve(request, texts, param="documents")
        stored = await graph.index(body.collection, intake.documents, timeout_s=timeout_s)
        answer = {"collection": body.collection, "documents": stored, "errors": errors}
        if intake.removed is not None:
            removed = intake.removed.items()
            answer["cleaned"] = [{"id": one, "removed": what} for one, what in removed]
        return json_response(answer)

    described = describe(
        "search", SearchBody, SearchResult, message="Search", errors=(404, 409, 502)
    )

    @router.post("/v1/data/search", **described)
    async def search(request: Request) -> Response:
        """Return matching chunks, best first.

        Pages of `top_k` follow each other by `offset`, and fit while the collection is unchanged;
        hybrid mode's end with the `candidates` that it fused.
        """
        body = await services.read(request, SearchBody)
        graph = services.graph_of(request)
        await services.reserve(request, [body.query or ""], param="query")
        chunks = await graph.search(body.request(), timeout_s=timeout_s, is_reranked=body.rerank)
        results = [result_of(chunk, body) for chunk in chunks]
        content = {"collection": body.collection, "results": results}
        return response_of(request, content, SearchResponse)

    @router.post(
        "/v1/data/vectorize",
        **describe("vectorize", VectorizeRequest, Vectorized, errors=(404, 502)),
    )
    async def vectorize(request: Request) -> Response:
        """Return each text's segments, with offsets in code points, and their vectors.

        With `clean`, the offsets are into the cleaned `text` that is returned.
        """
        body = await services.read(request, VectorizeRequest)
        graph = services.graph_of(request)
        model = default_of(graph.embedding_models) if body.model is None else body.model
        model = await version_of(graph, model, "embedding", graph.embedding_models)
        cleaned = body.texts
        if body.clean is not None:
            cleaned = await _clean(body.texts, body.clean, timeout_s)
        await services.reserve(request, cleaned, param="texts")
        texts = await graph.vectorize(
            cleaned, model=model, overlap_tokens=body.overlap, timeout_s=timeout_s
        )
        total = sum(segment.num_tokens for text in texts for segment in text.segments)
        services.count_tokens(request, total)
        return json_response(
            {
                "model": model,
                "dim": texts[0].vectors.shape[1],
                "data": [
                    {"index": i, "segments": _segments(text)}
                    | ({} if body.clean is None else {"text": cleaned[i]})
                    for i, text in enumerate(texts)
                ],
                "usage": {"total_tokens": total},
            }
        )

    return router


def _is_for_later(services: Services, request: Request, asked: bool | None) -> bool:
    """Return whether documents are indexed by a task: as was asked, or where they are many."""
    if getattr(request.state, "is_inner", False):
        return False
    if asked is not None or not services.has_tasks:
        return bool(asked)
    num_bytes: int = request.state.num_body_bytes
    return num_bytes >= services.args.tasks.large_index_bytes


async def _clean(texts: list[str], asked: CleaningOptions, timeout_s: float) -> list[str]:
    """Return the texts cleaned; raises the first one's error, named in `param`."""
    try:
        async with asyncio.timeout(timeout_s):
            results = await clean_in_child([Draft(text) for text in texts], asked.options())
    except TimeoutError:
        raise too_late() from None
    for position, result in enumerate(results):
        if isinstance(result, RagError):
            result.param = f"texts[{position}]"
            raise result
    return [result.text for result in results if isinstance(result, Cleaned)]


def result_of(chunk: ScoredChunk, body: SearchBody) -> dict[str, Any]:
    """Return a result of a search, with what was asked for and no more."""
    result = {field.name: getattr(chunk, field.name) for field in dataclasses.fields(chunk)}
    if not body.neighbors:
        del result["before"], result["after"]
    if not body.highlights:
        del result["highlights"]
    return result


def _failure(failure: Failure, request_id: str) -> dict[str, Any]:
    error = error_object(failure.error, request_id)
    return {"id": failure.id, "filename": failure.filename, "error": error}


def _segments(text: EmbeddedText) -> list[dict[str, Any]]:
    return [
        {**dataclasses.asdict(segment), "vector": vector}
        for segment, vector in zip(text.segments, text.vectors, strict=True)
    ]
