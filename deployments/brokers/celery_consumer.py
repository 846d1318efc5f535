"""Celery's consumer with a loop of our own: one thread touches the connection, and it can stop.

A message is not looked into: it is news if it says so, and garbage otherwise, which is thrown away.

Source: Celery 5.7 acknowledges from the threads that ran a task, on a connection that another one
reads; it never acknowledges a message whose body it cannot read; it can be stopped through a global
of its module only, waits two seconds between looks where it has no event loop, and sends no
heartbeats there.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from celery import bootsteps
from celery.exceptions import WorkerShutdown
from celery.worker.consumer import Consumer
from kombu.common import ignore_errors

from deployments.brokers.base import NEWS

DRAIN_S: Final = 0.1
"""How long an acknowledgement may wait."""

RECONNECT_S: Final = 1.0
BEATS: Final = 2
"""How often in each of the broker's heartbeats we look at it, and send ours."""


log = logging.getLogger("celery")


class CeleryConsumer(Consumer):  # type: ignore[misc]  # Celery has no types
    """Consumes until told to stop, whatever becomes of the broker."""

    stopping: threading.Event
    take: Callable[[], bool]
    connection: Any

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc]
        """The steps that we need: neither events nor remote control nor delays."""

        default_steps = [
            "celery.worker.consumer.connection:Connection",
            "celery.worker.consumer.tasks:Tasks",
            "celery.worker.consumer.consumer:Evloop",
        ]

    event_dispatcher = None

    @classmethod
    def bound(cls, stopping: threading.Event, take: Callable[[], bool]) -> "type[CeleryConsumer]":
        """Return the class for one worker.

        Args:
            stopping: set when it shall take no more.
            take: does what news are for, on a thread; False: they are for another consumer.
        """
        members = {"stopping": stopping, "take": staticmethod(take)}
        return type("BoundConsumer", (cls,), members)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._num_active = 0
        self.amqheartbeat = self.app.conf.broker_heartbeat

    def loop(self, *args: Any) -> None:
        """Take messages, acknowledge, and send heartbeats; until stopped or the broker is lost."""
        self.task_consumer.on_message = self._receive
        self.task_consumer.consume()
        self.on_ready()
        is_taking = True
        next_beat = 0.0
        while self.blueprint.state == bootsteps.RUN:
            if self.stopping.is_set():
                if is_taking:
                    self.task_consumer.cancel()
                    is_taking = False
                if not self._num_active:
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

    def _receive(self, message: Any) -> None:
        """Have news taken on a thread of the pool; everything else goes away."""
        headers = message.headers if isinstance(message.headers, dict) else {}
        if headers.get("task") != NEWS:
            message.reject_log_error(log, self.connection_errors)
            return
        self._num_active += 1
        self.pool.apply_async(self._work, (message, self.connection))

    def _work(self, message: Any, connection: Any) -> None:
        is_taken = False
        try:
            is_taken = self.take()
        finally:  # by the thread that has the connection
            self.call_soon(self._settle, message, connection, is_taken)

    def _settle(self, message: Any, connection: Any, is_taken: bool) -> None:
        """Acknowledge a message, or give it back, on the connection that it came by."""
        self._num_active -= 1
        if connection is not self.connection:  # it was lost since; the message comes again
            return
        if is_taken:
            message.ack_log_error(log, self.connection_errors)
        else:
            message.reject_log_error(log, self.connection_errors, requeue=True)

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
        ignore_errors(connection, connection.collect, socket_timeout=RECONNECT_S)
        self.stopping.wait(RECONNECT_S)
