"""`/v1/batches`: files of requests, done when there is room, within a day."""

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request, Response

from deployments.config import Interface
from deployments.errors import Forbidden
from deployments.ingress.entry import touch, touching
from deployments.ingress.openai.pages import page_of
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.batch_states import BatchObject, BatchPage, batch_object
from deployments.ingress.schemas.batches import CreateBatch
from deployments.ingress.services import Services, json_response
from deployments.stores.content import invalid
from deployments.types.batches import BatchEndpoint, BatchOrder

PATH = "/v1/batches"
BATCH_ID = "batch_[0-9a-f]{32}"
WINDOW_S = 86_400.0

SERVED_BY: Final[dict[BatchEndpoint, Interface]] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/inference": "inference",
    "/v1/rerank": "rerank",
}

BatchId = Annotated[str, Path(pattern=f"^{BATCH_ID}$")]
After = Annotated[str, Query(pattern=f"^({BATCH_ID})?$", description="id of the last one seen")]
Limit = Annotated[int, Query(ge=1, le=100)]


def add_batches(router: APIRouter, services: Services) -> None:
    """Add the routes of batches to a router."""
    _add_create(router, services)

    @router.get(PATH, **describe("listBatches", None, BatchPage))
    async def list_batches(request: Request, limit: Limit = 20, after: After = "") -> Response:
        """List batches, the newest first."""
        tenant, batches = request.state.key.tenant, services.batches.batches
        found = await asyncio.to_thread(batches.find, tenant, limit=limit + 1, before=after)
        return page_of([batch_object(one).model_dump() for one in found], limit)

    @router.get(f"{PATH}/{{batch_id}}", **describe("getBatch", None, BatchObject, errors=(404,)))
    async def get_batch(request: Request, batch_id: BatchId) -> Response:
        """Return how far a batch is, and what its files are."""
        with touching("batch", batch_id):
            tenant, batches = request.state.key.tenant, services.batches.batches
            batch = await asyncio.to_thread(batches.get, tenant, batch_id)
        return json_response(batch_object(batch).model_dump())

    @router.post(
        f"{PATH}/{{batch_id}}/cancel",
        **describe("cancelBatch", None, BatchObject, errors=(404,)),
    )
    async def cancel_batch(request: Request, batch_id: BatchId) -> Response:
        """Have a batch end; what is answered by then is in its files. One that ended stays."""
        with touching("batch", batch_id):
            tenant, batches = request.state.key.tenant, services.batches.batches
            batch = await asyncio.to_thread(batches.cancel, tenant, batch_id)
        return json_response(batch_object(batch).model_dump())


def _add_create(router: APIRouter, services: Services) -> None:
    @router.post(PATH, **describe("createBatch", CreateBatch, BatchObject, errors=(404,)))
    async def create_batch(request: Request) -> Response:
        """Have every line of a file done by a route, at a lower priority than other requests.

        The file is checked whole before a line is asked: a batch whose file is not sound is
        `failed`, and `errors` names the lines. The key needs the scope `inference`, too.
        """
        body = await services.read(request, CreateBatch)
        key, args = request.state.key, services.args
        if not key.has("inference"):
            error = Forbidden("the key does not have the scope `inference`")
            error.param = "scope"
            raise error
        if args.interfaces is not None and SERVED_BY[body.endpoint] not in args.interfaces:
            raise invalid("this installation does not serve that route", "endpoint")
        expiry = body.output_expires_after
        order = BatchOrder(
            tenant=key.tenant,
            key_id=key.id,
            endpoint=body.endpoint,
            input_file_id=body.input_file_id,
            metadata=body.metadata,
            window_s=WINDOW_S,
            output_kept_s=expiry.seconds if expiry else args.batches.kept_days * 86_400.0,
        )
        stores, max_under_way = services.batches, args.batches.max_under_way
        batch = await asyncio.to_thread(stores.batches.create, order, max_under_way)
        stores.tell()
        touch("batch", batch.id)
        return json_response(batch_object(batch).model_dump())
