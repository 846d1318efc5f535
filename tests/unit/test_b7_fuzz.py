"""B7: our own parsers take whatever comes, or say what is wrong with it."""

import os
import subprocess
import sys

import pytest

from tests.fuzz.targets import SEEDS, TARGETS
from tests.stack import ROOT

pytest.importorskip("atheris", reason="there are no wheels of Atheris for this platform")

NUM_RUNS = 1_500_000 if os.environ.get("RAGSERVE_TEST_SECURITY") == "all" else 10_000


@pytest.mark.parametrize("target", TARGETS)
def test_b7_parsers_survive_any_bytes(target: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz", target, "--runs", str(NUM_RUNS)]
    ran = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert f"Done {NUM_RUNS} runs" in ran.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_b7_seeds_are_taken(target: str) -> None:
    for seed in SEEDS[target]:
        TARGETS[target](seed)
