"""Pages of the cache are found again by tokens and adapter, not by tokens alone.

The keys and values of the same tokens differ from one adapter to the next. The library finds pages
by a chain of hashes, each of a page's tokens and the hash before; here the chain of a request with
an adapter begins with the adapter's number. The number is part of the request's id, so that nothing
that happens to a request on its way can part the two.
"""

from contextvars import ContextVar
from typing import Any

from transformers.generation.continuous_batching.cache_allocators import cache_allocator

SEPARATOR = "/"

_first: ContextVar[int | None] = ContextVar("first", default=None)
"""What stands before the first page's hash in the chain that is computed now."""

_library_hash = cache_allocator.compute_block_hash


def slot_name(number: int, adapter: int | None) -> str:
    """Return the library's id of a request, with an adapter's number or without."""
    return f"slot-{number}" if adapter is None else f"slot-{number}{SEPARATOR}{adapter}"


def adapter_of(slot: str) -> int | None:
    """Return the number of a request's adapter."""
    _, _, number = slot.partition(SEPARATOR)
    return int(number) if number else None


def keep_apart(cache: Any) -> None:
    """Have a cache of the library find pages by adapter, too."""
    search, mark = cache.search_prefix_match, cache.mark_complete_blocks

    def search_prefix_match(request_id: str, prompt_ids: list[int]) -> int:
        token = _first.set(adapter_of(request_id))
        try:
            return int(search(request_id, prompt_ids))
        finally:
            _first.reset(token)

    def mark_complete_blocks(state: Any, complete_blocks: dict[str, int]) -> None:
        token = _first.set(adapter_of(state.request_id))
        try:
            mark(state, complete_blocks)
        finally:
            _first.reset(token)

    cache.search_prefix_match = search_prefix_match
    cache.mark_complete_blocks = mark_complete_blocks


def _hash(parent_hash: int | None, tokens: list[int]) -> int:
    return _library_hash(_first.get() if parent_hash is None else parent_hash, tokens)


cache_allocator.compute_block_hash = _hash
