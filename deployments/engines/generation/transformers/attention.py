"""Attention over the paged cache, one request at a time.

The library's own SDPA path multiplies the queries of a batch with the keys of every request in it
and masks all but a diagonal of blocks. Here each request sees its own keys only, read in place from
the cache's pages.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.generation.continuous_batching.requests import FutureRequestState

NAME = "ragserve_paged"


@dataclass(frozen=True, slots=True)
class Span:
    """Where one request's queries are in the batch, and its keys in the cache.

    `pages` are (first row, number of rows) in the cache's per-layer view, in order.
    """

    start: int
    end: int
    num_keys: int
    pages: tuple[tuple[int, int], ...]


batch: ContextVar[tuple[Span, ...]] = ContextVar("batch")


def plan(requests: Sequence[FutureRequestState], allocator: Any) -> tuple[Span, ...]:
    """Return the layout of a batch whose inputs the library has just prepared."""
    page = allocator.tokens_per_page
    stride = allocator.block_physical_stride
    sequences = []
    start = 0
    for request in requests:
        num_keys = request.state.position_offset
        blocks = allocator.block_table[request.state.request_id]
        pages = tuple(
            (block * stride, min(page, num_keys - i * page))
            for i, block in enumerate(blocks)
            if num_keys > i * page
        )
        end = start + request.query_length
        sequences.append(Span(start, end, num_keys, pages))
        start = end
    return tuple(sequences)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    cache: Any = None,
    write_index: Sequence[torch.Tensor] = (),
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Write the new keys and values to the cache and attend, request by request.

    Args:
        module: the model's attention layer.
        query: [1, num_heads, num_tokens, head_dim], the requests one after another.
        key: [1, num_kv_heads, num_tokens, head_dim].
        value: as `key`.
        attention_mask: always None, see `no_mask`.
        scaling: factor of the scores.
        cache: the library's `PagedAttentionCache`.
        write_index: the rows of the cache that the new keys and values go to.
        **kwargs: what else the library hands to an attention function.

    Returns:
        [1, num_tokens, num_heads, head_dim], and no attention weights.
    """
    allocator = cache.layer_to_allocator[module.layer_idx]
    keys, values = allocator._kv_token_views[module.layer_idx]
    rows = write_index[allocator.index]
    keys.index_copy_(0, rows, key[0].transpose(0, 1))
    values.index_copy_(0, rows, value[0].transpose(0, 1))
    out = torch.empty_like(query[0].transpose(0, 1))
    for sequence in batch.get():
        out[sequence.start : sequence.end] = _attend_one(query, keys, values, sequence, scaling)
    return out.unsqueeze(0), None


def _attend_one(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    sequence: Span,
    scaling: float | None,
) -> torch.Tensor:
    """Return [num_queries, num_heads, head_dim] of one request."""
    q = query[:, :, sequence.start : sequence.end]
    k = _read(keys, sequence.pages)
    v = _read(values, sequence.pages)
    num_queries = sequence.end - sequence.start
    if num_queries == 1:
        grouped = q.view(1, k.shape[1], -1, q.shape[-1])
        return scaled_dot_product_attention(grouped, k, v, scale=scaling).view(1, *q.shape[1::2])
    mask = None
    if num_queries < sequence.num_keys:
        mask = _causal(num_queries, sequence.num_keys, q.device)
    out = scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True
    )
    return out[0].transpose(0, 1)


def _read(view: torch.Tensor, pages: tuple[tuple[int, int], ...]) -> torch.Tensor:
    """Return [1, num_kv_heads, num_keys, head_dim]: a view of one page, a copy of several."""
    parts = [view[start : start + length] for start, length in pages]
    rows = parts[0] if len(parts) == 1 else torch.cat(parts)
    return rows.transpose(0, 1).unsqueeze(0)


def _causal(num_queries: int, num_keys: int, device: torch.device) -> torch.Tensor:
    """Return bool[num_queries, num_keys]: the queries are the last of the keys' positions."""
    full = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)
    return full.tril(num_keys - num_queries)


def no_mask(*args: Any, **kwargs: Any) -> None:
    """Return no mask: `attend` makes what it needs."""


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, no_mask)
