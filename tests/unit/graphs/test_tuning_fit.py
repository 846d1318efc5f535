"""Whether a tuning fits: its estimate, and what is refused."""

import pytest

from deployments.config import TuningArgs
from deployments.errors import InsufficientResources
from deployments.types import Training, TuningSpec
from graphs.fit import NodeRoom
from graphs.tuning_fit import TRAINER_BYTES, check_tuning_fit, worker_bytes

GIB = 1 << 30
ARGS = TuningArgs(worker_cpus=2)


def spec(workers: int = 1, device: str = "cpu", memory: int = GIB) -> TuningSpec:
    training = Training(workers=workers)
    return TuningSpec(
        name="m",
        version="1",
        base="b",
        location="b",
        training=training,
        device=device,
        memory_bytes=memory,
    )


def test_estimate_grows_with_parameters_tokens_and_share() -> None:
    least = worker_bytes(10**8, "fp32", 100, Training(batch_size=8))
    assert worker_bytes(2 * 10**8, "fp32", 100, Training(batch_size=8)) > least
    assert worker_bytes(10**8, "fp32", 200, Training(batch_size=8)) > least
    assert worker_bytes(10**8, "fp32", 100, Training(batch_size=16)) > least
    assert worker_bytes(10**8, "fp32", 100, Training(batch_size=8, workers=2)) < least
    assert worker_bytes(10**8, "bf16", 100, Training(batch_size=8)) < least


@pytest.mark.parametrize(
    ("wanted", "node", "free"),
    [
        (spec(2), NodeRoom(4, 0, 9 * GIB), 2 * GIB + TRAINER_BYTES),
        (spec(1, "cuda"), NodeRoom(4, 1, 9 * GIB), 0),
    ],
)
def test_what_fits_is_taken(wanted: TuningSpec, node: NodeRoom, free: int) -> None:
    check_tuning_fit(wanted, ARGS, [node], free)


@pytest.mark.parametrize(
    ("wanted", "nodes", "free", "said"),
    [
        (spec(3), [NodeRoom(4, 0, 9 * GIB)], 9 * GIB, "room for 2"),
        (spec(2), [NodeRoom(8, 0, GIB)], 9 * GIB, "room for 1"),
        (spec(2, "cuda"), [NodeRoom(8, 1, 9 * GIB)], 9 * GIB, "a GPU each; there is room for 1"),
        (spec(1), [], 9 * GIB, "room for 0"),
        (spec(2), [NodeRoom(8, 0, 9 * GIB)], GIB, "1.00 GiB are free"),
        (spec(2), [NodeRoom(8, 0, 9 * GIB)], 2 * GIB, "what leads them 0.63 GiB"),
    ],
)
def test_what_does_not_fit_is_told(
    wanted: TuningSpec, nodes: list[NodeRoom], free: int, said: str
) -> None:
    with pytest.raises(InsufficientResources, match=said):
        check_tuning_fit(wanted, ARGS, nodes, free)
