"""`ragserve up`, `status` and `down` with a real Ray, a real edge, and an application of ours."""

import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from cluster.processes import survivors
from tests.integration.installation import APPS, Installation, end

TINY = str(APPS / "tiny.yaml")


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation.new(tmp_path / "state")
    try:
        yield made
    finally:
        made.clean_up()


def public_listeners(installation: Installation) -> set[str]:
    """Return the names of the processes that listen on more than loopback."""
    names = set()
    for child in survivors(installation.state.installation):
        for connection in child.net_connections("tcp"):
            host = connection.laddr.ip.removeprefix("::ffff:")
            if connection.status == psutil.CONN_LISTEN and host != "127.0.0.1":
                names.add(child.name())
    return names


def test_up_detached_serves_through_the_edge_until_down(installation: Installation) -> None:
    started = installation.run("up", TINY, "--detach")
    assert started.returncode == 0, started.stderr
    assert str(installation.state.admin_key) in started.stderr.replace("\n", "")

    assert httpx.get(f"{installation.url}/some/path").json() == {"path": "/some/path"}
    assert httpx.get(f"{installation.url}/-/routes").status_code == 404

    report = installation.status()
    assert report["is_answering"] is True
    (deployment,) = report["deployments"]
    assert (deployment["status"], deployment["replicas_running"]) == ("HEALTHY", 1)
    assert deployment["replicas"][0]["memory_mib"] > 10

    dashboard = report["dashboard_url"]
    assert httpx.get(f"{dashboard}/api/serve/applications/").status_code in (401, 403)
    assert httpx.get(f"{dashboard}/api/version").status_code in (401, 403)
    assert all(name.startswith("ray::ServeRepli") for name in public_listeners(installation))

    for secret in (installation.state.ray_token, installation.state.admin_key):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(installation.state.path.stat().st_mode) == 0o700

    again = installation.run("up", TINY)
    assert again.returncode == 1
    assert "already up" in again.stderr

    assert installation.num_processes() > 5
    assert installation.run("down").returncode == 0
    assert installation.num_processes() == 0
    assert installation.run("status").returncode == 1


def test_up_starts_ray_again_when_it_dies_and_ends_everything_on_ctrl_c(
    installation: Installation,
) -> None:
    process = installation.start("up", TINY)
    installation.wait_until_ready(process)
    (gcs,) = [p for p in survivors(installation.state.installation) if p.name() == "gcs_server"]
    gcs.kill()
    while installation.phase() == "ready":
        assert process.poll() is None
    seen = set()
    while installation.phase() != "ready":  # a replica may outlive its cluster for a moment
        seen.add(httpx.get(f"{installation.url}/x", timeout=30).status_code)
        time.sleep(0.1)
    assert 503 in seen
    assert seen <= {200, 502, 503}
    errors = end(process, signal.SIGINT)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert installation.num_processes() == 0
    assert not installation.state.run_file.exists()


def test_up_leaves_nothing_when_a_signal_comes_during_the_start(installation: Installation) -> None:
    process = installation.start("up", TINY)
    while installation.num_processes() < 3:
        assert process.poll() is None
    errors = end(process, signal.SIGTERM)
    assert "Traceback" not in errors
    assert installation.num_processes() == 0


def test_down_ends_what_a_killed_run_has_left(installation: Installation) -> None:
    process = installation.start("up", TINY)
    installation.wait_until_ready(process)
    stuck = [p for p in survivors(installation.state.installation) if p.name() == "raylet"]
    for raylet in stuck:
        raylet.suspend()  # it cannot react to the death of its parent
    process.kill()
    process.communicate(timeout=10)
    assert installation.num_processes() > 0
    assert "an earlier run had left" in installation.run("down").stderr
    assert installation.num_processes() == 0


def test_two_installations_side_by_side_and_one_killed_outright(
    installation: Installation, tmp_path: Path
) -> None:
    other = Installation.new(tmp_path / "other")
    first = installation.start("up", TINY)
    second = other.start("up", TINY)
    try:
        installation.wait_until_ready(first)
        other.wait_until_ready(second)
        first.kill()
        first.communicate(timeout=10)
        installation.wait_until_gone(timeout_s=30)
        assert other.answers()
    finally:
        other.clean_up()
    second.communicate(timeout=60)
    assert other.num_processes() == 0


def test_up_says_why_an_application_does_not_start(installation: Installation) -> None:
    done = installation.run("up", str(APPS / "broken.yaml"))
    assert done.returncode == 1
    assert "the weights are made of cheese" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert installation.num_processes() == 0


def test_up_refuses_a_taken_port_before_it_starts_anything(installation: Installation) -> None:
    with socket.create_server(("127.0.0.1", installation.port)):
        done = installation.run("up", TINY)
    assert done.returncode == 1
    assert f"port {installation.port} is taken" in done.stderr
    assert not installation.state.run_file.exists()


def test_up_refuses_to_run_ray_without_a_token(installation: Installation) -> None:
    done = installation.run("up", TINY, RAY_AUTH_MODE="disabled")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ragserve: RAY_AUTH_MODE")
    assert installation.num_processes() == 0
