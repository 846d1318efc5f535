"""How a model is shared out; that the parts compute the whole, `tests/integration` shows."""

from types import SimpleNamespace

import pytest

from deployments.engines.generation.deepspeed.model import heads_of
from deployments.errors import EngineFailed


@pytest.mark.parametrize(
    ("heads", "kv_heads", "size", "found"),
    [(9, 3, 3, (3, 1)), (32, 8, 4, (8, 2)), (12, None, 6, (2, 2)), (9, 3, 1, (9, 3))],
)
def test_heads_of_shares_out_evenly(
    heads: int, kv_heads: int | None, size: int, found: tuple[int, int]
) -> None:
    config = SimpleNamespace(num_attention_heads=heads, num_key_value_heads=kv_heads)
    assert heads_of(config, size) == found


@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(9, 3, 2), (32, 4, 8), (8, 8, 16)])
def test_heads_of_refuses_what_leaves_a_rank_with_less(
    heads: int, kv_heads: int, size: int
) -> None:
    config = SimpleNamespace(num_attention_heads=heads, num_key_value_heads=kv_heads)
    with pytest.raises(EngineFailed, match=f"{heads} heads with {kv_heads} .* {size} ranks"):
        heads_of(config, size)
