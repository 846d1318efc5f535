import asyncio
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deployments.config import RetrieverArgs
from deployments.database_replica import NUM_READERS
from deployments.errors import (
    CollectionNotFound,
    Conflict,
    DatabaseDamaged,
    DocumentNotFound,
    EngineFailed,
)
from deployments.retriever import Retriever
from deployments.stores.follower import Follower
from deployments.types import ScoredChunk, SearchRequest, Vectors
from tests.unit.stores.material import DIM, MODEL, doc, embed, settings, vector


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAGSERVE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("RAGSERVE_DATABASE_URL", raising=False)
    return


@pytest.fixture
def replicas() -> list[Retriever]:
    return [Retriever(RetrieverArgs()) for _ in range(2)]


def embedded_query(text: str) -> tuple[Vectors, list[int]]:
    """Return what comes through Ray: memory that cannot be written."""
    vectors = vector(text)[np.newaxis]
    vectors.flags.writeable = False
    return vectors, [3]


async def upsert(replica: Retriever, *pairs: tuple[str, str], collection: str = "c") -> list[str]:
    documents = [doc(key, text) for key, text in pairs]
    embedded = [embed(text) for _, text in pairs]
    indexed = await replica.upsert(collection, documents, embedded, MODEL)
    return [one.status for one in indexed]


async def search(replica: Retriever, query: str, **options: object) -> list[ScoredChunk]:
    request = SearchRequest(collection="c", query=query, **options)
    return await replica.search(request, embedded_query(query), MODEL)


async def test_replicas_agree_right_after_each_write(replicas: list[Retriever]):
    first, second = replicas
    for number in range(10):
        assert await upsert(first, (f"a{number}", f"alpha {number}")) == ["created"]
        assert await upsert(second, (f"b{number}", f"beta {number}")) == ["created"]
        found = [await search(replica, "alpha", top_k=50) for replica in replicas]
        assert found[0] == found[1]
        assert len(found[0]) == number + 2
        await first.delete_document("c", f"a{number}")
        left = {chunk.document_id for chunk in await search(second, "alpha", top_k=50)}
        assert left == {f"b{i}" for i in range(number + 1)}


async def test_many_clients_read_their_own_writes(replicas: list[Retriever]):
    async def client(number: int) -> None:
        writer, reader = replicas[number % 2], replicas[(number + 1) % 2]
        for version in range(5):
            text = f"this is client {number} in version {version}"
            await upsert(writer, (str(number), text))
            chunks = await search(reader, text, mode="dense", top_k=100)
            found = {c.start: c.text for c in chunks if c.document_id == str(number)}
            assert found == {0: text[:20], 20: text[20:]}

    await asyncio.gather(*(client(number) for number in range(10)))


async def test_loop_stays_free_while_the_database_is_locked(replicas: list[Retriever]):
    await upsert(replicas[0], ("1", "text"))
    with replicas[1]._database.write():
        writing = asyncio.create_task(upsert(replicas[0], ("2", "text")))
        longest_s = 0.0
        for _ in range(20):
            before_s = time.monotonic()
            await asyncio.sleep(0.005)
            longest_s = max(longest_s, time.monotonic() - before_s)
            assert len(await search(replicas[0], "text")) == 1
        assert not writing.done()
        assert longest_s < 1.0
    assert await writing == ["created"]


async def test_collections_come_and_go(replicas: list[Retriever]):
    first, second = replicas
    info = await first.create_collection("c", settings("mine"))
    assert await second.collection("c") == info
    with pytest.raises(Conflict):
        await second.create_collection("c", settings())
    assert await search(second, "x") == []
    await upsert(first, ("1", "text"))
    assert [(c.name, c.num_documents) for c in await second.collections()] == [("c", 1)]
    await second.delete_collection("c")
    for call in (search(first, "x"), first.collection("c"), first.document("c", "1")):
        with pytest.raises(CollectionNotFound):
            await call
    assert await first.collections() == []


