"""Killed at every call that changes files, in every kind of operation: nothing lost, nothing half.

Everyday runs take some of the points, `make test-faults` all of them.
"""

import signal
from collections.abc import Iterator

import pytest

from tests.faults import IS_COMPLETE, chosen
from tests.faults.operations import OPERATIONS
from tests.faults.process import Disturber, Mode
from tests.faults.recovery import Scene

EVERYDAY_POINTS = 4
EVERYDAY_DOUBLE_POINTS = 2
DEEP = 5
"""One point in so many is also searched, and its operation ended; every one is compared whole."""

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def report() -> Iterator[list[str]]:
    """Gather what was done, and print it at the end (`pytest -s`)."""
    lines: list[str] = []
    yield lines
    print("", *lines, sep="\n")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_at_any_call_it_loses_nothing(operation: str, scene: Scene, report: list[str]):
    for mode in (Mode.KILL, Mode.TEAR):
        points = chosen(scene.calls, EVERYDAY_POINTS)
        for number, at in enumerate(points):
            outcome = scene.disturb(at, mode)
            assert outcome.signal == signal.SIGKILL
            scene.check(outcome, is_deep=not IS_COMPLETE or number % DEEP == 0)
        report.append(f"{operation}: {mode.name} at {len(points)} of {scene.calls} calls")


TWICE = ("replace by a longer and a shorter one", "delete a document")


@pytest.mark.parametrize("operation", TWICE)
def test_killed_again_while_it_recovers_it_loses_nothing(
    operation: str, scene: Scene, disturbed: Disturber, report: list[str]
):
    num_kills = 0
    for at in chosen(scene.calls, EVERYDAY_DOUBLE_POINTS):
        first = scene.disturb(at, Mode.KILL)
        crashed = scene.keep("crashed")
        recovery = disturbed.run("recover", scene.state)
        for again in chosen(recovery.calls, EVERYDAY_DOUBLE_POINTS):
            scene.restore(crashed)
            assert disturbed.run("recover", scene.state, at=again, mode=Mode.KILL).signal
            scene.check(first)
            num_kills += 1
    report.append(f"{operation}: {num_kills} second kills while it recovered")
