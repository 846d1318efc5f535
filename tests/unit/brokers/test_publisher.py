"""The publisher: nobody waits for it, whatever its broker does."""

import threading
import time

import pytest

from deployments.backoff import Backoff
from deployments.brokers import publisher as publisher_module
from deployments.brokers.base import NEWS, published
from deployments.brokers.celery_broker import CeleryBroker
from deployments.brokers.opening import CONSUMING, open_broker, open_publisher
from deployments.brokers.publisher import MAX_WAITING, Publisher
from deployments.brokers.table import TableBroker
from deployments.config import Settings
from deployments.errors import RagError
from tests.unit.brokers.conftest import Server, Taker, consuming, until


class Slow(TableBroker):
    """Takes news when it is let."""

    def __init__(self) -> None:
        super().__init__(CONSUMING)
        self.free = threading.Event()
        self.num = 0
        self.is_closed = False

    def enqueue_task_sync(self, task_name, args=None, kwargs=None, **options):
        assert self.free.wait(30)
        self.num += 1
        return published("1")

    def close(self) -> None:
        self.is_closed = True


def test_nobody_waits_and_only_so_much_is_kept() -> None:
    broker = Slow()
    publisher = Publisher(broker)
    began = time.monotonic()
    for _ in range(3 * MAX_WAITING):
        publisher.tell()
    assert time.monotonic() - began < 1
    broker.free.set()
    publisher.close()
    assert MAX_WAITING <= broker.num <= MAX_WAITING + 1
    assert broker.is_closed


class Failing(TableBroker):
    """Refuses the first pieces of news."""

    def __init__(self, num_failures: int) -> None:
        super().__init__(CONSUMING)
        self.num_failures = num_failures
        self.num = 0

    def enqueue_task_sync(self, task_name, args=None, kwargs=None, **options):
        if self.num_failures:
            self.num_failures -= 1
            raise TimeoutError("not confirmed")
        self.num += 1
        return published("1")


def test_what_is_not_confirmed_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "RETRY", Backoff(0.01, 0.02))
    broker = Failing(3)
    publisher = Publisher(broker)
    for _ in range(20):
        publisher.tell()
    until(lambda: broker.num == 20)
    publisher.close()
    assert broker.num == 20


def test_closing_does_not_wait_for_a_broker_that_is_away() -> None:
    broker = Failing(10**9)
    publisher = Publisher(broker)
    publisher.tell()
    until(lambda: broker.num_failures < 10**9)
    began = time.monotonic()
    publisher.close()
    assert not publisher._thread.is_alive()
    assert time.monotonic() - began < 4


def test_each_telling_is_one_piece_of_news(server: Server, queue: str) -> None:
    taker = Taker()
    with consuming(queue, server.url, taker):
        broker = CeleryBroker(queue, server.url)
        broker.initialize()
        publisher = Publisher(broker)
        for _ in range(10):
            publisher.tell()
        until(lambda: taker.num == 10)
        publisher.close()


def test_a_broker_that_is_away_costs_nothing_and_comes_back(server: Server, queue: str) -> None:
    taker = Taker()
    broker = CeleryBroker(queue, server.url)
    broker.initialize()
    publisher = Publisher(broker)
    with consuming(queue, server.url, taker):
        publisher.tell()
        until(lambda: taker.num == 1)
        server.stop()
        began = time.monotonic()
        for _ in range(100):
            publisher.tell()
        assert time.monotonic() - began < 0.5
        time.sleep(3)
        server.start()
        until(lambda: publisher.tell() or taker.num > 1)
    publisher.close()
    assert not publisher._thread.is_alive()


def opened(monkeypatch: pytest.MonkeyPatch, tmp_path, url: str):
    monkeypatch.setenv("RAGSERVE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("RAGSERVE_BROKER_URL", url)
    assert Settings().broker_url == url
    return open_publisher()


def test_no_address_is_the_table_itself(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    broker = opened(monkeypatch, tmp_path, "")
    assert isinstance(broker, TableBroker)
    assert not broker.is_telling
    assert broker.enqueue_task_sync(NEWS).status == "PENDING"


def test_installations_do_not_share_a_queue(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    queues = {
        opened(monkeypatch, tmp_path / name, "redis://127.0.0.1:1")._queue for name in ("a", "b")
    }
    assert len(queues) == 2


@pytest.mark.parametrize("url", ["http://127.0.0.1", "sqs://", "127.0.0.1:5672", "memory://"])
def test_other_brokers_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path, url: str) -> None:
    with pytest.raises(RagError, match="begins with none of"):
        opened(monkeypatch, tmp_path, url)


def test_a_broker_without_its_extra_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "deployments.brokers.celery_broker", None)
    with pytest.raises(RagError, match="extra"):
        opened(monkeypatch, tmp_path, "redis://127.0.0.1:1")


def test_a_broker_knows_nothing_of_tasks(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("RAGSERVE_STATE_DIR", str(tmp_path))
    broker = open_broker(CONSUMING)
    for ask in (broker.get_task_status_sync, broker.cancel_task_sync):
        with pytest.raises(NotImplementedError, match="the table knows"):
            ask("task_1")
    with pytest.raises(ValueError, match="no news"):
        broker.register_task_handle(print, "other")
