"""Whether this process is the one, of all ingresses, that makes the registry true."""

import asyncio
import time

from deployments.stores.leases import Lease

LEASE_S = 10.0
RENEW_S = 3.0


class Tenure:
    """A lease that is asked for, or renewed, every few seconds."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._is_held = False
        self._asked_at = float("-inf")

    async def begins(self) -> bool:
        """Return whether this process holds the lease and did not when it was last asked."""
        was_held = self._is_held
        return await self.holds() and not was_held

    async def holds(self) -> bool:
        """Return whether the lease is ours; raises StoreUnavailable."""
        now = time.monotonic()
        if now - self._asked_at >= RENEW_S:
            self._is_held = await asyncio.to_thread(self._lease.hold)
            self._asked_at = now
        return self._is_held
