"""`/v1/data/documents`: the documents of a collection as they are stored."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator

from deployments.ingress.access import guarded
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.base import COLLECTION_PATTERN, no_nul
from deployments.ingress.schemas.data import DocumentId
from deployments.ingress.schemas.stored import Deleted, DocumentList, StoredDocument
from deployments.ingress.services import Services, json_response

CollectionQuery = Annotated[str, Query(pattern=COLLECTION_PATTERN)]
Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[
    str, Query(max_length=256, description="id of the last one seen"), AfterValidator(no_nul)
]

PATH = "/v1/data/documents"


def documents_router(services: Services) -> APIRouter:
    """Return the routes that list, show and delete documents."""
    router = guarded(tags=["Documents"])
    timeout_s = services.args.request_timeout_s

    @router.get(PATH, **describe("listDocuments", None, DocumentList, errors=(404,)))
    async def list_documents(
        request: Request, collection: CollectionQuery, limit: Limit = 100, after: After = ""
    ) -> Response:
        """List the documents of a collection by id, without their texts."""
        found = await services.graph_of(request).documents(
            collection, limit=limit + 1, after=after, timeout_s=timeout_s
        )
        page = {"object": "list", "data": found[:limit], "has_more": len(found) > limit}
        return json_response(page)

    path = f"{PATH}/{{document_id:path}}"

    @router.get(path, **describe("getDocument", None, StoredDocument, errors=(404,)))
    async def get_document(
        request: Request, document_id: DocumentId, collection: CollectionQuery
    ) -> Response:
        """Return a document as it is stored, with its text."""
        graph = services.graph_of(request)
        stored = await graph.document(collection, document_id, timeout_s=timeout_s)
        document = stored.document
        return json_response(
            {
                "id": document.id,
                "collection": collection,
                "title": document.title,
                "text": document.text,
                "metadata": document.metadata,
                "subject": document.subject,
                "num_chunks": stored.num_chunks,
                "created_at": stored.created_at,
                "updated_at": stored.updated_at,
            }
        )

    @router.delete(path, **describe("deleteDocument", None, Deleted, errors=(404,)))
    async def delete_document(
        request: Request, document_id: DocumentId, collection: CollectionQuery
    ) -> Response:
        """Delete a document; the next search no longer finds it."""
        graph = services.graph_of(request)
        await graph.delete_document(collection, document_id, timeout_s=timeout_s)
        return json_response({"id": document_id, "deleted": True})

    return router
