"""No broker: the crew of each worker looks at the table, and is nudged by the ingress.

What `@task_consumer` wants of it is here; nothing runs, and nothing is sent.
"""

from collections.abc import Callable
from typing import Any

from ray.serve.schema import TaskProcessorConfig, TaskResult

from deployments.brokers.base import Broker, published


class TableBroker(Broker):
    """The embedded queue: the row that was written is the message."""

    is_telling = False

    def __init__(self, config: TaskProcessorConfig) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._queue = config.queue_name

    def initialize(self, consumer_concurrency: int = 1) -> None:
        """Do nothing: the crew bounds what runs."""

    def enqueue_task_sync(
        self, task_name: str, args: Any = None, kwargs: Any = None, **options: Any
    ) -> TaskResult:
        """Return at once: whoever looks at the table sees the task."""
        return published(self._queue)

    def start_consumer(self, **kwargs: Any) -> None:
        """Do nothing: the crew looks by itself."""

    def stop_consumer(self, timeout: float = 0.0) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def check(self) -> None:
        """Do nothing: the crew is checked by whoever runs it."""

    def _on_news(self, func: Callable[..., Any]) -> None:
        """Never call it: nobody tells."""
