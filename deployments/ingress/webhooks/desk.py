"""What the routes need of webhooks."""

from dataclasses import dataclass

from deployments.ingress.webhooks.signing import Signer
from deployments.stores.webhooks import WebhookStore


@dataclass(frozen=True, slots=True)
class WebhookDesk:
    """The log of deliveries, and what signs them."""

    store: WebhookStore
    signer: Signer
