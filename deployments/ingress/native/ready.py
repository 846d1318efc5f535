"""Documents that bring their vectors: where their chunks lie, and if the vectors can be used."""

import numpy as np

from deployments.ingress.schemas.data import IndexDocument, ReadyChunk
from deployments.stores.content import invalid
from deployments.stores.vectors import ready_vector
from deployments.types import EmbeddedText, Segment, VectorSpace

BLANK_LINE = "\n\n"


def document_text(one: IndexDocument) -> str:
    """Return a document's text, or its chunks with blank lines between them."""
    if one.text is not None:
        return one.text
    return BLANK_LINE.join(chunk.text for chunk in one.chunks or ())


def ready_chunks(one: IndexDocument, space: VectorSpace, place: str) -> EmbeddedText:
    """Return the segments and vectors of a document that brings them, normalised for cosines.

    Args:
        one: with `vector` or `chunks`.
        space: what each vector must be.
        place: of the document in the body.

    Raises:
        InvalidRequest: a vector has another length, or numbers that cannot be, or a chunk
            is no part of the text; names the place.
    """
    if one.chunks is None:
        vectors = [ready_vector(one.vector or (), space.dim, f"{place}.vector", space.metric)]
        return EmbeddedText((Segment(0, len(one.text or ""), 0),), np.array(vectors))
    vectors = [
        ready_vector(chunk.vector, space.dim, f"{place}.chunks[{i}].vector", space.metric)
        for i, chunk in enumerate(one.chunks)
    ]
    segments = []
    position = 0
    for i, chunk in enumerate(one.chunks):
        start = _start(one.text, chunk, position, f"{place}.chunks[{i}]")
        segments.append(Segment(start, start + len(chunk.text), 0))
        position = start + (len(chunk.text) + len(BLANK_LINE) if one.text is None else 0)
    return EmbeddedText(tuple(segments), np.array(vectors))


def _start(text: str | None, chunk: ReadyChunk, position: int, place: str) -> int:
    """Return where a chunk begins: where it says, or its first place from `position` on."""
    if text is None:
        if chunk.start is not None or chunk.end is not None:
            raise invalid("`start` and `end` lie in the document's `text`, which is missing", place)
        return position
    if (chunk.start is None) != (chunk.end is None):
        raise invalid("give both `start` and `end`, or neither", place)
    if chunk.start is not None:
        if text[chunk.start : chunk.end] != chunk.text:
            raise invalid("the chunk is not `text[start:end]` of its document", place)
        return chunk.start
    start = text.find(chunk.text, position)
    if start < 0:
        raise invalid("the chunk is no part of its document's text, or out of order", place)
    return start
