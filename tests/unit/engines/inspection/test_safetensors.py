import contextlib
import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from deployments.engines.inspection.safetensors import num_parameters
from deployments.errors import UnreadableModel
from tests.unit.engines.inspection.material import safetensors


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_whole_file_says_how_many_numbers_it_holds(tmp_path: Path) -> None:
    assert num_parameters(safetensors(tmp_path / "m.safetensors")) == 8


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": entry()}, bytes(7)),
        ({"a": entry()}, bytes(9)),
        ({"a": entry(shape=(3,))}, bytes(8)),
        ({"a": entry(dtype="PICKLE")}, bytes(8)),
        ({"a": entry(shape=(-2,), offsets=(0, -8))}, bytes(8)),
        ({"a": entry(offsets=(8, 0))}, bytes(8)),
        ({"a": entry(offsets=(8, 16))}, bytes(16)),
        ({"a": entry(), "b": entry()}, bytes(8)),
        ({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
        ({"a": entry(offsets=(0, 8, 9))}, bytes(8)),
        ({"a": entry(offsets=("0", "8"))}, bytes(8)),
        ({"a": entry(shape="ab")}, bytes(8)),
        ({"a": 7}, bytes(8)),
        ({"a": {}}, bytes(8)),
        ({"a": entry(shape=(10**400, 1.5))}, bytes(8)),
        ({"a": entry(shape=(2, 10**400))}, bytes(8)),
        ({"a": entry(shape=(float("inf"),))}, bytes(8)),
        ({"a": entry(offsets=(0, 1e308))}, bytes(8)),
        ({"a": entry(dtype=["F32"])}, bytes(8)),
    ],
)
def test_b8_header_that_does_not_fit_its_file_is_refused(
    tmp_path: Path, header: dict[str, Any], data: bytes
) -> None:
    with pytest.raises(UnreadableModel, match="m.safetensors is damaged"):
        num_parameters(safetensors(tmp_path / "m.safetensors", header, data))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 100) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"\xff\xff",
        struct.pack("<Q", 0),
        struct.pack("<Q", 4) + b"null",
        json.dumps({"a": 1}).encode(),
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        struct.pack("<Q", 500_000) + b'{"a":' * 100_000,
        struct.pack("<Q", 10_002) + b"[" + b"9" * 10_000 + b"]",
    ],
)
def test_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(UnreadableModel):
        num_parameters(path)


def test_b8_any_cut_is_noticed(tmp_path: Path) -> None:
    path = safetensors(tmp_path / "m.safetensors")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UnreadableModel):
            num_parameters(path)


def test_flipped_bytes_of_the_header_never_raise_anything_else(tmp_path: Path) -> None:
    path, chance = safetensors(tmp_path / "m.safetensors"), random.Random(3)
    whole = path.read_bytes()
    for _ in range(500):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole) - 24)] = chance.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(UnreadableModel):
            assert num_parameters(path) >= 0
