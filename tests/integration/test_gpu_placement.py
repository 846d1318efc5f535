"""``configs/gpu.yaml`` on a cluster whose GPUs are numbers: replicas lie where it says."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack import ROOT

ON_GPUS = ("Generator", "Embedder", "Reranker")


@pytest.fixture(scope="module")
def cases() -> Iterator[dict[str, dict]]:
    with tempfile.TemporaryDirectory(prefix="rp-") as folder:  # sockets need short paths
        (Path(folder) / "ray").mkdir()
        yield placed(Path(folder))


def placed(folder: Path) -> dict[str, dict]:
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RAGSERVE_STATE_DIR": str(folder / "state"),
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.placement"],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"case"')]
    return {case["case"]: case for case in found}


@pytest.mark.parametrize("name", ["whole", "several"])
def test_models_lie_on_machines_with_gpus(cases: dict[str, dict], name: str) -> None:
    for deployment in ON_GPUS:
        nodes = cases[name]["replicas"][deployment]
        assert nodes
        assert set(nodes) <= cases[name]["gpus_used"].keys()


def test_a_generator_has_a_card_and_the_others_share_one(cases: dict[str, dict]) -> None:
    case = cases["whole"]
    share = {"Generator": 1.0, "Embedder": 0.25, "Reranker": 0.25}
    for node, used in case["gpus_used"].items():
        on_it = sum(share[name] * case["replicas"][name].count(node) for name in ON_GPUS)
        assert used == pytest.approx(on_it)
    assert sum(case["gpus_used"].values()) == pytest.approx(3.0)


def test_a_generator_over_several_cards_has_them_on_one_machine(cases: dict[str, dict]) -> None:
    case = cases["several"]
    [node] = case["replicas"]["Generator"]
    assert case["gpus_used"].pop(node) == pytest.approx(2.0)
    assert sum(case["gpus_used"].values()) == pytest.approx(0.5)
    assert node not in case["replicas"]["Embedder"] + case["replicas"]["Reranker"]
