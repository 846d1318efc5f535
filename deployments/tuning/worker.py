"""One worker of a training: the base model with an adapter, its part of every step, checkpoints.

DeepSpeed's ZeRO shares out what the workers would else have several times: of stage 2 gradients and
the optimizer's state, of stage 3 also the model. All workers have to be asked the same, in the same
order (``loop.py``). It does not know where the others are.
"""

import contextlib
import io
import logging
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from deployments.engines.generation.deepspeed.model import MEETING_TIMEOUT_S, join
from deployments.engines.generation.transformers.loading import read
from deployments.tuning import checkpoints
from deployments.tuning.adapter import (
    adapted,
    base_args,
    parameters_of,
    weights_of,
    write_adapter,
)
from deployments.tuning.batches import Batch, batch_of, chosen, learning_rate
from deployments.tuning.encoding import IGNORED, Encoded
from deployments.tuning.material import Material
from deployments.types import CurvePoint, TuningSpec, thinned
from deployments.types.seats import Seat

NICENESS = 10
"""On processors that also answer requests, those go first."""


class Worker:
    """Loads in the constructor, and goes on from the newest checkpoint if there is one.

    All methods must be called from the thread that built it. `curve` has the losses of the steps
    that were done, over all attempts.
    """

    def __init__(
        self, spec: TuningSpec, seat: Seat, material: Material, folder: Path, attempt: int
    ) -> None:
        """Load.

        Args:
            spec: what to train.
            seat: which worker this is, and where all of them meet.
            material: the encoded examples.
            folder: where checkpoints are; the same for all workers.
            attempt: a number greater than that of all workers before.
        """
        self._spec, self._seat, self._material = spec, seat, material
        self._folder, self._attempt = folder, attempt
        self._prepare_process()
        torch.manual_seed(spec.training.seed)
        model, _ = read(base_args(spec))
        model.config.use_cache = False
        model.requires_grad_(False)
        self._engine = self._started(adapted(model, spec))
        self.step_number, self.curve = checkpoints.load(self._engine, self._folder)

    def _prepare_process(self) -> None:
        is_cpu, seat = self._spec.device == "cpu", self._seat
        cores = len(os.sched_getaffinity(0))
        torch.set_num_threads(self._spec.training.num_threads or max(1, cores // seat.num_local))
        if is_cpu:
            os.nice(max(0, NICENESS - os.nice(0)))
        join(seat)
        if seat.size == 1:
            distributed.init_process_group(
                "gloo" if is_cpu else "nccl",
                store=distributed.HashStore(),  # type: ignore[attr-defined]
                rank=0,
                world_size=1,
                timeout=timedelta(seconds=MEETING_TIMEOUT_S),
            )

    def _started(self, model: Any) -> Any:
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        import deepspeed

        # Its all-reduce over shared memory needs a compiler, and waits by spinning.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        training = self._spec.training
        optimizer = torch.optim.AdamW(parameters_of(model), lr=training.learning_rate)
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_clipping": 1.0,
            "bf16": {"enabled": self._spec.precision == "bf16"},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "zero_optimization": {
                "stage": training.zero_stage,
                "stage3_param_persistence_threshold": 0,
            },
        }
        with contextlib.redirect_stdout(io.StringIO()):
            engine, *_ = deepspeed.initialize(
                model=model, optimizer=optimizer, config=config, dist_init_required=False
            )
        return engine

    def step(self) -> float:
        """Train on the next step's examples; return their mean loss per token before it."""
        training, examples = self._spec.training, self._material.examples
        places = chosen(self.step_number, len(examples), training.batch_size, training.seed)
        batch = self._batch([examples[place] for place in places])
        rate = learning_rate(self.step_number, self._spec.num_steps, training.learning_rate)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        self._engine.train()
        loss = self._loss(batch)
        self._engine.backward(loss * self._seat.size)  # DeepSpeed takes the workers' mean
        self._engine.step()
        self.step_number += 1
        mean = self._summed(loss)
        self.curve = thinned((*self.curve, CurvePoint(self.step_number, round(mean, 6))))
        return mean

    def evaluate(self, *, is_base: bool) -> float:
        """Return the mean loss per token of the held-back examples; `is_base`: of the base."""
        size, held = self._spec.training.batch_size, self._material.evaluation
        self._engine.eval()
        total = 0.0
        without = self._engine.module.disable_adapter() if is_base else contextlib.nullcontext()
        with torch.no_grad(), without:
            for start in range(0, len(held), size):
                batch = self._batch(held[start : start + size])
                total += self._summed(self._loss(batch)) * batch.num_learned
        return total / sum(one.num_learned for one in held)

    def save(self) -> None:
        """Write a checkpoint; it is there once it is whole."""
        checkpoints.save(self._engine, self._folder, self.curve, self.step_number, self._attempt)

    def agree(self, is_so: bool) -> bool:
        """Return what the first worker says."""
        said = torch.tensor(float(is_so), device=self._engine.device)
        distributed.broadcast(said, src=0)
        return bool(said.item())

    def write(self, folder: Path) -> None:
        """Have the first worker write the adapter's folder; the others give their parts."""
        import deepspeed

        model = self._engine.module
        parameters = parameters_of(model) if self._spec.training.zero_stage == 3 else []
        with deepspeed.zero.GatheredParameters(parameters):
            weights = weights_of(model)
        if self._seat.rank == 0:
            write_adapter(model, weights, folder)

    def _batch(self, examples: Sequence[Encoded]) -> Batch:
        return batch_of(examples, self._seat.rank, self._seat.size)

    def _loss(self, batch: Batch) -> torch.Tensor:
        """Return this worker's part of the mean loss over all workers' tokens, with its graph."""
        device = self._engine.device
        labels = batch.labels[:, 1:]
        places = (labels != IGNORED).any(0).nonzero()[:, 0]
        if not len(places):
            places = torch.tensor([0])
        labels = labels[:, places].to(device)
        # Most tokens are prompt, and a row of logits is as long as the vocabulary.
        logits = self._engine(
            input_ids=batch.tokens.to(device),
            attention_mask=batch.attention.to(device),
            logits_to_keep=places.to(device),
        ).logits
        is_learned = labels != IGNORED
        kept, wanted = logits[is_learned].float(), labels[is_learned]
        lost: torch.Tensor = torch.nn.functional.cross_entropy(kept, wanted, reduction="sum")
        # A worker without examples takes part all the same: the others wait for its gradients.
        share: torch.Tensor = lost + 0.0 * logits[:, 0, 0].sum()
        return share / max(1, batch.num_learned)

    def _summed(self, loss: torch.Tensor) -> float:
        total = loss.detach().float().clone()
        distributed.all_reduce(total)
        return float(total)
