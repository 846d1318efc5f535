import stat
import threading
from pathlib import Path

import pytest

from deployments.stores import first_key as module
from deployments.stores.database import Database
from deployments.stores.first_key import first_admin_key
from deployments.stores.keys import KeyStore


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_first_start_writes_a_working_admin_key(database: Database, state: Path):
    found = first_admin_key(state, database)
    assert found.status == "created"
    assert found.path == state / "admin.key"
    assert stat.S_IMODE(found.path.stat().st_mode) == 0o600
    assert KeyStore(database, state).verify(found.path.read_text().strip()).is_admin


def test_later_starts_keep_it(database: Database, state: Path):
    content = first_admin_key(state, database).path.read_bytes()
    assert first_admin_key(state, database).status == "present"
    assert (state / "admin.key").read_bytes() == content
    assert len(KeyStore(database, state).list()) == 1


def test_removed_file_is_said_and_not_replaced(database: Database, state: Path):
    first_admin_key(state, database).path.unlink()
    assert first_admin_key(state, database).status == "removed"
    assert not (state / "admin.key").exists()


@pytest.mark.parametrize("content", [b"rs_0_0", b"\xff\xfe", b""])
def test_unusable_file_is_said_and_kept(database: Database, state: Path, content: bytes):
    first_admin_key(state, database).path.write_bytes(content)
    assert first_admin_key(state, database).status == "unusable"
    assert (state / "admin.key").read_bytes() == content


def test_crash_before_the_file_leaves_nothing(database: Database, state: Path, monkeypatch):
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_secret", crash)
        with pytest.raises(KeyboardInterrupt):
            first_admin_key(state, database)
    assert KeyStore(database, state).list() == []
    assert first_admin_key(state, database).status == "created"


def test_crash_between_file_and_commit_heals(database: Database, state: Path, monkeypatch):
    real = module.write_secret

    def crash(path: Path, content: bytes) -> None:
        real(path, content)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_secret", crash)
        with pytest.raises(KeyboardInterrupt):
            first_admin_key(state, database)
    stale = (state / "admin.key").read_bytes()
    found = first_admin_key(state, database)
    assert found.status == "created"
    assert found.path.read_bytes() != stale
    assert KeyStore(database, state).verify(found.path.read_text().strip())


def test_starts_at_once_make_one_key(database: Database, state: Path):
    statuses: list[str] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(first_admin_key(state, database).status))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == ["created"] + ["present"] * 5
    assert KeyStore(database, state).verify((state / "admin.key").read_text().strip())
