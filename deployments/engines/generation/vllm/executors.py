"""vLLM's executors, which end with the replica's process, however that one ends.

vLLM computes in a process below the replica's, which notices nothing when the replica's is killed:
it would keep the weights and the cache for ever. Its workers, in turn, end with it.
Source: vllm-project/vllm issue 55510; seen with 0.32, too.
"""

from typing import Any

from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from deployments.engines.generation.vllm.parent import end_with_parent


class OneProcessExecutor(UniProcExecutor):  # type: ignore[misc]
    """Computes in vLLM's own process."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Watch the replica's process from before the weights are read."""
        end_with_parent()
        super().__init__(*args, **options)


class WorkersExecutor(MultiprocExecutor):  # type: ignore[misc]
    """Computes in a worker process for each rank."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Watch the replica's process from before the weights are read."""
        end_with_parent()
        super().__init__(*args, **options)
