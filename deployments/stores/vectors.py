"""Vectors that callers bring: checked, and for the cosine normalised as those of an engine are."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deployments.stores.content import invalid
from deployments.types import Metric

MAX_COMPONENT = 65_504.0
"""Size of a number up to which every way of holding vectors can hold it.

Source: IEEE 754, the largest number of binary16.
"""


def ready_vector(
    numbers: Sequence[float], dim: int | None, param: str, metric: Metric = "cosine"
) -> NDArray[np.float32]:
    """Return float32[dim], L2-normalised for `cosine` and as it is for other metrics.

    Args:
        numbers: for `cosine` a direction, whose length does not matter.
        dim: how many there must be; None takes any.
        param: what an error names.
        metric: how the collection compares vectors.

    Raises:
        InvalidRequest: wrong dimension, NaN, infinite; for `cosine` all zero, for other metrics
            numbers beyond `MAX_COMPONENT`.
    """
    if dim is not None and len(numbers) != dim:
        raise invalid(f"the vector has {len(numbers)} numbers, not {dim}", param)
    vector = np.array(numbers, dtype=np.float64)
    if not np.isfinite(vector).all():
        raise invalid("the vector holds NaN or infinite numbers", param)
    largest = float(np.abs(vector).max(initial=0.0))
    if metric != "cosine":
        if largest > MAX_COMPONENT:
            raise invalid(f"the vector holds numbers beyond {MAX_COMPONENT:.0f}", param)
        return vector.astype(np.float32)
    if largest == 0.0:
        raise invalid("the vector is all zero and has no direction", param)
    vector /= largest
    normalised: NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return normalised
