"""Replicas come and go behind a real HAProxy."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from cluster.edge import Edge, EdgeOptions
from cluster.edge_targets import NUM_SLOTS
from cluster.errors import OperatorError
from cluster.ports import LOOPBACK, free_ports
from cluster.serve_api import TargetGroup
from tests.unit.cluster.conftest import edge_options
from tests.unit.cluster.edge_backend import Backend, running_backend


@pytest.fixture
def options(backend: Backend, tmp_path: Path) -> EdgeOptions:
    return edge_options(tmp_path, backend.port)


@pytest.fixture
def edge(options: EdgeOptions) -> Iterator[Edge]:
    edge = Edge(options, os.environ)
    edge.start()
    yield edge
    edge.stop()


@pytest.fixture
def replica() -> Iterator[Backend]:
    with running_backend() as running:
        yield running


def group(prefix: str, *ports: int) -> TargetGroup:
    return TargetGroup(prefix, tuple((LOOPBACK, port) for port in ports))


def reached(options: EdgeOptions, path: str = "/v1/models") -> str:
    """Return which backend saw a request, by its own port."""
    url = f"http://{LOOPBACK}:{options.port}{path}"
    return httpx.get(url, trust_env=False).headers["x-backend-port"]


def reached_within_5_s(options: EdgeOptions, port: int, path: str = "/v1/models") -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with suppress(httpx.ConnectError):  # one that was started a moment ago may not listen yet
            if reached(options, path) == str(port):
                return True
        time.sleep(0.1)
    return False


def test_without_replicas_requests_go_through_the_proxy(
    edge: Edge, options: EdgeOptions, backend: Backend
) -> None:
    assert reached_within_5_s(options, backend.port)


def test_replica_takes_over_and_gives_back(
    edge: Edge, options: EdgeOptions, backend: Backend, replica: Backend
) -> None:
    edge.targets.sync([group("/", replica.port), group("/bare", 1)])
    assert reached_within_5_s(options, replica.port)
    assert reached(options, "/bare/x") == str(backend.port)
    edge.targets.sync([group("/")])
    assert reached_within_5_s(options, backend.port)
    edge.targets.sync([group("/", replica.port)])
    assert reached_within_5_s(options, replica.port, "/bare/x")


def test_dead_replica_is_passed_by(edge: Edge, options: EdgeOptions, backend: Backend) -> None:
    edge.targets.sync([group("/", *free_ports(1))])
    for _ in range(20):
        assert reached(options) == str(backend.port)


def test_more_replicas_than_slots_are_left_to_the_proxy(
    edge: Edge, options: EdgeOptions, replica: Backend
) -> None:
    edge.targets.sync([group("/", replica.port, *free_ports(NUM_SLOTS))])
    assert reached_within_5_s(options, replica.port)


def test_targets_recover_from_an_edge_that_did_not_listen(
    edge: Edge, options: EdgeOptions, replica: Backend, backend: Backend
) -> None:
    edge.targets.sync([group("/", replica.port)])
    hidden = options.admin_socket.rename(options.admin_socket.with_suffix(".away"))
    with pytest.raises(OperatorError):
        edge.targets.sync([group("/")])
    hidden.rename(options.admin_socket)
    edge.targets.sync([group("/")])
    assert reached_within_5_s(options, backend.port)


def test_restarted_edge_is_told_again(
    edge: Edge, options: EdgeOptions, replica: Backend, backend: Backend
) -> None:
    edge.targets.sync([group("/", replica.port)])
    edge.stop()
    assert edge.ensure()
    assert reached_within_5_s(options, backend.port)
    edge.targets.sync([group("/", replica.port)])
    assert reached_within_5_s(options, replica.port)
