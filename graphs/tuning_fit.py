"""What a tuning needs, and whether it fits: refused at once where it does not."""

from collections.abc import Sequence

from deployments.config import TuningArgs
from deployments.errors import InsufficientResources
from deployments.types import Training, TuningSpec
from graphs.fit import BYTES, NodeRoom

PROCESS_BYTES = 900 << 20
"""What a worker's process takes before it has weights: torch, transformers, DeepSpeed, PEFT, and
Ray Train with pandas. Source: measured.
"""

TRAINER_BYTES = 650 << 20
"""What Ray Train takes beside the workers: the job's owner, its controller (both load torch and
pandas), and an actor that the workers meet at. Source: measured.
"""

ACTIVATION_FACTOR = 8.0
"""Bytes kept of each token for the way back, over the parameters' number to the power of 2/3, at
four bytes a number. That is how width times layers grows with a model. Source: measured.
"""


def worker_bytes(num_parameters: int, precision: str, longest: int, training: Training) -> int:
    """Return an estimate of the most bytes that one worker takes.

    Every worker loads the whole base before stage 3 shares it out.
    """
    width = BYTES[precision]
    sequences = -(-training.batch_size // training.workers)
    kept = ACTIVATION_FACTOR * num_parameters ** (2 / 3) * width / BYTES["fp32"]
    needs = num_parameters * width + sequences * longest * kept
    return PROCESS_BYTES + int(needs)


def check_tuning_fit(
    spec: TuningSpec, args: TuningArgs, nodes: Sequence[NodeRoom], free_bytes: int
) -> None:
    """Raise InsufficientResources unless every worker finds a place now.

    Args:
        spec: what is to be trained.
        args: what each worker asks of Ray.
        nodes: what Ray has free, node by node.
        free_bytes: this machine's free memory, which matters where it is the only one.
    """
    workers = spec.training.workers
    places = sum(_workers_on(node, spec, args) for node in nodes)
    needed = f"{spec.memory_bytes / (1 << 30):.2f} GiB"
    if places < workers:
        gpus = " and a GPU" if spec.device == "cuda" else ""
        raise InsufficientResources(
            f"{workers} workers need {args.worker_cpus:g} logical CPUs, {needed}{gpus} each; "
            f"there is room for {places}"
        )
    total = workers * spec.memory_bytes + TRAINER_BYTES
    if len(nodes) == 1 and spec.device == "cpu" and total > free_bytes:
        raise InsufficientResources(
            f"{workers} workers need {needed} of memory each, and what leads them "
            f"{TRAINER_BYTES / (1 << 30):.2f} GiB; {free_bytes / (1 << 30):.2f} GiB are free: "
            "try a smaller batch_size or fewer workers"
        )


def _workers_on(node: NodeRoom, spec: TuningSpec, args: TuningArgs) -> int:
    pairs = [(node.num_cpus, args.worker_cpus), (node.memory_bytes, spec.memory_bytes)]
    if spec.device == "cuda":
        pairs.append((node.num_gpus, 1.0))
    return min(int((has + 1e-6) // need) for has, need in pairs)
