"""A log whose clock the test moves by hand."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments.config import AuditArgs
from deployments.stores.audit.log import AuditLog
from deployments.stores.audit.tables import create_tables
from deployments.stores.database import Database
from deployments.types.audit import INTENT, AuditRecord

START_US = 1_790_000_000_000_000
SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US


class HandClock:
    """Says what it was set to, and a microsecond more each time."""

    def __init__(self) -> None:
        self.now_us = START_US

    def __call__(self) -> int:
        self.now_us += 1
        return self.now_us


Opened = Callable[[], AuditLog]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def opened(database_url: str, tmp_path: Path, clock: HandClock) -> Iterator[Opened]:
    """Yield what opens the same log again, as another process would."""
    logs: list[AuditLog] = []
    folder = tmp_path / "audit-state"
    folder.mkdir()

    def open_one() -> AuditLog:
        database = Database(database_url)
        create_tables(database)
        logs.append(AuditLog(database, folder, AuditArgs(), clock))
        logs[-1]._writer.start()  # the keeper's work is done by hand
        return logs[-1]

    yield open_one
    for log in logs:
        log.close()


@pytest.fixture
def log(opened: Opened) -> AuditLog:
    return opened()


def call(number: int = 0, status: int = 200, **other: object) -> AuditRecord:
    """Return a record of a call."""
    values: dict[str, object] = {
        "operation": "search",
        "method": "POST",
        "tenant": "default",
        "key_id": "key_1",
        "address": "192.0.2.1",
        "latency_us": 1200,
        "tokens_in": 3,
        "touched": (("collection", "docs"),),
    }
    return AuditRecord(f"req_{number}", status, **{**values, **other})


def intent(number: int = 0) -> AuditRecord:
    return call(number, INTENT)


def write(log: AuditLog, *records: AuditRecord) -> None:
    """Have records on the disk."""
    for record in records[:-1]:
        log.record(record)
    log.submit(records[-1]).result(10)
