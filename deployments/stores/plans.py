"""When a collection's vectors are searched through which index, and when it is built again."""

from dataclasses import dataclass

from deployments.stores.accelerators import Accelerator, AcceleratorKind
from deployments.types import IndexKind

MIN_CODES_ROWS = 256
"""Product quantisation learns 256 values of each byte, and needs as many rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes that decide; in rows. Tests take smaller ones."""

    min_graph_rows: int = 2_000
    """Rows below which a graph that was asked for is not worth building."""
    min_lists_rows: int = 10_000
    """The same for lists: 39 rows for each of 256."""
    auto_graph_rows: int = 30_000
    """Rows from which on `auto` builds a graph: below it, all are read in 3 ms."""
    auto_lists_rows: int = 500_000
    """Rows from which on `auto` builds lists: a graph takes longer and twice the rows' memory.

    Source: at 1,000,000 × 384 on two busy cores, lists were built and tuned in 250 s and answer in
    0.9 ms at recall 0.975; a graph was not complete after 7 minutes. At 50,000 a graph is built
    sooner than lists (7 s, 11 s) and answers sooner (0.15 ms, 0.25 ms).
    """
    min_tail: int = 8_192
    """Rows after the accelerator's that are searched exactly; more are added to it."""
    tail_share: float = 1 / 50
    """The same as a share of the accelerator's rows: copying it must be worth it."""
    retraining: float = 2.0
    """How often as many rows as at its training make lists due for another."""
    min_auto_recall: float = 0.9
    """Recall@10 below which `auto` stays with exact search until there are twice as many rows."""
    cost_factor: float = 1.0
    """What an accelerated search counts for against an exact one; 0 always prefers it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A piece of work: build an accelerator of this kind, or extend the one that there is."""

    kind: AcceleratorKind
    extends: bool


def wanted_kind(kind: IndexKind, num_rows: int, limits: Limits) -> AcceleratorKind | None:
    """Return which accelerator a collection of that size should have; None is exact search."""
    num_rows -= num_rows % 8
    can_be_lists = num_rows >= max(limits.min_lists_rows, MIN_CODES_ROWS)
    if kind == "hnsw":
        return "hnsw" if num_rows >= limits.min_graph_rows else None
    if kind == "ivfpq":
        return "ivfpq" if can_be_lists else None
    if kind == "flat" or num_rows < limits.auto_graph_rows:
        return None
    return "ivfpq" if can_be_lists and num_rows >= limits.auto_lists_rows else "hnsw"


def plan(
    kind: IndexKind, num_rows: int, accelerator: Accelerator | None, limits: Limits
) -> Plan | None:
    """Return what is due, if anything."""
    wanted = wanted_kind(kind, num_rows, limits)
    if wanted is None:
        return None
    if accelerator is None or accelerator.kind != wanted:
        return Plan(wanted, extends=False)
    if wanted == "ivfpq" and num_rows >= limits.retraining * accelerator.num_trained:
        return Plan(wanted, extends=False)
    tail = num_rows - len(accelerator)
    if tail >= max(8, limits.min_tail, limits.tail_share * len(accelerator)):
        return Plan(wanted, extends=True)
    return None
