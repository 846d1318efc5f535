"""The stores of files and batches, opened together."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from deployments.stores.batches.attempts import BatchAttempts
from deployments.stores.batches.files import FileStore
from deployments.stores.batches.store import BatchStore
from deployments.stores.database import Database
from deployments.stores.tasks.store import TaskStore


@dataclass(frozen=True, slots=True)
class BatchStores:
    """Files, batches, and what jobs do with them; `tell` says that there is a new task."""

    files: FileStore
    batches: BatchStore
    attempts: BatchAttempts
    tell: Callable[[], None]

    def sweep(self) -> int:
        """Settle what nobody looks at, and remove what is old; return how much there was.

        Raises:
            StoreUnavailable: the database did not answer; safe to repeat.
        """
        return self.batches.sweep() + self.files.sweep()


def open_batches(
    database: Database,
    tasks: TaskStore,
    tell: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.time,
) -> BatchStores:
    """Return the stores over a database.

    Args:
        database: that is at the newest revision.
        tasks: of the same database.
        tell: called when a batch's task was put in; must not wait.
        clock: says the time in seconds since 1970.
    """
    return BatchStores(
        FileStore(database, clock),
        BatchStore(database, tasks, clock),
        BatchAttempts(database, clock),
        tell,
    )
