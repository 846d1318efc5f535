"""Loads the weights of a sentence encoder, in the precision that the device is fastest in."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import AutoModel

from deployments.engines.embedding.bert import BertEncoder
from deployments.engines.embedding.int8 import SAMPLES, can_multiply
from deployments.engines.embedding.model_folder import ModelFolder
from deployments.engines.texts.tokenizer import FastTokenizer
from deployments.errors import EngineFailed
from deployments.types import Vectors

_DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.bfloat16,  # of all but the products that are rounded
}


def load_encoder(folder: ModelFolder, device: str, precision: str) -> "BertEncoder | PaddedEncoder":
    """Return the encoder of a folder.

    Raises:
        EngineFailed: the device is not there, or the folder holds no such model.
    """
    place = _device(device)
    config = json.loads((folder.path / "config.json").read_text(encoding="utf-8"))
    is_bert = _is_plain_bert(folder, config)
    can_round = is_bert and place.type == "cpu" and _has_fast_bf16() and can_multiply()
    if precision == "auto":
        precision = "int8" if can_round else _best_float(place)
    if precision == "int8" and not can_round:
        needs = "int8 needs a BERT model and a CPU with AVX-512 VNNI and BF16"
        raise EngineFailed(f"{needs}; this model can be computed here in: fp32, bf16, fp16")
    if not is_bert:
        return PaddedEncoder(folder, place, _DTYPES[precision])
    samples = _samples(folder) if precision == "int8" else []
    return BertEncoder(folder, config, place, _DTYPES[precision], samples)


def _is_plain_bert(folder: ModelFolder, config: dict[str, Any]) -> bool:
    is_bert = (config.get("model_type"), config.get("hidden_act")) == ("bert", "gelu")
    is_absolute = config.get("position_embedding_type", "absolute") == "absolute"
    return is_bert and is_absolute and (folder.path / "model.safetensors").is_file()


def _samples(folder: ModelFolder) -> list[list[int]]:
    """Return token ids of texts that show the ranges of the model's inner values."""
    ids = FastTokenizer(folder.path).encode([*SAMPLES, " ".join(SAMPLES)])
    return sorted((row[: folder.max_tokens] for row in ids), key=len)


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):
        raise EngineFailed(f"the device {name!r} is not available to the embedder") from None


def _best_float(device: torch.device) -> str:
    """Return bf16 where it is computed natively, fp32 elsewhere."""
    return "bf16" if device.type != "cpu" or _has_fast_bf16() else "fp32"


def _has_fast_bf16() -> bool:
    """Tell whether the CPU multiplies bf16.

    Source: AVX-512 BF16 or AMX; without them oneDNN converts back and forth and loses to fp32.
    """
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


class PaddedEncoder:
    """Any encoder that transformers can load, on padded batches: for what is not plain BERT."""

    def __init__(self, folder: ModelFolder, device: torch.device, dtype: torch.dtype) -> None:
        load: Callable[..., Any] = AutoModel.from_pretrained
        model = load(
            folder.path,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
        self._model = model.to(device).eval()
        self._pooling = folder.pooling
        self._device = device
        self._padding = int(self._model.config.pad_token_id or 0)
        self.dim = int(self._model.config.hidden_size)

    def __call__(self, sequences: Sequence[Sequence[int]]) -> Vectors:
        """Return the normalised vectors, float32[n, dim]; fastest when sorted by length."""
        longest = max(map(len, sequences))
        ids = [[*row, *[self._padding] * (longest - len(row))] for row in sequences]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in sequences]
        with torch.inference_mode():
            input_ids, attention = torch.tensor([ids, mask], device=self._device)
            hidden = self._model(input_ids=input_ids, attention_mask=attention).last_hidden_state
            weights = attention[..., None].float()
            pooled = (
                (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)
                if self._pooling == "mean"
                else hidden[:, 0].float()
            )
            vectors: Vectors = functional.normalize(pooled, dim=-1).cpu().numpy()
            return vectors
