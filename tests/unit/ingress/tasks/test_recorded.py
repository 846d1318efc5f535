"""What putting a task in leaves in the audit log, and what happens where it can leave nothing."""

from pathlib import Path

import pytest

from deployments.config import AuditArgs, Settings
from deployments.stores.audit.log import open_audit
from deployments.types.audit import INTENT, AuditFilter
from tests.unit.ingress.tasks.conftest import Built
from tests.unit.ingress.tasks.test_tasks import ASK, put
from tests.unit.ingress.test_audit import Broken

PATH = "/v1/inference/async"


async def test_task_is_recorded_when_it_is_accepted(house_of: Built, tmp_path: Path) -> None:
    log = open_audit(Settings(state_dir=tmp_path / "log"), AuditArgs())
    log.start()
    try:
        async with house_of(audit=log).client() as client:
            task_id = await put(client)
        (found,) = log.page(AuditFilter(), limit=9)
        record = found.record
        assert (record.operation, record.status, record.key_id) == ("inferAsync", 202, "key_1")
        assert record.touched == (("task", task_id),)
        assert log.page(AuditFilter(status=INTENT), limit=9) == []
    finally:
        log.close()


async def test_no_task_is_put_in_while_the_log_cannot_be_written(house_of: Built) -> None:
    house = house_of(audit=Broken())
    async with house.client() as client:
        refused = await client.post(PATH, json=ASK)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
    assert house.store.find("default", limit=9) == []


async def test_task_is_not_accepted_before_it_is_recorded(
    house_of: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broken, "is_well", True)  # it fails just then
    house = house_of(audit=Broken())
    async with house.client() as client:
        refused = await client.post(PATH, json=ASK)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
    assert len(house.store.find("default", limit=9)) == 1
