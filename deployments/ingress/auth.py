"""Who is asking: the bearer key of a request, and what the ingress needs of the key store."""

import asyncio
from typing import Protocol

from deployments.errors import Unauthenticated
from deployments.ingress.asgi import Scope, header
from deployments.stores.keys import KeyStore
from deployments.types.access import Grants
from deployments.types.access import Scope as KeyScope

MAX_KEY_CHARS = 256


class NoBearer(Unauthenticated):
    """The request has no usable `Authorization` header."""


class Key(Protocol):
    """A verified key."""

    @property
    def id(self) -> str:
        """Return the public id of the key, safe to log."""
        ...

    @property
    def tenant(self) -> str:
        """Return whose collections the key covers."""
        ...

    @property
    def grants(self) -> Grants:
        """Return what it covers of the tenant's, from where, and how much."""
        ...

    def has(self, scope: KeyScope) -> bool:
        """Return whether it covers a scope."""
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


class ThreadedKeys:
    """A `KeyVerifier` over the key store: what it recalls is free, the rest is read on a thread."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    async def verify(self, bearer: str) -> Key:
        """Return the key behind a bearer token, or raise Unauthenticated."""
        recalled = self._store.recall(bearer)
        if recalled is not None:
            return recalled
        return await asyncio.to_thread(self._store.verify, bearer)


def bearer_of(scope: Scope) -> str:
    """Return the bearer token of a request.

    Raises:
        NoBearer: there is no usable `Authorization` header.
    """
    scheme, _, token = header(scope, b"authorization").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > MAX_KEY_CHARS:
        raise NoBearer("send your key in the header `Authorization: Bearer <key>`")
    return token
