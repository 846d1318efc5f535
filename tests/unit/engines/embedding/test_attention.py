"""Attention in tiles gives what PyTorch's own gives, whatever the lengths and however large."""

import pytest
import torch

from deployments.engines.embedding.attention import Run, attend, attend_in_tiles, runs, tiles

NUM_HEADS, DIM = 3, 96


def random_qkv(num_rows: int) -> torch.Tensor:
    return torch.randn(num_rows, 3 * DIM, generator=torch.Generator().manual_seed(1))


def test_runs_are_consecutive_sequences_of_one_length() -> None:
    assert runs([[1], [2], [3, 4], [5]]) == [Run(0, 2, 1), Run(2, 1, 2), Run(4, 1, 1)]


def test_tiles_have_few_shapes_and_hold_every_sequence_once() -> None:
    lengths = [*range(1, 40), *[60] * 7, 250, 511, 512]
    found = tiles(runs([[0] * length for length in lengths]))
    assert [rows.stop - rows.start for tile in found for rows in tile.rows] == lengths
    assert {tile.length % 16 for tile in found} == {0}
    assert {len(tile.rows) for tile in found} <= {1, 2, 4, 8, 16, 32, 64}
    assert all(len(tile.rows) * tile.length**2 <= 20_000 for tile in found if len(tile.rows) > 1)


@pytest.mark.parametrize("lengths", [[1], [5, 5, 16, 17, 90, 91], [3, 200], [512]])
def test_attention_in_tiles_is_attention(lengths: list[int]) -> None:
    batch, num_rows = runs([[0] * length for length in lengths]), sum(lengths)
    qkv = random_qkv(num_rows + 4)
    expected = attend(qkv, batch, NUM_HEADS)
    torch.testing.assert_close(attend_in_tiles(qkv, tiles(batch), NUM_HEADS), expected)
    rounded = attend_in_tiles(qkv.bfloat16(), tiles(batch), NUM_HEADS).float()
    torch.testing.assert_close(rounded, expected, atol=0.05, rtol=0.05)
    assert not expected[num_rows:].any()
    assert not rounded[num_rows:].any()


@pytest.mark.parametrize("sign", [1, -1])
def test_scores_out_of_range_are_computed_all_the_same(sign: int) -> None:
    batch = runs([[0] * 5, [0] * 20])
    qkv = random_qkv(25)
    qkv[:, :DIM] = 40.0
    qkv[:, DIM : 2 * DIM] = sign * (40.0 + qkv[:, DIM : 2 * DIM].abs())
    found = attend_in_tiles(qkv, tiles(batch), NUM_HEADS)
    assert found.isfinite().all()
    torch.testing.assert_close(found, attend(qkv, batch, NUM_HEADS))
