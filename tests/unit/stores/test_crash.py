"""A writer killed at a random instant: what it acknowledged is whole, and nothing is half."""

import random
import time

import numpy as np
import pytest

from deployments.config import RetrieverArgs
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.search import Searcher
from deployments.types import SearchRequest
from tests.unit.stores.material import FORKSERVER, MODEL, embed, vector
from tests.unit.stores.writer import BATCH, SIZE, text_of, write


def killed_writer(url: str, first: int, delay_s: float) -> list[tuple[str, int]]:
    """Return what a writer acknowledged until it was killed."""
    receiver, sender = FORKSERVER.Pipe(duplex=False)
    process = FORKSERVER.Process(target=write, args=(url, first, sender))
    process.start()
    sender.close()
    acknowledged = [receiver.recv()]
    time.sleep(delay_s)
    process.kill()
    process.join(10)
    while True:
        try:
            acknowledged.append(receiver.recv())
        except EOFError:
            return acknowledged


def assert_whole(url: str, last: tuple[str, int]) -> int:
    """Check the database as a fresh process finds it; return the version it holds."""
    database = Database(url)
    store, (kind, version) = DocumentStore(database), last
    texts = {}
    for key in BATCH[1:]:
        texts[key] = store.get("c", key).document.text
    found = int(texts[BATCH[1]].split()[3])
    assert found in (version, version + 1), "lost an acknowledged write"
    assert texts == {key: text_of(key, found) for key in BATCH[1:]}, "half a transaction"
    info = CollectionStore(database).get("c")
    if found > version:
        assert info.num_documents in ((3, 4) if found % 3 == 0 else (4,))
    elif kind == "delete":
        assert info.num_documents == 3, "an acknowledged delete came back"
    request = SearchRequest(collection="c", query="version", mode="dense", top_k=1000)
    chunks = Searcher(database, RetrieverArgs()).search(request, vector("version"), MODEL)
    assert len(chunks) == info.num_chunks
    for key in BATCH[1:]:
        spans = sorted((c.start, c.end) for c in chunks if c.document_id == key)
        expected = embed(texts[key], SIZE)
        assert spans == [(s.start, s.end) for s in expected.segments]
        cosines = {c.start: c.cosine for c in chunks if c.document_id == key}
        for segment, row in zip(expected.segments, expected.vectors, strict=True):
            assert cosines[segment.start] == pytest.approx(
                float(np.dot(row, vector("version"))), abs=1e-5
            )
    database.close()
    return found


def test_killed_writer_loses_nothing_it_acknowledged(database: Database, database_url: str):
    database.close()
    rng = random.Random(2026)
    version = 0
    for _ in range(10):
        acknowledged = killed_writer(database_url, version + 1, rng.uniform(0.0, 0.08))
        version = assert_whole(database_url, acknowledged[-1])
    assert version >= 10
