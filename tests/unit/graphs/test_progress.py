import mmap
import os
from pathlib import Path

import pytest

from deployments.types import ModelState
from graphs import progress
from graphs.progress import Observer, mapped
from graphs.serve_apps import AppReport
from tests.unit.graphs.registry import spec

HERE = "10.0.0.1"
PAGES = 64 * mmap.PAGESIZE


@pytest.fixture(autouse=True)
def _node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "node_address", lambda: HERE)


def state() -> ModelState:
    return ModelState(spec=spec(num_bytes=PAGES), phase="loading", attempt=1, changed_at=0.0)


def test_bytes_are_those_that_the_process_has_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(bytes(PAGES))
    report = AppReport("DEPLOYING", pids=((HERE, os.getpid()),))
    observer = Observer()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        data.madvise(mmap.MADV_RANDOM)
        assert data[0] == 0
        some = observer.look(state(), report).bytes_read
        assert sum(data[:: mmap.PAGESIZE]) == 0
        assert mapped(os.getpid())[str(path)] == PAGES
        assert observer.look(state(), report).bytes_read == PAGES
    assert some is not None
    assert 0 < some <= PAGES
    assert observer.look(state(), report).bytes_read == PAGES, "what was read stays read"


def test_process_of_another_machine_says_no_bytes() -> None:
    report = AppReport("DEPLOYING", pids=(("10.0.0.2", os.getpid()),))
    found = Observer().look(state(), report)
    assert (found.bytes_read, found.bytes_total) == (None, PAGES)
    assert found.seconds > 0


def test_process_that_is_gone_has_read_nothing() -> None:
    assert mapped(2**22 + 1) == {}
