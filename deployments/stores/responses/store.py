"""What a store of answers does. What is kept may be gone at any time, and is never wrong."""

from typing import Protocol


class ResponseStore(Protocol):
    """Keeps bytes by a key for some seconds."""

    async def get(self, key: str) -> bytes | None:
        """Return what is kept, or None; never raises: without an answer nothing is kept."""
        ...

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep a value, if there is room; never raises."""
        ...

    async def clear(self) -> None:
        """Remove everything of the installation.

        Raises:
            StoreUnavailable: it may still be there.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
