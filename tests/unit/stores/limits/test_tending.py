"""The thread that keeps leases alive."""

import logging
import threading
from pathlib import Path

import pytest

from deployments.config import Settings
from deployments.errors import StoreUnavailable
from deployments.stores.limits.admission import Budget, Cost
from deployments.stores.limits.fallback import FallbackLimits
from deployments.stores.limits.opening import open_limits
from deployments.stores.limits.sqlite_limits import SqliteLimits
from deployments.stores.limits.tending import Tending
from deployments.types.access import Limits


class Store(SqliteLimits):
    """Counts how often it is tended; the first time fails."""

    num_tended = 0

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.was_tended = threading.Event()

    def tend(self) -> None:
        self.num_tended += 1
        if self.num_tended == 1:
            raise StoreUnavailable("away")
        if self.num_tended == 3:
            self.was_tended.set()


def test_tending_goes_on_after_a_failure_until_it_is_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "limits.db")
    with caplog.at_level(logging.WARNING):
        tending = Tending(store, period_s=0.001)
        assert store.was_tended.wait(30)
        tending.end()
    assert caplog.text.count("could not be renewed") == 1
    assert not tending._thread.is_alive()


def test_tending_an_unused_file_makes_none(tmp_path: Path) -> None:
    store = SqliteLimits(tmp_path / "limits.db")
    store.tend()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("redis_url", ["", "redis://127.0.0.1:1/0"])
def test_host_counts_in_its_state_folder_when_nobody_else_does(
    tmp_path: Path, redis_url: str
) -> None:
    fallbacks: list[int] = []
    settings = Settings(state_dir=tmp_path, redis_url=redis_url)
    store = open_limits(settings, on_fallback=lambda: fallbacks.append(1))
    store.take([Budget("key:a", Limits(requests_per_minute=1))], Cost(requests=1))
    assert (tmp_path / "limits.db").stat().st_mode & 0o777 == 0o600
    assert isinstance(store, FallbackLimits) == bool(redis_url)
    assert len(fallbacks) == bool(redis_url)
    store.close()
