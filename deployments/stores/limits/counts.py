"""The rows of the limits' file: read, added to, and given back of."""

import sqlite3

from deployments.stores.limits.admission import Budget, Cost, End
from deployments.stores.limits.windows import DAY_S, LEASE_S, WINDOW_S, Used


def used_by(connection: sqlite3.Connection, budget: Budget, now_s: float, wall_s: float) -> Used:
    """Return what counts of a subject; what is of the future is made to count as of now."""
    subject, limits, second = budget.subject, budget.limits, int(now_s)
    buckets: list[tuple[int, int, int]] = []
    if limits.requests_per_minute is not None or limits.tokens_per_minute is not None:
        query = "SELECT second, requests, tokens FROM bucket WHERE subject = ? AND second >= ?"
        buckets = connection.execute(query, (subject, second - WINDOW_S)).fetchall()
        buckets = _without_future(connection, subject, buckets, second)
    day_tokens = num_leases = 0
    if limits.tokens_per_day is not None:
        query = "SELECT tokens FROM day WHERE subject = ? AND day = ?"
        row = connection.execute(query, (subject, int(wall_s // DAY_S))).fetchone()
        day_tokens = row[0] if row else 0
    if limits.max_concurrent is not None:
        longest_s = now_s + LEASE_S
        query = "SELECT count(*), max(expires_at) FROM lease WHERE subject = ? AND expires_at > ?"
        num_leases, last_s = connection.execute(query, (subject, now_s)).fetchone()
        if num_leases and last_s > longest_s:  # by a clock of the future
            query = "UPDATE lease SET expires_at = ? WHERE subject = ? AND expires_at > ?"
            connection.execute(query, (longest_s, subject, longest_s))
    return Used(tuple(buckets), day_tokens, num_leases, now_s, DAY_S - wall_s % DAY_S)


def _without_future(
    connection: sqlite3.Connection,
    subject: str,
    buckets: list[tuple[int, int, int]],
    second: int,
) -> list[tuple[int, int, int]]:
    future = [bucket for bucket in buckets if bucket[0] > second]
    if not future:
        return buckets
    connection.execute("DELETE FROM bucket WHERE subject = ? AND second > ?", (subject, second))
    requests, tokens = sum(one[1] for one in future), sum(one[2] for one in future)
    _add(connection, subject, second, requests, tokens)
    return [*(one for one in buckets if one[0] <= second), (second, requests, tokens)]


def spend(
    connection: sqlite3.Connection, budget: Budget, cost: Cost, second: int, day: int
) -> None:
    """Count a cost in a second and on a day, as far as the limits ask for it."""
    limits = budget.limits
    if limits.requests_per_minute is not None or limits.tokens_per_minute is not None:
        _add(connection, budget.subject, second, cost.requests, cost.tokens)
    if limits.tokens_per_day is not None and cost.tokens:
        connection.execute(
            "INSERT INTO day VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET tokens = tokens + excluded.tokens",
            (budget.subject, day, cost.tokens),
        )


def _add(
    connection: sqlite3.Connection, subject: str, second: int, requests: int, tokens: int
) -> None:
    connection.execute(
        "INSERT INTO bucket VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "requests = requests + excluded.requests, tokens = tokens + excluded.tokens",
        (subject, second, requests, tokens),
    )


def settle(connection: sqlite3.Connection, budget: Budget, end: End, now: int, today: int) -> None:
    """Write what becomes of an admission of a budget; `now` is a second, `today` a day."""
    taken, more = end.admission, end.more
    if more > 0:
        spend(connection, budget, Cost(tokens=more), now, today)
    elif more < 0:
        _give_back(connection, budget.subject, -more, taken.second, taken.day)
    if taken.lease:
        row = (budget.subject, taken.lease)
        connection.execute("DELETE FROM lease WHERE subject = ? AND id = ?", row)


def _give_back(
    connection: sqlite3.Connection, subject: str, tokens: int, second: int, day: int
) -> None:
    connection.execute(
        "UPDATE bucket SET tokens = max(0, tokens - ?) WHERE subject = ? AND second = ?",
        (tokens, subject, second),
    )
    connection.execute(
        "UPDATE day SET tokens = max(0, tokens - ?) WHERE subject = ? AND day = ?",
        (tokens, subject, day),
    )
