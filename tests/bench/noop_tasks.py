"""A Worker whose tasks do nothing: what is left is the queue.

For ``tests/bench/tasks.py``: the graph of the configuration, but for what its workers do.
"""

from typing import Any

from ray.serve import Application

from deployments.ingress.tasks.jobs import Report
from deployments.types.tasks import Claim, TaskEnd
from deployments.worker import Worker
from graphs import rag
from graphs.args import RagArgs


async def noop(claim: Claim, report: Report) -> TaskEnd:
    """Do nothing."""
    return TaskEnd(status="COMPLETED", output=b"{}")


class NoopWorker(Worker):
    """Ends each task at once."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self._crew._default = noop


NoopWorker.__name__ = "Worker"


def build(args: RagArgs) -> Application:
    """Return the application of `graphs.rag`, with these workers."""
    rag.Worker = NoopWorker  # type: ignore[misc, assignment]
    return rag.build(args)
