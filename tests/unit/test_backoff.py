"""Pauses double up to a bound, and no two are alike."""

import pytest

from deployments.backoff import Backoff


@pytest.mark.parametrize(
    ("num_failures", "longest_s"), [(0, 0.5), (1, 0.5), (2, 1.0), (5, 8.0), (6, 10.0), (10**6, 10)]
)
def test_pause_doubles_up_to_its_bound(num_failures: int, longest_s: float) -> None:
    backoff = Backoff(0.5, 10.0)
    assert backoff.longest_s(num_failures) == longest_s
    pauses = [backoff.pause_s(num_failures) for _ in range(200)]
    assert longest_s / 2 <= min(pauses) < 0.6 * longest_s
    assert 0.9 * longest_s < max(pauses) <= longest_s
