"""The running system, killed at random instants while it is written to and searched."""

import random
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.faults import IS_COMPLETE
from tests.faults.load import Load
from tests.stack import ROOT, START_TIMEOUT_S, Stack, run_command, running

NUM_KILLS = {"Ingress": 90, "Retriever": 90} if IS_COMPLETE else {"Ingress": 2, "Retriever": 2}
NUM_TREE_KILLS = 20 if IS_COMPLETE else 1
REPLACED_TIMEOUT_S = 90
pytestmark = pytest.mark.timeout(7200)


@pytest.fixture(scope="module")
def pair() -> Iterator[Stack]:
    """Yield an installation with two replicas of what is killed."""
    with running(ROOT / "tests/chaos/two_replicas.yaml") as stack:
        yield stack


def processes(stack: Stack, part: str = "") -> list[psutil.Process]:
    """Return the processes of this installation whose command line holds a text."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            is_named = any(part in word for word in process.info["cmdline"] or ())
            state = process.environ().get("RAGSERVE_STATE_DIR") if is_named else None
        except psutil.Error:
            continue
        if state == str(stack.state_dir):
            found.append(process)
    return found


def wait_for(what: str, condition, timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} did not come back"
        time.sleep(0.1)


@pytest.mark.parametrize("part", NUM_KILLS)
def test_killed_replica_loses_nothing_acknowledged(pair: Stack, part: str):
    rng = random.Random(part)
    name = f"ServeReplica:ragserve:{part}"
    with Load(pair) as load:
        for _ in range(NUM_KILLS[part]):
            wait_for(f"{part} replica", lambda: len(processes(pair, name)) >= 2, REPLACED_TIMEOUT_S)
            written = load.counts["writes"]
            wait_for("writing", lambda: load.counts["writes"] >= written + 5, REPLACED_TIMEOUT_S)  # noqa: B023
            time.sleep(rng.uniform(0, 0.3))
            rng.choice(processes(pair, name)).kill()
            load.check()
            assert load.wrong == []
    load_report(part, NUM_KILLS[part], load)


def load_report(part: str, num_kills: int, load: Load) -> None:
    assert load.wrong == []
    assert load.counts["searches"] > num_kills
    print(f"\n{part}: {num_kills} kills, {dict(load.counts)}, {len(load.promises)} documents")


def test_killed_installation_loses_nothing_acknowledged(pair: Stack):
    rng = random.Random("tree")
    with Load(pair) as load:
        for _ in range(NUM_TREE_KILLS):
            written = load.counts["writes"]
            wait_for("writing", lambda: load.counts["writes"] >= written + 5, 120)  # noqa: B023
            time.sleep(rng.uniform(0, 0.5))
            kill_tree(pair)
            up = run_command(
                pair.env,
                "up",
                str(ROOT / "tests/chaos/two_replicas.yaml"),
                "--detach",
                timeout_s=START_TIMEOUT_S,
            )
            assert up.returncode == 0, f"ragserve up failed:\n{up.stdout}\n{up.stderr}"
            load.check(timeout_s=120)
            assert load.wrong == []
    load_report("whole tree", NUM_TREE_KILLS, load)


def kill_tree(stack: Stack) -> None:
    """Kill every process of the installation, the supervisor first, in one sweep."""
    victims = processes(stack)
    for process in victims:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(victims, timeout=30)


def test_acknowledged_write_is_found_by_every_next_search(pair: Stack):
    """Nothing is killed: whatever replica answers must know each write and each delete."""
    with Load(pair, num_writers=4) as load:
        wait_for("writing", lambda: load.counts["writes"] >= (2000 if IS_COMPLETE else 60), 600)
        load.check()
    assert load.counts["searches"] >= load.counts["writes"] * 3
    load_report("no", 0, load)
