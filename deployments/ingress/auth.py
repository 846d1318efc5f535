"""Who is asking: the bearer key of a request, and what the ingress needs of the key store."""

import asyncio
from typing import Protocol

from deployments.errors import Unauthenticated
from deployments.ingress.asgi import Scope, header

MAX_KEY_CHARS = 256


class Key(Protocol):
    """A verified key."""

    @property
    def id(self) -> str:
        """Return the public id of the key, safe to log."""
        ...


class KeyVerifier(Protocol):
    """Checks bearer keys."""

    async def verify(self, bearer: str) -> Key:
        """Return the key behind a bearer token.

        Raises:
            Unauthenticated: the key is unknown, revoked or expired.
            StoreUnavailable: the key could not be looked up.
        """
        ...


class KeyStore(Protocol):
    """What ``stores/keys.py`` offers: the same check, blocking."""

    def verify(self, bearer: str) -> Key:
        """Return the key behind a bearer token, or raise Unauthenticated."""
        ...


class ThreadedKeys:
    """A `KeyVerifier` that asks a blocking store on a thread, so that the event loop goes on."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    async def verify(self, bearer: str) -> Key:
        """Return the key behind a bearer token, or raise Unauthenticated."""
        return await asyncio.to_thread(self._store.verify, bearer)


def bearer_of(scope: Scope) -> str:
    """Return the bearer token of a request.

    Raises:
        Unauthenticated: there is no usable `Authorization` header.
    """
    scheme, _, token = header(scope, b"authorization").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > MAX_KEY_CHARS:
        raise Unauthenticated("send your key in the header `Authorization: Bearer <key>`")
    return token
