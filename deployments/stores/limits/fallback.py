"""Two stores: the one that everybody shares, and the host's own for as long as that is away.

Each host then has the whole limits for itself. That is said in the log, and counted.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from deployments.errors import StoreUnavailable
from deployments.stores.limits.admission import Admission, Budget, Cost, End, Exceeded, LimitStore

PAUSE_S = 1.0
"""For how long nobody asks a store that did not answer."""

WARNING_EVERY_S = 60.0

log = logging.getLogger(__name__)


class FallbackLimits:
    """A `LimitStore` of two."""

    def __init__(
        self,
        shared: LimitStore,
        own: LimitStore,
        *,
        on_fallback: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask `shared`; `on_fallback` is called whenever `own` has to do."""
        self._shared = shared
        self._own = own
        self.on_fallback = on_fallback
        self._clock = clock
        self._lock = threading.Lock()
        self._ask_again_at = float("-inf")
        self._warn_again_at = float("-inf")

    def take(self, budgets: Sequence[Budget], cost: Cost, *, may_wait: bool = True) -> Admission:
        """Take of the shared store, or of the own."""
        if self._may_ask(may_wait):
            with self._watched():
                return self._taken_of_shared(budgets, cost, may_wait)
        try:
            admission = self._own.take(budgets, cost, may_wait=may_wait)
        except Exceeded:
            self.on_fallback()
            raise
        self.on_fallback()
        return admission

    def finish(self, ends: Sequence[End], *, may_wait: bool = True) -> None:
        """Finish where it was taken; what cannot be counts as taken, and leases run out."""
        own = [end for end in ends if end.admission.store is self._own]
        shared = [end for end in ends if end.admission.store is not self._own]
        for end in shared:
            self.forget(end.admission)
        if own:
            self._own.finish(own, may_wait=may_wait)
        if shared and self._may_ask(may_wait):
            with self._watched():
                self._shared.finish(shared, may_wait=may_wait)

    def forget(self, admission: Admission) -> None:
        """Let a lease run out."""
        admission.store.forget(admission)

    def tend(self) -> None:
        """Tend both."""
        if self._may_ask(may_wait=True):
            with self._watched():
                self._shared.tend()
        self._own.tend()

    def close(self) -> None:
        """Close both."""
        self._own.close()
        self._shared.close()

    def _taken_of_shared(self, budgets: Sequence[Budget], cost: Cost, may_wait: bool) -> Admission:
        try:
            admission = self._shared.take(budgets, cost, may_wait=may_wait)
        except Exceeded:
            self._ask_again_at = float("-inf")  # it is an answer
            raise
        self._ask_again_at = float("-inf")
        return admission

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except StoreUnavailable:
            self._rest()

    def _may_ask(self, may_wait: bool) -> bool:
        """Return whether the shared store is to be asked; after a pause, by one caller first."""
        if self._ask_again_at == float("-inf"):
            return True
        with self._lock:
            now_s = self._clock()
            if now_s < self._ask_again_at:
                return False
            if may_wait:  # else it will be this caller's thread that asks
                self._ask_again_at = now_s + PAUSE_S
            return True

    def _rest(self) -> None:
        with self._lock:
            now_s = self._clock()
            self._ask_again_at = now_s + PAUSE_S
            if now_s < self._warn_again_at:
                return
            self._warn_again_at = now_s + WARNING_EVERY_S
        log.warning("Redis does not answer: each host counts limits for itself")
