"""Real workers on a tiny model: masks, checkpoints, and ZeRO stages that compute the same."""

import json
from multiprocessing import get_context
from multiprocessing.pool import AsyncResult
from pathlib import Path
from typing import Any

import pytest

from deployments.engines.generation.deepspeed.local import LOOPBACK, free_port
from deployments.tuning.encoding import IGNORED, Encoded
from deployments.tuning.material import Material, read_material, write_material
from deployments.types import Training, TuningSpec
from deployments.types.seats import Seat

NUM_STEPS = 6
EXAMPLES = tuple(
    Encoded((1, 2, start, start + 1, start + 2), (IGNORED, IGNORED, start, start + 1, start + 2))
    for start in range(3, 11)
)
MATERIAL = Material(EXAMPLES, EXAMPLES[:3])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a Llama of two layers, with random weights, and a tokenizer of words."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = {f"w{number}": number for number in range(32)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w1").save_pretrained(folder)
    return folder


def spec(base: Path, **training: Any) -> TuningSpec:
    given = {"rank": 4, "batch_size": 4, "learning_rate": 0.02, "num_threads": 1} | training
    return TuningSpec(
        name="m",
        version="1",
        base="the base",
        location=str(base),
        training=Training(**given),
        num_steps=NUM_STEPS,
    )


def work(spec: TuningSpec, seat: Seat, folder: Path, orders: list[tuple[str, Any]]) -> list[Any]:
    """Be one worker in a process of its own."""
    from deployments.tuning.worker import Worker

    material = read_material(folder / "material.json")
    worker = Worker(spec, seat, material, folder / "checkpoints", attempt=1)
    answers: list[Any] = [worker.step_number]
    for name, argument in orders:
        if name == "evaluate":
            answers.append(worker.evaluate(is_base=argument))
        elif name == "write":
            worker.write(argument)
        else:
            answers.append(getattr(worker, name)())
    return answers


def workers(spec: TuningSpec, folder: Path, *orders: str | tuple[str, Any]) -> list[Any]:
    """Return what the first of all workers answers."""
    write_material(folder / "material.json", MATERIAL)
    size, port = spec.training.workers, free_port(LOOPBACK)
    asked = [(one, None) if isinstance(one, str) else one for one in orders]
    results: list[AsyncResult[list[Any]]] = []
    with get_context("spawn").Pool(size, maxtasksperchild=1) as pool:
        for rank in range(size):
            seat = Seat(rank, size, rank, size, LOOPBACK, port, "cpu")
            results.append(pool.apply_async(work, (spec, seat, folder, asked)))
        return [result.get(timeout=200) for result in results][0]


@pytest.mark.parametrize(("workers_", "stage"), [(1, 2), (2, 3)])
def test_training_learns_and_resumes_where_the_checkpoint_was(
    base: Path, tmp_path: Path, workers_: int, stage: Any
) -> None:
    wanted = spec(base, workers=workers_, zero_stage=stage)
    evaluations = [("evaluate", True), ("evaluate", False)]
    whole = workers(wanted, tmp_path / "whole", *["step"] * NUM_STEPS, *evaluations)
    assert whole[0] == 0
    losses, (before, after) = whole[1:-2], whole[-2:]
    assert after < before
    assert losses[-1] < losses[0]

    parted = tmp_path / "parted"
    first = workers(wanted, parted, "step", "step", "save", "step")
    assert first[1:3] == pytest.approx(losses[:2], rel=1e-3)
    again = workers(wanted, parted, *["step"] * (NUM_STEPS - 2), *evaluations)
    assert again[0] == 2
    assert again[1:-2] == pytest.approx(losses[2:], rel=1e-3)
    assert again[-2:] == pytest.approx([before, after], rel=1e-3)


def test_two_workers_compute_what_one_does(base: Path, tmp_path: Path) -> None:
    one, two = (
        workers(spec(base, workers=number), tmp_path / str(number), *["step"] * 3)
        for number in (1, 2)
    )
    assert two == pytest.approx(one, rel=1e-3)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.*:FutureWarning")  # of PEFT's
@pytest.mark.parametrize(("workers_", "stage"), [(1, 2), (2, 3)])
def test_adapter_and_merged_weights_compute_what_was_trained(
    base: Path, tmp_path: Path, workers_: int, stage: Any
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from deployments.tuning.adapter import merge

    wanted = spec(base, workers=workers_, zero_stage=stage)
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    orders = [*["step"] * NUM_STEPS, ("evaluate", False), ("write", adapter)]
    evaluated = workers(wanted, tmp_path, *orders)[-1]
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"]) == ("the base", 4)
    assert str(base) not in (adapter / "adapter_config.json").read_text()
    merge(wanted, adapter, merged)
    plain = AutoModelForCausalLM.from_pretrained(base)
    for model in (
        AutoModelForCausalLM.from_pretrained(merged),
        PeftModel.from_pretrained(plain, str(adapter)),
    ):
        lost = learned = 0.0
        with torch.no_grad():
            for one in MATERIAL.evaluation:
                logits = model(input_ids=torch.tensor([one.tokens])).logits[0, :-1]
                labels = torch.tensor(one.labels[1:])
                lost += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
                learned += one.num_learned
        assert lost / learned == pytest.approx(evaluated, rel=1e-3)


def test_newest_checkpoints_stay_and_a_half_written_one_is_none(base: Path, tmp_path: Path) -> None:
    workers(spec(base), tmp_path, *["step", "save"] * 4)
    folder = tmp_path / "checkpoints"
    found = sorted(one.name for one in folder.glob("checkpoint-*"))
    assert found == ["checkpoint-00000003", "checkpoint-00000004"]
    part = folder / "checkpoint-00000009.part"
    part.mkdir()
    (part / "mp_rank_00_model_states.pt").write_bytes(b"torn")
    assert workers(spec(base), tmp_path)[0] == 4
