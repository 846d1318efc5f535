"""Loads a model and its tokenizer from local files. It does not know how they are used."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import gguf
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from deployments.config import GeneratorArgs
from deployments.engines.generation.transformers.linears import improve_linears
from deployments.engines.heap import trim
from deployments.engines.weights import Weights, locate

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A causal language model in evaluation mode, its tokenizer and its end-of-text tokens."""

    model: Any
    tokenizer: Any
    eos_token_ids: frozenset[int]

    @property
    def vocab_size(self) -> int:
        """Return the length of a row of logits."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def max_positions(self) -> int:
        """Return the most tokens the model was made for."""
        config = self.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", 0) or 1 << 20)


def load(args: GeneratorArgs) -> LoadedModel:
    """Load `args.source` onto `args.device`; it never runs code that comes with the weights."""
    model, tokenizer = read(args)
    model.to(args.device).eval().requires_grad_(False)
    improve_linears(model)
    trim()
    return LoadedModel(model, tokenizer, eos_token_ids(model, tokenizer))


def read(args: GeneratorArgs) -> tuple[Any, Any]:
    """Return the library's own model, GGUF weights dequantised, and its tokenizer."""
    weights = locate(args.source)
    with _gguf_read_once():
        tokenizer = _tokenizer(weights)
        model: Any = AutoModelForCausalLM.from_pretrained(
            weights.folder,
            dtype=dtype_of(args),
            trust_remote_code=False,
            use_safetensors=True,
            **_gguf(weights),
        )
    return model, tokenizer


def read_tokenizer(args: GeneratorArgs) -> Any:
    """Return the tokenizer alone, for who does not compute."""
    return _tokenizer(locate(args.source))


def _tokenizer(weights: Weights) -> Any:
    return AutoTokenizer.from_pretrained(
        weights.folder, gguf_file=weights.gguf_file, trust_remote_code=False
    )


def dtype_of(args: GeneratorArgs) -> torch.dtype:
    """Return the number type to compute in; `auto` is bf16 where the hardware has it."""
    if args.precision != "auto":
        return DTYPES[args.precision]
    if torch.device(args.device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def _gguf(weights: Weights) -> dict[str, Any]:
    if weights.gguf_file is None:
        return {}
    return {"gguf_file": weights.gguf_file, "quantization_config": GgufConfig(dequantize=True)}


@contextmanager
def _gguf_read_once() -> Iterator[None]:
    """Let the library parse a GGUF file once and build its table of tensor names once.

    It parses the file for the tokenizer, for the configuration and for the weights, and builds the
    table for each of the model's modules: together most of the time that loading takes.
    """
    library: Any = gguf
    reader, name_map = library.GGUFReader, library.get_tensor_name_map
    library.GGUFReader, library.get_tensor_name_map = cache(reader), cache(name_map)
    try:
        yield
    finally:
        library.GGUFReader, library.get_tensor_name_map = reader, name_map


def eos_token_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return every token that ends a text: the model's own, and the chat template's."""
    ids: set[int] = set()
    for eos in (model.generation_config.eos_token_id, tokenizer.eos_token_id):
        ids.update(eos if isinstance(eos, list) else [] if eos is None else [eos])
    return frozenset(ids)
