"""How long to wait before trying again: twice as long each time, a part of it left to chance.

Source: Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), "equal jitter": who
failed together does not come back together, and nobody comes back at once.
"""

import random
from dataclasses import dataclass

MAX_DOUBLINGS = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pauses of one kind of attempt, in seconds."""

    base_s: float
    max_s: float

    def longest_s(self, num_failures: int) -> float:
        """Return the longest pause after so many failures, of which there was one at least."""
        doublings = min(max(0, num_failures - 1), MAX_DOUBLINGS)
        return min(self.max_s, self.base_s * 2.0**doublings)

    def pause_s(self, num_failures: int) -> float:
        """Return a pause after so many failures: half of the longest at least."""
        return self.longest_s(num_failures) * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
