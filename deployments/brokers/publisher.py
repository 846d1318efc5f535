"""Sends news off the path of requests: one thread, and a bounded number; what fails is sent again.

A task that nobody was told of is found in the table ten seconds later. It does not know brokers.
"""

import logging
import threading

from deployments.backoff import Backoff
from deployments.brokers.base import NEWS, Broker

MAX_WAITING = 1000
RETRY = Backoff(0.5, 5.0)
"""After failures: a broker that is away is not asked for every task."""

log = logging.getLogger("ray.serve")


class Publisher:
    """Tells consumers that there are tasks; safe to use from many threads."""

    def __init__(self, broker: Broker) -> None:
        """Take a broker that is initialized; begins a thread."""
        self._broker = broker
        self._num_waiting = 0
        self._changed = threading.Condition()
        self._is_closed = False
        self._num_failures = 0
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def tell(self) -> None:
        """Send a piece of news soon; return at once."""
        with self._changed:
            self._num_waiting = min(MAX_WAITING, self._num_waiting + 1)
            self._changed.notify()

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what waits, and end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while self._next():
            self._publish()
        self._broker.close()

    def _next(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._num_waiting or self._is_closed)
            if not self._num_waiting:
                return False
            self._num_waiting -= 1
            return True

    def _publish(self) -> None:
        try:
            self._broker.enqueue_task_sync(NEWS)
            self._num_failures = 0
        except Exception as error:  # of whatever library: the task is in the table
            self._num_failures += 1
            if self._num_failures == 1:
                log.warning("the broker takes no news: %s", type(error).__name__)
            self._wait_and_keep()

    def _wait_and_keep(self) -> None:
        """Let a broker come back; what it did not confirm is sent again, unless we close."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed, RETRY.pause_s(self._num_failures))
            is_kept = not self._is_closed
            self._num_waiting = min(MAX_WAITING, self._num_waiting + 1) if is_kept else 0
