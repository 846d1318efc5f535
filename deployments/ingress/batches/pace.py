"""How many lines of a batch run at once: as many as do not slow down who waits for an answer.

A batch may take a day. While nobody else asks, as many lines run at once as the models do well. Of
those who wait for an answer the ingresses tell (`make_way`); then a batch begins again with one
line, and adds others, up to a part of what it may have alone, as long as its own lines show that
nobody is slowed by them: by the time that each takes per token.

So the limit is found as TCP finds a connection's: it grows by one for each good round of lines
(doubles, until the first bad one, while the batch is alone), and is halved when a line was refused
(429, 503), or when a round took too much longer than the best one did (`SLOWER_ALONE`,
`SLOWER_BESIDE`). The best round is forgotten slowly (`FORGOTTEN`), for it may have been of shorter
prompts.

Source: Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in
Computer Networks" (1989): additive increase and multiplicative decrease shares fairly.
"""

import asyncio
import statistics
from typing import Final

SLOWER_ALONE: Final = 2.5
"""Lines may wait for each other; but who comes next waits for all that are under way."""

SLOWER_BESIDE: Final = 1.1
FORGOTTEN: Final = 1.01
"""What the best round is multiplied by after each other one: twice as slow after 70 of them."""

ROUND: Final = 4
"""Lines of a round at least: the median of fewer says nothing."""

PART_BESIDE: Final = 4
"""A batch may have a fourth of its lines at once beside others."""

QUIET_S: Final = 3.0
"""When nobody has waited for so long, a batch takes itself for alone."""


class Pace:
    """Lets lines begin; of one event loop."""

    def __init__(self, max_at_once: int) -> None:
        """Begin with a round at once; there are never more than `max_at_once`."""
        self._max = max_at_once
        self._limit = min(ROUND, max_at_once)
        self._num_running = 0
        self._changed = asyncio.Event()
        self._round: list[float] = []
        self._num_refused = 0
        self._is_starting = True
        self._is_beside = False
        self._best: float | None = None

    @property
    def limit(self) -> int:
        """Return how many lines may run at once now."""
        return self._limit

    async def enter(self) -> None:
        """Wait until another line may begin."""
        while self._num_running >= self._limit:
            self._changed.clear()
            await self._changed.wait()
        self._num_running += 1

    def leave(self) -> None:
        """Say that a line has ended."""
        self._num_running -= 1
        self._changed.set()

    def make_way(self, idle_s: float) -> None:
        """Say for how long nobody has waited for an answer."""
        is_beside = idle_s < QUIET_S
        if is_beside == self._is_beside:
            return
        self._is_beside, self._is_starting = is_beside, not is_beside
        self._best, self._round = None, []  # times are others now
        if is_beside:
            self._limit = 1

    def refuse(self) -> None:
        """Say that a line was refused: there is no room.

        As many refusals as there are lines at once tell the same, and halve the limit once.
        """
        self._num_refused += 1
        if self._num_refused == 1 or self._num_refused > self._limit + 1:
            self._num_refused = 1
            self._slow_down()

    def note(self, seconds_per_token: float) -> None:
        """Say how long a line took that was answered."""
        self._round.append(seconds_per_token)
        if len(self._round) < max(ROUND, self._limit):
            return
        median, self._round = statistics.median(self._round), []
        was_refused, self._num_refused = self._num_refused > 0, 0
        best = median if self._best is None else min(median, self._best * FORGOTTEN)
        self._best = best
        if median > best * (SLOWER_BESIDE if self._is_beside else SLOWER_ALONE):
            self._slow_down()
        elif not was_refused:
            grown = self._limit * 2 if self._is_starting else self._limit + 1
            most = max(1, self._max // PART_BESIDE) if self._is_beside else self._max
            self._limit = min(most, grown)
            self._changed.set()

    def _slow_down(self) -> None:
        self._is_starting = False
        self._limit = max(1, self._limit // 2)
