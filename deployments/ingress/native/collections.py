"""`/v1/data/collections` and `/v1/data/documents`: what is stored."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from deployments.ingress.openapi import describe
from deployments.ingress.schemas.base import COLLECTION_PATTERN
from deployments.ingress.schemas.data import CreateCollection, DocumentId
from deployments.ingress.schemas.responses import (
    Collection,
    CollectionList,
    Deleted,
    StoredDocument,
)
from deployments.ingress.services import Services, json_response

Name = Annotated[str, Path(pattern=COLLECTION_PATTERN)]
CollectionQuery = Annotated[str, Query(pattern=COLLECTION_PATTERN)]
Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[str, Query(max_length=64, description="name of the last one seen")]


def collections_router(services: Services) -> APIRouter:
    """Return the routes that create, show and delete collections."""
    router = APIRouter(tags=["Collections"])
    graph, timeout_s = services.graph, services.args.request_timeout_s
    described = describe(
        "createCollection", CreateCollection, Collection, errors=(409,), status=201
    )

    @router.get("/v1/data/collections", **describe("listCollections", None, CollectionList))
    async def list_collections(limit: Limit = 100, after: After = "") -> Response:
        """List collections by name."""
        found = await graph.collections(timeout_s=timeout_s)
        rest = [info for info in found if info.name > after]
        page = {"object": "list", "data": rest[:limit], "has_more": len(rest) > limit}
        return json_response(page)

    @router.post("/v1/data/collections", **described)
    async def create_collection(request: Request) -> Response:
        """Create a collection."""
        body = await services.read(request, CreateCollection)
        info = await graph.create_collection(body.name, body.description, timeout_s=timeout_s)
        return json_response(info, 201)

    @router.get(
        "/v1/data/collections/{name}",
        **describe("getCollection", None, Collection, errors=(404,)),
    )
    async def get_collection(name: Name) -> Response:
        """Return a collection."""
        return json_response(await graph.collection(name, timeout_s=timeout_s))

    @router.delete(
        "/v1/data/collections/{name}",
        **describe("deleteCollection", None, Deleted, errors=(404,)),
    )
    async def delete_collection(name: Name) -> Response:
        """Delete a collection with all its documents."""
        await graph.delete_collection(name, timeout_s=timeout_s)
        return json_response({"id": name, "deleted": True})

    return router


def documents_router(services: Services) -> APIRouter:
    """Return the routes that show and delete a document."""
    router = APIRouter(tags=["Documents"])
    graph, timeout_s = services.graph, services.args.request_timeout_s
    path = "/v1/data/documents/{document_id:path}"

    @router.get(path, **describe("getDocument", None, StoredDocument, errors=(404,)))
    async def get_document(document_id: DocumentId, collection: CollectionQuery) -> Response:
        """Return a document as it is stored, with its text."""
        stored = await graph.document(collection, document_id, timeout_s=timeout_s)
        document = stored.document
        return json_response(
            {
                "id": document.id,
                "collection": collection,
                "title": document.title,
                "text": document.text,
                "metadata": document.metadata,
                "num_chunks": stored.num_chunks,
                "created_at": stored.created_at,
                "updated_at": stored.updated_at,
            }
        )

    @router.delete(path, **describe("deleteDocument", None, Deleted, errors=(404,)))
    async def delete_document(document_id: DocumentId, collection: CollectionQuery) -> Response:
        """Delete a document; the next search no longer finds it."""
        await graph.delete_document(collection, document_id, timeout_s=timeout_s)
        return json_response({"id": document_id, "deleted": True})

    return router
