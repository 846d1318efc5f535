"""Searches while others write: each sees a whole state, and never an older one than it must."""

import threading
import time
from collections.abc import Callable

import pytest

from deployments.config import RetrieverArgs
from deployments.errors import CollectionNotFound, StoreUnavailable
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.locks import ReadWriteLock
from deployments.stores.search import Searcher
from deployments.types import SearchRequest
from tests.unit.stores.material import MODEL, doc, put, vector

RUN_S = 0.8
NUM_ROUNDS = 12  # of the slowest work: a busy host makes the test longer, not weaker
MAX_S = 60.0
NUM_DOCUMENTS = 5


def run(*works: Callable[[], None]) -> None:
    """Repeat every work in a thread, for long and often enough; raise what any raised."""
    errors: list[BaseException] = []
    rounds = [0] * len(works)
    start_s = time.monotonic()

    def is_enough() -> bool:
        passed_s = time.monotonic() - start_s
        return passed_s >= MAX_S or (passed_s >= RUN_S and min(rounds) >= NUM_ROUNDS)

    def repeat(index: int) -> None:
        try:
            while not is_enough() and not errors:
                works[index]()
                rounds[index] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=(index,)) for index in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    assert min(rounds) >= NUM_ROUNDS


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_concurrent_searches_see_whole_writes_in_order(database: Database, mode: str):
    replicas = [Searcher(database, RetrieverArgs()) for _ in range(2)]
    written = [0]

    def write() -> None:
        version = written[0] + 1
        put(database, [doc(str(i), f"version {version} of") for i in range(NUM_DOCUMENTS)])
        written[0] = version

    def search(replica: Searcher) -> None:
        acknowledged = written[0]
        request = SearchRequest(collection="c", query="version", mode=mode, top_k=50)
        chunks = replica.search(request, vector("version"), MODEL)
        assert len(chunks) == NUM_DOCUMENTS
        (text,) = {chunk.text for chunk in chunks}
        assert int(text.split()[1]) >= acknowledged

    write()
    run(write, *(lambda r=replica: search(r) for replica in replicas * 2))


def test_concurrent_recreation_never_mixes_collections(database: Database):
    searcher = Searcher(database, RetrieverArgs())
    life = [0]

    def recreate() -> None:
        life[0] += 1
        put(database, [doc(str(i), f"life {life[0]}") for i in range(3)])
        put(database, [doc(str(i), f"life {life[0]} again") for i in range(3)])
        CollectionStore(database).delete("c")

    def search() -> None:
        request = SearchRequest(collection="c", query="life", top_k=50)
        try:
            chunks = searcher.search(request, vector("life"), MODEL)
        except (CollectionNotFound, StoreUnavailable):
            return
        assert len(chunks) in (0, 3)
        assert len({chunk.text for chunk in chunks}) <= 1

    run(recreate, search, search)


def test_deleted_document_never_comes_back(database: Database):
    searcher = Searcher(database, RetrieverArgs())
    counter = iter(range(100_000))

    def work() -> None:
        name = f"doc{next(counter)}"
        request = SearchRequest(collection="c", query=name, top_k=50)
        put(database, [doc(name, name)])
        assert name in {c.document_id for c in searcher.search(request, vector(name), MODEL)}
        DocumentStore(database).delete("c", name)
        assert name not in {c.document_id for c in searcher.search(request, vector(name), MODEL)}

    run(work, work, work)


def test_lock_lets_readers_share_and_a_writer_exclude():
    lock, inside, seen = ReadWriteLock(), [0, 0], set()

    def read() -> None:
        with lock.reading():
            inside[0] += 1
            seen.add((inside[0] > 1, inside[1]))
            time.sleep(0.001)
            inside[0] -= 1

    def write() -> None:
        with lock.writing():
            assert inside == [0, 0]
            inside[1] += 1
            time.sleep(0.001)
            inside[1] -= 1
        time.sleep(0.003)

    run(read, read, read, write, write)
    assert seen == {(False, 0), (True, 0)}
