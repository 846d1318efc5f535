"""A disk that answers with errors or is full: said plainly, nothing half, and well again after."""

import errno
from collections import Counter

import pytest

from tests.faults import IS_COMPLETE, chosen
from tests.faults.operations import OPERATIONS
from tests.faults.process import Mode
from tests.faults.recovery import Scene

EVERYDAY_POINTS = 2
DONE_ALREADY = {
    "",
    "deployments.errors.Conflict",
    "deployments.errors.CollectionNotFound",
    "deployments.errors.DocumentNotFound",
}
UNAVAILABLE = "deployments.errors.StoreUnavailable"
pytestmark = pytest.mark.timeout(1800)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_call_that_fails_is_said_and_the_same_process_goes_on(operation: str, scene: Scene):
    seen: Counter[str] = Counter()
    for number, at in enumerate(chosen(scene.calls, EVERYDAY_POINTS)):
        error = (errno.EIO, errno.ENOSPC, errno.EROFS)[number % 3]
        for mode in (Mode.FAIL_ONCE, Mode.FAIL_ON):
            outcome = scene.disturb(at, mode, errno=error, repeat=True)
            assert (outcome.signal, outcome.status) == (0, 0)
            assert outcome.failed in (None, UNAVAILABLE), (at, mode, error)
            assert set(outcome.repeated) <= DONE_ALREADY, (at, mode, outcome)
            scene.check_end(is_searched=not IS_COMPLETE or number % 5 == 0)
            seen[str(outcome.failed)] += 1
    assert seen
    print(f"\n{operation}: {dict(seen)}")
