"""A BERT encoder over packed sequences: no padding between texts, fused oneDNN products on a CPU.

It turns token ids into one pooled vector per sequence; texts and queues are others' business.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from deployments.engines.embedding.attention import Run, attend, attend_in_tiles, runs, tiles
from deployments.engines.embedding.int8 import Int8Linear, RangeObserver
from deployments.engines.embedding.model_folder import ModelFolder, Pooling
from deployments.types import Vectors

_ROW_STEP, _SMALL_ROW_STEP = 64, 16
"""Rows of a packed batch are rounded up to these, so that oneDNN meets few shapes: it keeps a
compiled product per shape, and memory would grow with every new one."""


@dataclass(frozen=True, slots=True)
class _Linear:
    """An affine map whose weight is reordered once for oneDNN, where that is possible."""

    weight: Tensor
    bias: Tensor
    is_packed: bool

    def __call__(self, rows: Tensor, *, gelu: bool = False, plus: Tensor | None = None) -> Tensor:
        """Return the map of each row, then its GELU or its sum with `plus`."""
        if self.is_packed:
            return self._fused(rows, gelu, plus)
        out = functional.linear(rows, self.weight, self.bias)
        if plus is not None:
            return out + plus
        return functional.gelu(out) if gelu else out

    def _fused(self, rows: Tensor, gelu: bool, plus: Tensor | None) -> Tensor:
        product = torch.ops.mkldnn._linear_pointwise
        if plus is not None:
            added: Tensor = product.binary(rows, plus, self.weight, self.bias, "add")
            return added
        post = ("gelu", "none") if gelu else ("none", "")
        out: Tensor = product(rows, self.weight, self.bias, post[0], [], post[1])
        return out


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, rows: Tensor) -> Tensor:
        return functional.layer_norm(rows, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: Callable[..., Tensor]
    attended: _Linear
    attended_norm: _Norm
    up: Callable[..., Tensor]
    down: _Linear
    down_norm: _Norm


class BertEncoder:
    """Weights of a `model_type: bert` folder, ready to pool."""

    def __init__(
        self,
        folder: ModelFolder,
        config: dict[str, Any],
        device: torch.device,
        dtype: torch.dtype,
        samples: Sequence[Sequence[int]] = (),
    ) -> None:
        """Load the weights; round some to int8 if there are `samples`, token ids of some texts."""
        self._pooling: Pooling = folder.pooling
        self._num_heads = int(config["num_attention_heads"])
        self.dim = int(config["hidden_size"])
        weights = _BertWeights(folder, config, device, dtype)
        self._is_tiled = weights.is_packed and dtype == torch.bfloat16
        self._device = device
        self._words = weights["embeddings.word_embeddings.weight"]
        # Sequence A is the only one here, so its type vector can be part of every position.
        self._positions = (
            weights["embeddings.position_embeddings.weight"]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm = weights.norm("embeddings.LayerNorm")
        self._layers = [weights.layer(index) for index in range(int(config["num_hidden_layers"]))]
        if samples:
            self._layers = self._rounded(weights, samples)

    def __call__(self, sequences: Sequence[Sequence[int]]) -> Vectors:
        """Return the normalised vectors, float32[n, dim]; fastest when sorted by length."""
        with torch.inference_mode():
            batch = runs(sequences)
            attention = self._attention(batch)
            rows = self._embed(sequences)
            for layer in self._layers:
                rows = self._apply(layer, rows, attention)
            pooled = torch.cat([self._pool(rows[run.rows], run) for run in batch])
            vectors: Vectors = functional.normalize(pooled, dim=-1).cpu().numpy()
            return vectors

    def _rounded(self, weights: "_BertWeights", samples: Sequence[Sequence[int]]) -> list[_Layer]:
        """Return the layers with int8 products, for such inputs as the samples give."""
        plain, observers = self._layers, []
        for layer in plain:
            observers.append((RangeObserver(layer.qkv), RangeObserver(layer.up)))
        self._layers = [
            replace(layer, qkv=qkv, up=up)
            for layer, (qkv, up) in zip(plain, observers, strict=True)
        ]
        self(samples)
        return [
            replace(
                layer,
                qkv=Int8Linear(*weights.affine(*_qkv(index)), qkv.peaks),
                up=Int8Linear(*weights.affine(_up(index)), up.peaks),
            )
            for index, (layer, (qkv, up)) in enumerate(zip(plain, observers, strict=True))
        ]

    def _embed(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        ids = [token for sequence in sequences for token in sequence]
        positions = [position for sequence in sequences for position in range(len(sequence))]
        padding = [0] * (-len(ids) % (_ROW_STEP if len(ids) > 2 * _ROW_STEP else _SMALL_ROW_STEP))
        index = torch.tensor([ids + padding, positions + padding], device=self._device)
        return self._norm(self._words[index[0]] + self._positions[index[1]])

    def _attention(self, batch: list[Run]) -> Callable[[Tensor], Tensor]:
        """Return the fastest attention of a batch: queries, keys and values to attended values."""
        if self._is_tiled:
            return partial(attend_in_tiles, batch=tiles(batch), num_heads=self._num_heads)
        return partial(attend, batch=batch, num_heads=self._num_heads)

    def _apply(self, layer: _Layer, rows: Tensor, attention: Callable[[Tensor], Tensor]) -> Tensor:
        rows = layer.attended_norm(layer.attended(attention(layer.qkv(rows)), plus=rows))
        return layer.down_norm(layer.down(layer.up(rows, gelu=True), plus=rows))

    def _pool(self, rows: Tensor, run: Run) -> Tensor:
        tokens = rows.view(run.num_sequences, run.length, self.dim).float()
        return tokens.mean(dim=1) if self._pooling == "mean" else tokens[:, 0]


class _BertWeights:
    """The tensors of a checkpoint by BERT's own names, with or without the `bert.` prefix."""

    def __init__(
        self, folder: ModelFolder, config: dict[str, Any], device: torch.device, dtype: torch.dtype
    ) -> None:
        tensors = load_file(folder.path / "model.safetensors", device=str(device))
        self._tensors = {
            name.removeprefix("bert."): tensor.to(dtype)
            for name, tensor in tensors.items()
            if tensor.is_floating_point()
        }
        self._dtype = dtype
        self._eps = float(config["layer_norm_eps"])
        self.is_packed = device.type == "cpu" and _can_pack(dtype)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def layer(self, index: int) -> _Layer:
        prefix = f"encoder.layer.{index}."
        return _Layer(
            qkv=self.linear(*_qkv(index)),
            attended=self.linear(prefix + "attention.output.dense"),
            attended_norm=self.norm(prefix + "attention.output.LayerNorm"),
            up=self.linear(_up(index)),
            down=self.linear(prefix + "output.dense"),
            down_norm=self.norm(prefix + "output.LayerNorm"),
        )

    def affine(self, *names: str) -> tuple[Tensor, Tensor]:
        """Return the weight and bias, float32, of maps over the same input as one map."""
        weight = torch.cat([self[f"{name}.weight"] for name in names])
        return weight.float(), torch.cat([self[f"{name}.bias"] for name in names]).float()

    def linear(self, *names: str) -> _Linear:
        weight, bias = (part.to(self._dtype) for part in self.affine(*names))
        if self.is_packed:
            weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        return _Linear(weight, bias, self.is_packed)

    def norm(self, name: str) -> _Norm:
        return _Norm(self[f"{name}.weight"], self[f"{name}.bias"], self._eps)


def _qkv(index: int) -> list[str]:
    attention = f"encoder.layer.{index}.attention.self."
    return [attention + part for part in ("query", "key", "value")]


def _up(index: int) -> str:
    return f"encoder.layer.{index}.intermediate.dense"


def _can_pack(dtype: torch.dtype) -> bool:
    """Tell whether oneDNN multiplies this type on this processor."""
    if not torch._C._has_mkldnn or dtype not in (torch.float32, torch.bfloat16):
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
