"""Writers of one document at once, on both databases: one of them wins, wholly."""

import random
import threading
from collections.abc import Callable

import pytest

from deployments.config import RetrieverArgs
from deployments.errors import CollectionNotFound, DocumentNotFound
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.search import Searcher
from deployments.types import Document, SearchRequest
from tests.faults import IS_COMPLETE
from tests.unit.stores.material import MODEL, doc, embed, put, vector

NUM_ROUNDS = 200 if IS_COMPLETE else 15
NUM_WRITERS = 4
SIZE = 16


def version(writer: int, round_number: int, length: int) -> Document:
    """Return a document whose every part names its writer and round."""
    name = f"writer{writer} round{round_number}"
    return doc("x", f"{name} " * length, f"title of {name}", writer=writer, round=round_number)


def at_once(works: list[Callable[[], object]]) -> list[BaseException]:
    """Run works in threads that start together; return what they raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        barrier.wait()
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.fixture
def replicas(database_url: str, database: Database):
    found = [Database(database_url, pool_size=2) for _ in range(NUM_WRITERS)]
    yield found
    for one in found:
        one.close()


def assert_is_one_of(database: Database, candidates: list[Document]) -> None:
    """Assert that the document, its chunks and its vectors are all of one writer."""
    stored = DocumentStore(database).get("c", "x").document
    assert stored in candidates
    request = SearchRequest(collection="c", query="writer", mode="dense", top_k=999)
    chunks = Searcher(database, RetrieverArgs()).search(request, vector("writer"), MODEL)
    expected = embed(stored.text, SIZE)
    assert sorted((c.start, c.end) for c in chunks) == [(s.start, s.end) for s in expected.segments]
    cosines = dict(zip((s.start for s in expected.segments), expected.vectors, strict=True))
    for chunk in chunks:
        assert (chunk.title, chunk.metadata) == (stored.title, stored.metadata)
        assert chunk.text == stored.text[chunk.start : chunk.end]
        assert chunk.score == pytest.approx(
            float(cosines[chunk.start] @ vector("writer")), abs=1e-5
        )
    info = CollectionStore(database).get("c")
    assert (info.num_documents, info.num_chunks) == (1, len(chunks))


def test_writers_of_one_document_end_in_one_of_them(database: Database, replicas: list[Database]):
    rng = random.Random(2026)
    for number in range(NUM_ROUNDS):
        versions = [version(w, number, rng.randint(1, 30)) for w in range(NUM_WRITERS)]
        pairs = zip(replicas, versions, strict=True)
        assert at_once([lambda d=d, v=v: put(d, [v], size=SIZE) for d, v in pairs]) == []
        assert_is_one_of(database, versions)
        if number % 5 == 4:
            CollectionStore(database).delete("c")


def test_writers_and_deleters_end_in_one_of_them_or_in_none(
    database: Database, replicas: list[Database]
):
    ends = set()
    for number in range(NUM_ROUNDS):
        versions = [version(writer, number, 5) for writer in range(2)]
        works: list[Callable[[], object]] = [
            lambda v=versions: put(replicas[0], v[:1], size=SIZE),
            lambda: DocumentStore(replicas[1]).delete("c", "x"),
            lambda v=versions: put(replicas[2], v[1:], size=SIZE),
            lambda: DocumentStore(replicas[3]).delete("c", "x"),
        ]
        errors = at_once(works)
        assert all(isinstance(e, DocumentNotFound | CollectionNotFound) for e in errors), errors
        try:
            assert_is_one_of(database, versions)
            ends.add("written")
        except DocumentNotFound:
            assert CollectionStore(database).get("c").num_chunks == 0
            ends.add("deleted")
    assert ends


def test_collection_dropped_under_its_writers_is_whole_or_gone(
    database: Database, replicas: list[Database]
):
    for number in range(NUM_ROUNDS):
        documents = [doc(f"d{i}", f"round {number} " * 4) for i in range(6)]
        put(database, documents, size=SIZE)
        newer = [doc(f"d{i}", f"newer {number} " * 4) for i in range(6)]
        errors = at_once(
            [
                lambda newer=newer: put(replicas[0], newer, size=SIZE),
                lambda: CollectionStore(replicas[1]).delete("c"),
            ]
        )
        assert errors == []
        try:
            info = CollectionStore(database).get("c")
        except CollectionNotFound:
            continue
        texts = {DocumentStore(database).get("c", f"d{i}").document.text for i in range(6)}
        assert (info.num_documents, texts) == (6, {newer[0].text})
