"""Answers in Redis, which all ingress replicas share.

Redis may write what it holds to its disk, so values are sealed: without the installation's pepper
they say nothing, and whoever can write to Redis cannot make one up.
"""

import hashlib
import logging
import os
import time
from pathlib import Path
from typing import cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from redis import RedisError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from deployments.errors import StoreUnavailable
from deployments.stores.pepper import pepper

CLEAR_TIMEOUT_S = 5.0
REST_S = 1.0
"""For how long Redis is not asked after it did not answer."""

WARN_PERIOD_S = 60.0
MAX_CONNECTIONS = 32
NONCE_BYTES = 12
BATCH = 500

log = logging.getLogger(__name__)


class RedisResponses:
    """A `ResponseStore` in Redis; while that is away, nothing is kept."""

    def __init__(self, url: str, state_path: Path, *, timeout_s: float) -> None:
        """Connect to nothing yet.

        Raises:
            ValueError: the URL is none of Redis.
            RagError: the installation's pepper is damaged.
        """
        secret = pepper(state_path)
        self._prefix = f"ragserve:answers:{_derived(secret, b'cachename').hex()[:16]}:"
        self._sealing = AESGCM(_derived(secret, b"cachevalue"))
        self._redis = _client(url, timeout_s)
        self._clearing = _client(url, CLEAR_TIMEOUT_S)
        self._rests_until = 0.0
        self._warned_at = float("-inf")

    async def get(self, key: str) -> bytes | None:
        """Return what is kept; what was changed outside counts as nothing."""
        if time.monotonic() < self._rests_until:
            return None
        try:
            sealed = cast("bytes | None", await self._redis.get(self._prefix + key))
        except (RedisError, OSError) as error:
            self._rest(error)
            return None
        if sealed is None:
            return None
        try:
            return self._sealing.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], key.encode())
        except (InvalidTag, ValueError):
            return None

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep a value."""
        if time.monotonic() < self._rests_until:
            return
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._sealing.encrypt(nonce, value, key.encode())
        try:
            await self._redis.set(self._prefix + key, sealed, px=max(1, round(ttl_s * 1000)))
        except (RedisError, OSError) as error:
            self._rest(error)

    async def clear(self) -> None:
        """Remove every answer of the installation; raises StoreUnavailable."""
        names: list[bytes] = []
        try:
            async for name in self._clearing.scan_iter(match=self._prefix + "*", count=BATCH):
                names.append(name)
                if len(names) == BATCH:
                    await self._clearing.unlink(*names)
                    names.clear()
            if names:
                await self._clearing.unlink(*names)
        except (RedisError, OSError):
            raise StoreUnavailable("Redis did not answer: answers may still be there") from None

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
        await self._clearing.aclose()

    def _rest(self, error: Exception) -> None:
        now = time.monotonic()
        self._rests_until = now + REST_S
        if now - self._warned_at > WARN_PERIOD_S:
            self._warned_at = now
            log.warning("Redis keeps no answers now: %s", type(error).__name__)


def _client(url: str, timeout_s: float) -> "Redis":
    return Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        max_connections=MAX_CONNECTIONS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )


def _derived(secret: bytes, person: bytes) -> bytes:
    return hashlib.blake2b(key=secret, digest_size=32, person=person).digest()
