"""Whether a deployment can be asked, on made-up answers of its replicas and of Serve."""

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray import serve
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.schema import DeploymentStatus

from deployments.errors import EngineFailed, NoReplica, StoreUnavailable
from graphs import resting
from graphs.handles import Deadline
from graphs.resting import call_awake, check


class FakeHandle:
    """A handle of a deployment whose replicas answer a broadcast as told."""

    app_name, deployment_name = "ragserve", "Generator"

    def __init__(self, answers: list[Any] | Exception) -> None:
        self._answers = answers
        self.num_calls = 0
        self.stats = SimpleNamespace(remote=self._called)

    def broadcast(self, method: str) -> Any:
        async def results_async(return_exceptions: bool) -> list[Any]:
            if isinstance(self._answers, Exception):
                raise self._answers
            return self._answers

        return SimpleNamespace(results_async=results_async)

    def _called(self) -> Any:
        self.num_calls += 1
        raise EngineFailed("called")


def serving(monkeypatch: pytest.MonkeyPatch, status: DeploymentStatus, **states: int) -> None:
    """Have Serve say this of the deployment."""
    replica_states = dict(states)  # texts, whatever the annotation says (2.60)
    of = SimpleNamespace(status=status, replica_states=replica_states)
    application = SimpleNamespace(deployments={"Generator": of})
    monkeypatch.setattr(
        serve, "status", lambda: SimpleNamespace(applications={"ragserve": application})
    )


def gone() -> DeploymentUnavailableError:
    return DeploymentUnavailableError(DeploymentID(name="Generator", app_name="ragserve"))


async def checked(handle: FakeHandle) -> None:
    await check(cast(Any, handle), Deadline(5))


async def test_check_is_content_with_one_replica_that_answers() -> None:
    await checked(FakeHandle([EngineFailed("lost"), "stats"]))


async def test_check_asks_again_where_no_replica_answered() -> None:
    handle = FakeHandle([EngineFailed("lost")])
    with pytest.raises(EngineFailed, match="called"):
        await checked(handle)
    assert handle.num_calls == 1


@pytest.mark.parametrize(
    ("status", "states"),
    [
        (DeploymentStatus.HEALTHY, {}),
        (DeploymentStatus.HEALTHY, {"STOPPING": 1}),
        (DeploymentStatus.UPSCALING, {"STARTING": 1}),
    ],
)
async def test_check_lets_a_deployment_rest(
    monkeypatch: pytest.MonkeyPatch, status: DeploymentStatus, states: dict[str, int]
) -> None:
    serving(monkeypatch, status, **states)
    handle = FakeHandle(gone())
    await checked(handle)
    assert handle.num_calls == 0, "that would wake it"


@pytest.mark.parametrize(
    ("status", "states"),
    [
        (DeploymentStatus.UNHEALTHY, {}),
        (DeploymentStatus.UNHEALTHY, {"STARTING": 1}),
        (DeploymentStatus.UPDATING, {"STARTING": 1}),
        (DeploymentStatus.HEALTHY, {"RUNNING": 1}),
    ],
)
async def test_check_does_not_take_a_loss_for_rest(
    monkeypatch: pytest.MonkeyPatch, status: DeploymentStatus, states: dict[str, int]
) -> None:
    serving(monkeypatch, status, **states)
    with pytest.raises(NoReplica):
        await checked(FakeHandle(gone()))


async def test_check_knows_no_deployment_that_serve_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications={}))
    with pytest.raises(NoReplica):
        await checked(FakeHandle(gone()))


async def test_call_to_those_awake_is_none_to_a_deployment_at_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serving(monkeypatch, DeploymentStatus.HEALTHY)
    await call_awake(cast(Any, FakeHandle(gone())), "forget", Deadline(5))
    serving(monkeypatch, DeploymentStatus.UNHEALTHY)
    with pytest.raises(NoReplica):
        await call_awake(cast(Any, FakeHandle(gone())), "forget", Deadline(5))


async def test_call_to_those_awake_needs_every_answer() -> None:
    await call_awake(cast(Any, FakeHandle([None, None])), "forget", Deadline(5))
    with pytest.raises(EngineFailed):
        await call_awake(cast(Any, FakeHandle([None, EngineFailed("lost")])), "forget", Deadline(5))


async def test_controller_that_says_nothing_leaves_no_deployment_at_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released = threading.Event()
    monkeypatch.setattr(resting, "STATUS_TIMEOUT_S", 0.01)
    monkeypatch.setattr(serve, "status", lambda: released.wait(30))
    try:
        with pytest.raises(StoreUnavailable):
            await checked(FakeHandle(gone()))
    finally:
        released.set()
