"""Deployments at rest: with no replica, because Serve scaled them to zero, until somebody asks.

A check must not wake them: a call does, since it waits for a replica; a broadcast does not.
"""

from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.errors import NoReplica, RagError
from graphs.handles import Deadline, broadcast, call, call_every
from graphs.serve_apps import asked, plain

BROADCAST_TIMEOUT_S = 1.0
"""After that, one replica that answers is enough: another one may be stuck."""

STATUS_TIMEOUT_S = 3.0

WELL = {"HEALTHY", "UPSCALING", "DOWNSCALING"}
"""States of a deployment, in Serve's words, in which it may have no replica on purpose."""


async def check(handle: DeploymentHandle[Any], deadline: Deadline) -> None:
    """Return if a replica answers, or if there is none because nobody has asked for a while.

    Raises:
        RagError: no replica answers, or there is none and there should be.
    """
    try:
        answers = await broadcast(handle, "stats", Deadline(BROADCAST_TIMEOUT_S))
        if any(not isinstance(answer, BaseException) for answer in answers):
            return
    except NoReplica:
        if await _is_at_rest(handle.app_name, handle.deployment_name):
            return
        raise
    except RagError:
        pass
    await call(handle.stats.remote(), deadline)


async def call_awake(
    handle: DeploymentHandle[Any], method: str, deadline: Deadline, *args: Any
) -> None:
    """Call a method on every running replica; a deployment at rest has none to call.

    Raises:
        RagError: a replica did not answer, or there is none and there should be.
    """
    try:
        await call_every(handle, method, deadline, *args)
    except NoReplica:
        if not await _is_at_rest(handle.app_name, handle.deployment_name):
            raise


async def _is_at_rest(application: str, deployment: str) -> bool:
    """Return whether Serve is content with no replica; a lost one leaves it discontented.

    Raises:
        StoreUnavailable: its controller does not say.
    """
    status_of_all = await asked(STATUS_TIMEOUT_S, serve.status)
    found = status_of_all.applications.get(application)
    status = found.deployments.get(deployment) if found else None
    if status is None or status.status.value not in WELL:
        return False
    return "RUNNING" not in map(plain, status.replica_states)
