"""What the ingress needs of the tasks' store, and that store behind threads."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from deployments.ingress.ended import ended
from deployments.stores.tasks.store import TaskStore
from deployments.types.tasks import TaskEvent, TaskOrder, TaskState, TaskStatus


class Tasks(Protocol):
    """Keeps tasks; what each does, `TaskStore` says."""

    async def submit(self, order: TaskOrder) -> TaskState:
        """Put a task in."""
        ...

    async def get(self, tenant: str, id_: str) -> TaskState:
        """Return a task of a tenant's."""
        ...

    async def status(self, tenant: str, id_: str) -> TaskStatus:
        """Return how a task is."""
        ...

    async def find(
        self, tenant: str, *, limit: int, before: str, status: TaskStatus | None, key_id: str | None
    ) -> list[TaskState]:
        """Return tasks, the newest first."""
        ...

    async def events(self, id_: str, after: int, limit: int) -> Sequence[TaskEvent]:
        """Return what a streamed task said."""
        ...

    async def cancel(self, tenant: str, id_: str) -> TaskState:
        """Have a task end."""
        ...

    async def retry(self, tenant: str, id_: str) -> TaskState:
        """Have a task done again."""
        ...

    async def delete(self, tenant: str, id_: str) -> None:
        """Remove a task that has ended."""
        ...


class ThreadedTasks:
    """`Tasks` over the store, each call on a thread."""

    def __init__(
        self, store: TaskStore, max_waiting: int, tell: Callable[[], None] = lambda: None
    ) -> None:
        """Take where tasks are kept.

        Args:
            store: of the tasks.
            max_waiting: that have not ended, of a tenant.
            tell: called when a task may be done; must not wait.
        """
        self._store = store
        self._max_waiting = max_waiting
        self._tell = tell

    async def submit(self, order: TaskOrder) -> TaskState:
        """Put a task in."""
        state = await ended(self._store.submit(order, self._max_waiting))
        if order.not_before <= time.time():
            self._tell()
        return state

    async def get(self, tenant: str, id_: str) -> TaskState:
        """Return a task of a tenant's."""
        return await asyncio.to_thread(self._store.get, tenant, id_)

    async def status(self, tenant: str, id_: str) -> TaskStatus:
        """Return how a task is."""
        return await asyncio.to_thread(self._store.status, tenant, id_)

    async def find(
        self, tenant: str, *, limit: int, before: str, status: TaskStatus | None, key_id: str | None
    ) -> list[TaskState]:
        """Return tasks, the newest first."""
        return await asyncio.to_thread(
            self._store.find, tenant, limit=limit, before=before, status=status, key_id=key_id
        )

    async def events(self, id_: str, after: int, limit: int) -> Sequence[TaskEvent]:
        """Return what a streamed task said."""
        return await asyncio.to_thread(self._store.events, id_, after, limit)

    async def cancel(self, tenant: str, id_: str) -> TaskState:
        """Have a task end."""
        return await asyncio.to_thread(self._store.cancel, tenant, id_)

    async def retry(self, tenant: str, id_: str) -> TaskState:
        """Have a task done again."""
        state = await asyncio.to_thread(self._store.retry, tenant, id_)
        self._tell()
        return state

    async def delete(self, tenant: str, id_: str) -> None:
        """Remove a task that has ended."""
        await asyncio.to_thread(self._store.delete, tenant, id_)
