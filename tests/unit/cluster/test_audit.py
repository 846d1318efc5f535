"""`ragserve audit`, on a log of its own."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from cluster.audit import audit
from cluster.errors import OperatorError
from deployments.config import AuditArgs, Settings
from deployments.stores.audit.log import open_audit
from deployments.stores.audit.tables import day_of, day_table
from deployments.types.audit import AuditFilter, AuditRecord


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write three calls and an intent."""
    state = tmp_path / "state"
    monkeypatch.setenv("RAGSERVE_STATE_DIR", str(state))
    monkeypatch.delenv("RAGSERVE_DATABASE_URL", raising=False)
    log = open_audit(Settings(), AuditArgs())
    log.start()
    who = {"tenant": "acme", "key_id": "key_1", "method": "POST", "address": "192.0.2.1"}
    for number, status in enumerate((0, 200, 404, 200)):
        touched = (("collection", "docs"),)
        record = AuditRecord(f"req_{number}", status, "index", touched=touched, **who)
        log.submit(record).result(10)
    log.close()
    return state


def run(*arguments: str) -> str:
    done = CliRunner().invoke(audit, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_logs_are_shown_newest_first() -> None:
    shown = json.loads(run("logs", "--json"))
    assert [one["request_id"] for one in shown] == ["req_3", "req_2", "req_1"]
    assert [one["status"] for one in json.loads(run("logs", "--status", "4xx", "--json"))] == [404]
    assert len(json.loads(run("logs", "--limit", "2", "--json"))) == 2
    assert json.loads(run("logs", "--status", "intent", "--json"))[0]["status"] is None
    assert json.loads(run("logs", "--tenant", "other", "--json")) == []
    assert "index" in run("logs", "--key", "key_1")


@pytest.mark.parametrize("options", [("--status", "9"), ("--since", "today")], ids=str)
def test_logs_refuse_what_is_no_question(options: tuple[str, ...]) -> None:
    with pytest.raises(OperatorError):
        run("logs", *options)


def test_proof_of_a_sound_log() -> None:
    proof = json.loads(run("verify", "--files", "--json"))
    assert (proof["is_unbroken"], proof["num_records"]) == (True, 4)


def test_proof_names_the_place_that_was_edited() -> None:
    log = open_audit(Settings(), AuditArgs())
    (first,) = log.page(AuditFilter(status=404), limit=1)
    table = day_table(day_of(first.position.time_us))
    with log._database.write() as connection:
        edited = update(table).where(table.c.request_id == "req_2").values(address="192.0.2.9")
        connection.execute(edited)
    log.close()
    place = f"{first.position.time_us}-1-3"
    with pytest.raises(OperatorError, match=place):
        run("verify")


def test_export_is_a_parquet_file_of_everything(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    run("export", str(path))
    rows = pq.read_table(path, page_checksum_verification=True).to_pylist()
    assert [(row["status"], row["operation"]) for row in rows] == [
        (status, "index") for status in (0, 200, 404, 200)
    ]
    run("export", str(path), "--since", "2099-01-01T00:00:00Z")
    assert pq.read_table(path).num_rows == 0
    with pytest.raises(OperatorError, match="No such file"):
        run("export", str(tmp_path / "missing" / "out.parquet"))
