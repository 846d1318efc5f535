"""Attention over the paged cache that reads each request's own keys and no others.

The library's own SDPA path multiplies the queries of a batch with the keys of every request in it
and masks all but a diagonal of blocks. Here keys are read in place from the cache's pages, and
requests that decode share a call where their pages allow it.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from deployments.engines.generation.transformers.layout import Layout, Run, Span, mask_of, padded

NAME = "ragserve_paged"

batch: ContextVar[Layout] = ContextVar("batch")
"""The batch that the generation thread computes now."""


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
    """Write the new keys and values to the cache and attend.

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
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise NotImplementedError("this model's attention has soft caps or sinks")
    allocator = cache.layer_to_allocator[module.layer_idx]
    keys, values = allocator._kv_token_views[module.layer_idx]
    rows = write_index[allocator.index]
    keys.index_copy_(0, rows, key[0].transpose(0, 1))
    values.index_copy_(0, rows, value[0].transpose(0, 1))
    layout = batch.get()
    queries = query[0].transpose(0, 1)
    if len(layout.runs) == 1 and not layout.spans and isinstance(layout.runs[0].rows, slice):
        return _attend_run(queries, keys, values, layout.runs[0], scaling).unsqueeze(0), None
    out = queries.new_empty(queries.shape)
    for run in layout.runs:
        out[run.rows] = _attend_run(queries[run.rows], keys, values, run, scaling)
    for span in layout.spans:
        out[span.start : span.end] = _attend_span(query, keys, values, span, scaling)
    return out.unsqueeze(0), None


def _attend_run(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    run: Run,
    scaling: float | None,
) -> torch.Tensor:
    """Return [num requests, num_heads, head_dim]; nothing is copied."""
    _, num_heads, head_dim = keys.shape
    row = num_heads * head_dim
    size = (run.num, run.num_keys, num_heads, head_dim)
    strides = (run.distance * row, row, head_dim, 1)
    k, v = (
        view.as_strided(size, strides, view.storage_offset() + run.first * row).transpose(1, 2)
        for view in (keys, values)
    )
    grouped = queries.reshape(run.num, num_heads, -1, head_dim)
    out = scaled_dot_product_attention(grouped, k, v, attn_mask=run.mask, scale=scaling)
    return out.reshape(queries.shape)


def _attend_span(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    span: Span,
    scaling: float | None,
) -> torch.Tensor:
    """Return [num_queries, num_heads, head_dim] of one request."""
    q = query[:, :, span.start : span.end]
    num_queries = span.end - span.start
    if num_queries == 1:
        num_keys = padded(span.num_keys)
        k, v = _read(keys, span, num_keys), _read(values, span, num_keys)
        mask = mask_of([span.num_keys], num_keys, q.device)
        grouped = q.reshape(1, k.shape[1], -1, q.shape[-1])
        out = scaled_dot_product_attention(grouped, k, v, attn_mask=mask, scale=scaling)
        return out.reshape(1, q.shape[1], q.shape[-1])
    k, v = _read(keys, span, span.num_keys), _read(values, span, span.num_keys)
    causal = None
    if num_queries < span.num_keys:
        causal = torch.ones(num_queries, span.num_keys, dtype=torch.bool, device=q.device)
        causal = causal.tril(span.num_keys - num_queries)
    out = scaled_dot_product_attention(
        q, k, v, attn_mask=causal, is_causal=causal is None, scale=scaling, enable_gqa=True
    )
    return out[0].transpose(0, 1)


def _read(view: torch.Tensor, span: Span, num_keys: int) -> torch.Tensor:
    """Return [1, num_kv_heads, num_keys, head_dim]: a view of one page, a copy of several.

    What is more than the request has comes from the rest of its last page and must be masked.
    """
    surplus = num_keys - span.num_keys
    *full, (start, length) = span.pages
    parts = [view[first : first + count] for first, count in full]
    parts.append(view[start : start + length + surplus])
    rows = parts[0] if len(parts) == 1 else torch.cat(parts)
    return rows.transpose(0, 1).unsqueeze(0)


def no_mask(*args: Any, **kwargs: Any) -> None:
    """Return no mask: `attend` makes what it needs."""


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, no_mask)
