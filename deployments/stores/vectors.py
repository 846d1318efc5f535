"""Vectors that callers bring: checked, and normalised as those of an engine are."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deployments.stores.content import invalid


def ready_vector(numbers: Sequence[float], dim: int | None, param: str) -> NDArray[np.float32]:
    """Return float32[dim], L2-normalised.

    Args:
        numbers: a direction; its length does not matter.
        dim: how many there must be; None takes any.
        param: what an error names.

    Raises:
        InvalidRequest: wrong dimension, NaN, infinite, or all zero.
    """
    if dim is not None and len(numbers) != dim:
        raise invalid(f"the vector has {len(numbers)} numbers, not {dim}", param)
    vector = np.array(numbers, dtype=np.float64)
    if not np.isfinite(vector).all():
        raise invalid("the vector holds NaN or infinite numbers", param)
    largest = float(np.abs(vector).max(initial=0.0))
    if largest == 0.0:
        raise invalid("the vector is all zero and has no direction", param)
    vector /= largest
    normalised: NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return normalised
