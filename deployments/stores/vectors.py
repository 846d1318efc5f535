"""Vectors that callers bring: checked, and normalised as those of an engine are."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deployments.stores.content import invalid
from deployments.types import Metric

MAX_NUMBER = 65_504
"""Of a vector that is not normalised: the largest that fp16 has, as which an index may hold it."""


def ready_vector(
    numbers: Sequence[float], dim: int | None, param: str, metric: Metric = "cosine"
) -> NDArray[np.float32]:
    """Return float32[dim]; for `cosine` L2-normalised, so that its length does not matter.

    Args:
        numbers: a direction for `cosine`, else the vector as it is compared.
        dim: how many there must be; None takes any.
        param: what an error names.
        metric: of the collection.

    Raises:
        InvalidRequest: wrong dimension, NaN, infinite, too large, or without a
            direction where one is needed.
    """
    if dim is not None and len(numbers) != dim:
        raise invalid(f"the vector has {len(numbers)} numbers, not {dim}", param)
    vector = np.array(numbers, dtype=np.float64)
    if not np.isfinite(vector).all():
        raise invalid("the vector holds NaN or infinite numbers", param)
    largest = float(np.abs(vector).max(initial=0.0))
    if metric != "cosine":
        if largest > MAX_NUMBER:
            raise invalid(f"the vector holds numbers beyond {MAX_NUMBER}", param)
        return vector.astype(np.float32)
    if largest == 0.0:
        raise invalid("the vector is all zero and has no direction", param)
    vector /= largest
    normalised: NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return normalised
