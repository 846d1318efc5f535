"""Vectors as Arrow lists: made a matrix, and checked all at once."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deployments.stores.content import invalid
from deployments.types import Metric, Vectors

MAX_NORM_ERROR = 0.01
"""An engine's vectors may be less exact than ours: 16-bit ones are off by 1e-3."""

Problems = dict[int, str]
"""What is wrong, by row."""


def matrix(lists: pa.Array, dim: int) -> tuple[Vectors, Problems]:
    """Return float32[rows, dim], and what is wrong with the rows that hold only zeros there.

    Args:
        lists: of numbers, of any length.
        dim: the length that each must have.

    Raises:
        InvalidRequest: they are no lists of numbers.
    """
    lists = _plain_lists(lists)
    missing = np.asarray(lists.is_null())
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0))
    problems = {int(row): "the vector is missing" for row in np.flatnonzero(missing)}
    for row in np.flatnonzero(~missing & (lengths != dim)):
        problems[int(row)] = f"the vector has {lengths[row]} numbers, not {dim}"
    fitting = np.flatnonzero(~missing & (lengths == dim))
    vectors = np.zeros((len(lists), dim), dtype=np.float64 if _is_wide(lists) else np.float32)
    if len(fitting):
        kept = lists if len(fitting) == len(lists) else lists.take(pa.array(fitting))
        vectors[fitting] = _numbers(kept.flatten()).reshape(len(fitting), dim)
    with np.errstate(over="ignore"):
        narrow = vectors.astype(np.float32)
    for row in np.flatnonzero(~np.isfinite(narrow).all(axis=1)):
        problems[int(row)] = "the vector holds NaN, infinite or too large numbers"
        narrow[row] = 0
    return narrow, problems


def normalise(vectors: Vectors, problems: Problems) -> None:
    """Scale every row to length 1; note those that are all zero."""
    largest = np.abs(vectors).max(axis=1, initial=0.0, keepdims=True)
    for row in np.flatnonzero(largest[:, 0] == 0):
        problems.setdefault(int(row), "the vector is all zero and has no direction")
    wide = vectors.astype(np.float64) / np.where(largest == 0, 1, largest)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    vectors[:] = wide / np.where(norms == 0, 1, norms)


def check_norms(vectors: Vectors, problems: Problems, metric: Metric) -> None:
    """Note the rows that a `cosine` collection cannot have stored."""
    if metric != "cosine":
        return
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(vectors, axis=1)
    for row in np.flatnonzero(~(np.abs(norms - 1) <= MAX_NORM_ERROR)):
        problems.setdefault(int(row), "the vector is not normalised")


def _plain_lists(lists: pa.Array) -> pa.Array:
    kind = lists.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    is_list = is_list or pa.types.is_fixed_size_list(kind)
    if not is_list or not (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    ):
        raise invalid("the column `vector` must hold lists of numbers", "vector")
    return lists.cast(pa.large_list(kind.value_type))


def _is_wide(lists: pa.Array) -> bool:
    return not pa.types.is_float32(lists.type.value_type)


def _numbers(values: pa.Array) -> NDArray[np.float64]:
    """Return numbers, NaN where there is none."""
    if values.null_count:
        values = pc.fill_null(values.cast(pa.float64()), np.nan)
    numbers: NDArray[np.float64] = values.to_numpy(zero_copy_only=False)
    return numbers