async def test_document_comes_back_as_it_was(replicas: list[Retriever]):
    text = "你好 👋🏽 مرحبا e\u0301\r\n\ttail "
    await upsert(replicas[0], ("d", text))
    stored = await replicas[1].document("c", "d")
    assert stored.document.text == text
    for chunk in await search(replicas[1], "你好"):
        assert chunk.text == stored.document.text[chunk.start : chunk.end]
    with pytest.raises(DocumentNotFound):
        await replicas[0].document("c", "other")


async def test_lexical_search_needs_no_embedding(replicas: list[Retriever]):
    await upsert(replicas[0], ("1", "red apple"), ("2", "green pear"))
    request = SearchRequest(collection="c", query="apple", mode="lexical")
    assert [c.document_id for c in await replicas[0].search(request, None, None)] == ["1"]


@pytest.mark.parametrize(
    "vectors",
    [np.zeros((2, DIM)), np.zeros((0, DIM)), np.zeros(DIM), np.full((1, DIM), np.nan)],
    ids=["two", "none", "flat", "nan"],
)
async def test_unusable_query_vector_is_the_engines_failure(replicas, vectors: np.ndarray):
    await upsert(replicas[0], ("1", "text"))
    with pytest.raises(EngineFailed):
        await replicas[0].search(SearchRequest(collection="c", query="x"), (vectors, [1]), MODEL)


async def test_stats_count_what_is_in_memory(replicas: list[Retriever]):
    await upsert(replicas[0], ("1", "x" * 30), ("2", "y"))
    assert (await replicas[0].stats()).num_collections == 0
    await search(replicas[0], "x")
    stats = await replicas[0].stats()
    assert (stats.num_collections, stats.num_chunks) == (1, 3)
    assert stats.num_vector_bytes == 3 * DIM * 4 + 3 * 8 + 1  # vectors, numbers, bits
    assert stats.num_bytes > stats.num_vector_bytes


async def test_health_follows_the_database(replicas: list[Retriever], tmp_path: Path):
    await replicas[0].check_health()
    replicas[0]._database.close()
    for file in (tmp_path / "state").iterdir():
        file.unlink()
    (tmp_path / "state" / "ragserve.db").write_bytes(b"damaged" * 1000)
    with pytest.raises(DatabaseDamaged):
        await replicas[0].check_health()


async def test_answers_and_errors_pickle(replicas: list[Retriever]):
    await upsert(replicas[0], ("1", "text"))
    chunks = await search(replicas[0], "text")
    assert pickle.loads(pickle.dumps(chunks)) == chunks
    with pytest.raises(CollectionNotFound) as caught:
        await replicas[0].collection("other")
    assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message


async def test_slow_load_stops_no_search_of_another_collection(
    replicas: list[Retriever], monkeypatch: pytest.MonkeyPatch
):
    first, second = replicas
    await upsert(first, ("1", "text"))
    await upsert(first, ("2", "text"), collection="other")
    request = SearchRequest(collection="other", query="text")
    assert len(await second.search(request, embedded_query("text"), MODEL)) == 1
    go, follow = threading.Event(), Follower.follow

    def wait(follower: Follower, *args: object) -> None:
        if follower.sequence == 0:
            assert go.wait(20)
        follow(follower, *args)

    monkeypatch.setattr(Follower, "follow", wait)
    waiting = [asyncio.create_task(search(second, "text")) for _ in range(3 * NUM_READERS)]
    for _ in range(10):
        assert len(await second.search(request, embedded_query("text"), MODEL)) == 1
    assert not any(task.done() for task in waiting)
    go.set()
    assert [len(chunks) for chunks in await asyncio.gather(*waiting)] == [1] * len(waiting)


async def test_purge_and_close_leave_the_replica_clean(replicas: list[Retriever], tmp_path: Path):
    await upsert(replicas[0], ("1", "text"))
    await search(replicas[0], "text")
    await replicas[0].purge(["col_unknown"])
    assert (await replicas[0].stats()).num_collections == 1
    replicas[0].close()
    replicas[0].close()
    assert not replicas[0]._maintenance._thread.is_alive()
