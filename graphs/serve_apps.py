"""Serve's applications as the lifecycle of models sees them: deploy, delete, and what runs.

Ray's client blocks, for as long as the controller says nothing, so every call runs on a thread of
its own kind: those that the database and all else need stay free. It does not know what should run.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from ray import serve
from ray.exceptions import RayError
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException

from deployments.config import ModelsArgs
from deployments.errors import StoreUnavailable
from deployments.types import ModelState
from graphs.model_app import app_name, build_model, is_own
from graphs.specs import check_files

OUR_ERROR = re.compile(r"^(?:deployments\.errors\.)\w+: (.+)$", re.MULTILINE)
"""What a replica raised, where it was an error of ours: those messages hold no secrets."""

ANSWER_S = 15.0
DEPLOY_S = 60.0
"""Longest waits for the controller; what it was told to do, it may do later."""

NUM_THREADS = 4
_THREADS = ThreadPoolExecutor(NUM_THREADS, "serve-controller")

CANNOT_START = "a replica could not start; see the logs of its application"


@dataclass(frozen=True, slots=True)
class AppReport:
    """An application now; `pids` are its replicas' by the address of their node."""

    status: str
    error: str = ""
    num_wanted: int = 0
    num_running: int = 0
    pids: tuple[tuple[str, int], ...] = ()

    @property
    def is_running(self) -> bool:
        """Return whether all wanted replicas run."""
        return self.status == "RUNNING"

    @property
    def has_failed(self) -> bool:
        """Return whether Serve has given up to start it."""
        return self.status == "DEPLOY_FAILED"

    @property
    def is_going(self) -> bool:
        """Return whether it is being deleted: its replicas finish what they have."""
        return self.status == "DELETING"


class Apps(Protocol):
    """What the lifecycle needs of Serve. Every method raises StoreUnavailable; try again."""

    async def reports(self) -> Mapping[str, AppReport]:
        """Return the applications of models, by name."""
        ...

    async def targets(self) -> Mapping[tuple[str, str], int]:
        """Return how many replicas each deployment of each application should have now."""
        ...

    async def deploy(self, state: ModelState) -> None:
        """Have a model's application run, without waiting for it."""
        ...

    async def delete(self, name: str) -> None:
        """Have an application go once its requests have ended, without waiting for it."""
        ...


class ServeApps:
    """`Apps` of the Serve instance that this process is part of."""

    def __init__(self, args: ModelsArgs) -> None:
        self._args = args

    async def reports(self) -> Mapping[str, AppReport]:
        """Return the applications of this graph's models, by name."""
        details = await asked(ANSWER_S, lambda: _client().get_serve_details())
        return {name: _report(app) for name, app in details["applications"].items() if is_own(name)}

    async def targets(self) -> Mapping[tuple[str, str], int]:
        """Return how many replicas each deployment of each application should have now."""
        details = await asked(ANSWER_S, lambda: _client().get_serve_details())
        return {
            (app, name): deployment["target_num_replicas"] or 0
            for app, one in details["applications"].items()
            for name, deployment in one["deployments"].items()
        }

    async def deploy(self, state: ModelState) -> None:
        """Have a model's application run.

        Raises:
            InvalidRequest: its arguments are none, or its files may not be read any more.
        """
        await asyncio.to_thread(check_files, state.spec, self._args)
        app = build_model(state, self._args)
        target = serve.RunTarget(target=app, name=app_name(state), route_prefix=None)
        await asked(
            DEPLOY_S,
            lambda: serve.run_many(
                [target],
                wait_for_ingress_deployment_creation=False,
                wait_for_applications_running=False,
            ),
        )

    async def delete(self, name: str) -> None:
        """Have an application go once its requests have ended."""
        await asked(ANSWER_S, lambda: _client().delete_apps([name], blocking=False))


async def asked(timeout_s: float, question: Callable[[], Any]) -> Any:
    """Return the controller's answer.

    Args:
        timeout_s: longest wait for it.
        question: blocks until the controller answers.

    Raises:
        StoreUnavailable: it does not, or is gone.
    """
    answer = asyncio.get_running_loop().run_in_executor(_THREADS, question)
    try:
        return await asyncio.wait_for(answer, timeout_s)
    except (RayError, RayServeException, TimeoutError) as exc:
        raise StoreUnavailable("Serve's controller does not answer; it is asked again") from exc


def _client() -> Any:
    return _get_global_client()


def _report(app: Mapping[str, Any]) -> AppReport:
    deployments = list(app["deployments"].values())
    replicas = [one for deployment in deployments for one in deployment["replicas"]]
    messages = [app["message"], *(one["message"] for one in deployments)]
    return AppReport(
        status=plain(app["status"]),
        error=error_of("\n".join(messages)),
        num_wanted=sum(one["target_num_replicas"] or 0 for one in deployments),
        num_running=sum(plain(one["state"]) == "RUNNING" for one in replicas),
        pids=tuple((one["node_ip"], one["pid"]) for one in replicas if one.get("pid")),
    )


def plain(value: Any) -> str:
    """Return the text of what Serve gives as a text here and as an enumeration there."""
    return str(getattr(value, "value", value))


def error_of(message: str) -> str:
    """Return what went wrong, as an error of ours says; nothing else of a traceback leaves here."""
    found: list[str] = OUR_ERROR.findall(message)
    if found:
        return found[-1].strip()
    return CANNOT_START if message.strip() else ""
