"""`POST /dify/retrieval`, and a probe that says what Dify would hide.

Dify is given the address `https://<host>/dify` and appends `/retrieval`. When the address is
registered it posts nothing at all, and takes every status but 403, 404 and 502 for a yes; the empty
body is a 400 here.

A record's score is its `rerank_score`: hybrid search finds candidates, and they are reranked, by
the configured model or by late fusion (``graphs/fusion.py``). Both are in [0, 1], and in the order
of the records.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from deployments.ingress.access import guarded
from deployments.ingress.dify.filters import filter_of
from deployments.ingress.openapi import describe, json_of
from deployments.ingress.schemas.compatible import DifyErrorResponse, DifyHealth, DifyRecords
from deployments.ingress.schemas.dify import DifyRetrieval
from deployments.ingress.services import Services, json_response
from deployments.types import ScoredChunk, SearchRequest

KnowledgeId = Annotated[str, Query(min_length=1, max_length=256, description="a collection")]
PROBE = "health"
ERRORS = (403, 404, 502)


def dify_router(services: Services) -> APIRouter:
    """Return the routes that a Dify installation, and its operator, call."""
    router = guarded(tags=["Dify"])

    @router.post("/dify/retrieval", **_described("difyRetrieval", DifyRetrieval, DifyRecords))
    async def retrieval(request: Request) -> Response:
        """Return the records of a collection (`knowledge_id`) that answer a query, best first."""
        body = await services.read(request, DifyRetrieval)
        chunks = await _found(services, request, body)
        return json_response({"records": [_record(chunk) for chunk in chunks]})

    @router.get("/dify/health", **_described("difyHealth", None, DifyHealth))
    async def health(request: Request, knowledge_id: KnowledgeId) -> Response:
        """Retrieve from a collection as Dify would, and say what came of it."""
        probe = DifyRetrieval(knowledge_id=knowledge_id, query=PROBE)
        chunks = await _found(services, request, probe)
        return json_response({"status": "ok", "num_records": len(chunks)})

    return router


async def _found(services: Services, request: Request, body: DifyRetrieval) -> list[ScoredChunk]:
    search = SearchRequest(
        collection=body.knowledge_id,
        query=body.query,
        top_k=body.top_k,
        filter=filter_of(body.metadata_condition),
    )
    timeout_s = services.args.request_timeout_s
    graph = services.graph_of(request)
    await services.reserve(request, [body.query], param="query")
    chunks = await graph.search(search, timeout_s=timeout_s, is_reranked=True)
    return [chunk for chunk in chunks if chunk.score >= body.score_threshold]


def _record(chunk: ScoredChunk) -> dict[str, Any]:
    """Return a chunk as a record; `metadata` is never null, and names the document."""
    place = {
        "document_id": chunk.document_id,
        "chunk_id": chunk.chunk_id,
        "start": chunk.start,
        "end": chunk.end,
    }
    return {
        "content": chunk.text,
        "score": min(max(chunk.score, 0.0), 1.0),
        "title": chunk.title or chunk.document_id,
        "metadata": {**chunk.metadata, **place},
    }


def _described(name: str, body: type[Any] | None, answer: type[Any]) -> dict[str, Any]:
    described = describe(name, body, answer, errors=ERRORS)
    del described["responses"][401]
    for status, response in described["responses"].items():
        if status != 200:
            response["content"] = json_of(DifyErrorResponse)
    return described
