"""The scaling policies on made-up loads: what it wants, what it does not know, and its bounds."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.common import TimeStampedValue
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from cluster.autoscaling import (
    KV_CACHE_USAGE,
    STALE_REPORTS,
    TASKS_QUEUED,
    TASKS_RUNNING,
    TOKENS_WAITING,
    TaskScaling,
    TokenScaling,
)

NOW = 1_000_000.0
PATH = "cluster.autoscaling:TokenScaling"
POLICY = TokenScaling(tokens_waiting=1000, kv_cache_usage=0.8)


def context(
    loads: list[dict[str, float]],
    *,
    target: int | None = None,
    requests: float = 0.0,
    age_s: float = 0.0,
    **config: Any,
) -> AutoscalingContext:
    """Return what Serve hands a policy; each running replica has its dict of loads."""
    replicas: list[Any] = [f"replica-{index}" for index in range(len(loads))]
    names = {name for load in loads for name in load}
    means = {
        name: {
            replica: load[name]
            for replica, load in zip(replicas, loads, strict=True)
            if name in load
        }
        for name in names
    }
    raw = {
        name: {
            replica: [TimeStampedValue(NOW - age_s, value)] for replica, value in of_name.items()
        }
        for name, of_name in means.items()
    }
    bounds = {"min_replicas": 0, "max_replicas": 10, "target_ongoing_requests": 10} | config
    return AutoscalingContext(
        deployment_id=SimpleNamespace(name="Generator", app_name="ragserve"),
        deployment_name="Generator",
        app_name="ragserve",
        current_num_replicas=len(loads),
        target_num_replicas=len(loads) if target is None else target,
        running_replicas=replicas,
        total_num_requests=requests,
        total_queued_requests=0.0,
        aggregated_metrics=lambda: means,
        raw_metrics=lambda: raw,
        capacity_adjusted_min_replicas=0,
        capacity_adjusted_max_replicas=10,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=NOW,
        config=AutoscalingConfig(**bounds),
    )


def load(tokens: float = 0.0, usage: float = 0.0) -> dict[str, float]:
    return {TOKENS_WAITING: tokens, KV_CACHE_USAGE: usage}


def wanted(*args: Any, **options: Any) -> float:
    return POLICY(context(*args, **options))[0]


@pytest.mark.parametrize(
    ("loads", "requests", "replicas"),
    [
        ([load(tokens=500)], 0, 0.5),
        ([load(tokens=4000)], 0, 4),
        ([load(tokens=4000), load()], 0, 4),
        ([load(usage=1.0), load(usage=0.6)], 0, 2),
        ([load(tokens=100, usage=0.1)], 35, 3.5),
        ([load(tokens=2000, usage=0.1)], 10, 2),
        ([load(tokens=100, usage=1.0)], 1, 1.25),
    ],
)
def test_policy_follows_the_highest_load(
    loads: list[dict[str, float]], requests: float, replicas: float
) -> None:
    assert wanted(loads, requests=requests) == pytest.approx(replicas)


def test_policy_wants_none_without_any_load() -> None:
    assert wanted([load(), load()]) == 0
    assert wanted([load(usage=1e-16)]) == 0, "a rest of a division"


def test_policy_leaves_the_start_from_zero_to_serve() -> None:
    assert wanted([]) == 0
    assert wanted([], target=1) == 1, "the first replica is starting; its caller may have left"


def test_policy_of_an_engine_without_a_cache_ignores_it() -> None:
    policy = TokenScaling(tokens_waiting=1000)
    assert policy(context([{TOKENS_WAITING: 3000.0}]))[0] == 3
    assert policy(context([load(tokens=0, usage=1.0)]))[0] == 0


@pytest.mark.parametrize("missing", [{}, {TOKENS_WAITING: 0.0}, load(tokens=math.nan)])
def test_policy_does_not_shrink_what_it_does_not_know(missing: dict[str, float]) -> None:
    assert wanted([load(), load(), missing]) == 3
    assert wanted([missing]) == 1
    assert wanted([load(tokens=9000), missing]) == 9, "it may still grow"
    assert wanted([missing], requests=40) == 4


def test_policy_keeps_a_target_that_is_still_starting() -> None:
    assert wanted([{}], target=3) == 3


def test_policy_takes_stale_reports_for_none() -> None:
    stale = {"age_s": STALE_REPORTS * 10 + 1}
    assert wanted([load(tokens=50_000)], **stale) == 1
    assert wanted([load()], **stale) == 1
    assert wanted([load(tokens=50_000)], age_s=STALE_REPORTS * 10 - 1) == 50
    assert wanted([load(tokens=2000)], age_s=-5) == 2, "another host's clock"


def test_policy_takes_loads_below_nothing_for_nothing() -> None:
    assert wanted([load(tokens=-5000), load(tokens=1000)]) == 1


@pytest.mark.parametrize(
    "targets",
    [
        {"tokens_waiting": 0},
        {"tokens_waiting": -1},
        {"tokens_waiting": math.nan},
        {"tokens_waiting": math.inf},
        {"tokens_waiting": 1, "kv_cache_usage": 0},
        {"tokens_waiting": 1, "kv_cache_usage": 1.5},
    ],
)
def test_policy_refuses_targets_out_of_bounds(targets: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        TokenScaling(**targets)


def test_policy_reaches_serve_by_value_and_keeps_its_delays() -> None:
    """As Serve does it: pickled where the YAML is read, made in the controller."""
    kwargs = {"tokens_waiting": 1000}
    sent = AutoscalingPolicy(policy_function=PATH, policy_kwargs=kwargs)
    received = AutoscalingPolicy.from_serialized_policy_def(
        {"policy_function": PATH, "policy_kwargs": kwargs}, sent.get_serialized_policy_def()
    )
    policy = _apply_autoscaling_config(received.get_policy()(**received.policy_kwargs))
    at_once = {"upscale_delay_s": 0, "downscale_delay_s": 0}
    assert policy(context([load(tokens=2500)], **at_once))[0] == 3
    assert policy(context([load(), load()], **at_once))[0] == 1, "never to zero in one step"
    assert policy(context([load()], **at_once))[0] == 0
    assert policy(context([], requests=1))[0] == 1
    assert policy(context([load(tokens=2500)], upscale_delay_s=30))[0] == 1


WORKERS = TaskScaling(tasks=10)


def table(queued: float, running: float) -> dict[str, float]:
    return {TASKS_QUEUED: queued, TASKS_RUNNING: running}


def workers(*args: Any, **options: Any) -> float:
    return WORKERS(context(*args, **options))[0]


@pytest.mark.parametrize(
    ("reports", "replicas"),
    [
        ([table(25, 10)], 3.5),
        ([table(25, 10), table(25, 10)], 3.5),
        ([table(25, 10), table(30, 10)], 4),
        ([table(0, 1)], 1),
        ([table(0, 1), table(0, 1)], 1),
        ([table(1, 0)], 1),
        ([table(0, 0)], 0),
        ([table(0, 0), table(0, 0)], 0),
        ([table(-5, 0)], 0),
    ],
)
def test_workers_follow_the_table_that_each_of_them_reports(
    reports: list[dict[str, float]], replicas: float
) -> None:
    assert workers(reports) == pytest.approx(replicas)


def test_one_worker_stays_while_any_task_runs() -> None:
    """Also where the one that runs it is not the one that reports."""
    assert workers([table(0, 1), {}]) == 1
    assert workers([table(0, 0), table(0, 1)]) == 1


@pytest.mark.parametrize("unknown", [{}, {TASKS_QUEUED: 0.0}, table(math.nan, 0)])
def test_workers_stay_while_nobody_reports(unknown: dict[str, float]) -> None:
    assert workers([unknown, unknown]) == 2
    assert workers([unknown], target=3) == 3


def test_workers_stay_while_reports_are_stale() -> None:
    age_s = STALE_REPORTS * 10 + 1
    assert workers([table(0, 0)], age_s=age_s) == 1
    assert workers([table(900, 0)], age_s=age_s) == 1
    assert workers([table(50, 0)], age_s=age_s - 2) == 5


def test_the_first_worker_is_left_to_serve() -> None:
    assert workers([]) == 0
    assert workers([], target=1) == 1, "it is starting; who has nudged it may have left"


@pytest.mark.parametrize("tasks", [0, -1, math.nan, math.inf])
def test_workers_targets_out_of_bounds_are_refused(tasks: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        TaskScaling(tasks=tasks)


def test_workers_policy_reaches_serve_by_value() -> None:
    path, kwargs = "cluster.autoscaling:TaskScaling", {"tasks": 10}
    sent = AutoscalingPolicy(policy_function=path, policy_kwargs=kwargs)
    received = AutoscalingPolicy.from_serialized_policy_def(
        {"policy_function": path, "policy_kwargs": kwargs}, sent.get_serialized_policy_def()
    )
    policy = _apply_autoscaling_config(received.get_policy()(**received.policy_kwargs))
    at_once = {"upscale_delay_s": 0, "downscale_delay_s": 0}
    assert policy(context([table(25, 0)], **at_once))[0] == 3
    assert policy(context([table(0, 1)], **at_once))[0] == 1
    assert policy(context([table(0, 0)], **at_once))[0] == 0
    assert policy(context([], requests=1))[0] == 1, "a nudge that waits"
