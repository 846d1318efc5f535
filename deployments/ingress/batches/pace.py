"""How many lines of a batch run at once: as many as do not slow the models down by much.

A batch may take a day, and whoever waits for an answer may not. Nobody tells a batch how busy the
models are with others, but its own lines do: the time that each takes per token. So the limit is
found as TCP finds a connection's: it doubles with each round of lines until the first bad one, then
grows by one for each good one, and is halved when a line was refused (429, 503), or when a round
took more than `SLOWER` times what the best one did. So a batch slows what runs beside it, and
itself, to about half speed at worst, and gives way when others come. The best round is forgotten
slowly (`FORGOTTEN`), for it may have been of shorter prompts.

Source: Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in
Computer Networks" (1989): additive increase and multiplicative decrease shares fairly.
"""

import asyncio
import statistics

SLOWER = 2.0
FORGOTTEN = 1.01
"""What the best round is multiplied by after each other one: twice as slow after 70 of them."""

ROUND = 4
"""Lines of a round at least: the median of fewer says nothing."""


class Pace:
    """Lets lines begin; of one event loop."""

    def __init__(self, max_at_once: int) -> None:
        """Begin with one at a time; there are never more than `max_at_once`."""
        self._max = max_at_once
        self._limit = 1
        self._num_running = 0
        self._changed = asyncio.Event()
        self._round: list[float] = []
        self._num_refused = 0
        self._is_starting = True
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
        if median > SLOWER * best:
            self._slow_down()
        elif not was_refused:
            grown = self._limit * 2 if self._is_starting else self._limit + 1
            self._limit = min(self._max, grown)
            self._changed.set()

    def _slow_down(self) -> None:
        self._is_starting = False
        self._limit = max(1, self._limit // 2)
