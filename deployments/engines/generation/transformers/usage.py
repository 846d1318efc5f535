"""How full the library's paged cache is with what requests need."""

from typing import Any


def cache_usage(cache: Any) -> float:
    """Return the share of the cache that requests hold, 0 to 1.

    Pages of ended requests, which the library keeps for prompts that begin alike and gives up when
    room is short, do not count: they are no reason for another replica, nor to keep this one.
    """
    size: int = cache.num_sectors * cache.bytes_per_sector
    kept: int = sum(
        len(allocator.ledger.cached_blocks) * allocator.bytes_per_block
        for allocator in cache.cache_allocators.values()
    )
    held: int = size - int(cache.compute_free_capacity(relative=False)) - kept
    return min(max(held / size, 0.0), 1.0)
