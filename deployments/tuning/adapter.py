"""A LoRA adapter: put on a model, written as a folder, and merged into the model's weights."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file

from deployments.config import GeneratorArgs
from deployments.engines.generation.transformers.loading import read
from deployments.types import TuningSpec

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def base_args(spec: TuningSpec) -> GeneratorArgs:
    """Return what the base model is loaded by; on a GPU, each worker sees only its own."""
    precision: Any = spec.precision
    return GeneratorArgs(source=spec.location, device=spec.device, precision=precision)


def adapted(model: Any, spec: TuningSpec) -> Any:
    """Return the model with a new adapter, which at first changes nothing."""
    training = spec.training
    config = LoraConfig(
        r=training.rank,
        lora_alpha=training.alpha,
        lora_dropout=training.dropout,
        target_modules=list(training.targets) or "all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, config, autocast_adapter_dtype=False)
    config.base_model_name_or_path = spec.base  # the library has put the path of a folder here
    return model


def parameters_of(model: Any) -> list[Any]:
    """Return the parameters that are trained: the adapter's."""
    return [one for one in model.parameters() if one.requires_grad]


def weights_of(model: Any) -> dict[str, Any]:
    """Return copies of the adapter's weights by name, as its file has them."""
    found = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: one.detach().cpu().float().clone().contiguous() for name, one in found.items()}


def write_adapter(model: Any, weights: dict[str, Any], folder: Path) -> None:
    """Write an adapter's folder, for its owner only."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = model.peft_config["default"].to_dict() | {"inference_mode": True}
    text = json.dumps(config, indent=2, sort_keys=True, default=_plain)
    (folder / CONFIG).write_text(text, encoding="utf-8")
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    sync(folder)


def merge(spec: TuningSpec, adapter: Path, folder: Path) -> None:
    """Write a whole model folder: the base with the adapter added to its weights."""
    model, tokenizer = read(base_args(spec).model_copy(update={"device": "cpu"}))
    merged: Any = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    if hasattr(merged.config, "quantization_config"):  # of the GGUF file that it was read from
        del merged.config.quantization_config
    with _private():
        merged.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    sync(folder)


def sync(folder: Path) -> None:
    """Bring a folder and its files to the disk."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _private() -> Iterator[None]:
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _plain(value: Any) -> Any:
    return (
        sorted(value) if isinstance(value, set | frozenset) else getattr(value, "value", str(value))
    )
