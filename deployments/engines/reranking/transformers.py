"""Cross-encoders of the transformers family: any sequence classifier with one output.

On a CPU every core works on a batch of its own, as in the embedder.
"""

import inspect
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from deployments.config import MIN_PAIR_TOKENS, RerankerArgs
from deployments.engines.reranking.engine import BatchedReranker
from deployments.engines.reranking.model import Pair, PairModel
from deployments.engines.texts.tokenizer import FastTokenizer
from deployments.engines.weights import locate
from deployments.errors import EngineFailed
from deployments.types import Vectors

_MAX_WORKERS = 8
"""More would wait for Python's lock; with more cores, a worker gets several."""

_MAX_TOKENS = 512
"""Where a model could read more: what it was trained on rarely is longer, and attention grows with
the square of it."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TransformersReranker(BatchedReranker):
    """Loads a cross-encoder's folder and computes it with PyTorch."""

    def load(self, args: RerankerArgs) -> PairModel:
        """Load the model; its worker threads, and nobody else, use PyTorch's own threads."""
        torch.set_num_threads(1)
        folder = locate(args.source).folder
        tokenizer = FastPairTokenizer(folder)
        encoder = CrossEncoder(folder, args.device, _DTYPES[args.precision])
        num_threads = args.num_threads or len(os.sched_getaffinity(0))
        num_workers = min(num_threads, _MAX_WORKERS) if args.device == "cpu" else 1
        return PairModel(
            tokenizer,
            encoder,
            encoder.max_tokens,
            num_workers,
            partial(torch.set_num_threads, num_threads // num_workers),
        )


class FastPairTokenizer(FastTokenizer):
    """A model's tokenizer for a query and a text together."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, is_pair=True)

    def pairs(self, query: str, texts: Sequence[str]) -> list[Pair]:
        """Return the query with each text, as the model's own template puts them together."""
        encodings = self.encode_pairs(query, texts)
        return [Pair(encoding.ids, encoding.type_ids) for encoding in encodings]


class CrossEncoder:
    """A sequence classifier with one output, on padded batches."""

    def __init__(self, folder: Path, device: str, dtype: torch.dtype) -> None:
        self._device = _device(device)
        load: Callable[..., Any] = AutoModelForSequenceClassification.from_pretrained
        model, report = load(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        if report["missing_keys"]:
            raise EngineFailed("the reranking model's folder lacks weights of a classifier")
        self._model = model.to(self._device).eval()
        config = self._model.config
        if config.num_labels != 1:
            raise EngineFailed("a reranking model has one output; this one has more")
        self._padding = int(config.pad_token_id or 0)
        # RoBERTa and its relatives count positions from behind the padding's own.
        is_offset = config.model_type in {"roberta", "xlm-roberta", "camembert"}
        room = int(getattr(config, "max_position_embeddings", _MAX_TOKENS)) - (
            self._padding + 1 if is_offset else 0
        )
        self.max_tokens = min(room, _MAX_TOKENS)
        if self.max_tokens < MIN_PAIR_TOKENS:
            raise EngineFailed(f"a reranking model takes at least {MIN_PAIR_TOKENS} tokens")
        takes_kinds = "token_type_ids" in inspect.signature(self._model.forward).parameters
        self._has_kinds = takes_kinds and int(getattr(config, "type_vocab_size", 0)) > 1

    def __call__(self, pairs: Sequence[Pair]) -> Vectors:
        """Return logits, float32[n, 1]; fastest when sorted by length."""
        longest = max(map(len, pairs))
        rows = [
            [_padded(pair.ids, longest, self._padding) for pair in pairs],
            [_padded([1] * len(pair), longest, 0) for pair in pairs],
            [_padded(pair.kinds, longest, 0) for pair in pairs],
        ]
        with torch.inference_mode():
            ids, mask, kinds = torch.tensor(rows, device=self._device)
            options = {"token_type_ids": kinds} if self._has_kinds else {}
            output = self._model(input_ids=ids, attention_mask=mask, **options)
            logits: Vectors = output.logits.float().cpu().numpy()
            return logits


def _padded(row: Sequence[int], length: int, padding: int) -> list[int]:
    return [*row, *[padding] * (length - len(row))]


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):
        raise EngineFailed(f"the device {name!r} is not available to the reranker") from None
