"""The power goes at a call of a writing operation: the disk keeps what was synced, and no more."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import IS_COMPLETE
from tests.faults.disks import Disk, ext4
from tests.faults.operations import OPERATIONS
from tests.faults.process import Disturber, Mode, Outcome, disturber
from tests.faults.recovery import Scene

EVERYDAY = ("delete one after another", "write the first key")
COMPLETE_POINTS = 12
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disturber]:
    with disturber(tmp_path_factory.mktemp("shim")) as found:
        yield found


@pytest.mark.parametrize("operation", OPERATIONS if IS_COMPLETE else EVERYDAY)
def test_power_lost_at_any_call_it_loses_nothing_acknowledged(
    operation: str, tmp_path: Path, disturbed: Disturber
):
    with ext4(tmp_path) as disk:
        scene = Scene(operation, disk.path, disturbed)
        points = range(1, scene.calls + 1)[:: max(1, -(-scene.calls // COMPLETE_POINTS))]
        for at in points if IS_COMPLETE else points[:: len(points) // 2]:
            outcome = scene.disturb(at, Mode.POWER, mount=str(disk.path))
            assert outcome.signal == signal.SIGKILL
            remount_and_check(disk, scene, outcome)
        outcome = scene.disturb(scene.calls + 1, Mode.POWER)
        assert (outcome.signal, outcome.acknowledged) == (0, len(OPERATIONS[operation].steps))
        disk.lose_power()
        remount_and_check(disk, scene, outcome)
        print(f"\n{operation}: {len(points) + 1} power losses at {scene.calls} calls")


def remount_and_check(disk: Disk, scene: Scene, outcome: Outcome) -> None:
    disk.unmount()
    disk.mount()
    scene.check(outcome)
