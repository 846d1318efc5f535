"""Webhooks: the secret that their signatures are verified with, and the log of deliveries."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from deployments.ingress.access import guarded
from deployments.ingress.auth import Key
from deployments.ingress.entry import touch
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.webhooks import (
    WebhookDelivery,
    WebhookDeliveryList,
    WebhookSecret,
    delivery_of,
)
from deployments.ingress.services import Services, json_response

DeliveryId = Annotated[str, Path(pattern=r"^whd_[0-9a-f]{32}$")]
OfTask = Annotated[str, Query(pattern=r"^(task_[0-9a-f]{32})?$", description="that it tells of")]
After = Annotated[
    str, Query(pattern=r"^(whd_[0-9a-f]{32})?$", description="id of the last one seen")
]
Limit = Annotated[int, Query(ge=1, le=1000)]


def webhooks_router(services: Services) -> APIRouter:
    """Return the routes of webhooks."""
    router = guarded(tags=["Tasks"])

    @router.get("/v1/webhooks/secret", **describe("getWebhookSecret", None, WebhookSecret))
    async def get_secret(request: Request) -> Response:
        """Return what the signatures of this tenant's webhooks are verified with.

        They follow Standard Webhooks: `webhook-signature` is `v1,` and the HMAC-SHA256 of
        `webhook-id`, `webhook-timestamp` and the body, joined by dots.
        """
        key: Key = request.state.key
        secret = services.webhooks.signer.secret(key.tenant)
        return json_response({"object": "webhook.secret", "secret": secret})

    described = describe("listWebhookDeliveries", None, WebhookDeliveryList)

    @router.get("/v1/webhooks/deliveries", **described)
    async def list_deliveries(
        request: Request, task_id: OfTask = "", limit: Limit = 20, after: After = ""
    ) -> Response:
        """List what was delivered, or is to be, the newest first."""
        key: Key = request.state.key
        found = await asyncio.to_thread(
            services.webhooks.store.find,
            key.tenant,
            limit=limit + 1,
            before=after,
            subject=task_id,
            key_id=_own_of(key),
        )
        page = [delivery_of(one).model_dump() for one in found[:limit]]
        return json_response({"object": "list", "data": page, "has_more": len(found) > limit})

    described = describe("redeliverWebhook", None, WebhookDelivery, errors=(404, 409), status=202)

    @router.post("/v1/webhooks/deliveries/{delivery_id}/redeliver", **described)
    async def redeliver(request: Request, delivery_id: DeliveryId) -> Response:
        """Deliver once more what has been delivered, or was given up; the same message again."""
        key: Key = request.state.key
        touch("webhook", delivery_id)
        store = services.webhooks.store
        found = await asyncio.to_thread(store.redeliver, key.tenant, delivery_id, _own_of(key))
        return json_response(delivery_of(found).model_dump(), 202)

    return router


def _own_of(key: Key) -> str | None:
    """Return whose tasks a key sees: its own, where it is held to some models or collections."""
    is_held = key.grants.models is not None or key.grants.collections is not None
    return key.id if is_held else None
