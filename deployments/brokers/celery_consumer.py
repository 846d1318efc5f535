"""Celery's consumer with a loop of our own: one thread touches the connection, and it can stop.

Source: Celery 5.7 acknowledges from the threads that ran a task, on a connection that another one
reads; it can be stopped through a global of its module only, waits two seconds between looks where
it has no event loop, and sends no heartbeats there.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from celery import bootsteps
from celery.exceptions import WorkerShutdown
from celery.worker.consumer import Consumer
from kombu.common import ignore_errors

DRAIN_S: Final = 0.1
"""How long an acknowledgement may wait."""

RECONNECT_S: Final = 1.0
BEATS: Final = 2
"""How often in each of the broker's heartbeats we look at it, and send ours."""


class CeleryConsumer(Consumer):  # type: ignore[misc]  # Celery has no types
    """Consumes until told to stop, whatever becomes of the broker."""

    stopping: threading.Event
    num_active: Callable[[], int]

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc]
        """The steps that we need: neither events nor remote control nor delays."""

        default_steps = [
            "celery.worker.consumer.connection:Connection",
            "celery.worker.consumer.tasks:Tasks",
            "celery.worker.consumer.consumer:Evloop",
        ]

    event_dispatcher = None

    @classmethod
    def bound(
        cls, stopping: threading.Event, num_active: Callable[[], int]
    ) -> "type[CeleryConsumer]":
        """Return the class for one worker.

        Args:
            stopping: set when it shall take no more.
            num_active: how many messages are being worked on.
        """
        members = {"stopping": stopping, "num_active": staticmethod(num_active)}
        return type("BoundConsumer", (cls,), members)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.amqheartbeat = self.app.conf.broker_heartbeat

    def loop(self, *args: Any) -> None:
        """Take messages, acknowledge, and send heartbeats; until stopped or the broker is lost."""
        self.task_consumer.on_message = self.create_task_handler()
        self.task_consumer.consume()
        self.on_ready()
        is_taking = True
        next_beat = 0.0
        while self.blueprint.state == bootsteps.RUN:
            if self.stopping.is_set():
                if is_taking:
                    self.task_consumer.cancel()
                    is_taking = False
                if not self.num_active():
                    raise WorkerShutdown(0)
            self.perform_pending_operations()
            now = time.monotonic()
            if self.connection.supports_heartbeats and now >= next_beat:
                self.connection.heartbeat_check(BEATS)
                next_beat = now + self.amqheartbeat / BEATS
            try:
                self.connection.drain_events(timeout=DRAIN_S)
            except TimeoutError as error:
                if error.errno is not None:  # not ours: the system gave the connection up
                    raise

    def call_soon_ack(self, p: Callable[..., object], *args: Any, **kwargs: Any) -> object:
        """Leave an acknowledgement to the thread that has the connection."""
        return self.call_soon(p, *args, **kwargs)

    def ensure_connected(self, conn: Any) -> Any:
        """Return a connection once it is there; raises WorkerShutdown when stopped before."""
        while not self.stopping.is_set():
            try:
                conn.connect()
                return conn
            except (*self.connection_errors, *self.channel_errors):
                self.stopping.wait(RECONNECT_S)
        raise WorkerShutdown(0)

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        """Drop a connection that was lost; what runs goes on, and its message comes again."""
        connection, self.connection = self.connection, None
        self._pending_operations.clear()  # they are of that connection
        ignore_errors(connection, connection.collect, socket_timeout=RECONNECT_S)
        self.stopping.wait(RECONNECT_S)
