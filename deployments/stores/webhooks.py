"""Deliveries of webhooks: which are due, who tries them, and what came of it.

Whoever claims one has it for a while: if it dies, another tries again, so a delivery is made at
least once. It does not know how one is made.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from sqlalchemy import Row, and_, bindparam, case, delete, exists, or_, select, update

from deployments.backoff import Backoff
from deployments.errors import Conflict, NotFound
from deployments.stores import schema
from deployments.stores.database import Database
from deployments.stores.ids import microseconds
from deployments.types.webhooks import Delivery, DeliveryStatus

TABLE = schema.webhook_deliveries
TASKS = schema.tasks

HOLD_S = 30.0
"""How long whoever claimed a delivery has it to himself; an attempt takes 10 s at most."""

MAX_ATTEMPTS = 12
RETRY = Backoff(5.0, 3600.0)
"""Twelve attempts take 2 to 3 hours."""

CANDIDATES = 8
"""So many times what is wanted is looked at, so that one tenant's do not hide all others'."""

KEPT_S = 86_400.0
"""For what has ended and whose task is gone."""

PAGE = 500

Clock = Callable[[], float]

LONGEST = case(
    {n: microseconds(max(HOLD_S, RETRY.longest_s(n))) for n in range(1, MAX_ATTEMPTS + 1)},
    value=TABLE.c.num_attempts,
    else_=0,
)
DUE = and_(
    TABLE.c.status == "PENDING",
    # A clock that fell must not delay what would have been tried by now.
    or_(TABLE.c.next_at <= bindparam("now"), TABLE.c.next_at - bindparam("now") > LONGEST),
)


class WebhookStore:
    """Deliveries of all tenants; safe to use from many threads and processes.

    Every method raises StoreUnavailable when the database does not answer.
    """

    def __init__(self, database: Database, clock: Clock = time.time) -> None:
        self._database = database
        self._clock = clock

    def has_due(self) -> bool:
        """Return whether a delivery could be tried now."""
        with self._database.read() as connection:
            found = connection.execute(select(exists().where(DUE)), {"now": self._now()})
            return bool(found.scalar())

    def claim(
        self, max_deliveries: int, under_way: Mapping[str, int], max_of_tenant: int
    ) -> list[Delivery]:
        """Take deliveries that are due; those that were tried less often come first.

        Args:
            max_deliveries: so many at most.
            under_way: how many of each tenant's are being made.
            max_of_tenant: so many of a tenant's at most, with those.
        """
        now = self._now()
        full = [tenant for tenant, num in under_way.items() if num >= max_of_tenant]
        due = (
            select(TABLE)
            .where(DUE, TABLE.c.tenant.not_in(full))
            .order_by(TABLE.c.num_attempts, TABLE.c.next_at, TABLE.c.id)
            .limit(max_deliveries * CANDIDATES)
            .with_for_update(skip_locked=True)
        )
        room = {tenant: max_of_tenant - num for tenant, num in under_way.items()}
        with self._database.write() as connection:
            taken: list[Row[Any]] = []
            for row in connection.execute(due, {"now": now}).all():
                left = room.get(row.tenant, max_of_tenant)
                if left > 0 and len(taken) < max_deliveries:
                    room[row.tenant] = left - 1
                    taken.append(row)
            for row in taken:
                held = {
                    "num_attempts": row.num_attempts + 1,
                    "next_at": now + microseconds(HOLD_S),
                }
                connection.execute(update(TABLE).where(TABLE.c.id == row.id).values(held))
        return [_delivery(row, num_attempts=row.num_attempts + 1) for row in taken]

    def succeed(self, delivery: Delivery, http_status: int) -> bool:
        """Note that a claimed delivery was heard; False: another has tried it since."""
        values = {"status": "DELIVERED", "ended_at": self._now(), "error": ""}
        return self._note(delivery, {**values, "http_status": http_status})

    def fail(
        self, delivery: Delivery, error: str, http_status: int | None = None, *, is_final: bool
    ) -> bool:
        """Note that a claimed delivery was not heard; False: another has tried it since.

        Args:
            delivery: as it was claimed.
            error: why, in one word.
            http_status: that was answered.
            is_final: whether nobody needs to try again; after `MAX_ATTEMPTS` nobody does.
        """
        now = self._now()
        values: dict[str, Any] = {"error": error, "http_status": http_status}
        if is_final or delivery.num_attempts >= MAX_ATTEMPTS:
            values |= {"status": "FAILED", "ended_at": now}
        else:
            values |= {"next_at": now + microseconds(RETRY.pause_s(delivery.num_attempts))}
        return self._note(delivery, values)

    def find(
        self,
        tenant: str,
        *,
        limit: int,
        before: str = "",
        subject: str = "",
        key_id: str | None = None,
    ) -> list[Delivery]:
        """Return a tenant's deliveries, the newest first.

        Args:
            tenant: whose.
            limit: so many at most.
            before: the id of one; those older than it. Empty: all.
            subject: the id of a task, to return its own alone.
            key_id: of a key, to return those of its tasks alone.
        """
        statement = select(TABLE).where(TABLE.c.tenant == tenant)
        if before:
            statement = statement.where(TABLE.c.id < before)
        if subject:
            statement = statement.where(TABLE.c.subject == subject)
        if key_id is not None:
            statement = statement.where(_is_of_key(key_id))
        with self._database.read() as connection:
            found = connection.execute(statement.order_by(TABLE.c.id.desc()).limit(limit))
            return [_delivery(row) for row in found]

    def redeliver(self, tenant: str, id_: str, key_id: str | None = None) -> Delivery:
        """Have a delivery made again that has ended.

        Raises:
            NotFound: the tenant, or the key whose id is given, has no such delivery.
            Conflict: it has not ended.
        """
        mine = [TABLE.c.id == id_, TABLE.c.tenant == tenant]
        if key_id is not None:
            mine.append(_is_of_key(key_id))
        anew = {"status": "PENDING", "num_attempts": 0, "next_at": self._now(), "ended_at": None}
        with self._database.write() as connection:
            one = select(TABLE).where(*mine).with_for_update()
            row = connection.execute(one).one_or_none()
            if row is None:
                raise NotFound("there is no delivery with this id")
            if row.status == "PENDING":
                raise Conflict("the delivery has not ended: it is tried again by itself")
            connection.execute(update(TABLE).where(TABLE.c.id == id_).values(anew))
            return _delivery(connection.execute(select(TABLE).where(TABLE.c.id == id_)).one())

    def tidy(self) -> int:
        """Remove what has ended long ago and whose task is gone; return how many, up to a page."""
        before = self._now() - microseconds(KEPT_S)
        has_task = exists().where(TASKS.c.id == TABLE.c.subject)
        old = select(TABLE.c.id).where(TABLE.c.ended_at < before, ~has_task).limit(PAGE)
        with self._database.write() as connection:
            ids = connection.scalars(old).all()
            if ids:
                gone = (TABLE.c.id.in_(ids), TABLE.c.status != "PENDING")
                connection.execute(delete(TABLE).where(*gone))
        return len(ids)

    def _note(self, delivery: Delivery, values: Mapping[str, Any]) -> bool:
        held = (
            TABLE.c.id == delivery.id,
            TABLE.c.status == "PENDING",
            TABLE.c.num_attempts == delivery.num_attempts,
        )
        with self._database.write() as connection:
            return bool(connection.execute(update(TABLE).where(*held).values(values)).rowcount)

    def _now(self) -> int:
        return microseconds(self._clock())


def _is_of_key(key_id: str) -> Any:
    return exists().where(TASKS.c.id == TABLE.c.subject, TASKS.c.key_id == key_id)


def _delivery(row: Row[Any], **changed: int) -> Delivery:
    return Delivery(
        id=row.id,
        tenant=row.tenant,
        subject=row.subject,
        event=row.event,
        url=row.url,
        status=cast("DeliveryStatus", row.status),
        num_attempts=changed.get("num_attempts", row.num_attempts),
        next_at=row.next_at / 1_000_000,
        http_status=row.http_status,
        error=row.error,
        created_at=row.created_at / 1_000_000,
        ended_at=None if row.ended_at is None else row.ended_at / 1_000_000,
    )
