"""`/v1/data/delete` and its receipts: what is erased is gone from every place."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from deployments.ingress.access import guarded
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.erasures import EraseRequest
from deployments.ingress.schemas.receipts import ErasureReceipt, receipt_of
from deployments.ingress.services import Services, json_response
from deployments.types import Erasure

ErasureId = Annotated[str, Path(pattern=r"^era_[0-9a-f]{32}$")]


def erasures_router(services: Services) -> APIRouter:
    """Return the routes that erase and that show receipts."""
    router = guarded(tags=["Erasure"])
    timeout_s = services.args.request_timeout_s
    described = describe("erase", EraseRequest, ErasureReceipt, errors=(404,), is_long=True)

    @router.post("/v1/data/delete", **described)
    async def erase(request: Request) -> Response:
        """Erase documents for good: from the database, every index and every snapshot.

        Searches no longer find them when this answers. `status` is `completed` when no byte of
        them is left in any of the `places`; with 202 and `running`, ask for the receipt again.
        Backups and exports are yours: restoring one does not bring erased documents back.
        """
        body = await services.read(request, EraseRequest)
        graph = services.graph_of(request)
        await services.second_factor.pass_(request)
        erasure = await graph.erase(body.scope(), wait_s=body.wait_s, timeout_s=timeout_s)
        return _receipt(erasure)

    @router.get(
        "/v1/data/erasures/{erasure_id}",
        **describe("getErasure", None, ErasureReceipt, errors=(404,), is_long=True),
    )
    async def get_erasure(request: Request, erasure_id: ErasureId) -> Response:
        """Return a receipt as it is now."""
        graph = services.graph_of(request)
        return _receipt(await graph.erasure(erasure_id, timeout_s=timeout_s))

    return router


def _receipt(erasure: Erasure) -> Response:
    status = 200 if erasure.completed_at else 202
    return json_response(receipt_of(erasure).model_dump(), status)
