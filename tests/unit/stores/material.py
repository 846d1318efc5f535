"""Texts and vectors for the tests: deterministic, with every segment's vector its own."""

import hashlib
import multiprocessing
from collections.abc import Sequence

import numpy as np
import pytest

from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.types import (
    CollectionSettings,
    Document,
    EmbeddedText,
    IndexedDocument,
    Segment,
    Vectors,
)

FORKSERVER = multiprocessing.get_context("forkserver")
"""Processes that start in milliseconds: their imports are done once."""

FORKSERVER.set_forkserver_preload(["deployments.stores.keys", "tests.unit.stores.writer"])

ONLY_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For a test of what SQLite does or keeps in its file."""

MODEL = "test-model"
DIM = 8


def vector(text: str, dim: int = DIM) -> np.ndarray:
    seed = hashlib.blake2b(text.encode(), digest_size=8).digest()
    raw = np.random.default_rng(list(seed)).standard_normal(dim).astype(np.float32)
    return raw / np.linalg.norm(raw)


def embed(text: str, size: int = 20, dim: int = DIM) -> EmbeddedText:
    """Cut into segments of `size` code points."""
    starts = range(0, len(text), size)
    segments = tuple(Segment(s, min(s + size, len(text)), 1) for s in starts)
    rows: list[np.ndarray] = [vector(text[s.start : s.end], dim) for s in segments]
    vectors: Vectors = np.array(rows, dtype=np.float32).reshape(len(rows), dim)
    return EmbeddedText(segments, vectors)


def put(
    database: Database, documents: Sequence[Document], collection: str = "c", size: int = 20
) -> list[IndexedDocument]:
    embedded = [embed(document.text, size) for document in documents]
    return DocumentStore(database).upsert(collection, MODEL, documents, embedded)


def settings(description: str = "") -> CollectionSettings:
    return CollectionSettings(description=description, embedding_model=MODEL, dim=DIM)


def doc(document_id: str, text: str = "some text", title: str = "", **metadata: object) -> Document:
    return Document(id=document_id, text=text, title=title, metadata=metadata)
