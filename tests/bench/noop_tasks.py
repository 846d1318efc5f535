"""A Worker whose tasks do nothing: what is left is the queue.

For ``tests/bench/tasks.py``: the graph of the configuration, but for what its workers do. While
there is a file `HOLD` in the state folder, what a broker told of waits.
"""

import asyncio
from typing import Any, Final

from ray.serve import Application

from deployments.config import Settings
from deployments.ingress.tasks.jobs import Report
from deployments.types.tasks import Claim, TaskEnd
from deployments.worker import Worker
from graphs import rag
from graphs.args import RagArgs

HOLD: Final = "bench-hold"


async def noop(claim: Claim, report: Report) -> TaskEnd:
    """Do nothing."""
    return TaskEnd(status="COMPLETED", output=b"{}")


class NoopWorker(Worker):
    """Ends each task at once."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self._crew._default = noop
        take, hold = self._crew.take, Settings().state_path / HOLD

        async def take_when_free() -> bool:
            while hold.exists():
                await asyncio.sleep(0.005)
            return await take()

        self._crew.take = take_when_free  # type: ignore[method-assign]


NoopWorker.__name__ = "Worker"


def build(args: RagArgs) -> Application:
    """Return the application of `graphs.rag`, with these workers."""
    rag.Worker = NoopWorker  # type: ignore[misc, assignment]
    return rag.build(args)
