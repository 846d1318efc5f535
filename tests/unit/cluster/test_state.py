import multiprocessing
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.errors import OperatorError
from cluster.ports import check_free, free_ports
from cluster.processes import RUN_ID, end_survivors, spawn, survivors
from cluster.ray_head import choose_ports, ensure_token, ray_environment
from cluster.state import StateFolder, exclusive, supervisor_pid, write_private
from deployments import absent


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    made = StateFolder(tmp_path / "state")
    made.prepare()
    return made


def test_state_folder_is_private(state: StateFolder) -> None:
    for folder in (state.path, state.logs, state.edge, state.ray):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_state_folder_tightens_a_folder_that_was_open(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    StateFolder(tmp_path / "open").prepare()
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o700


def test_state_folder_refuses_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OperatorError, match="not a folder of your own"):
        StateFolder(tmp_path / "link").prepare()


def test_state_folder_keeps_sockets_within_their_limit(tmp_path: Path) -> None:
    deep = StateFolder(tmp_path / ("x" * 200))
    socket = deep.ray / "session_2026-11-22_15-31-21_990855_1234567/sockets/plasma_store"
    assert len(os.fsencode(socket)) <= 107


def test_installation_names_differ_by_folder() -> None:
    names = {StateFolder(Path(f"/srv/{number}")).installation for number in range(100)}
    assert len(names) == 100


def test_write_private_replaces_a_readable_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def _try_lock(path: Path) -> bool:
    with exclusive(StateFolder(path)) as is_ours:
        return is_ours


def test_exclusive_admits_one_process_and_names_it(state: StateFolder) -> None:
    assert supervisor_pid(state) is None
    with exclusive(state) as is_ours:
        assert is_ours
        assert supervisor_pid(state) == os.getpid()
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(_try_lock, (state.path,)) is False
    assert supervisor_pid(state) is None


def test_ray_token_is_made_once_and_private(state: StateFolder) -> None:
    token = ensure_token(state)
    assert len(bytes.fromhex(token)) == 32
    assert ensure_token(state) == token
    assert stat.S_IMODE(state.ray_token.stat().st_mode) == 0o600


def test_ray_environment_refuses_to_go_without_a_token(state: StateFolder) -> None:
    with pytest.raises(OperatorError, match="RAY_AUTH_MODE"):
        ray_environment(state, choose_ports(), "r", {"RAY_AUTH_MODE": "disabled"})


def test_ray_environment_drops_what_points_at_another_cluster(state: StateFolder) -> None:
    base = {"RAY_ADDRESS": "auto", "RAY_AUTH_TOKEN": "other", "KEPT": "1"}
    env = ray_environment(state, choose_ports(), "r", base)
    assert "RAY_ADDRESS" not in env
    assert "RAY_AUTH_TOKEN" not in env
    assert (env["KEPT"], env["RAY_AUTH_MODE"]) == ("1", "token")


def test_ray_environment_keeps_pandas_out(state: StateFolder) -> None:
    env = ray_environment(state, choose_ports(), "r", {"PYTHONPATH": "/a"})
    assert env["PYTHONPATH"] == absent.path_with("/a")


def test_check_free_refuses_a_foreign_address() -> None:
    with pytest.raises(OperatorError, match="cannot listen"):
        check_free("203.0.113.1", 8080)


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(20))) == 20


def test_end_survivors_ends_only_marked_processes(tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    run_id = f"test-{os.getpid()}"
    marked = spawn(sleep, {**os.environ, RUN_ID: f"{run_id}-1"}, tmp_path / "log")
    unmarked = spawn(sleep, dict(os.environ), tmp_path / "log")
    try:
        assert [process.pid for process in survivors(run_id)] == [marked.pid]
        assert end_survivors(run_id) == 1
        assert unmarked.poll() is None
    finally:
        for process in (marked, unmarked):
            process.kill()
            process.wait()


def test_spawned_children_die_with_their_parent(tmp_path: Path) -> None:
    run_id = f"orphan-{os.getpid()}"
    code = (
        "import os, sys, pathlib; from cluster.processes import spawn, RUN_ID;"
        "spawn([sys.executable, '-c', 'import time; time.sleep(60)'],"
        f" {{**os.environ, RUN_ID: '{run_id}'}}, pathlib.Path('{tmp_path}/log'));"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=30)
    for process in survivors(run_id):
        process.wait(5)
    assert survivors(run_id) == []
