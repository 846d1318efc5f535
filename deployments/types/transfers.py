"""Messages of moving whole collections: what was exported, imported, and refused."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exported:
    """What a file holds that the server wrote."""

    collection: str
    uri: str
    num_documents: int
    num_chunks: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class RowError:
    """A row that is invalid, and why; rows count from 0 in the file, `param` is the column."""

    row: int
    id: str | None
    message: str
    param: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of a file's rows. Of the refused ones only the first are named in `errors`.

    `num_suppressed` rows were left out: their documents have been erased since the export.
    """

    collection: str
    num_rows: int
    num_created: int
    num_replaced: int
    num_unchanged: int
    num_chunks: int
    num_failed: int
    num_suppressed: int
    errors: tuple[RowError, ...]
