"""Which store keeps answers, by what a host says."""

from deployments.config import CacheArgs, Settings
from deployments.stores.responses.memory import MemoryResponses
from deployments.stores.responses.store import ResponseStore

MIB = 1024 * 1024


def open_responses(settings: Settings, args: CacheArgs) -> ResponseStore | None:
    """Return the store of this process's answers; None: none are kept."""
    if not args.is_used:
        return None
    if settings.redis_url:
        from deployments.stores.responses.redis_responses import RedisResponses  # only where used

        return RedisResponses(
            settings.redis_url, settings.state_path, timeout_s=settings.redis_timeout_s
        )
    return MemoryResponses(args.memory_mb * MIB)
