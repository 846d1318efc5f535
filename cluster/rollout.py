"""Waiting for Serve to run what was deployed, and saying why when it does not."""

import time
from collections.abc import Callable
from typing import Any

from cluster.errors import OperatorError
from cluster.serve_api import ApplicationState, ServeApi
from cluster.view import View

PERIOD_S = 0.5
TIMEOUT_S = 900.0


def wait_until_running(
    api: ServeApi, config: dict[str, Any], view: View, check_alive: Callable[[], None]
) -> None:
    """Return once every application of the configuration is RUNNING.

    Args:
        api: the cluster's Serve.
        config: the deployed configuration; its applications are the ones waited for.
        view: shows replicas per deployment meanwhile.
        check_alive: raises when the cluster itself has died.

    Raises:
        OperatorError: an application failed to deploy, or it took longer than `TIMEOUT_S`.
    """
    names = [application.get("name", "default") for application in config["applications"]]
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        check_alive()
        found = {state.name: state for state in api.applications()}
        wanted = [found[name] for name in names if name in found]
        view.replicas(wanted)
        for state in wanted:
            if state.status == "DEPLOY_FAILED":
                raise OperatorError(f"{state.name} failed to deploy: {reason_of(state)}")
        if len(wanted) == len(names) and all(s.status == "RUNNING" for s in wanted):
            return
        time.sleep(PERIOD_S)
    raise OperatorError(f"not every deployment was running after {TIMEOUT_S:.0f} s")


def reason_of(state: ApplicationState) -> str:
    """Return the shortest text that says what is wrong: the exceptions of what is unhealthy."""
    sick = [d for d in state.deployments if d.status in ("UNHEALTHY", "DEPLOY_FAILED")]
    reasons = [f"{d.name}: {_exception(d.message)}" for d in sick if d.message]
    return "; ".join(reasons) or _exception(state.message) or "Serve gave no reason"


def _exception(message: str) -> str:
    """Return a traceback's exception line; of another message, its first line."""
    lines = [line for line in message.splitlines() if line.strip()]
    if "Traceback" not in message and "Error:" not in message:
        return lines[0].strip() if lines else ""
    flush = [line.strip() for line in lines if not line.startswith((" ", "\t"))]
    errors = [line for line in flush if _is_exception(line)]
    return errors[-1] if errors else (flush[-1] if flush else "")


def _is_exception(line: str) -> bool:
    name = line.split(":", 1)[0].rsplit(".", 1)[-1]
    return name.isidentifier() and name[0].isupper()
