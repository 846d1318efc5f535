"""Self-attention over sequences that lie one behind the other in the rows of one matrix.

PyTorch's own kernel serves every device and type. In bf16 on a CPU it loses most of its time to
the softmax of short rows, so `attend_in_tiles` takes another way there: two batched products of
oneDNN around one `exp2`, with the softmax's division left to the end.

Measured on texts of 91 tokens, 12 heads of 32, AVX512-BF16, torch 2.13: the whole encoder is 7 %
faster for it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional

_LENGTH_STEP = 16
_TILE_SCORES = 20_000
"""Scores of one head in a tile; 12 heads of them stay in a core's cache of 1 MiB."""

_SAFE_SUM = 2.0**100
"""A row's sum between this and its inverse has neither overflowed nor lost what counts."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive sequences of one length in a packed batch."""

    start: int
    num_sequences: int
    length: int

    @property
    def rows(self) -> slice:
        """Return where the sequences lie in the batch."""
        return slice(self.start, self.start + self.num_sequences * self.length)


def runs(sequences: Sequence[Sequence[int]]) -> list[Run]:
    """Return the runs of a packed batch, in order; few when it is sorted by length."""
    found, start = [], 0
    for length, group in groupby(map(len, sequences)):
        run = Run(start, len(list(group)), length)
        found.append(run)
        start = run.rows.stop
    return found


def attend(qkv: Tensor, batch: Iterable[Run], num_heads: int) -> Tensor:
    """Return the attended values, [rows, dim], of queries, keys and values, [rows, 3 · dim]."""
    dim = qkv.shape[1] // 3
    attended = qkv.new_zeros(qkv.shape[0], dim)
    for run in batch:
        shape = (run.num_sequences, run.length, 3, num_heads, -1)
        query, key, value = qkv[run.rows].view(shape).permute(2, 0, 3, 1, 4)
        heads = functional.scaled_dot_product_attention(query, key, value)
        attended[run.rows] = heads.transpose(1, 2).reshape(-1, dim)
    return attended


@dataclass(frozen=True, slots=True)
class Tile:
    """Sequences that are computed at once, each padded to `length` tokens.

    Lengths are multiples of 16 and counts powers of two, so that oneDNN meets few shapes.
    """

    length: int
    rows: tuple[slice, ...]


def tiles(batch: Iterable[Run]) -> list[Tile]:
    """Return the tiles of a packed batch, which is sorted by length where that is to be fast."""
    rows = [
        slice(start, start + run.length)
        for run in batch
        for start in range(run.start, run.rows.stop, run.length)
    ]
    found = []
    for length, group in groupby(rows, _padded_length):
        waiting = list(group)
        most = max(_TILE_SCORES // length**2, 1)
        while waiting:
            count = 1 << (min(most, len(waiting)).bit_length() - 1)
            found.append(Tile(length, tuple(waiting[:count])))
            waiting = waiting[count:]
    return found


def attend_in_tiles(qkv: Tensor, batch: Iterable[Tile], num_heads: int) -> Tensor:
    """Return what `attend` does, up to rounding."""
    dim = qkv.shape[1] // 3
    attended = qkv.new_zeros(qkv.shape[0], dim)
    for tile in batch:
        _attend_tile(qkv.view(-1, 3, num_heads, dim // num_heads), tile, attended)
    return attended


def _attend_tile(qkv: Tensor, tile: Tile, attended: Tensor) -> None:
    """Compute softmax(q·kᵀ/√d)·v as (e·v)/(e·1) with e = exp(q·kᵀ/√d).

    The column of ones beside the values gives the sums with the same product. Keys that are
    padding have zeros there and in their values, so they count for nothing without a mask. A
    softmax subtracts each row's greatest score first; that is needed only where the sums leave the
    range of the type, and such a tile, which no sensible model has, is computed by `attend`.
    """
    _, _, num_heads, size = qkv.shape
    shape = (len(tile.rows), num_heads, tile.length)
    query_key = qkv.new_zeros(2, *shape, size)
    value_one = qkv.new_zeros(*shape, size + 1)
    for index, rows in enumerate(tile.rows):
        num_rows = rows.stop - rows.start
        parts = qkv[rows].permute(1, 2, 0, 3)
        query_key[:, index, :, :num_rows] = parts[:2]
        value_one[index, :, :num_rows, :size] = parts[2]
        value_one[index, :, :num_rows, size] = 1
    query, key = query_key.flatten(1, 2)
    scale = math.log2(math.e) / math.sqrt(size)
    scores = torch.baddbmm(qkv.new_zeros(()), query, key.mT, beta=0, alpha=scale)
    summed = torch.bmm(scores.exp2_(), value_one.flatten(0, 1)).view(*shape, size + 1)
    least, most = summed[..., size].aminmax()
    if not (least.item() > 1 / _SAFE_SUM and most.item() < _SAFE_SUM):
        for rows in tile.rows:
            one = [Run(0, 1, rows.stop - rows.start)]
            attended[rows] = attend(qkv[rows].flatten(1), one, num_heads)
        return
    heads = attended.view(-1, num_heads, size)
    for index, rows in enumerate(tile.rows):
        own = summed[index, :, : rows.stop - rows.start].transpose(0, 1)
        torch.div(own[..., :size], own[..., size:], out=heads[rows])


def _padded_length(rows: slice) -> int:
    length: int = rows.stop - rows.start
    return -(-length // _LENGTH_STEP) * _LENGTH_STEP
