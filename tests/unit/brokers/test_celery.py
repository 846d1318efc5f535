"""News through a real RabbitMQ and a real Redis: carried, doubled, garbled, and interrupted."""

import time

import pytest
from kombu import Connection

from deployments.brokers.base import NEWS, NotHere
from deployments.brokers.celery_broker import address_of
from tests.servers.rabbit_server import RabbitServer
from tests.unit.brokers.conftest import Server, Taker, consuming, publishing, until

GARBAGE = [
    (b"no json", {"content_type": "application/json", "content_encoding": "utf-8"}),
    (b"\x80\x04K\x01.", {"content_type": "application/x-python-serialize"}),
    (b"{}", {"content_type": "application/json", "content_encoding": "utf-8"}),
    (b"[[], {}, {}]", {"headers": {"task": "posix.system", "id": "1", "lang": "py"}}),
    (b"[1, 2", {"headers": {"task": NEWS, "id": "2", "lang": "py"}}),
    (b'"text"', {"headers": {"task": NEWS, "id": "3"}}),
    (b"", {"headers": {"task": 7, "id": None}}),
    (b'[["too", "many"], {"and": "more"}, {}]', {"headers": {"task": NEWS, "id": "4"}}),
]


def depth(server: Server, queue: str) -> int:
    """Return how many messages wait."""
    if isinstance(server, RabbitServer):
        connection = server.connect()
        try:
            return int(connection.channel().queue_declare(queue, passive=True).message_count)
        finally:
            connection.close()
    with server.client() as client:
        return int(client.llen(queue)) + int(client.hlen("unacked"))


def test_news_are_carried_soon(server: Server, queue: str) -> None:
    taker = Taker()
    with consuming(queue, server.url, taker), publishing(queue, server.url) as publisher:
        publisher.enqueue_task_sync(NEWS)
        until(lambda: taker.num == 1)
        delays = []
        for index in range(2, 12):
            began = time.monotonic()
            publisher.enqueue_task_sync(NEWS)
            until(lambda index=index: taker.num == index)
            delays.append(time.monotonic() - began)
        assert sorted(delays)[5] < 0.5
        until(lambda: depth(server, queue) == 0)


def test_news_wait_for_a_consumer(server: Server, queue: str) -> None:
    with publishing(queue, server.url) as publisher:
        for _ in range(20):
            publisher.enqueue_task_sync(NEWS)
    taker = Taker()
    with consuming(queue, server.url, taker):
        until(lambda: taker.num == 20)
    assert depth(server, queue) == 0


def test_no_more_is_taken_at_once_than_wanted(server: Server, queue: str) -> None:
    taker = Taker()
    taker.free.clear()
    with consuming(queue, server.url, taker), publishing(queue, server.url) as publisher:
        for _ in range(10):
            publisher.enqueue_task_sync(NEWS)
        until(lambda: taker.num == 2)
        time.sleep(1)
        assert taker.num == 2
        taker.free.set()
        until(lambda: taker.num == 10)


@pytest.mark.parametrize(("body", "properties"), GARBAGE)
def test_garbage_goes_away_and_harms_nobody(
    server: Server, queue: str, body: bytes, properties: dict
) -> None:
    taker = Taker()
    with consuming(queue, server.url, taker) as broker:
        with publishing(queue, server.url) as publisher:
            publisher.enqueue_task_sync(NEWS)
            until(lambda: taker.num == 1)
            with Connection(address_of(server.url)) as connection:
                connection.Producer().publish(
                    body, exchange=queue, routing_key=queue, **{"serializer": None, **properties}
                )
            publisher.enqueue_task_sync(NEWS)
            until(lambda: taker.num >= 2)
        until(lambda: depth(server, queue) == 0)
        broker.check()


