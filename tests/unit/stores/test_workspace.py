"""Working folders go with their process, and only then."""

from pathlib import Path

import pytest

from deployments.stores import workspace as module
from deployments.stores.workspace import Workspace, holding
from tests.unit.stores.material import FORKSERVER


def claim(root: Path, ready: object) -> None:
    """Claim a folder and wait to be killed."""
    ready.send(str(Workspace(root, 0).new_folder()))
    ready.recv()


def killed_claim(root: Path) -> Path:
    """Return the working folder that a killed process left."""
    ours, theirs = FORKSERVER.Pipe()
    process = FORKSERVER.Process(target=claim, args=(root, theirs))
    process.start()
    folder = Path(ours.recv())
    assert folder.is_dir()
    assert Workspace(root, 0).sweep() == 0
    process.kill()
    process.join(10)
    return folder


def test_sweep_removes_only_the_folders_of_the_dead(tmp_path: Path):
    living = Workspace(tmp_path, 0)
    folder = living.new_folder()
    dead = killed_claim(tmp_path)
    assert Workspace(tmp_path, 0).sweep() == 1
    assert not dead.parent.exists()
    assert folder is not None
    assert folder.is_dir()


def test_folders_are_the_owners_only(tmp_path: Path):
    workspace = Workspace(tmp_path / "replicas", 0)
    folder = workspace.new_folder()
    assert folder is not None
    for path in (tmp_path / "replicas", folder.parent, folder):
        assert path.stat().st_mode & 0o777 == 0o700
    workspace.close()
    assert not folder.exists()
    assert workspace.new_folder() is None


def test_full_disk_gives_no_folder(tmp_path: Path):
    assert Workspace(tmp_path, 2**62).new_folder() is None


def test_refusing_disk_is_left_alone_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    workspace = Workspace(tmp_path / "file" / "replicas", 0)
    assert workspace.new_folder() is None
    usable = Workspace(tmp_path / "replicas", 0)
    usable.rest(OSError())
    assert usable.new_folder() is None
    monkeypatch.setattr(module, "REST_S", -1.0)
    usable.rest(OSError())
    assert usable.new_folder() is not None


def test_lock_is_held_by_one(tmp_path: Path):
    num_open = num_descriptors()
    with holding(tmp_path / "lock") as first, holding(tmp_path / "lock") as second:
        assert (first, second) == (True, False)
    with holding(tmp_path / "lock", timeout_s=1) as third:
        assert third
    assert num_descriptors() == num_open


def num_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
