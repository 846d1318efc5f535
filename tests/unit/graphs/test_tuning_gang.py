"""What starts and hears a tuning's job, with a process in its place that trains nothing."""

import os
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from deployments.config import TuningArgs
from deployments.errors import EngineFailed
from deployments.types import CurvePoint, Training, TuningPlan, TuningProgress, TuningSpec
from graphs import tuning_driver
from graphs import tuning_gang as module
from graphs.tuning_gang import RayGang

TELLS = """
import json, os, sys, time
order = json.loads(sys.stdin.readline())
plan, step = order["plan"], int(sys.argv[1])
path = os.path.join(plan["folder"], f"told-{plan['attempt']}.json")
for number in range(1, step + 1):
    part = path + ".part"
    values = {"step": number, "seconds": 0.0, "curve": [[1, 2.5]], "loss_before": 5.0}
    open(part, "w").write(json.dumps({**values, "loss_after": None}))
    os.replace(part, path)
    time.sleep(0.2)
"""
FAILS = """
import json, os, sys
plan = json.loads(sys.stdin.readline())["plan"]
open(os.path.join(plan["folder"], f"error-{plan['attempt']}.txt"), "w").write(sys.argv[1])
sys.exit(1)
"""
HANGS = "import sys; sys.stdin.read()"


@pytest.fixture
def plan(tmp_path: Path) -> TuningPlan:
    spec = TuningSpec(
        name="m", version="1", base="b", location="b", training=Training(targets=("q",))
    )
    return TuningPlan(spec=spec, folder=tmp_path, adapter=tmp_path / "a", attempt=3)


@pytest.fixture
async def gang(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RayGang]:
    context = SimpleNamespace(gcs_address="127.0.0.1:1")
    monkeypatch.setattr(module.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(module, "POLL_S", 0.02)
    monkeypatch.setattr(module, "GONE_S", 0.0)
    made = RayGang(TuningArgs(start_timeout_s=20, step_timeout_s=20))
    yield made
    await made.stop()


def runs(monkeypatch: pytest.MonkeyPatch, script: str, *args: str) -> None:
    monkeypatch.setattr(module, "COMMAND", (sys.executable, "-c", script, *args))


async def test_gang_gives_what_is_told_until_the_end(
    gang: RayGang, plan: TuningPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs(monkeypatch, TELLS, "3")
    told = [one async for one in gang.reports(plan)]
    assert [one.step for one in told] == [1, 2, 3]
    assert told[0] == TuningProgress(step=1, curve=(CurvePoint(1, 2.5),), loss_before=5.0)


@pytest.mark.parametrize(
    ("script", "said"), [(FAILS, "no room"), ("raise SystemExit(9)", "Ray's trainer has died")]
)
async def test_gang_tells_why_it_failed(
    gang: RayGang, plan: TuningPlan, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    runs(monkeypatch, script, "no room")
    with pytest.raises(EngineFailed) as caught:
        await anext(gang.reports(plan))
    assert caught.value.message == said


async def test_gang_that_tells_nothing_has_failed_and_is_ended(
    plan: TuningPlan, gang: RayGang, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs(monkeypatch, HANGS)
    gang._args = TuningArgs(start_timeout_s=0.2)
    with pytest.raises(EngineFailed, match=r"nothing within 0\.2 s"):
        await anext(gang.reports(plan))
    driver = gang._driver
    assert driver is not None
    assert driver.poll() is None
    await gang.stop()
    assert driver.returncode == -9


def test_plan_is_read_as_it_was_written(plan: TuningPlan) -> None:
    assert tuning_driver.plan_of(module.values_of(plan)) == plan


@pytest.mark.parametrize("is_closed", [True, False])
def test_driver_ends_itself_when_nobody_writes(
    monkeypatch: pytest.MonkeyPatch, is_closed: bool
) -> None:
    reading, writing = os.pipe()
    ended = threading.Event()
    monkeypatch.setattr(tuning_driver, "PATIENCE_S", 60.0 if is_closed else 0.2)
    monkeypatch.setattr(tuning_driver.os, "_exit", lambda code: ended.set())
    watching = threading.Thread(target=tuning_driver.watch, args=(reading,))
    watching.start()
    os.write(writing, b"\n")
    if is_closed:
        assert not ended.is_set()
        os.close(writing)
    watching.join(10)
    assert ended.is_set()
    os.close(reading)
    if not is_closed:
        os.close(writing)
