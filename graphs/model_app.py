"""The Serve application of one model that is loaded at run time, and a handle to it."""

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from ray import serve
from ray.serve import Application, Deployment
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.config import (
    Args,
    EmbedderArgs,
    GeneratorArgs,
    ModelsArgs,
    RerankerArgs,
)
from deployments.embedder import Embedder
from deployments.errors import InvalidRequest
from deployments.generator import Generator
from deployments.reranker import Reranker
from deployments.types import ModelKind, ModelSpec, ModelState
from graphs.handles import plainly_pickled

PREFIX = "model-"
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9.]+")
MAX_START_ATTEMPTS = 3
"""How often a replica may fail to start before the load has failed."""

REPLICAS: dict[ModelKind, type] = {
    "generation": Generator,
    "embedding": Embedder,
    "reranking": Reranker,
}
ARGS: dict[ModelKind, type[Args]] = {
    "generation": GeneratorArgs,
    "embedding": EmbedderArgs,
    "reranking": RerankerArgs,
}
CHOSEN = frozenset({"model", "engine", "source", "device", "precision", "tensor_parallel"})
"""Arguments that a load has fields of its own for; all others may be among its `options`."""

GANG_ENGINES = frozenset({"deepspeed"})
"""Engines whose ranks are actors beside the replica, in one placement group with it."""

RANK_CPUS = 1.0
"""Logical CPUs that a rank asks of Ray (``deployments/gangs.py``)."""


def app_name(state: ModelState) -> str:
    """Return the application's name: another one for every attempt to load."""
    safe = NOT_IN_NAMES.sub("-", f"{state.spec.name}-{state.spec.version}")
    digest = hashlib.sha256(state.id.encode()).hexdigest()[:8]
    return f"{PREFIX}{safe}-{digest}-{state.attempt}{own_suffix()}"


def is_own(name: str) -> bool:
    """Return whether an application is a model of this graph: others' are not ours to end."""
    return name.startswith(PREFIX) and name.endswith(own_suffix())


@cache
def own_suffix() -> str:
    """Return what the names of this graph's models end with; outside of Serve it is alone."""
    try:
        graph = serve.get_replica_context().app_name
    except RayServeException:
        return ""
    return f"-{hashlib.sha256(graph.encode()).hexdigest()[:6]}"


def replica_name(kind: ModelKind) -> str:
    """Return the name of the deployment in the application of a model of this kind."""
    return REPLICAS[kind].__name__


def args_of(spec: ModelSpec) -> Args:
    """Return the arguments of a model's replicas.

    Raises:
        InvalidRequest: an option is unknown or out of bounds; names it.
    """
    chosen: dict[str, Any] = {
        "model": spec.id,
        "engine": spec.engine,
        "source": spec.location,
        "device": replica_device(spec),
        "precision": spec.precision,
    }
    if spec.kind == "generation":
        chosen["tensor_parallel"] = spec.tensor_parallel
    return checked_args(spec.kind, chosen, spec.options)


def checked_args(kind: ModelKind, chosen: Mapping[str, Any], options: Mapping[str, Any]) -> Args:
    """Return checked arguments; as `args_of`."""
    args = ARGS[kind]
    for name in options:
        if name in CHOSEN or name not in args.model_fields:
            known = ", ".join(sorted(args.model_fields.keys() - CHOSEN))
            error = InvalidRequest(f"no {kind} engine has this option; there are: {known}")
            error.param = "options"
            raise error
    try:
        return args.model_validate({**chosen, **options})
    except ValueError as exc:
        raise _refused(exc) from None


def replica_device(spec: ModelSpec) -> str:
    """Return the device as the replica sees it: of GPUs, Ray shows it only its own."""
    return "cuda" if spec.num_gpus else spec.device


def build_model(state: ModelState, args: ModelsArgs) -> Application:
    """Return the application, to be run under `app_name`, without a route."""
    spec = state.spec
    replica = REPLICAS[spec.kind]
    deployment = cast("Deployment", serve.deployment(replica, name=replica.__name__))
    return deployment.options(**deployment_options(spec, args)).bind(args_of(spec))


def deployment_options(spec: ModelSpec, args: ModelsArgs) -> dict[str, Any]:
    """Return how much runs, and what each replica asks of Ray."""
    actor: dict[str, Any] = {"num_cpus": args.replica_cpus}
    if spec.num_gpus and spec.engine not in GANG_ENGINES:
        actor["num_gpus"] = spec.num_gpus
    if spec.memory_bytes:
        actor["memory"] = spec.memory_bytes
    if ":" in spec.device:
        variables = {
            "CUDA_VISIBLE_DEVICES": spec.device.partition(":")[2],
            "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
        }
        actor["runtime_env"] = {"env_vars": variables}
    options: dict[str, Any] = {
        "max_ongoing_requests": args.max_ongoing_requests,
        "max_queued_requests": args.max_queued_requests,
        "graceful_shutdown_timeout_s": args.graceful_shutdown_s,
        "health_check_period_s": 2,
        "health_check_timeout_s": 30,
        "max_constructor_retry_count": MAX_START_ATTEMPTS,
        "ray_actor_options": actor,
    }
    if spec.engine in GANG_ENGINES:
        own = {"CPU": args.replica_cpus}
        own |= {"memory": spec.memory_bytes} if spec.memory_bytes else {}
        rank = {"CPU": RANK_CPUS} | ({"GPU": 1.0} if spec.num_gpus else {})
        options["placement_group_bundles"] = [own, *[rank] * spec.tensor_parallel]
    if spec.min_replicas == spec.max_replicas:
        return options | {"num_replicas": spec.min_replicas}
    scaling = {
        "min_replicas": spec.min_replicas,
        "initial_replicas": max(spec.min_replicas, 1),
        "max_replicas": spec.max_replicas,
        "target_ongoing_requests": args.target_ongoing_requests,
        "upscale_delay_s": 5,
        "downscale_delay_s": 300,
    }
    return options | {"autoscaling_config": scaling}


def handle_of(state: ModelState) -> DeploymentHandle[Any]:
    """Return a handle to a model's replicas; it asks nothing, so it may name what is not there."""
    return plainly_pickled(DeploymentHandle(replica_name(state.spec.kind), app_name(state)))


def _refused(exc: ValueError) -> InvalidRequest:
    first = cast("Any", exc).errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "options"
    error = InvalidRequest(f"{name}: {first['msg'].removeprefix('Value error, ')}")
    error.param = name if name in CHOSEN else f"options.{name}"
    return error
