"""A real RabbitMQ and a real Redis, and one consumer over either of them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from deployments.brokers.base import NEWS, Broker
from deployments.brokers.celery_broker import CeleryBroker
from tests.servers.rabbit_server import RabbitServer, running_rabbit
from tests.servers.redis_server import RedisServer

Server = RabbitServer | RedisServer


@pytest.fixture(scope="session")
def rabbit_process() -> Iterator[RabbitServer]:
    with running_rabbit() as server:
        yield server


@pytest.fixture(params=["rabbit", "redis"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(
        "rabbit_process" if request.param == "rabbit" else "redis_server"
    )
    return found


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    return f"test.{request.node.name}.{time.monotonic_ns()}"


class Taker:
    """Counts the news it gets; may be told to hold them."""

    def __init__(self) -> None:
        self.num = 0
        self.free = threading.Event()
        self.free.set()
        self.refuses: type[Exception] | None = None
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self.num += 1
            refused, self.refuses = self.refuses, None
        if refused is not None:
            raise refused("refused")
        assert self.free.wait(60)


@contextmanager
def consuming(queue: str, url: str, taker: Callable[[], Any], at_once: int = 2) -> Iterator[Broker]:
    broker = CeleryBroker(queue, url)
    broker.initialize(at_once)
    broker.register_task_handle(taker, NEWS)
    broker.start_consumer()
    try:
        yield broker
    finally:
        broker.stop_consumer(30)
        assert not broker._thread or not broker._thread.is_alive()


@contextmanager
def publishing(queue: str, url: str) -> Iterator[Broker]:
    broker = CeleryBroker(queue, url)
    broker.initialize()
    try:
        yield broker
    finally:
        broker.close()


def until(check: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)
