"""The policy by which Serve scales the model replicas, named in the YAML's `autoscaling_config`.

Serve pickles this module by value and calls the policy ten times a second inside its controller's
event loop: it computes from what Serve hands it, and never waits. Delays, `min_replicas`,
`max_replicas` and the step from zero replicas to one are Serve's own.
"""

import math
from typing import Any, cast

from ray.serve.config import AutoscalingConfig, AutoscalingContext

TOKENS_WAITING = "tokens_waiting"
KV_CACHE_USAGE = "kv_cache_usage"
"""Names in what the replicas' `record_autoscaling_stats` return."""

STALE_REPORTS = 3
"""A replica that missed this many reports, which come every `metrics_interval_s`, is not known."""

NEGLIGIBLE = 1e-6
"""Replicas; Serve rounds up, and a rest of a division should not keep one alive."""


class TokenScaling:
    """Wants as many replicas as keep each one's load at its target, by the load that is highest.

    The loads are the tokens that wait in the replicas, the share of their KV caches in use, and the
    requests under way (Serve's `target_ongoing_requests`), each a mean over `look_back_period_s`.
    While a running replica's load is not known there may be more replicas, but not fewer.
    """

    def __init__(self, tokens_waiting: float, kv_cache_usage: float | None = None) -> None:
        """Take the targets of one replica, from the YAML's `policy_kwargs`.

        Args:
            tokens_waiting: tokens that may wait in it.
            kv_cache_usage: share of its KV cache that may be in use, above 0 and up to 1; None
                where the engine has no such cache.

        Raises:
            ValueError: a target is out of bounds.
        """
        if not 0 < tokens_waiting < math.inf:
            raise ValueError("tokens_waiting must be above 0")
        if kv_cache_usage is not None and not 0 < kv_cache_usage <= 1:
            raise ValueError("kv_cache_usage must be above 0 and at most 1")
        self._targets = {TOKENS_WAITING: float(tokens_waiting)}
        if kv_cache_usage is not None:
            self._targets[KV_CACHE_USAGE] = float(kv_cache_usage)

    def __call__(self, ctx: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """Return how many replicas there should be; Serve rounds up, and applies its bounds."""
        if ctx.current_num_replicas == 0:  # at rest, or the first one is starting
            return float(ctx.target_num_replicas), {}
        config = cast(AutoscalingConfig, ctx.config)
        requests = ctx.total_num_requests / config.get_target_ongoing_requests()
        wanted = requests if math.isfinite(requests) else 0.0
        for name, target in self._targets.items():
            loads = self._loads(ctx, name)
            wanted = max(wanted, sum(loads) / target)
            if len(loads) < ctx.current_num_replicas:
                wanted = max(wanted, float(ctx.target_num_replicas))
        return (wanted if wanted > NEGLIGIBLE else 0.0), {}

    def _loads(self, ctx: AutoscalingContext, name: str) -> list[float]:
        """Return the mean load of every replica that reported it lately."""
        means = (ctx.aggregated_metrics or {}).get(name, {})
        reports = (ctx.raw_metrics or {}).get(name, {})
        config = cast(AutoscalingConfig, ctx.config)
        oldest = (ctx.current_time or 0.0) - STALE_REPORTS * config.metrics_interval_s
        return [
            max(0.0, mean)
            for replica, mean in means.items()
            if math.isfinite(mean)
            and reports.get(replica)
            and reports[replica][-1].timestamp >= oldest
        ]
