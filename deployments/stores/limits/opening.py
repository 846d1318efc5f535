"""Which store counts, by what a host says."""

from collections.abc import Callable

from deployments.config import Settings
from deployments.stores.limits.admission import LimitStore
from deployments.stores.limits.fallback import FallbackLimits
from deployments.stores.limits.sqlite_limits import SqliteLimits
from deployments.stores.limits.tending import Tending
from deployments.stores.pepper import installation_of


def open_limits(settings: Settings, *, on_fallback: Callable[[], None]) -> LimitStore:
    """Return the limits' store of this process, whose leases are kept alive while it lives.

    Args:
        settings: where the state folder is, and Redis, if there is one.
        on_fallback: called for each request that is counted here because Redis is away.
    """
    own = SqliteLimits(settings.state_path / "limits.db")
    store: LimitStore = own
    if settings.redis_url:
        from deployments.stores.limits.redis_limits import RedisLimits  # only where it is used

        redis = RedisLimits(
            settings.redis_url,
            timeout_s=settings.redis_timeout_s,
            installation=installation_of(settings.state_path),
        )
        store = FallbackLimits(redis, own, on_fallback=on_fallback)
    Tending(store)
    return store
