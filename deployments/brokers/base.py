"""What a broker is to us: it carries the news that there is a task, and nothing else.

The table of tasks is the truth. A message that is lost, comes twice, comes late or is not ours
costs a look at the table at most, so no broker is asked what has become of a task. It implements
the adapter of Ray Serve's `@task_consumer`, which starts and stops it with its replica.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final, NoReturn

from ray.serve.schema import TaskProcessorAdapter, TaskResult

QUEUE: Final = "ragserve.tasks"
NEWS: Final = "ragserve.task_is_ready"
"""The one message there is."""

ASK_THE_TABLE: Final = "a message is no task: the table knows how each one is"


class NotHere(Exception):
    """Raised by what takes a message that another consumer should have."""


class Broker(TaskProcessorAdapter):
    """An adapter of Ray Serve's that carries news; its subclasses know one kind of broker each."""

    is_telling: bool = True
    """Whether what is published reaches a consumer; else the table has to be watched."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections for publishing."""

    @abstractmethod
    def check(self) -> None:
        """Raise RagError when a consumer that was started does not run any more.

        One that waits for its broker to come back is well: the table is watched meanwhile.
        """

    def register_task_handle(self, func: Callable[..., Any], name: str | None = None) -> None:
        """Have a function called with each piece of news, on a thread of the broker's."""
        if name != NEWS:
            raise ValueError(f"there is no news but {NEWS}")
        self._on_news(func)

    def get_task_status_sync(self, task_id: str) -> NoReturn:
        """Raise: a broker does not know that."""
        raise NotImplementedError(ASK_THE_TABLE)

    def cancel_task_sync(self, task_id: str) -> NoReturn:
        """Raise: a broker cannot do that."""
        raise NotImplementedError(ASK_THE_TABLE)

    def get_metrics_sync(self) -> dict[str, Any]:
        """Return whether news are carried."""
        return {"is_telling": self.is_telling}

    def health_check_sync(self) -> list[dict[str, Any]]:
        """Return an empty list when well; raises as `check`."""
        self.check()
        return []

    @abstractmethod
    def _on_news(self, func: Callable[..., Any]) -> None: ...


def published(id_: str) -> TaskResult:
    """Return what Ray Serve wants to know of a message that was sent."""
    return TaskResult(id=id_, status="PENDING", result=None)
