"""Small model files, whole, for tests that then damage them."""

import json
import math
import struct
from pathlib import Path
from typing import Any

BERT = {
    "architectures": ["BertModel"],
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_size": 8,
}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
}


def safetensors(path: Path, header: dict[str, Any] | None = None, data: bytes = bytes(24)) -> Path:
    if header is None:
        header = {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
            "b": {"dtype": "BF16", "shape": [4], "data_offsets": [16, 24]},
        }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def folder(path: Path, config: dict[str, Any]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text("{}")
    safetensors(path / "model.safetensors")
    return path


LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "target_modules": ["q_proj"]}
MODULE = "model.layers.0.self_attn.q_proj"


def adapter(
    path: Path, config: dict[str, Any] | None = None, shapes: dict[str, list[int]] | None = None
) -> Path:
    """Write an adapter of zeros; `shapes` are by the tensors' names."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps(LORA | (config or {})))
    if shapes is None:
        prefix = f"base_model.model.{MODULE}"
        shapes = {f"{prefix}.lora_A.weight": [2, 8], f"{prefix}.lora_B.weight": [6, 2]}
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    safetensors(path / "adapter_model.safetensors", header, bytes(end))
    return path


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def gguf(path: Path, *, tokens: tuple[str, ...] = ("a", "b"), data: bytes = bytes(64)) -> Path:
    """Write a file with a few keys and one tensor of 4 x 4 float32."""
    keys = [
        _string("general.architecture") + struct.pack("<I", 8) + _string("llama"),
        _string("llama.block_count") + struct.pack("<II", 4, 3),
        _string("llama.attention.head_count") + struct.pack("<II", 4, 4),
        _string("llama.attention.head_count_kv") + struct.pack("<II", 4, 2),
        _string("llama.embedding_length") + struct.pack("<II", 4, 32),
        _string("tokenizer.ggml.tokens")
        + struct.pack("<IIQ", 9, 8, len(tokens))
        + b"".join(map(_string, tokens)),
        _string("scores") + struct.pack("<IIQ3f", 9, 6, 3, 1.0, 2.0, 3.0),
    ]
    tensor = _string("w") + struct.pack("<IQQIQ", 2, 4, 4, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys)) + b"".join(keys) + tensor
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return path
