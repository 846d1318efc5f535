"""A file in parts: every part of an export says what the whole said."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.parquet_parts import PartedFile
from deployments.stores.exports import EXPORT, SETTINGS, SOURCE, VERSION
from deployments.stores.seals import sealed

TIME = "2026-01-01T00:00:00.000000Z"
ROW = {"id": "a", "title": "", "text": "a", "metadata": "{}", "created_at": TIME}


@pytest.mark.parametrize("also", [{}, {SOURCE: "docs"}], ids=["without a name", "named"])
def test_parts_of_an_export_keep_its_metadata(tmp_path: Path, also: dict[str, str]) -> None:
    path, metadata = tmp_path / "c.parquet", {VERSION: "1", SETTINGS: "{}", **also}
    row = {**ROW, "updated_at": TIME, "is_ready": False, "chunks": []}
    path.write_bytes(sealed(pa.Table.from_pylist([row, row], EXPORT), metadata))
    [part] = PartedFile(path).parts()
    for one in part.halves():
        found = pq.ParquetFile(io.BytesIO(one.content)).metadata.metadata
        kept = {name.decode(): found[name].decode() for name in found if b"seal" not in name}
        assert {name: kept.get(name) for name in (VERSION, SETTINGS, SOURCE)} == {
            VERSION: "1",
            SETTINGS: "{}",
            SOURCE: also.get(SOURCE),
        }
