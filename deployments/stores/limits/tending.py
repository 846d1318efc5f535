"""Keeps the leases of a process alive for as long as it lives."""

import logging
import threading

from deployments.errors import RagError
from deployments.stores.limits.admission import LimitStore

PERIOD_S = 10.0
"""A third of what a lease lasts: two renewals may fail."""

log = logging.getLogger(__name__)


class Tending:
    """A thread that tends a store; it keeps no process from ending."""

    def __init__(self, store: LimitStore, period_s: float = PERIOD_S) -> None:
        """Begin."""
        self._store = store
        self._period_s = period_s
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="limits-tending", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop, and return when the last renewal is done."""
        self._has_ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._has_ended.wait(self._period_s):
            try:
                self._store.tend()
            except RagError as error:
                log.warning("leases could not be renewed: %s", error.message)
