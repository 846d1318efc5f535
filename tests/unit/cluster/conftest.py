import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.edge import Edge, EdgeOptions
from cluster.ports import LOOPBACK, free_ports
from tests.unit.cluster.edge_backend import Backend, running_backend

MAX_BODY_BYTES = 1_000_000
SECRET = "5ec2e7"


def edge_options(folder: Path, serve_port: int) -> EdgeOptions:
    return EdgeOptions(
        host=LOOPBACK,
        port=free_ports(1)[0],
        serve_address=f"{LOOPBACK}:{serve_port}",
        folder=folder,
        log=folder / "edge.log",
        secret=SECRET,
        max_body_bytes=MAX_BODY_BYTES,
    )


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with running_backend() as running:
        yield running


@pytest.fixture(scope="module")
def edge_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("edge")


@pytest.fixture(scope="module")
def edge_port(backend: Backend, edge_folder: Path) -> Iterator[int]:
    options = edge_options(edge_folder, backend.port)
    edge = Edge(options, os.environ)
    edge.start()
    try:
        yield options.port
    finally:
        edge.stop()