def test_garbage_takes_nobodys_place(server: Server, queue: str) -> None:
    taker = Taker()
    with consuming(queue, server.url, taker), publishing(queue, server.url) as publisher:
        publisher.enqueue_task_sync(NEWS)
        until(lambda: taker.num == 1)
        with Connection(address_of(server.url)) as connection:
            for body, properties in GARBAGE * 3:
                connection.Producer().publish(
                    body, exchange=queue, routing_key=queue, **{"serializer": None, **properties}
                )
        before = taker.num
        publisher.enqueue_task_sync(NEWS)
        until(lambda: taker.num > before)
        until(lambda: depth(server, queue) == 0)


def test_what_fails_is_not_repeated(server: Server, queue: str) -> None:
    taker = Taker()
    taker.refuses = ValueError
    with consuming(queue, server.url, taker), publishing(queue, server.url) as publisher:
        publisher.enqueue_task_sync(NEWS)
        until(lambda: taker.num == 1)
        publisher.enqueue_task_sync(NEWS)
        until(lambda: taker.num == 2)
    assert depth(server, queue) == 0


def test_what_belongs_elsewhere_comes_again(server: Server, queue: str) -> None:
    taker = Taker()
    taker.refuses = NotHere
    with consuming(queue, server.url, taker), publishing(queue, server.url) as publisher:
        publisher.enqueue_task_sync(NEWS)
        until(lambda: taker.num == 2)
    assert depth(server, queue) == 0


def test_stop_waits_for_what_runs(server: Server, queue: str) -> None:
    taker = Taker()
    taker.free.clear()
    with consuming(queue, server.url, taker) as broker, publishing(queue, server.url) as publisher:
        publisher.enqueue_task_sync(NEWS)
        until(lambda: taker.num == 1)
        broker.stop_consumer(0.5)
        publisher.enqueue_task_sync(NEWS)
        time.sleep(1)
        assert taker.num == 1, "it takes no more"
        assert depth(server, queue) >= 1
        taker.free.set()
        broker.stop_consumer(10)
        assert broker._thread is not None
        assert not broker._thread.is_alive()
    assert depth(server, queue) == 1, "the first was acknowledged, the second waits"


def test_consumer_comes_back_with_its_broker(server: Server, queue: str) -> None:
    taker = Taker()
    with consuming(queue, server.url, taker) as broker:
        with publishing(queue, server.url) as publisher:
            publisher.enqueue_task_sync(NEWS)
            until(lambda: taker.num == 1)
        server.stop()
        time.sleep(2)
        broker.check()
        server.start()
        with publishing(queue, server.url) as publisher:
            publisher.enqueue_task_sync(NEWS)
            until(lambda: taker.num == 2)


def test_consumer_outlives_the_loss_of_its_broker_under_work(server: Server, queue: str) -> None:
    """What ran while the broker was away is told of again, and does nothing then."""
    taker = Taker()
    taker.free.clear()
    with consuming(queue, server.url, taker) as broker:
        with publishing(queue, server.url) as publisher:
            publisher.enqueue_task_sync(NEWS)
            until(lambda: taker.num == 1)
        server.stop()
        time.sleep(1)
        server.start()
        taker.free.set()
        with publishing(queue, server.url) as publisher:
            publisher.enqueue_task_sync(NEWS)
            until(lambda: taker.num >= 2)
        broker.check()


def test_consumer_waits_for_a_broker_that_is_not_there_yet(server: Server, queue: str) -> None:
    server.stop()
    taker = Taker()
    try:
        with consuming(queue, server.url, taker) as broker:
            time.sleep(1)
            broker.check()
            server.start()
            with publishing(queue, server.url) as publisher:
                publisher.enqueue_task_sync(NEWS)
                until(lambda: taker.num == 1)
    except BaseException:
        server.kill()
        server.start()
        raise


def test_consumer_stops_while_its_broker_is_away(server: Server, queue: str) -> None:
    server.stop()
    try:
        with consuming(queue, server.url, Taker()):
            time.sleep(0.5)
    finally:
        server.start()
