"""Which tasks begin next: the most urgent; of those, each tenant's in turn, the oldest first.

Of equal priority the tenant has precedence of whose tasks the fewest run, then the one that was
served longest ago: ten thousand tasks of one do not hold up the first of another.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    not_,
    or_,
    select,
)

from deployments.stores import schema
from deployments.stores.ids import microseconds
from deployments.stores.tasks.ending import RETRY

TASKS = schema.tasks
MAX_TENANTS = 10_000

PENDING: ColumnElement[str] = literal_column("'PENDING'")
RUNNING: ColumnElement[str] = literal_column("'RUNNING'")
"""Written out, since `Database.rows` takes statements whose values are all named."""

READY = and_(
    TASKS.c.status == PENDING,
    TASKS.c.not_before <= bindparam("now"),
    # A clock that fell must not delay what would have been retried within a minute.
    or_(TASKS.c.retry_at <= bindparam("now"), TASKS.c.retry_at > bindparam("latest")),
)
HAS_READY = select(exists().where(READY))
COUNTS = (
    select(TASKS.c.status, READY.label("is_ready"), func.count())
    .where(or_(TASKS.c.status == PENDING, TASKS.c.status == RUNNING))
    .group_by(TASKS.c.status, READY)
)
IS_FIRST = and_(TASKS.c.attempt == 0, TASKS.c.not_before == 0)
IS_NEW = TASKS.c.created_at.between(bindparam("newer"), bindparam("newest"))
NEXT = (
    select(TASKS.c.id)
    .where(
        READY,
        TASKS.c.priority == bindparam("priority"),
        TASKS.c.tenant == bindparam("tenant"),
        not_(and_(IS_FIRST, IS_NEW)),
    )
    .order_by(TASKS.c.id)
    .limit(bindparam("room"))
    .with_for_update(skip_locked=True)
)
NUM_RUNNING = (
    select(TASKS.c.tenant, func.count().label("num"))
    .where(TASKS.c.status == RUNNING)
    .group_by(TASKS.c.tenant)
)
NEXT_PRIORITY = select(func.max(TASKS.c.priority)).where(
    TASKS.c.status == PENDING, TASKS.c.priority < bindparam("below")
)


def _waiting_tenants() -> Select[Any]:
    """Return what asks for the tenants that wait, each with its oldest task.

    Each tenant is one look into the index, however many tasks it has.
    """
    urgent = (TASKS.c.status == PENDING, TASKS.c.priority == bindparam("priority"))
    least = select(func.min(TASKS.c.tenant)).where(*urgent)
    waiting = select(least.scalar_subquery().label("tenant")).cte("waiting", recursive=True)
    further = least.where(TASKS.c.tenant > waiting.c.tenant).correlate(waiting).scalar_subquery()
    waiting = waiting.union_all(select(further).where(waiting.c.tenant.is_not(None)))
    mine = select(func.min(TASKS.c.id)).where(*urgent, TASKS.c.tenant == waiting.c.tenant)
    oldest = mine.correlate(waiting).scalar_subquery()
    return select(waiting.c.tenant, oldest).where(waiting.c.tenant.is_not(None))


WAITING_TENANTS = _waiting_tenants()


def moment(now: int) -> dict[str, int]:
    """Return the values of `READY` at a time."""
    return {"now": now, "latest": now + microseconds(RETRY.max_s)}


class Choice:
    """Chooses for one worker; remembers whose turn it was."""

    def __init__(self) -> None:
        self._turn = 0
        self._turns: dict[str, int] = {}

    def rows(
        self, connection: Connection, max_tasks: int, now: int, min_age_us: int
    ) -> Sequence[Row[Any]]:
        """Return whole rows, held against other writers.

        Args:
            connection: of the transaction that claims them.
            max_tasks: so many at most.
            now: the time.
            min_age_us: of tasks that were never begun and waited for no time of their own.
        """
        values = moment(now) | {"newer": now - min_age_us, "newest": now + min_age_us}
        if min_age_us <= 0:
            values |= {"newer": 0, "newest": -1}  # none is too new
        running = {row.tenant: row.num for row in connection.execute(NUM_RUNNING)}
        ids: list[str] = []
        for priority in _priorities(connection):
            given = {**values, "priority": priority, "room": max_tasks - len(ids)}
            ids += self._of_priority(connection, given, running)
            if len(ids) >= max_tasks:
                break
        if not ids:
            return []
        rows = connection.execute(select(TASKS).where(TASKS.c.id.in_(ids)))
        return sorted(rows, key=lambda row: ids.index(row.id))

    def _of_priority(
        self, connection: Connection, given: Mapping[str, int], running: dict[str, int]
    ) -> list[str]:
        """Return the ids of the next tasks of a priority; counts them in `running`."""
        tenants = connection.execute(WAITING_TENANTS, {"priority": given["priority"]})
        ranked = sorted(
            (running.get(tenant, 0), self._turns.get(tenant, 0), oldest, tenant)
            for tenant, oldest in tenants
        )
        places: list[tuple[int, int, str, str, str]] = []
        num_tenants = 0
        for num, turn, oldest, tenant in ranked:
            found = connection.scalars(NEXT, {**given, "tenant": tenant}).all()
            places += [(num + i, turn, oldest, id_, tenant) for i, id_ in enumerate(found)]
            num_tenants += bool(found)
            if num_tenants >= given["room"]:
                break
        chosen = sorted(places)[: given["room"]]
        for *_, tenant in chosen:
            running[tenant] = running.get(tenant, 0) + 1
            self._serve(tenant)
        return [id_ for *_, id_, _tenant in chosen]

    def _serve(self, tenant: str) -> None:
        if len(self._turns) >= MAX_TENANTS:
            self._turns.clear()
        self._turn += 1
        self._turns[tenant] = self._turn


def _priorities(connection: Connection) -> Iterator[int]:
    """Yield the priorities of tasks that wait, the highest first."""
    below: int | None = 2**31 - 1
    while (below := connection.scalar(NEXT_PRIORITY, {"below": below})) is not None:
        yield below
