"""Who comes with bad keys: each time slower, then not heard at all for a while.

Keys of 256 bits are not guessed. This keeps guessing from costing us anything. A key that has
worked from an address goes on to work there, whatever its neighbours try. Counts are this
process's own.
"""

import asyncio
import hashlib
import ipaddress
import math
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from deployments.errors import RateLimited, Unauthenticated
from deployments.ingress.auth import Key, KeyVerifier
from deployments.ingress.peer import Address

WINDOW_S = 60.0
SLOW_AFTER, BLOCKED_AFTER = 3, 10
"""Bad keys within the window."""

DELAY_S = 0.25
MAX_WAITING = 128
MAX_ADDRESSES = 10_000
MAX_KNOWN = 64
SITE_BITS = 64
"""Of an IPv6 address, what one customer of a provider has at least."""


@dataclass(slots=True)
class _Stranger:
    began_at: float
    num_bad: int = 0
    known: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    """Digests of the keys that worked from here last."""


class Strangers:
    """A `KeyVerifier` per address."""

    def __init__(self, keys: KeyVerifier) -> None:
        self._keys = keys
        self._seen: OrderedDict[int, _Stranger] = OrderedDict()
        self._num_waiting = 0

    async def verify(self, bearer: str, address: Address) -> Key:
        """Return the key behind a bearer.

        Raises:
            Unauthenticated: it is none that works.
            RateLimited: too many bad ones came from the address.
            StoreUnavailable: the key could not be looked up.
        """
        now = time.monotonic()
        stranger = self._stranger(_site(address), now)
        digest = _digest(bearer)
        if stranger.num_bad >= BLOCKED_AFTER and digest not in stranger.known:
            raise self._blocked(stranger, now)
        try:
            key = await self._keys.verify(bearer)
        except Unauthenticated:
            stranger.num_bad += 1
            stranger.known.pop(digest, None)
            await self._slow(stranger.num_bad)
            raise
        stranger.known[digest] = None
        stranger.known.move_to_end(digest)
        if len(stranger.known) > MAX_KNOWN:
            stranger.known.popitem(last=False)
        return key

    def _blocked(self, stranger: _Stranger, now: float) -> RateLimited:
        error = RateLimited("too many bad keys came from your address; try again later")
        error.retry_after_s = max(1, math.ceil(stranger.began_at + WINDOW_S - now))
        return error

    def _stranger(self, site: int, now: float) -> _Stranger:
        stranger = self._seen.setdefault(site, _Stranger(now))
        self._seen.move_to_end(site)
        if len(self._seen) > MAX_ADDRESSES:
            self._seen.popitem(last=False)
        if now - stranger.began_at >= WINDOW_S:
            stranger.began_at, stranger.num_bad = now, 0
        return stranger

    async def _slow(self, num_bad: int) -> None:
        """Let the answer wait, as long as not too many wait already."""
        if num_bad <= SLOW_AFTER or self._num_waiting >= MAX_WAITING:
            return
        self._num_waiting += 1
        try:
            await asyncio.sleep(DELAY_S * (num_bad - SLOW_AFTER))
        finally:
            self._num_waiting -= 1


def _digest(bearer: str) -> bytes:
    return hashlib.blake2b(bearer.encode("latin-1"), digest_size=16).digest()


def _site(address: Address) -> int:
    """Return a number for the address, of IPv6 for its network."""
    if isinstance(address, ipaddress.IPv6Address):
        return int(address) >> (128 - SITE_BITS)
    return -1 - int(address)
