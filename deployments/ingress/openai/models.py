"""`GET /v1/models`: what can be asked. Every collection is a model, too."""

import time
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from deployments.errors import CollectionNotFound
from deployments.ingress.access import guarded
from deployments.ingress.generation import RAG_PREFIX, target_of, unknown_model
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.generated import Model, ModelList
from deployments.ingress.services import Services, json_response
from deployments.ingress.tenant_graph import TenantGraph
from deployments.types import CollectionInfo

OWNER = "ragserve"


def models_router(services: Services) -> APIRouter:
    """Return the model routes."""
    router = guarded(tags=["OpenAI"])
    loaded_at = int(time.time())
    timeout_s = services.args.request_timeout_s

    def loaded(graph: TenantGraph) -> list[dict[str, Any]]:
        ids = dict.fromkeys(
            [*graph.generation_models, *graph.embedding_models, *graph.reranking_models]
        )
        return [_model(one, loaded_at) for one in ids]

    @router.get("/v1/models", **describe("listModels", None, ModelList))
    async def list_models(request: Request) -> Response:
        """List the models that generate, embed and rerank, and `rag/<collection>` for each."""
        graph = services.graph_of(request)
        collections = await graph.collections(timeout_s=timeout_s)
        data = [*loaded(graph), *map(_collection_model, collections)]
        return json_response({"object": "list", "data": data, "has_more": False})

    @router.get("/v1/models/{model:path}", **describe("retrieveModel", None, Model, errors=(404,)))
    async def retrieve_model(request: Request, model: str) -> Response:
        """Return one model; ids may hold slashes."""
        graph = services.graph_of(request)
        for one in loaded(graph):
            if one["id"] == model:
                return json_response(one)
        target = target_of(graph, model, None)
        if target.retrieval is None:
            raise unknown_model()
        try:
            info = await graph.collection(target.retrieval.collection, timeout_s=timeout_s)
        except CollectionNotFound:
            raise unknown_model() from None
        return json_response(_collection_model(info))

    return router


def _collection_model(info: CollectionInfo) -> dict[str, Any]:
    created = int(datetime.fromisoformat(info.created_at).timestamp())
    return _model(f"{RAG_PREFIX}{info.name}", created)


def _model(model_id: str, created: int) -> dict[str, Any]:
    return {"id": model_id, "object": "model", "created": created, "owned_by": OWNER}
