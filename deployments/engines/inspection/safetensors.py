"""The header of a safetensors file, and that the file holds what it says.

Source: https://github.com/huggingface/safetensors#format
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.errors import UnreadableModel

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16,
    "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a header says of a tensor."""

    dtype: str
    shape: tuple[int, ...]


def num_parameters(path: Path) -> int:
    """Return how many numbers a file holds; as `tensors`."""
    return sum(math.prod(tensor.shape) for tensor in tensors(path).values())


def tensors(path: Path) -> dict[str, Tensor]:
    """Return a file's tensors by name, once its header agrees with its size.

    Raises:
        UnreadableModel: the header is damaged, or the file was cut off.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise _damaged(path, "its header does not fit")
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise _damaged(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no object")
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    return _checked(path, entries, size - 8 - length)


def _checked(path: Path, entries: dict[str, Any], num_data_bytes: int) -> dict[str, Tensor]:
    """Check that the tensors fill the file without gap or overlap; return them."""
    found, spans = {}, []
    for name, entry in entries.items():
        try:
            (begin, end), shape, dtype = entry["data_offsets"], entry["shape"], entry["dtype"]
            count = math.prod(shape)
            is_whole = (end - begin) * 8 == (count * BITS[dtype] + 7) // 8 * 8
        except (KeyError, TypeError, ValueError, OverflowError):
            raise _damaged(path, "a tensor's entry is not one") from None
        if not all(isinstance(n, int) and n >= 0 for n in (begin, end, *shape)) or not is_whole:
            raise _damaged(path, "a tensor's size does not fit its place")
        spans.append((begin, end))
        found[name] = Tensor(dtype, tuple(shape))
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise _damaged(path, "its tensors leave gaps or overlap")
        position = end
    if position != num_data_bytes:
        raise _damaged(path, "it is longer or shorter than its tensors")
    return found


def _damaged(path: Path, reason: str) -> UnreadableModel:
    return UnreadableModel(f"{path.name} is damaged: {reason}")
