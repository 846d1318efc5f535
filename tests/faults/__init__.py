"""What the fault tests share: I/O that fails at a chosen call, and what must hold afterwards."""

import os

IS_COMPLETE = os.environ.get("RAGSERVE_TEST_FAULTS") == "all"
"""`make test-faults`: every point. Otherwise a fixed part of them, spread over all."""


def chosen(points: int, everyday: int) -> list[int]:
    """Return the numbers 1 to `points`, or `everyday` of them at most."""
    every = list(range(1, points + 1))
    return every if IS_COMPLETE else every[:: max(1, -(-points // everyday))]
