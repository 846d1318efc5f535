"""What is shown of models where part of the cluster says nothing."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from deployments.types import SwitchOrder
from graphs import model_status as module
from graphs.handles import Deadline
from graphs.model_status import StatusBoard
from graphs.models import Models
from tests.unit.graphs.registry import FakeApps, opened, ready, spec


class SilentApps(FakeApps):
    async def targets(self) -> Mapping[tuple[str, str], int]:
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("apps", [SilentApps(), FakeApps()], ids=["silent", "down"])
async def test_registry_is_shown_without_the_controller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apps: FakeApps
) -> None:
    monkeypatch.setattr(module, "LEARN_S", 0.01)
    apps.is_down = True
    database, store = opened(tmp_path)
    ready(store), store.load(spec("coming"))
    store.switch(SwitchOrder(alias="chat", to="m@1"), {})
    board = StatusBoard([], Models(store, {}), apps)
    status = await asyncio.wait_for(board.status(store.read(), Deadline(5)), 10)
    database.close()
    assert {one.id: one.state and one.state.phase for one in status.models} == {
        "m@1": "ready",
        "coming@1": "loading",
    }
    assert [(one.num_wanted, one.replicas) for one in status.models] == [(None, ())] * 2
    assert [one.name for one in status.aliases] == ["chat"]
    assert len(status.nodes) == 1
