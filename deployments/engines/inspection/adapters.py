"""What a LoRA adapter's folder holds, as PEFT saves it; nothing runs as code.

It knows no model: whether the adapter fits one is the engine's to say.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.engines.inspection.files import read_json, readable, refuse_code
from deployments.engines.inspection.safetensors import Tensor, tensors
from deployments.errors import UnreadableModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAX_RANK = 256
TENSOR = re.compile(r"base_model\.model\.([\w.]+)\.lora_([AB])\.weight")
MODULE = re.compile(r"[\w.]+")
DTYPES = frozenset({"F32", "F16", "BF16"})
MERGE = "merge it into its base (PEFT's `merge_and_unload`) and load the result as a model"

READ = frozenset({"peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"})
WITHOUT_EFFECT = frozenset(
    {
        "alora_invocation_tokens", "arrow_config", "auto_mapping", "base_model_name_or_path",
        "bias", "corda_config", "ensure_weight_tying", "eva_config", "exclude_modules",
        "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform",
        "loftq_config", "lora_dropout", "lora_ga_config", "megatron_config", "megatron_core",
        "peft_version", "qalora_group_size", "revision", "runtime_config", "target_modules",
        "task_type",
    }
)  # fmt: skip
"""Settings of training, or whose effect is seen in the tensors. Source: PEFT 0.21 `LoraConfig`."""

STARTS = frozenset({"true", "false", "gaussian", "orthogonal", "eva"})
"""Ways to begin that leave the base as it is; the others change it, and fit no other copy."""


@dataclass(frozen=True, slots=True)
class Update:
    """What is added to one linear layer of the base: `scale` * up @ down."""

    module: str
    rank: int
    in_features: int
    out_features: int
    scale: float


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """What was found."""

    path: Path
    updates: tuple[Update, ...]
    num_bytes: int


def inspect_adapter(folder: Path, *, is_trusted: bool = False) -> AdapterFiles:
    """Return what an adapter's files are, once all of them agree with each other.

    Args:
        folder: holds `adapter_config.json` and `adapter_model.safetensors`.
        is_trusted: whether code and pickles may lie there, too; they are not read even then.

    Raises:
        UnreadableModel: something is damaged or missing, or is of a form that is not served.
    """
    with readable():
        return _inspected(folder, is_trusted=is_trusted)


def _inspected(folder: Path, *, is_trusted: bool) -> AdapterFiles:
    config = read_json(folder / CONFIG)
    if not is_trusted:
        refuse_code(folder, config)
    _check_form(config)
    path = folder / WEIGHTS
    if not path.is_file():
        raise UnreadableModel(f"the folder has no {WEIGHTS}: only safetensors are loaded")
    pairs = _pairs(tensors(path))
    updates = tuple(_update(module, *pairs[module], config) for module in sorted(pairs))
    return AdapterFiles(path, updates, path.stat().st_size)


def _check_form(config: Mapping[str, Any]) -> None:
    """Refuse every form of adapter but the plain one, and say what can be done."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnreadableModel(f"adapters of type {str(kind)[:32]!r} are not served, LORA ones are")
    if config.get("use_dora"):
        raise UnreadableModel(f"DoRA adapters are not served: {MERGE}")
    if config.get("bias") not in (None, "none") or config.get("lora_bias"):
        raise UnreadableModel(f"adapters that change biases are not served: {MERGE}")
    if config.get("modules_to_save") or config.get("trainable_token_indices"):
        raise UnreadableModel(f"adapters that replace whole modules are not served: {MERGE}")
    start = config.get("init_lora_weights", True)
    if str(start).lower() not in STARTS:
        raise UnreadableModel(f"adapters that began as {str(start)[:32]!r} are not served: {MERGE}")
    if config.get("alora_invocation_tokens") or config.get("arrow_config"):
        raise UnreadableModel("adapters that act on a part of the text are not served")
    for name, value in config.items():
        if value and name not in READ | WITHOUT_EFFECT:
            raise UnreadableModel(f"adapters with `{name[:64]}` are not served: {MERGE}")


def _pairs(found: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return both tensors of every module that the adapter changes."""
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in found.items():
        match = TENSOR.fullmatch(name)
        if match is None:
            raise UnreadableModel(f"the adapter changes more than linear layers: {MERGE}")
        halves.setdefault(match[1], {})[match[2]] = tensor
    if not halves:
        raise UnreadableModel("the adapter changes nothing")
    for module, both in halves.items():
        if len(both) < 2:
            raise UnreadableModel(f"the adapter has one half only of what changes {module}")
    return {module: (both["A"], both["B"]) for module, both in halves.items()}


def _update(module: str, down: Tensor, up: Tensor, config: Mapping[str, Any]) -> Update:
    """Return the change of a module, once its shapes and the configuration's rank agree."""
    rank = _pattern(config, "rank_pattern", module, config.get("r"))
    alpha = _pattern(config, "alpha_pattern", module, config.get("lora_alpha"))
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= MAX_RANK:
        raise UnreadableModel(f"an adapter's rank is 1 to {MAX_RANK}")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not abs(alpha) < 1e6:
        raise UnreadableModel("lora_alpha is no number that can be")
    if not {down.dtype, up.dtype} <= DTYPES:
        raise UnreadableModel("an adapter's tensors are F32, F16 or BF16")
    are_pair = len(down.shape) == len(up.shape) == 2 and down.shape[0] == up.shape[1] == rank
    if not are_pair:
        raise UnreadableModel(f"the shapes of what changes {module} do not fit its rank {rank}")
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    return Update(module, rank, down.shape[1], up.shape[0], scale)


def _pattern(config: Mapping[str, Any], name: str, module: str, usual: Any) -> Any:
    """Return the value of the first pattern that names a module; patterns are plain names here."""
    patterns = config.get(name) or {}
    if not isinstance(patterns, dict) or not all(map(MODULE.fullmatch, patterns)):
        raise UnreadableModel(f"{name} holds other than names of modules: {MERGE}")
    for key, value in patterns.items():
        if module == key or module.endswith(f".{key}"):
            return value
    return usual
