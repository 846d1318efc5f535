"""For how long nobody has waited."""

import math

import pytest

from deployments.ingress.presence import Presence


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_idle_time_counts_from_the_last_to_leave() -> None:
    clock = Clock()
    presence = Presence(clock)
    assert presence.idle_s() == math.inf
    with presence.one():
        with presence.one():
            clock.now += 1
        clock.now += 1
        assert presence.idle_s() == 0
    clock.now += 2
    assert presence.idle_s() == 2


def test_who_fails_has_left() -> None:
    clock = Clock()
    presence = Presence(clock)
    with pytest.raises(ValueError, match="no"), presence.one():
        raise ValueError("no")
    clock.now += 3
    assert presence.idle_s() == 3
