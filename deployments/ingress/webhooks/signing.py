"""How a webhook says that it is ours: the scheme of Standard Webhooks, symmetric.

Each tenant has a secret, computed from the installation's pepper: none is stored.

Source: https://github.com/standard-webhooks/standard-webhooks, "Signature scheme".
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping

PREFIX = "whsec_"
SECRET_BYTES = 32


class Signer:
    """Signs for every tenant."""

    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper

    def secret(self, tenant: str) -> str:
        """Return what a tenant verifies signatures with."""
        return PREFIX + base64.b64encode(self._key(tenant)).decode("ascii")

    def headers(self, tenant: str, id_: str, time_s: int, body: bytes) -> Mapping[str, str]:
        """Return the headers of a message.

        Args:
            tenant: who is told.
            id_: of the message: the same in every attempt.
            time_s: of this attempt, in seconds since 1970.
            body: of the message.
        """
        signed = b".".join((id_.encode("ascii"), str(time_s).encode("ascii"), body))
        digest = hmac.digest(self._key(tenant), signed, hashlib.sha256)
        return {
            "webhook-id": id_,
            "webhook-timestamp": str(time_s),
            "webhook-signature": "v1," + base64.b64encode(digest).decode("ascii"),
        }

    def _key(self, tenant: str) -> bytes:
        content = tenant.encode("utf-8")
        return hashlib.blake2b(
            content, key=self._pepper, digest_size=SECRET_BYTES, person=b"webhooks"
        ).digest()
