"""`/v1/data/collections`: what a tenant's collections are, and how they are searched."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from deployments.ingress.access import guarded
from deployments.ingress.generation import default_of, version_of
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.base import COLLECTION_PATTERN
from deployments.ingress.schemas.collections import CreateCollection, UpdateCollection
from deployments.ingress.schemas.stored import Collection, CollectionList, CollectionState, Deleted
from deployments.ingress.services import Services, json_response
from deployments.types import CollectionInfo

Name = Annotated[str, Path(pattern=COLLECTION_PATTERN)]
Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[str, Query(max_length=64, description="name of the last one seen")]

PATH = "/v1/data/collections"


def collections_router(services: Services) -> APIRouter:
    """Return the routes that create, show, change and delete collections."""
    router = guarded(tags=["Collections"])
    timeout_s = services.args.request_timeout_s

    @router.get(PATH, **describe("listCollections", None, CollectionList))
    async def list_collections(request: Request, limit: Limit = 100, after: After = "") -> Response:
        """List collections by name."""
        found = await services.graph_of(request).collections(timeout_s=timeout_s)
        rest = [collection_of(info) for info in found if info.name > after]
        page = {"object": "list", "data": rest[:limit], "has_more": len(rest) > limit}
        return json_response(page)

    described = describe(
        "createCollection", CreateCollection, Collection, errors=(404, 409, 502), status=201
    )

    @router.post(PATH, **described)
    async def create_collection(request: Request) -> Response:
        """Create a collection."""
        body = await services.read(request, CreateCollection)
        graph = services.graph_of(request)
        model = body.model(default_of(graph.embedding_models))
        if model:
            known = graph.embedding_models
            model = await version_of(graph, model, "embedding", known, "embedding_model")
        dim = await graph.dim(model, timeout_s=timeout_s) if model else None
        settings = body.settings(model, dim)
        info = await graph.create_collection(body.name, settings, timeout_s=timeout_s)
        return json_response(collection_of(info), 201)

    @router.get(
        f"{PATH}/{{name}}", **describe("getCollection", None, CollectionState, errors=(404,))
    )
    async def get_collection(request: Request, name: Name) -> Response:
        """Return a collection with its settings.

        `index_stats` says how each replica that has it in memory holds its vectors now, and with
        which recall; it has no entry before the first search.
        """
        graph = services.graph_of(request)
        shown = collection_of(await graph.collection(name, timeout_s=timeout_s))
        stats = await graph.index_stats(name, timeout_s=timeout_s)
        return json_response({**shown, "index_stats": stats})

    described = describe("updateCollection", UpdateCollection, Collection, errors=(404,))

    @router.patch(f"{PATH}/{{name}}", **described)
    async def update_collection(request: Request, name: Name) -> Response:
        """Change the description, the index or the default metadata; the rest is fixed."""
        changes = (await services.read(request, UpdateCollection)).changes()
        graph = services.graph_of(request)
        info = await graph.update_collection(name, changes, timeout_s=timeout_s)
        return json_response(collection_of(info))

    @router.delete(f"{PATH}/{{name}}", **describe("deleteCollection", None, Deleted, errors=(404,)))
    async def delete_collection(request: Request, name: Name) -> Response:
        """Delete a collection with all its documents."""
        await services.graph_of(request).delete_collection(name, timeout_s=timeout_s)
        return json_response({"id": name, "deleted": True})

    return router


def collection_of(info: CollectionInfo) -> dict[str, Any]:
    """Return a collection as the API shows it."""
    return {
        "name": info.name,
        "description": info.description,
        "embedding_model": info.embedding_model or None,
        "dim": info.dim,
        "metric": info.metric,
        "index": info.index,
        "default_metadata": info.default_metadata,
        "num_documents": info.num_documents,
        "num_chunks": info.num_chunks,
        "sequence": info.sequence,
        "created_at": info.created_at,
    }
