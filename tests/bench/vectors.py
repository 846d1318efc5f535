"""Vectors like those of texts: topics of different sizes, few real dimensions, near neighbours.

A point is the centre of one of √n topics, whose sizes follow Zipf's law, plus a step in a latent
space of 64 dimensions whose spectrum falls as i^-½; each topic stretches 16 of them by 2. A random
map takes both to `dim` dimensions, where noise of a tenth of the step is added; then the vector is
normalised. Queries are further points of the same kind that are not stored. Everything follows from
the seed, part by part, so that any number of rows begins with the same ones.

How hard the data are says `intrinsic_dimension`: sentence encoders' outputs have 15 to 30, uniform
noise of 384 dimensions over 100, where no index finds much.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LATENT = 64
STRETCHED = 16
STEP = 0.8
NOISE = 0.1
PART = 50_000

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Topics:
    """Where points come from."""

    centres: Array
    """float32[topics, LATENT]."""
    stretch: Array
    """float32[topics, LATENT]."""
    shares: NDArray[np.float64]
    to_dim: Array
    """float32[LATENT, dim]."""


def topics(num_rows: int, dim: int, seed: int = 1) -> Topics:
    random = np.random.default_rng(seed)
    count = max(8, int(num_rows**0.5))
    shares = 1 / np.arange(1, count + 1) ** 0.8
    stretch = np.ones((count, LATENT), dtype=np.float32)
    for row in stretch:
        row[random.permutation(LATENT)[:STRETCHED]] = 2.0
    spectrum = np.arange(1, LATENT + 1, dtype=np.float32) ** -0.5
    return Topics(
        centres=normal(random, count, LATENT) * spectrum,
        stretch=stretch * spectrum * STEP,
        shares=shares / shares.sum(),
        to_dim=normal(random, LATENT, dim) / np.float32(LATENT**0.5),
    )


def normal(random: np.random.Generator, *shape: int) -> Array:
    return random.standard_normal(shape, dtype=np.float32)


def points(source: Topics, count: int, seed: int) -> Array:
    """Return float32[count, dim], L2-normalised."""
    random = np.random.default_rng(seed)
    chosen = random.choice(len(source.shares), count, p=source.shares)
    latent = source.centres[chosen] + source.stretch[chosen] * normal(random, count, LATENT)
    vectors = latent @ source.to_dim
    scale = NOISE * STEP * float(np.abs(vectors).mean())
    vectors += scale * normal(random, *vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def parts(source: Topics, num_rows: int) -> Iterator[Array]:
    """Yield `num_rows` points in bounded parts."""
    for number, first in enumerate(range(0, num_rows, PART)):
        yield points(source, PART, seed=1000 + number)[: num_rows - first]


def queries(source: Topics, count: int) -> Array:
    return points(source, count, seed=2)


def nearest(vectors: Array, asked: Array, k: int) -> NDArray[np.int64]:
    """Return the rows of the true neighbours, int64[queries, k], best first."""
    best_scores = np.full((len(asked), k), -np.inf, dtype=np.float32)
    best_rows = np.zeros((len(asked), k), dtype=np.int64)
    for first in range(0, len(vectors), PART):
        scores = asked @ vectors[first : first + PART].T
        scores = np.concatenate([best_scores, scores], axis=1)
        rows = np.arange(first, first + scores.shape[1] - k)
        rows = np.concatenate([best_rows, np.broadcast_to(rows, (len(asked), len(rows)))], axis=1)
        chosen = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        best_scores = np.take_along_axis(scores, chosen, axis=1)
        best_rows = np.take_along_axis(rows, chosen, axis=1)
    order = np.argsort(-best_scores, axis=1)
    return np.take_along_axis(best_rows, order, axis=1)


def intrinsic_dimension(vectors: Array, asked: Array, k: int = 100) -> float:
    """Return the local intrinsic dimension at the queries, the median of them.

    Source: Levina and Bickel, NIPS 2004: the maximum likelihood estimate from `k` distances.
    """
    rows = nearest(vectors, asked, k)
    near = np.take(vectors, rows, axis=0)
    distances = np.linalg.norm(near - asked[:, np.newaxis], axis=2)
    estimates = (k - 1) / np.log(distances[:, -1:] / distances[:, :-1]).sum(axis=1)
    return float(np.median(estimates))
