"""RabbitMQ and Redis, spoken to by Celery.

A quorum queue with publisher confirms, or a list with a visibility timeout; a message is
acknowledged once what it caused has ended, or was held for long. Celery keeps no results, sends no
events and takes no remote commands here, and what it logs stays silent: it would show messages.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

from celery import Celery
from kombu import Exchange, Queue
from kombu.common import ignore_errors
from ray.serve.schema import TaskResult

from deployments.brokers.base import Broker, NotHere, published
from deployments.brokers.celery_consumer import CeleryConsumer
from deployments.errors import RagError

SILENT_LOGS = ("celery", "kombu", "amqp")
PUBLISH_TIMEOUT_S: Final = 2.0
SOCKET_TIMEOUT_S: Final = 5.0
"""Of a consumer's Redis; longer than it lets the server wait for a message, a second."""

VISIBILITY_S: Final = 1800
"""After which Redis' consumers take a message for lost; longer than one is held."""

HEARTBEAT_S: Final = 20
MAX_LENGTH: Final = 100_000
"""Of a RabbitMQ queue that nobody consumes; then the oldest news go."""

RESTART_S: Final = 1.0
STOP_S: Final = 10.0

log = logging.getLogger("ray.serve")


class CeleryBroker(Broker):
    """Publishes for an ingress, or consumes for a worker."""

    def __init__(self, queue: str, url: str) -> None:
        """Take the queue's name and the broker's address; nothing connects yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._queue = queue
        self._url = address_of(url)
        self._concurrency = 1
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: Any = None
        self._publishing = threading.Lock()

    def initialize(self, consumer_concurrency: int = 1) -> None:
        """Say how many pieces of news are taken at once."""
        for name in SILENT_LOGS:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._concurrency = consumer_concurrency
        self._app = Celery("ragserve", broker=self._url, set_as_current=False)
        self._app.conf.update(
            broker_connection_timeout=PUBLISH_TIMEOUT_S,
            broker_heartbeat=HEARTBEAT_S,
            broker_pool_limit=0,
            broker_transport_options=_transport_options(self._url),
            task_queues=[_queue(self._queue, self._url)],
            task_default_queue=self._queue,
            task_ignore_result=True,
            task_publish_retry=False,
            worker_prefetch_multiplier=1,
            worker_enable_prefetch_count_reduction=False,
            worker_enable_remote_control=False,
            worker_hijack_root_logger=False,
        )

    def enqueue_task_sync(
        self, task_name: str, args: Any = None, kwargs: Any = None, **options: Any
    ) -> TaskResult:
        """Send news; returns when RabbitMQ has confirmed it, or raises what Celery raises."""
        with self._publishing:
            if self._connection is None:  # our own: Celery's pools are shared by the process
                self._connection = self._app.connection_for_write(heartbeat=0)
            try:
                sent = self._app.send_task(
                    task_name,
                    args=args,
                    kwargs=kwargs,
                    connection=self._connection,
                    ignore_result=True,
                    timeout=PUBLISH_TIMEOUT_S,
                    confirm_timeout=PUBLISH_TIMEOUT_S,
                    **options,
                )
            except Exception:
                self._disconnect()
                raise
        return published(str(sent.id))

    def start_consumer(self, **kwargs: Any) -> None:
        """Consume on a thread until stopped; it waits for a broker that is away."""
        self._thread = threading.Thread(target=self._consume, name="broker", daemon=True)
        self._thread.start()

    def stop_consumer(self, timeout: float = STOP_S) -> None:
        """Take no more news; return when what was taken has ended, or after a time."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def close(self) -> None:
        """Let go of connections for publishing."""
        with self._publishing:
            self._disconnect()

    def check(self) -> None:
        """Raise RagError when the consumer's thread has died."""
        if self._thread is not None and not self._thread.is_alive():
            raise RagError("the broker's consumer does not run any more")

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            ignore_errors(connection, connection.collect, socket_timeout=PUBLISH_TIMEOUT_S)

    def _on_news(self, func: Callable[..., Any]) -> None:
        def take() -> bool:
            try:
                func()
            except NotHere:
                return False
            except Exception as error:  # the table has the task; the message has done its part
                log.error("taking a task failed: %s", type(error).__name__)
            return True

        self._take = take

    def _consume(self) -> None:
        """Run consumers one after the other: Celery's ends at some errors."""
        while not self._stopping.is_set():
            try:
                worker = self._app.WorkController(
                    app=self._app,
                    hostname=f"ragserve-{uuid4().hex}@local",
                    pool="threads",
                    concurrency=self._concurrency,
                    consumer_cls=CeleryConsumer.bound(self._stopping, self._take),
                    use_eventloop=False,
                    task_events=False,
                    without_heartbeat=True,
                    without_mingle=True,
                    without_gossip=True,
                )
                worker.start()
            except Exception as error:  # whatever it is, the next one may do better
                log.warning("the broker's consumer begins anew: %s", type(error).__name__)
            self._stopping.wait(RESTART_S)


def address_of(url: str) -> str:
    """Return an address as Celery wants it."""
    if url.startswith("unix://"):
        return "redis+socket://" + url.removeprefix("unix://")
    return url


def _is_rabbit(url: str) -> bool:
    return url.startswith("amqp")


def _queue(name: str, url: str) -> Queue:
    arguments = {"x-queue-type": "quorum", "x-max-length": MAX_LENGTH} if _is_rabbit(url) else {}
    exchange = Exchange(name, type="direct", durable=True)
    return Queue(name, exchange, routing_key=name, durable=True, queue_arguments=arguments)


def _transport_options(url: str) -> dict[str, Any]:
    if _is_rabbit(url):
        return {
            "confirm_publish": True,
            "read_timeout": SOCKET_TIMEOUT_S,
            "write_timeout": PUBLISH_TIMEOUT_S,
        }
    return {
        "visibility_timeout": VISIBILITY_S,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": PUBLISH_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": HEARTBEAT_S,
    }
