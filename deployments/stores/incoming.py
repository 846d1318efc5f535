"""Documents on their way from a table into a collection, a row for each."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from deployments.errors import RagError
from deployments.stores.content import invalid
from deployments.stores.seals import damaged
from deployments.stores.texts import Text
from deployments.stores.vector_lists import Problems, check_norms, matrix, normalise
from deployments.types import Document, EmbeddedText, Metric, Segment, Vectors

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
MAX_READABLE_ID = 256
EXPORTED = ("id", "text", "title", "metadata", "subject", "created_at", "updated_at")


@dataclass(frozen=True, slots=True)
class Incoming:
    """A row: a document with its vectors, or what is wrong with it.

    `times` are when it was created and last changed, where the file says so.
    """

    row: int
    id: str | None
    document: Document | None = None
    embedded: EmbeddedText | None = None
    times: tuple[str, str] | None = None
    error: RagError | None = None


@dataclass(slots=True)
class Raw:
    """A row as the file has it. Without `spans` its one vector is that of the whole text."""

    id: Text
    text: Text
    title: Text
    metadata: Any
    subject: Text
    vectors: Vectors
    problem: str | None
    spans: list[tuple[int, int]] | None = None
    is_ready: bool = True
    times: tuple[Text, Text] | None = None

    @property
    def readable_id(self) -> str | None:
        """Return the id for an error to name."""
        is_text = isinstance(self.id, str) and self.id.isprintable()
        return str(self.id)[:MAX_READABLE_ID] if is_text else None

    def incoming(self, row: int) -> Incoming:
        """Return the row as a document; raises InvalidRequest, which names the column."""
        document_id, text = _needed(self.id, "id"), _needed(self.text, "text")
        if self.problem is not None:
            raise invalid(self.problem, "vector")
        if self.spans is None and not text.strip():
            raise invalid("the text is blank", "text")
        embedded = EmbeddedText(self._segments(len(text)), self.vectors)
        document = Document(
            id=document_id,
            text=text,
            title=_optional(self.title, "title") or "",
            metadata=_metadata(self.metadata),
            subject=_optional(self.subject, "subject"),
            embedded=embedded if self.is_ready else None,
        )
        times = None if self.times is None else (_time(self.times[0]), _time(self.times[1]))
        return Incoming(row, document_id, document, embedded, times)

    def _segments(self, length: int) -> tuple[Segment, ...]:
        if self.spans is None:
            return (Segment(0, length, 0),)
        if any(not 0 <= start <= end <= length for start, end in self.spans):
            raise invalid("a chunk lies outside of its document's text", "chunks")
        return tuple(Segment(start, end, 0) for start, end in self.spans)


def plain(
    batch: pa.RecordBatch, texts: dict[str, list[Text]], dim: int, metric: Metric
) -> list[Raw]:
    """Return the rows of a plain table; in a `cosine` collection, vectors become length 1."""
    vectors, problems = matrix(batch.column("vector"), dim)
    if metric == "cosine":
        normalise(vectors, problems)
    none: list[Text] = [None] * batch.num_rows
    metadata: list[Any] = texts.get("metadata", none)
    if "metadata" in batch.schema.names and "metadata" not in texts:
        metadata = [_without_nulls(value) for value in batch.column("metadata").to_pylist()]
    columns = zip(
        texts["id"],
        texts["text"],
        texts.get("title", none),
        metadata,
        texts.get("subject", none),
        strict=True,
    )
    return [Raw(*values, vectors[i : i + 1], problems.get(i)) for i, values in enumerate(columns)]


def exported(
    batch: pa.RecordBatch, texts: dict[str, list[Text]], dim: int, metric: Metric
) -> list[Raw]:
    """Return the rows of an export, with the vectors that it has."""
    lists = batch.column("chunks")
    chunks = lists.flatten()
    if (
        lists.null_count
        or chunks.null_count
        or any(column.null_count for column in chunks.flatten())
    ):
        raise damaged()
    starts, ends = (np.asarray(chunks.field(name)).tolist() for name in ("start", "end"))
    vectors, problems = matrix(chunks.field("vector"), dim)
    check_norms(vectors, problems, metric)
    offsets = (np.asarray(lists.offsets) - lists.offsets[0].as_py()).tolist()
    ready = batch.column("is_ready").to_pylist()
    columns = zip(*(texts[name] for name in EXPORTED), strict=True)
    raws = []
    for i, (key, text, title, metadata, subject, *times) in enumerate(columns):
        span = slice(offsets[i], offsets[i + 1])
        spans = list(zip(starts[span], ends[span], strict=True))
        problem = _first(problems, span) if problems else None
        content = (key, text, title, metadata, subject)
        raw = Raw(*content, vectors[span], problem, spans, bool(ready[i]), (times[0], times[1]))
        raws.append(raw)
    return raws


def _first(problems: Problems, span: slice) -> str | None:
    return next((problems[i] for i in range(span.start, span.stop) if i in problems), None)


def _needed(text: Text, name: str) -> str:
    found = _optional(text, name)
    if found is None:
        raise invalid(f"{name} is missing", name)
    return found


def _optional(text: Text, name: str) -> str | None:
    if isinstance(text, RagError):
        raise invalid(text.message, name)
    return text


def _time(text: Text) -> str:
    if not isinstance(text, str) or TIME.fullmatch(text) is None:
        raise invalid("a time must be RFC 3339 in UTC with microseconds", "created_at")
    return text


def _without_nulls(value: Any) -> dict[str, Any]:
    """Return a struct as an object: a struct has no other way to leave a member out."""
    return {name: item for name, item in (value or {}).items() if item is not None}


def _metadata(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    if isinstance(value, RagError):
        raise invalid(value.message, "metadata")
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError:
        parsed = None
    if not isinstance(parsed, dict):
        raise invalid("metadata must be a JSON object", "metadata")
    return parsed
