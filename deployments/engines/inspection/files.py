"""What a model's folder or GGUF file holds: kind, size, tokenizer; nothing runs as code."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.engines.inspection.safetensors import num_parameters
from deployments.engines.weights import Weights
from deployments.errors import UnreadableModel
from deployments.types import ModelKind

CODE_OR_PICKLES = frozenset({".py", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model")
MAX_JSON_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What was found; `kv_width` is the numbers that one token adds to the cache, 0 for none."""

    weights: Weights
    paths: tuple[Path, ...]
    kind: ModelKind
    num_bytes: int
    num_parameters: int
    kv_width: int = 0


def inspect(weights: Weights, *, is_trusted: bool) -> ModelFiles:
    """Return what a model's files are, once all of them agree with their headers.

    Args:
        weights: the folder, or the GGUF file in it.
        is_trusted: whether code and pickles may lie there, too; they are not read even then.

    Raises:
        UnreadableModel: something is damaged or missing, or is of a form that is not loaded.
    """
    with readable():
        if weights.gguf_file is not None:
            return _gguf(weights, weights.folder / weights.gguf_file)
        return _folder(weights, is_trusted=is_trusted)


@contextmanager
def readable() -> Iterator[None]:
    """Raise UnreadableModel where the system does not let a file be read."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UnreadableModel(f"a file of the model cannot be read: {reason}") from None


def _folder(weights: Weights, *, is_trusted: bool) -> ModelFiles:
    folder = weights.folder
    config = read_json(folder / "config.json")
    if not is_trusted:
        refuse_code(folder, config)
    paths = _weight_files(folder)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise UnreadableModel("the folder has no tokenizer")
    return ModelFiles(
        weights=weights,
        paths=paths,
        kind=kind_of(config, has_modules=(folder / "modules.json").is_file()),
        num_bytes=sum(path.stat().st_size for path in paths),
        num_parameters=sum(map(num_parameters, paths)),
        kv_width=_kv_width(config),
    )


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object of a model's folder; raises UnreadableModel."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UnreadableModel(f"{path.name} is too large")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UnreadableModel(f"the folder has no {path.name} that can be read") from None
    except (ValueError, RecursionError):
        raise UnreadableModel(f"{path.name} is not JSON") from None
    if not isinstance(value, dict):
        raise UnreadableModel(f"{path.name} holds no object")
    return value


def _gguf(weights: Weights, path: Path) -> ModelFiles:
    from deployments.engines.inspection.gguf import read_header  # 10 MB that few processes need

    header = read_header(path)
    if not header.has_tokenizer:
        raise UnreadableModel(f"{path.name} brings no tokenizer")
    size, parameters = path.stat().st_size, header.num_parameters
    width = _gguf_kv_width(header.metadata)
    return ModelFiles(weights, (path,), "generation", size, parameters, width)


def refuse_code(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder with code or pickles in it; raises UnreadableModel."""
    if "auto_map" in config:
        raise UnreadableModel("config.json names code of the model's own, which never runs here")
    for path in folder.rglob("*"):
        if path.suffix.lower() in CODE_OR_PICKLES:
            message = f"the folder holds {path.suffix.lower()} files: code and pickles are not"
            raise UnreadableModel(f"{message} loaded; remove them, or have the operator trust it")


def _weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the safetensors files, all that an index names."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = read_json(index).get("weight_map")
        names = sorted(set(map(str, named.values()))) if isinstance(named, dict) else []
        if not names or any(Path(name).name != name for name in names):
            raise UnreadableModel(f"{index.name} names no files of the folder")
    else:
        names = ["model.safetensors"]
    for name in names:
        if not (folder / name).is_file():
            raise UnreadableModel(f"the folder has no {name}: only safetensors and GGUF are loaded")
    return tuple(folder / name for name in names)


def kind_of(config: Mapping[str, Any], *, has_modules: bool) -> ModelKind:
    """Return what a model is for; `has_modules`: it has a modules.json."""
    architectures = config.get("architectures")
    first = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    if first.endswith("ForSequenceClassification"):
        return "reranking"
    if has_modules or not first.endswith(("LMHeadModel", "ForCausalLM")):
        return "embedding"
    return "generation"


def _kv_width(config: Mapping[str, Any]) -> int:
    inner = config.get("text_config")
    config = inner if isinstance(inner, dict) else config
    layers, heads = config.get("num_hidden_layers"), config.get("num_attention_heads")
    hidden = config.get("hidden_size")
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim")
    if not isinstance(head_dim, int) and isinstance(hidden, int) and isinstance(heads, int):
        head_dim = hidden // max(heads, 1)
    return _product(layers, kv_heads, head_dim)


def _gguf_kv_width(metadata: Mapping[str, Any]) -> int:
    kind = metadata.get("general.architecture")
    heads, hidden = (
        metadata.get(f"{kind}.{name}") for name in ("attention.head_count", "embedding_length")
    )
    kv_heads = metadata.get(f"{kind}.attention.head_count_kv", heads)
    head_dim = metadata.get(f"{kind}.attention.key_length")
    if head_dim is None and isinstance(hidden, int) and isinstance(heads, int):
        head_dim = hidden // max(heads, 1)
    return _product(metadata.get(f"{kind}.block_count"), kv_heads, head_dim)


def _product(layers: Any, kv_heads: Any, head_dim: Any) -> int:
    """Return the numbers of keys and values per token, 0 where the files do not say."""
    parts = (layers, kv_heads, head_dim)
    if not all(isinstance(part, int) and 0 < part < 1 << 20 for part in parts):
        return 0
    return int(2 * layers * kv_heads * head_dim)
