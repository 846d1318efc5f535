"""How many tokens came in the last few seconds."""

import time
from collections import deque

WINDOW_S = 5.0


class TokenRate:
    """A sliding window over an engine's steps."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque()

    def add(self, num_tokens: int) -> None:
        """Count the tokens of a step that ends now."""
        self._steps.append((time.monotonic(), num_tokens))
        self._forget()

    @property
    def tokens_per_s(self) -> float:
        """Return the mean rate over the window."""
        self._forget()
        return sum(count for _, count in self._steps) / WINDOW_S

    def _forget(self) -> None:
        oldest = time.monotonic() - WINDOW_S
        while self._steps and self._steps[0][0] < oldest:
            self._steps.popleft()
