"""Who is asking: the bearer key of a request, and what the ingress needs of the key store."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from deployments.errors import Unauthenticated
from deployments.ingress.asgi import Scope, header
from deployments.stores.key_rows import Key as StoredKey
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
    def is_admin(self) -> bool:
        """Return whether it covers everything, of every tenant."""
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


class KeyAdmin(KeyVerifier, Protocol):
    """Also makes keys, shows them and lets them end; what each does, `KeyStore` says."""

    async def create(
        self, name: str, *, is_admin: bool, tenant: str, grants: Grants, expires_at: str | None
    ) -> tuple[StoredKey, str]:
        """Return a new key and its bearer."""
        ...

    async def page(self, tenant: str | None, *, limit: int, after: str) -> Sequence[StoredKey]:
        """Return keys, the oldest first."""
        ...

    async def get(self, key_id: str) -> StoredKey:
        """Return a key; raises NotFound."""
        ...

    async def rotate(self, key_id: str, *, overlap_s: float) -> tuple[StoredKey, str]:
        """Return the key that takes another's place, and its bearer."""
        ...

    async def revoke(self, key_id: str) -> StoredKey:
        """Revoke a key for good."""
        ...


class ThreadedKeys:
    """A `KeyAdmin` over the key store: what it recalls is free, the rest is done on a thread."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    async def verify(self, bearer: str) -> Key:
        """Return the key behind a bearer token, or raise Unauthenticated."""
        recalled = self._store.recall(bearer)
        if recalled is not None:
            return recalled
        return await asyncio.to_thread(self._store.verify, bearer)

    async def create(
        self, name: str, *, is_admin: bool, tenant: str, grants: Grants, expires_at: str | None
    ) -> tuple[StoredKey, str]:
        """Return a new key and its bearer."""
        return await asyncio.to_thread(
            self._store.create,
            name,
            is_admin=is_admin,
            tenant=tenant,
            grants=grants,
            expires_at=expires_at,
        )

    async def page(self, tenant: str | None, *, limit: int, after: str) -> Sequence[StoredKey]:
        """Return keys, the oldest first."""
        return await asyncio.to_thread(self._store.page, tenant, limit=limit, after=after)

    async def get(self, key_id: str) -> StoredKey:
        """Return a key."""
        return await asyncio.to_thread(self._store.get, key_id)

    async def rotate(self, key_id: str, *, overlap_s: float) -> tuple[StoredKey, str]:
        """Return the key that takes another's place, and its bearer."""
        return await asyncio.to_thread(self._store.rotate, key_id, overlap_s=overlap_s)

    async def revoke(self, key_id: str) -> StoredKey:
        """Revoke a key for good."""
        return await asyncio.to_thread(self._store.revoke, key_id)


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
