"""Where a batch's queries and keys are: worked out once per step, used by every layer."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.generation.continuous_batching.requests import FutureRequestState

KEY_STEP = 64
"""A single query sees its keys rounded up to this many, the surplus masked.

So requests of about the same length share a call, and what one gets depends on its own length only:
another number of keys can change the last bit of a sum. Must divide the cache's page size.
"""


@dataclass(frozen=True, slots=True)
class Span:
    """One request's queries, and its keys as (first row, number of rows) of the layer's cache."""

    start: int
    end: int
    num_keys: int
    pages: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Run:
    """Requests of one query each, whose keys lie in the cache at equal distances.

    `rows` are their queries' places in the batch; `mask` is bool[num requests, 1, 1, num_keys].
    """

    rows: slice | torch.Tensor
    num: int
    first: int
    distance: int
    num_keys: int
    mask: torch.Tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """A batch: runs of requests that are read in place together, and spans one by one."""

    runs: tuple[Run, ...]
    spans: tuple[Span, ...]


def layout_of(
    requests: Sequence[FutureRequestState], allocator: Any, device: torch.device
) -> Layout:
    """Return the layout of a batch whose inputs the library has just prepared."""
    page, stride = allocator.tokens_per_page, allocator.block_physical_stride
    spans: list[Span] = []
    single: dict[int, list[Span]] = defaultdict(list)
    start = 0
    for request in requests:
        num_keys = request.state.position_offset
        blocks = allocator.block_table[request.state.request_id]
        needed = blocks[: -(-num_keys // page)]
        pages = tuple(
            (block * stride, min(page, num_keys - i * page)) for i, block in enumerate(needed)
        )
        span = Span(start, start + request.query_length, num_keys, pages)
        if request.query_length == 1 and len(pages) == 1:
            single[padded(num_keys)].append(span)
        else:
            spans.append(span)
        start = span.end
    runs = [run for size, group in single.items() for run in _runs(group, size, device)]
    return Layout(tuple(runs), tuple(spans))


def padded(num_keys: int) -> int:
    """Return the number of keys rounded up to `KEY_STEP`."""
    return -(-num_keys // KEY_STEP) * KEY_STEP


def mask_of(lengths: Sequence[int], num_keys: int, device: torch.device) -> torch.Tensor:
    """Return bool[len(lengths), 1, 1, num_keys]: true where a request has a key."""
    columns = torch.arange(num_keys, device=device)
    return (columns < torch.tensor(lengths, device=device)[:, None])[:, None, None, :]


def _runs(group: list[Span], num_keys: int, device: torch.device) -> list[Run]:
    """Split requests of about one length where the distance between their keys changes."""
    group = sorted(group, key=lambda span: span.pages[0][0])
    runs: list[list[Span]] = []
    for span in group:
        if runs and (len(runs[-1]) == 1 or _fits(runs[-1], span)):
            runs[-1].append(span)
        else:
            runs.append([span])
    return [_run(run, num_keys, device) for run in runs]


def _fits(run: list[Span], span: Span) -> bool:
    return _distance(run[-1], span) == _distance(run[0], run[1])


def _distance(one: Span, other: Span) -> int:
    return other.pages[0][0] - one.pages[0][0]


def _run(spans: list[Span], num_keys: int, device: torch.device) -> Run:
    places = [span.start for span in spans]
    rows: slice | torch.Tensor = torch.tensor(places, device=device)
    if places == list(range(places[0], places[0] + len(places))):
        rows = slice(places[0], places[0] + len(places))
    return Run(
        rows=rows,
        num=len(spans),
        first=spans[0].pages[0][0],
        distance=_distance(spans[0], spans[1]) if len(spans) > 1 else 0,
        num_keys=num_keys,
        mask=mask_of([span.num_keys for span in spans], num_keys, device),
    )
