"""How busy we are: the mean over the last second or so."""

import pytest

from deployments.ingress.occupancy import Occupancy


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_mean_follows_what_is_there_and_forgets_it() -> None:
    clock = Clock()
    occupancy = Occupancy(clock)
    assert occupancy.mean() == 0
    with occupancy.one(), occupancy.one():
        clock.now += 1
        assert occupancy.mean() == pytest.approx(2 * (1 - 1 / 2.71828), abs=1e-3)
        clock.now += 30
        assert occupancy.mean() == pytest.approx(2)
    clock.now += 1
    assert occupancy.mean() == pytest.approx(2 / 2.71828, abs=1e-3)
    clock.now += 10
    assert occupancy.mean() < 0.001


def test_many_short_requests_count_as_the_few_that_are_there_at_once() -> None:
    clock = Clock()
    occupancy = Occupancy(clock)
    for _ in range(1000):
        with occupancy.one():
            clock.now += 0.003
        clock.now += 0.007
    assert occupancy.mean() == pytest.approx(0.3, abs=0.01)


def test_request_that_fails_is_not_counted_on() -> None:
    clock = Clock()
    occupancy = Occupancy(clock)
    with pytest.raises(ValueError, match="no"), occupancy.one():
        raise ValueError("no")
    clock.now += 30
    assert occupancy.mean() == 0
