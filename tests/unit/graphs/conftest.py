"""A lifecycle that waits for nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from graphs import lifecycle as module
from graphs import tenure
from tests.unit.graphs.lifecycle_bench import Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(module, "REROUTE_S", 0.0)
    monkeypatch.setattr(tenure, "RENEW_S", 0.0)
    made = Bench(tmp_path)
    yield made
    made.database.close()
