"""How full vLLM's attention cache is, as its scheduler says after every step."""

from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase


class CacheLoad(StatLoggerBase):  # type: ignore[misc]
    """Keeps the latest figure of one engine; it logs nothing."""

    def __init__(self, vllm_config: Any = None, engine_index: int = 0) -> None:
        """Start at 0; vLLM calls with what it has."""
        self.usage = 0.0

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Take the share of the cache that requests hold, in [0, 1]."""
        if scheduler_stats is not None:
            self.usage = float(scheduler_stats.kv_cache_usage)

    def log_engine_initialized(self) -> None:
        """Say nothing."""
