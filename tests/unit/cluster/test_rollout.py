from dataclasses import dataclass, field
from typing import Any

import pytest
from rich.console import Console

from cluster.errors import OperatorError
from cluster.rollout import reason_of, wait_until_running
from cluster.serve_api import ApplicationState, DeploymentState
from cluster.view import View

TRACEBACK = """The deployment failed to start 3 times in a row. See controller logs. Error:
ray::ServeReplica.initialize() (pid=1, ip=127.0.0.1)
  File "replica.py", line 1, in initialize
    raise RuntimeError(traceback.format_exc()) from None
RuntimeError: Traceback (most recent call last):
  File "app.py", line 5, in __init__
    raise ValueError("no weights")
ValueError: no weights
"""
CONFIG: dict[str, Any] = {"applications": [{"name": "a"}]}


def application(status: str, message: str = "", sick: str = "") -> ApplicationState:
    deployment = DeploymentState("a", "D", "UNHEALTHY" if sick else "HEALTHY", 1, 1, sick, (1,))
    return ApplicationState("a", status, "/", message, (deployment,))


@dataclass
class Api:
    answers: list[list[ApplicationState]] = field(default_factory=list)

    def applications(self) -> list[ApplicationState]:
        return self.answers.pop(0)


def wait(*answers: list[ApplicationState]) -> None:
    view = View(Console(quiet=True))
    wait_until_running(Api(list(answers)), CONFIG, view, lambda: None)  # type: ignore[arg-type]


def test_rollout_ends_when_every_application_runs() -> None:
    other = ApplicationState("model-x", "DEPLOYING", None, "", ())
    wait([], [application("DEPLOYING")], [application("RUNNING"), other])


def test_rollout_fails_with_the_reason_of_the_deployment() -> None:
    with pytest.raises(OperatorError, match="a failed to deploy: D: ValueError: no weights"):
        wait([application("DEPLOYING")], [application("DEPLOY_FAILED", sick=TRACEBACK)])


def test_reason_of_an_application_that_could_not_be_imported() -> None:
    message = "Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module 'q'\n"
    assert reason_of(application("DEPLOY_FAILED", message)) == "ModuleNotFoundError: No module 'q'"


def test_reason_of_a_plain_message_is_its_first_line() -> None:
    assert reason_of(application("DEPLOY_FAILED", "no room\nsee logs")) == "no room"


def test_reason_is_never_empty() -> None:
    assert reason_of(application("DEPLOY_FAILED")) == "Serve gave no reason"
