"""When maintenance does what: how often it looks, and how much must have changed."""

from dataclasses import dataclass

from deployments.stores.writes import LOG_LENGTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When something is due. Tests take smaller numbers."""

    interval_s: float = 5.0
    """Between two looks at all collections; what an erasure leaves in memory goes within it."""
    sweep_s: float = 600.0
    """Between two looks for what nobody uses on the disk."""
    rest_s: float = 30.0
    """How long a collection rests after its first failure; twice as long after each other."""
    min_rows: int = 5_000
    """Rows below which a snapshot saves nothing: they are built in a second."""
    min_changed: float = 0.1
    """Share of changed rows that makes another snapshot due, and must be replayed until then."""
    max_changed: int = 50_000
    """Changed rows that do so in any case: replaying them takes some five seconds."""
    max_lag: int = LOG_LENGTH // 2
    """Transactions that do so too: a snapshot that the log no longer reaches is of no use."""
