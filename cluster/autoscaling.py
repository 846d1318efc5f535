"""The policies by which Serve scales models and workers, named in the YAML's `autoscaling_config`.

Serve pickles this module by value and calls a policy ten times a second inside its controller's
event loop: it computes from what Serve hands it, and never waits. Delays, `min_replicas`,
`max_replicas` and the step from zero replicas to one are Serve's own.
"""

import math
from typing import Any, cast

from ray.serve.config import AutoscalingConfig, AutoscalingContext

TOKENS_WAITING = "tokens_waiting"
KV_CACHE_USAGE = "kv_cache_usage"
TASKS_QUEUED = "tasks_queued"
TASKS_RUNNING = "tasks_running"
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


class TaskScaling:
    """Wants as many workers as keep each one's tasks, waiting and running, at its target.

    Every worker reports the whole table, so the newest reports count alike, and the highest wins.
    One stays while a task waits or runs, whoever runs it; while no report is new, the number stays.
    From zero the ingress wakes the first one (``ingress/tasks/bell.py``).
    """

    def __init__(self, tasks: float) -> None:
        """Take the target of one replica, from the YAML's `policy_kwargs`.

        Args:
            tasks: that one replica should have, of those that wait or run.

        Raises:
            ValueError: the target is out of bounds.
        """
        if not 0 < tasks < math.inf:
            raise ValueError("tasks must be above 0")
        self._target = float(tasks)

    def __call__(self, ctx: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """Return how many replicas there should be; Serve rounds up, and applies its bounds."""
        if ctx.current_num_replicas == 0:  # at rest, or the first one is starting
            return float(ctx.target_num_replicas), {}
        tasks = _newest(ctx, TASKS_QUEUED), _newest(ctx, TASKS_RUNNING)
        if not all(tasks):
            return float(ctx.target_num_replicas), {}
        backlog = sum(max(reports) for reports in tasks)
        return (max(1.0, backlog / self._target) if backlog > 0 else 0.0), {}


def _newest(ctx: AutoscalingContext, name: str) -> list[float]:
    """Return the last value of every replica that reported lately."""
    config = cast(AutoscalingConfig, ctx.config)
    oldest = (ctx.current_time or 0.0) - STALE_REPORTS * config.metrics_interval_s
    reports = (ctx.raw_metrics or {}).get(name, {})
    return [
        max(0.0, series[-1].value)
        for series in reports.values()
        if series and series[-1].timestamp >= oldest and math.isfinite(series[-1].value)
    ]
