"""The metadata of one field as Arrow arrays: a column for each kind of value.

A column is sparse: beside each value stands the row of its document. So a field may hold text in
one document, a number in the next, a list in a third and be missing in a million others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deployments.stores.filters import microseconds

Kind = Literal["null", "bool", "int", "float", "text", "list"]
Rows = NDArray[np.int64]

MIN_INT, MAX_INT = -(2**63), 2**63 - 1

ARROW: dict[Kind, pa.DataType] = {
    "null": pa.null(),
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "text": pa.large_string(),
    "list": pa.int64(),  # its length
}


def kind_of(value: Any) -> Kind:
    """Return the kind of a value; an integer beyond 64 bits counts as the nearest float."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if MIN_INT <= value <= MAX_INT else "float"
    if isinstance(value, float):
        return "float"
    return "text" if isinstance(value, str) else "list"


def nearest_float(value: float) -> float:
    """Return a number as a float; one that is too large for any is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


@dataclass(slots=True)
class Part:
    """A run of a column: rows int64[n] and the n values."""

    rows: Rows
    values: pa.Array
    _instants: pa.Array | None = None

    @property
    def num_bytes(self) -> int:
        """Return the bytes held."""
        instants = self._instants.nbytes if self._instants is not None else 0
        return int(self.rows.nbytes + self.values.nbytes + instants)

    def instants(self) -> pa.Array:
        """Return each text as microseconds since 1970, null where it is no date; kept."""
        if self._instants is None:
            numbers = [microseconds(text) for text in self.values.to_pylist()]
            self._instants = pa.array(numbers, pa.int64())
        return self._instants


class Column:
    """The values of one kind, in parts of growing age and size: adding costs O(log n) copies."""

    def __init__(self, kind: Kind) -> None:
        self._type = ARROW[kind]
        self.parts: list[Part] = []

    def add(self, rows: Sequence[int], values: Sequence[Any]) -> None:
        """Append values and the rows of their documents."""
        self.parts.append(Part(np.array(rows, dtype=np.int64), pa.array(values, self._type)))
        while len(self.parts) > 1 and len(self.parts[-2].rows) <= 2 * len(self.parts[-1].rows):
            last, before = self.parts.pop(), self.parts.pop()
            rows_of_both = np.concatenate([before.rows, last.rows])
            self.parts.append(Part(rows_of_both, pa.concat_arrays([before.values, last.values])))

    @property
    def num_bytes(self) -> int:
        """Return the bytes held."""
        return sum(part.num_bytes for part in self.parts)

    def renumber(self, new_rows: Rows) -> None:
        """Drop the rows whose new number is negative, and give the others theirs."""
        parts, self.parts = self.parts, []
        for part in parts:
            rows = new_rows[part.rows]
            kept = rows >= 0
            if kept.any():
                self.parts.append(Part(rows[kept], pc.filter(part.values, pa.array(kept))))


@dataclass(slots=True)
class Field:
    """Every column of one field: of its values, and of the members of its lists."""

    scalars: dict[Kind, Column] = field(default_factory=dict)
    members: dict[Kind, Column] = field(default_factory=dict)

    def columns(self) -> list[Column]:
        """Return all of them."""
        return [*self.scalars.values(), *self.members.values()]


class Batch:
    """Values on their way into columns, one document after another."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, bool, Kind], tuple[list[int], list[Any]]] = {}

    def add(self, row: int, metadata: dict[str, Any]) -> None:
        """Take the fields of one document."""
        for name, value in metadata.items():
            kind = kind_of(value)
            if kind == "list":
                self._put(name, False, kind, row, len(value))
                for member in value:
                    self._put(name, True, kind_of(member), row, member)
            else:
                self._put(name, False, kind, row, value)

    def _put(self, name: str, is_member: bool, kind: Kind, row: int, value: Any) -> None:
        rows, values = self._values.setdefault((name, is_member, kind), ([], []))
        rows.append(row)
        values.append(nearest_float(value) if kind == "float" else value)

    def append_to(self, fields: dict[str, Field]) -> None:
        """Append everything to its columns."""
        for (name, is_member, kind), (rows, values) in self._values.items():
            of_field = fields.setdefault(name, Field())
            columns = of_field.members if is_member else of_field.scalars
            if kind not in columns:
                columns[kind] = Column(kind)
            columns[kind].add(rows, values)
