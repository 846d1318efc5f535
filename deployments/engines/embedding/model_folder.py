"""What a model folder says about pooling and limits. It loads no weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deployments.errors import EngineFailed

Pooling = Literal["mean", "cls"]

MAX_SEGMENT_TOKENS = 512
"""No segment is longer, whatever a model could take: the API promises it (`/v1/data/vectorize`)."""

_KNOWN_MODULES = {"Transformer", "Pooling", "Normalize"}


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model's folder, how its token vectors become one, and its most tokens per segment."""

    path: Path
    pooling: Pooling
    max_tokens: int


def read_model_folder(path: Path) -> ModelFolder:
    """Return what the folder's own files say; a plain BERT folder is mean-pooled.

    Raises:
        EngineFailed: the folder asks for something that this engine does not do.
    """
    modules = _read_json(path / "modules.json", default=[])
    kinds = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in modules}
    if unknown := set(kinds) - _KNOWN_MODULES:
        raise EngineFailed(f"the embedding model needs unsupported modules: {sorted(unknown)}")
    pooling = _pooling(path / kinds["Pooling"]) if "Pooling" in kinds else "mean"
    return ModelFolder(path, pooling, _max_tokens(path / kinds.get("Transformer", "")))


def _pooling(folder: Path) -> Pooling:
    config = _read_json(folder / "config.json", default={})
    modes = [
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for key, value in config.items()
        if key.startswith("pooling_mode_") and value is True
    ] or [config.get("pooling_mode", "mean")]
    match modes:
        case ["mean"]:
            return "mean"
        case ["cls"]:
            return "cls"
        case _:
            raise EngineFailed(f"the embedding model pools by {modes}; mean and cls are supported")


def _max_tokens(folder: Path) -> int:
    config = _read_json(folder / "config.json", default=None)
    if config is None:
        raise EngineFailed("the embedding model's folder has no config.json")
    sentence = _read_json(folder / "sentence_bert_config.json", default={})
    if sentence.get("do_lower_case"):
        raise EngineFailed("the embedding model lower-cases outside its tokenizer: not supported")
    limits = (
        MAX_SEGMENT_TOKENS,
        config.get("max_position_embeddings"),
        sentence.get("max_seq_length"),
    )
    return min(limit for limit in limits if isinstance(limit, int))


def _read_json(path: Path, default: Any) -> Any:
    if not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise EngineFailed(f"{path.name} of the embedding model is not JSON") from None
