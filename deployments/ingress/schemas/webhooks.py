"""Webhooks as the API shows them."""

from typing import Literal

from pydantic import BaseModel

from deployments.stores.ids import microseconds, utc_of
from deployments.types.webhooks import Delivery, DeliveryStatus


class WebhookSecret(BaseModel):
    """What signatures are verified with, as any library of Standard Webhooks takes it."""

    object: Literal["webhook.secret"]
    secret: str


class WebhookDelivery(BaseModel):
    """One message, and how it fares; `error` says in one word why it was not heard last."""

    id: str
    object: Literal["webhook.delivery"]
    type: str
    task_id: str
    url: str
    status: DeliveryStatus
    attempts: int
    http_status: int | None
    error: str | None
    created_at: str
    next_attempt_at: str | None
    completed_at: str | None


class WebhookDeliveryList(BaseModel):
    """A page of deliveries, the newest first."""

    object: Literal["list"]
    data: list[WebhookDelivery]
    has_more: bool


def delivery_of(delivery: Delivery) -> WebhookDelivery:
    """Return a delivery as the API shows it."""
    return WebhookDelivery(
        id=delivery.id,
        object="webhook.delivery",
        type=delivery.event,
        task_id=delivery.subject,
        url=delivery.url,
        status=delivery.status,
        attempts=delivery.num_attempts,
        http_status=delivery.http_status,
        error=delivery.error or None,
        created_at=_time(delivery.created_at) or "",
        next_attempt_at=_time(delivery.next_at) if delivery.status == "PENDING" else None,
        completed_at=_time(delivery.ended_at),
    )


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else utc_of(microseconds(seconds))
