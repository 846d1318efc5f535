"""Products of 8-bit integers are near those of fp32, also for inputs larger than the samples."""

import pytest
import torch
from torch.nn import functional

from deployments.engines.embedding.int8 import Int8Linear, RangeObserver, can_multiply

pytestmark = pytest.mark.skipif(not can_multiply(), reason="needs AVX-512 VNNI")


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) + shape[0]))


def far(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected).norm() / expected.norm())


@pytest.mark.parametrize("gelu", [False, True])
def test_int8_linear_is_near_the_product_despite_a_large_column(gelu: bool) -> None:
    weight, bias, rows = random(64, 96), random(64), random(48, 96)
    rows[:, 7] *= 20
    linear = Int8Linear(weight, bias, rows.abs().amax(dim=0))
    expected = functional.linear(rows, weight, bias)
    expected = functional.gelu(expected) if gelu else expected
    assert far(linear(rows.bfloat16(), gelu=gelu), expected) < 0.02


def test_int8_linear_cuts_no_input_that_exceeds_the_samples() -> None:
    weight, bias, rows = random(64, 96), torch.zeros(64), random(48, 96)
    linear = Int8Linear(weight, bias, rows.abs().amax(dim=0))
    assert far(linear(10 * rows.bfloat16()), 10 * functional.linear(rows, weight)) < 0.02
    assert far(linear(-10 * rows.bfloat16()), -10 * functional.linear(rows, weight)) < 0.02


def test_int8_linear_gives_a_row_the_same_result_in_any_company() -> None:
    linear = Int8Linear(random(64, 96), random(64), torch.full((96,), 5.0))
    rows = random(48, 96).bfloat16()
    torch.testing.assert_close(linear(rows)[3:4], linear(rows[3:4]), atol=0, rtol=0)


def test_observer_keeps_the_greatest_magnitude_of_each_column() -> None:
    observer = RangeObserver(lambda rows, gelu: 2 * rows if gelu else rows)
    rows = torch.tensor([[1.0, -3.0], [2.0, 0.5]])
    assert observer(rows, gelu=True).equal(2 * rows)
    assert observer.peaks.tolist() == [2.0, 3.0]
