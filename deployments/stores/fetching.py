"""The text of what was found: hits in, chunks with their neighbours and highlights out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Text, bindparam, cast, select

from deployments.stores import schema
from deployments.stores.changes import Ask
from deployments.stores.damage import check_chunk, sound_metadata
from deployments.stores.follower import Follower
from deployments.stores.highlights import highlights
from deployments.stores.hits import Hit
from deployments.stores.terms import query_terms
from deployments.types import Passage, ScoredChunk, SearchRequest

PAGE = 500

STORED_CHUNKS = (
    select(
        *schema.chunks.c["number", "id", "document_id"],
        schema.documents.c.title,
        *schema.chunks.c["text", "start", "end"],
        cast(schema.documents.c.metadata, Text),
        *schema.chunks.c["vector", "checksum"],
        *schema.documents.c["subject", "num_chunks", "created_at", "updated_at", "checksum"],
    )
    .join(schema.documents)
    .where(
        schema.chunks.c.collection_id == bindparam("collection_id"),
        schema.chunks.c.number.in_(bindparam("numbers", expanding=True)),
    )
)

Chunks = list[ScoredChunk]


class Stored(NamedTuple):
    """A row of `STORED_CHUNKS`."""

    number: int
    id: str
    document_id: str
    title: str
    text: str
    start: int
    end: int
    metadata: str
    vector: bytes
    checksum: int
    subject: str | None
    num_chunks: int
    created_at: str
    updated_at: str
    document_checksum: int

    def sound_metadata(self) -> dict[str, Any]:
        """Return the document's metadata; raises DatabaseDamaged where it cannot be."""
        place = (self.number, self.id, self.document_id, self.start, self.end)
        check_chunk(*place, self.text, self.vector, self.checksum)
        named = {**self._asdict(), "id": self.document_id}
        return sound_metadata(named, self.document_checksum)


def fetch(ask: Ask, follower: Follower, hits: Sequence[Hit], request: SearchRequest) -> Chunks:
    """Return those hits that are still stored, in their order, with what was asked for."""
    terms = frozenset(query_terms(request.query)) if request.has_highlights else frozenset()
    near = range(-request.neighbors, request.neighbors + 1)
    chunks = []
    size = max(1, PAGE // len(near))
    for page in (hits[first : first + size] for first in range(0, len(hits), size)):
        numbers = sorted({hit.number + distance for hit in page for distance in near})
        parameters = {"collection_id": follower.collection_id, "numbers": numbers}
        stored = {row[0]: Stored(*row) for row in ask(STORED_CHUNKS, parameters)}
        for hit in page:
            found = stored.get(hit.number)
            if found is not None:
                around = [stored.get(hit.number + distance) for distance in near]
                chunks.append(_chunk(hit, found, around, terms))
    return chunks


def _chunk(
    hit: Hit, stored: Stored, around: Sequence[Stored | None], terms: frozenset[str]
) -> ScoredChunk:
    others = [one for one in around if one and one.document_id == stored.document_id]
    return ScoredChunk(
        chunk_id=stored.id,
        document_id=stored.document_id,
        title=stored.title,
        text=stored.text,
        start=stored.start,
        end=stored.end,
        score=hit.score,
        cosine=hit.cosine,
        metadata=stored.sound_metadata(),
        before=tuple(_passage(one) for one in others if one.number < stored.number),
        after=tuple(_passage(one) for one in others if one.number > stored.number),
        highlights=highlights(terms, stored.text) if terms else (),
    )


def _passage(stored: Stored) -> Passage:
    return Passage(stored.id, stored.text, stored.start, stored.end)
