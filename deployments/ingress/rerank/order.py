"""The order of results: by score, then as they were sent."""

from collections.abc import Sequence


def best_first(scores: Sequence[float]) -> list[int]:
    """Return the indices by falling score; equal ones keep their order."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])
