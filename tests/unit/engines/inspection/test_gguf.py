import contextlib
import random
import struct
from pathlib import Path

import pytest

from deployments.engines.inspection.gguf import read_header
from deployments.errors import UnreadableModel
from tests.unit.engines.inspection.material import gguf


def test_whole_file_says_what_it_holds(tmp_path: Path) -> None:
    header = read_header(gguf(tmp_path / "m.gguf"))
    assert header.num_parameters == 16
    assert header.metadata["llama.block_count"] == 3
    assert (header.metadata["tokenizer.ggml.tokens"], header.metadata["scores"]) == (2, 3)
    assert header.has_tokenizer
    assert not read_header(gguf(tmp_path / "n.gguf", tokens=())).has_tokenizer


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"GGML" + bytes(100),
        b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
        b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**62),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sI", 1, b"k", 77) + bytes(50),
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 1)
        + struct.pack("<Q1sI", 1, b"k", 9)
        + struct.pack("<IQ", 8, 2**50),
    ],
)
def test_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(UnreadableModel, match="m.gguf is damaged"):
        read_header(path)


def test_b8_any_cut_is_noticed(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UnreadableModel):
            read_header(path)


def test_flipped_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    path, chance = gguf(tmp_path / "m.gguf"), random.Random(3)
    whole = path.read_bytes()
    for _ in range(1000):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] = chance.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(UnreadableModel):
            assert read_header(path).num_parameters >= 0
