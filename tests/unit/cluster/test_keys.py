"""`ragserve keys`, on a database of its own."""

import json
from pathlib import Path
from typing import Any

import pyotp
import pytest
from typer.testing import CliRunner

from cluster.errors import OperatorError
from cluster.keys import keys
from deployments.stores.database import Database
from deployments.stores.keys import KeyStore
from deployments.stores.second_factors import Enrolment, SecondFactors


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAGSERVE_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("RAGSERVE_DATABASE_URL", raising=False)
    return tmp_path


def run(*arguments: str) -> str:
    done = CliRunner().invoke(keys, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def listed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("list", "--json"))
    return found


def test_key_gets_what_the_options_say(state: Path) -> None:
    bearer = run(
        *("create", "partner", "--tenant", "acme", "--scope", "data", "--scope", "inference"),
        *("--model", "chat", "--collection", "docs", "--address", "203.0.113.0/24"),
        *("--requests-per-minute", "60", "--max-concurrent", "2", "--expires", "90d"),
    ).strip()
    [key] = listed()
    assert key["grants"] == {
        "scopes": ["data", "inference"],
        "models": ["chat"],
        "collections": ["docs"],
        "addresses": ["203.0.113.0/24"],
        "limits": {"requests_per_minute": 60, "max_concurrent": 2},
    }
    assert key["expires_at"] > key["created_at"]
    database = Database(f"sqlite:///{state / 'ragserve.db'}")
    assert KeyStore(database, state).verify(bearer).tenant == "acme"
    database.close()
    assert "acme" in run("list")


def test_rotated_key_is_printed_and_the_old_one_gets_an_end() -> None:
    run("create", "x")
    [old] = listed()
    assert run("rotate", old["id"], "--overlap", "7d").startswith("rs_")
    ended, new = listed()
    assert ended["id"] == old["id"]
    assert ended["expires_at"]
    assert (new["expires_at"], new["grants"]) == (None, old["grants"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "x", "--scope", "everything"),
        ("create", "x", "--address", "here"),
        ("create", "x", "--expires", "soon"),
        ("rotate", "key_1", "--overlap", "a while"),
        ("rotate", f"key_{'0' * 32}"),
    ],
)
def test_mistake_is_told(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(keys, arguments)
    assert isinstance(done.exception, OperatorError)
    assert listed() == []


def test_key_is_enrolled_with_a_code_of_its_authenticator(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("create", "x")
    [key] = listed()
    enrol = SecondFactors.enrol
    shown: list[Enrolment] = []

    def noted(self: SecondFactors, key_id: str, name: str) -> Enrolment:
        shown.append(enrol(self, key_id, name))
        return shown[-1]

    monkeypatch.setattr(SecondFactors, "enrol", noted)
    monkeypatch.setattr("typer.prompt", lambda *_, **__: pyotp.TOTP(shown[-1].secret).now())
    assert run("enroll", key["id"]).split() == list(shown[0].recovery_codes)
    again = CliRunner().invoke(keys, ["enroll", key["id"]])
    assert isinstance(again.exception, OperatorError)
    run("enroll", key["id"], "--reset")
    assert len(shown) == 2
