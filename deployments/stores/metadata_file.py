"""The metadata of a collection as one file: a row of Arrow streams, one for each column.

Arrow loads damaged files silently, so whoever opens one has checked its hash before.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from deployments.stores.columns import ARROW, Kind, Part, Rows

KEY = b"ragserve"


class Frozen(NamedTuple):
    """A metadata index that does not change: documents, each chunk's document, and the columns.

    A column is the name of its field, whether its values are members of lists, its kind and parts.
    """

    num_rows: int
    rows: Rows
    columns: Sequence[tuple[str, bool, Kind, Sequence[Part]]]


def save_metadata(frozen: Frozen, path: Path) -> None:
    """Write a file."""
    with pa.OSFile(str(path), "wb") as file:
        chunks = [pa.array(frozen.rows)]
        _write(file, {"num_rows": frozen.num_rows}, ["rows"], [chunks])
        for name, is_member, kind, parts in frozen.columns:
            about = {"field": name, "is_member": is_member, "kind": kind}
            batches = [[pa.array(part.rows), part.values] for part in parts]
            _write(file, about, ["rows", "values"], batches)


def load_metadata(path: Path) -> Frozen:
    """Read what `save_metadata` wrote.

    Raises:
        ValueError: it is not such a file; also pyarrow's errors, KeyError.
    """
    columns = []
    with pa.OSFile(str(path), "rb") as file:
        about, batches = _read(file)
        (rows,) = batches
        num_rows = int(about["num_rows"])
        while file.tell() < file.size():
            about, batches = _read(file)
            kind: Kind = about["kind"]
            parts = [Part(_rows(batch), batch.column("values")) for batch in batches]
            if any(part.values.type != ARROW[kind] for part in parts):
                raise ValueError("a column's type is not its kind's")
            columns.append((about["field"], about["is_member"], kind, parts))
    return Frozen(num_rows, _rows(rows), columns)


def _rows(batch: pa.RecordBatch) -> Rows:
    return np.array(batch.column("rows"), dtype=np.int64)


def _write(
    file: pa.NativeFile, about: dict[str, Any], names: list[str], batches: Sequence[list[pa.Array]]
) -> None:
    types = [array.type for array in batches[0]] if batches else [pa.int64()] * len(names)
    fields = list(zip(names, types, strict=True))
    schema = pa.schema(fields, metadata={KEY: json.dumps(about).encode()})
    with pa.ipc.new_stream(file, schema) as writer:
        for arrays in batches:
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _read(file: pa.NativeFile) -> tuple[dict[str, Any], list[pa.RecordBatch]]:
    with pa.ipc.open_stream(file) as reader:
        about: dict[str, Any] = json.loads(reader.schema.metadata[KEY])
        return about, list(reader)
