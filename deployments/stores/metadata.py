"""The documents' metadata in memory, in Arrow: which chunks belong to what a filter matches.

Documents are rows that are appended and never changed: a new version of a document, be it only its
metadata that changed, comes with new chunks and is a new row. The caller keeps readers and writers
apart.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.stores.columns import Batch, Column, Field
from deployments.stores.conditions import Mask, evaluate
from deployments.stores.metadata_file import Frozen
from deployments.types import AllOf, Condition, MetadataFilter, Not


class MetadataIndex:
    """Fields of documents, and for each chunk the document's row; chunks in the caller's order."""

    def __init__(self) -> None:
        self._fields: dict[str, Field] = {}
        self._num_rows = 0
        self._rows = np.empty(0, dtype=np.int64)  # of each chunk

    def __len__(self) -> int:
        """Return the number of rows held, dead ones included."""
        return self._num_rows

    @property
    def num_bytes(self) -> int:
        """Return the bytes held."""
        columns = (column for field in self._fields.values() for column in field.columns())
        return self._rows.nbytes + sum(column.num_bytes for column in columns)

    def frozen(self) -> Frozen:
        """Return all of it as it is now, which later changes leave alone."""
        return Frozen(
            self._num_rows,
            self._rows,
            [
                (name, is_member, kind, tuple(column.parts))
                for name, field in self._fields.items()
                for is_member, columns in ((False, field.scalars), (True, field.members))
                for kind, column in columns.items()
            ],
        )

    @classmethod
    def thawed(cls, frozen: Frozen) -> "MetadataIndex":
        """Return an index that begins with what `frozen` returned."""
        index = cls()
        index._num_rows, index._rows = frozen.num_rows, frozen.rows
        for name, is_member, kind, parts in frozen.columns:
            field = index._fields.setdefault(name, Field())
            column = (field.members if is_member else field.scalars)[kind] = Column(kind)
            column.parts = list(parts)
        return index

    def stage(self, owners: NDArray[np.int64], documents: Sequence[Mapping[str, Any]]) -> None:
        """Append documents, and chunks by the position of their document among these.

        Args:
            owners: int64[chunks]; -1 is the last document of the call before.
            documents: flat JSON objects.
        """
        self._rows = np.concatenate([self._rows, owners + self._num_rows])
        batch = Batch()
        for position, document in enumerate(documents):
            batch.add(self._num_rows + position, dict(document))
        batch.append_to(self._fields)
        self._num_rows += len(documents)

    def keep(self, positions: NDArray[np.int64]) -> None:
        """Forget all chunks but these, and the documents that have none left."""
        kept, self._rows = np.unique(self._rows[positions], return_inverse=True)
        new_rows = np.full(self._num_rows, -1, dtype=np.int64)
        new_rows[kept] = np.arange(len(kept))
        self._num_rows = len(kept)
        for name, field in list(self._fields.items()):
            for column in field.columns():
                column.renumber(new_rows)
            if not any(column.parts for column in field.columns()):
                del self._fields[name]

    def rows(self, positions: NDArray[np.int64]) -> list[int]:
        """Return for each chunk a number that only chunks of the same document have."""
        rows: list[int] = self._rows[positions].tolist()
        return rows

    def matching(self, filter: MetadataFilter) -> Mask:
        """Return which chunks belong to documents that match, bool[chunks]."""
        mask: Mask = self._evaluate(filter)[self._rows]
        return mask

    def _evaluate(self, filter: MetadataFilter) -> Mask:
        if isinstance(filter, Condition):
            field = self._fields.get(filter.field)
            return evaluate(filter, field if field is not None else Field(), self._num_rows)
        if isinstance(filter, Not):
            return ~self._evaluate(filter.part)
        combine = np.logical_and if isinstance(filter, AllOf) else np.logical_or
        mask = self._evaluate(filter.parts[0])
        for part in filter.parts[1:]:
            mask = combine(mask, self._evaluate(part))
        return mask
