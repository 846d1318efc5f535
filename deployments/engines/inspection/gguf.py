"""The header of a GGUF file, and that the file holds what it says. Versions 2 and 3, little-endian.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from deployments.errors import UnreadableModel

MAX_TENSORS = 1_000_000
MAX_KEYS = 1_000_000
MAX_DEPTH = 4
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
STRING, ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a file says of itself; arrays are given as their lengths."""

    metadata: Mapping[str, Any]
    num_parameters: int

    @property
    def has_tokenizer(self) -> bool:
        """Return whether the file brings the words of its tokenizer."""
        return bool(self.metadata.get("tokenizer.ggml.tokens"))


def read_header(path: Path) -> GgufHeader:
    """Return a file's header, once it agrees with the file's size.

    Raises:
        UnreadableModel: the header is damaged, or the file was cut off.
    """
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise _damaged(path, "it is empty") from None
        with data:
            try:
                return _Reader(data).header()
            except (struct.error, IndexError, UnicodeDecodeError, _NotGguf) as exc:
                reason = str(exc) if isinstance(exc, _NotGguf) else "its header is cut off"
                raise _damaged(path, reason) from None


class _NotGguf(Exception):
    """The bytes do not say what the format says."""


class _Reader:
    """Walks through a header; every length is checked against the file before it is believed."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def header(self) -> GgufHeader:
        if self._data[:4] != b"GGUF":
            raise _NotGguf("it does not begin like a GGUF file")
        self._at = 4
        version, num_tensors, num_keys = self._take("I"), self._take("Q"), self._take("Q")
        if version not in (2, 3):
            raise _NotGguf("it is of another version than 2 and 3")
        if num_tensors > MAX_TENSORS or num_keys > MAX_KEYS:
            raise _NotGguf("its header does not fit")
        metadata = {self._string(): self._value(self._take("I")) for _ in range(num_keys)}
        tensors = [self._tensor() for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
            raise _NotGguf("its alignment is none")
        start = math.ceil(self._at / alignment) * alignment
        for offset, size, _ in tensors:
            if offset % alignment or start + offset + size > len(self._data):
                raise _NotGguf("a tensor lies outside of the file")
        return GgufHeader(metadata, sum(count for *_, count in tensors))

    def _take(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self._data, self._at)
        self._at += struct.calcsize(f"<{code}")
        return value

    def _string(self) -> str:
        length = self._take("Q")
        self._skip(length)
        return bytes(self._data[self._at - length : self._at]).decode("utf-8")

    def _skip(self, length: int) -> None:
        if length > len(self._data) - self._at:
            raise _NotGguf("its header is cut off")
        self._at += length

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind in SCALARS:
            return self._take(SCALARS[kind])
        if kind == STRING:
            return self._string()
        if kind != ARRAY or depth == MAX_DEPTH:
            raise _NotGguf("a value of its header is of an unknown type")
        item, count = self._take("I"), self._take("Q")
        if item in SCALARS:
            self._skip(count * struct.calcsize(f"<{SCALARS[item]}"))
            return count
        if count > len(self._data):
            raise _NotGguf("its header is cut off")
        for _ in range(count):
            if item == STRING:
                self._skip(self._take("Q"))
            else:
                self._value(item, depth + 1)
        return count

    def _tensor(self) -> tuple[int, int, int]:
        """Return a tensor's offset, its bytes and its elements."""
        self._string()
        num_dims = self._take("I")
        if num_dims > 8:
            raise _NotGguf("a tensor has too many dimensions")
        shape = [self._take("Q") for _ in range(num_dims)]
        kind, offset = self._take("I"), self._take("Q")
        try:
            block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError):
            raise _NotGguf("a tensor is of an unknown type") from None
        count = math.prod(shape)
        return offset, count // block * block_bytes, count


def _damaged(path: Path, reason: str) -> UnreadableModel:
    return UnreadableModel(f"{path.name} is damaged: {reason}")
