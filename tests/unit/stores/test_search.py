from dataclasses import replace

import numpy as np
import pytest

from deployments.config import RetrieverArgs
from deployments.errors import CollectionNotFound, Conflict, InvalidRequest, StoreUnavailable
from deployments.stores import search as module
from deployments.stores import writes
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.follower import Follower
from deployments.stores.search import Searcher
from deployments.types import Condition, ScoredChunk, SearchRequest
from tests.unit.stores.material import DIM, MODEL, ONLY_SQLITE, doc, put, settings, vector

MODES = ("dense", "lexical", "hybrid")


@pytest.fixture
def searcher(database: Database) -> Searcher:
    return Searcher(database, RetrieverArgs())


def find(searcher: Searcher, query: str = "some text", **options: object) -> list[ScoredChunk]:
    request = replace(SearchRequest(collection="c", query=query), **options)
    return searcher.search(request, vector(query), MODEL)


def ids(chunks: list[ScoredChunk]) -> list[str]:
    return [chunk.document_id for chunk in chunks]


@pytest.mark.parametrize("mode", MODES)
def test_hit_carries_its_document_and_exact_span(database: Database, searcher: Searcher, mode: str):
    text = "שלום 🚀 天气很好 " * 3
    put(database, [doc("1", text, title="T", year=2026)], size=15)
    chunks = find(searcher, "天气很好", mode=mode)
    assert len(chunks) == len({chunk.chunk_id for chunk in chunks}) == 3
    for chunk in chunks:
        assert chunk.text == text[chunk.start : chunk.end]
        assert chunk.chunk_id.startswith("chk_")
        assert (chunk.document_id, chunk.title, chunk.metadata) == ("1", "T", {"year": 2026})
        assert chunk.cosine == pytest.approx(
            float(vector("天气很好") @ vector(chunk.text)), abs=1e-6
        )


def test_dense_order_is_the_cosine(database: Database, searcher: Searcher):
    put(database, [doc(str(i), f"text {i}") for i in range(30)])
    chunks = find(searcher, mode="dense", top_k=12)
    cosines = {str(i): float(vector("some text") @ vector(f"text {i}")) for i in range(30)}
    assert ids(chunks) == sorted(cosines, key=cosines.__getitem__, reverse=True)[:12]
    assert all(chunk.score == chunk.cosine for chunk in chunks)


def test_lexical_needs_no_vector(database: Database, searcher: Searcher):
    put(database, [doc("1", "red apple"), doc("2", "green pear")])
    request = SearchRequest(collection="c", query="Apple!", mode="lexical")
    (chunk,) = searcher.search(request, None, None)
    assert (chunk.document_id, chunk.cosine) == ("1", None)
    assert chunk.score > 0


def test_title_words_are_found(database: Database, searcher: Searcher):
    put(database, [doc("1", "red apple", title="Orchard"), doc("2", "green pear")])
    assert ids(find(searcher, "orchard", mode="lexical")) == ["1"]


def test_hybrid_is_the_fusion_of_both(database: Database, searcher: Searcher):
    put(database, [doc(str(i), f"apple {i}" if i % 3 else f"pear {i}") for i in range(30)])
    args = RetrieverArgs()
    scores: dict[str, float] = {}
    for mode in ("dense", "lexical"):
        for rank, chunk in enumerate(find(searcher, "pear 3", mode=mode, top_k=args.candidates), 1):
            scores[chunk.document_id] = scores.get(chunk.document_id, 0) + 1 / (args.rrf_k + rank)
    chunks = find(searcher, "pear 3", top_k=10)
    assert [chunk.score for chunk in chunks] == pytest.approx(
        sorted(scores.values(), reverse=True)[:10]
    )
    assert all(scores[c.document_id] == pytest.approx(c.score) for c in chunks)
    assert all(chunk.cosine is not None for chunk in chunks)


@pytest.mark.parametrize("mode", MODES)
def test_min_score_bounds_the_cosine(database: Database, mode: str):
    put(database, [doc(str(i), f"apple {i}") for i in range(60)])
    searcher = Searcher(database, RetrieverArgs(candidates=2))
    everything = find(searcher, "apple", mode="dense", top_k=60)
    bound = everything[7].score
    chunks = find(searcher, "apple", mode=mode, top_k=10, min_score=bound)
    assert sorted(ids(chunks)) == sorted(ids(everything[:8]))
    assert find(searcher, "apple", mode=mode, top_k=60, min_score=1.0) == []


@pytest.mark.parametrize("mode", MODES)
def test_equal_scores_are_ordered_by_chunk_id(database: Database, searcher: Searcher, mode: str):
    put(database, [doc(str(i), "the same") for i in range(20)])
    chunks = find(searcher, "the same", mode=mode, top_k=7)
    assert ids(chunks) == [str(i) for i in range(7)]
    order = [(-chunk.score, chunk.chunk_id) for chunk in chunks]
    assert order == sorted(order)


@pytest.mark.parametrize("mode", MODES)
def test_empty_collection_has_no_hits(database: Database, searcher: Searcher, mode: str):
    CollectionStore(database).create("c", settings())
    assert find(searcher, mode=mode) == []
    put(database, [doc("1")])
    DocumentStore(database).delete("c", "1")
    assert find(searcher, mode=mode) == []


@pytest.mark.parametrize("name", ["unknown", "", "../x", "A", "\x00", "\ud800"])
def test_unknown_collection_is_not_found(searcher: Searcher, name: str):
    with pytest.raises(CollectionNotFound):
        find(searcher, collection=name)


@pytest.mark.parametrize(
    ("options", "vector_given", "param"),
    [
        ({"filter": Condition("a", "gt", True)}, True, "filter"),
        ({"top_k": 0}, True, "top_k"),
        ({"mode": "dense"}, False, "mode"),
        ({"mode": "hybrid"}, False, "mode"),
        ({"mode": "lexical", "min_score": 0.1}, False, "min_score"),
    ],
)
def test_what_cannot_be_done_is_invalid(
    database: Database, searcher: Searcher, options: dict, vector_given: bool, param: str
):
    put(database, [doc("1")])
    request = SearchRequest(collection="c", query="x", **options)
    with pytest.raises(InvalidRequest) as caught:
        searcher.search(request, vector("x") if vector_given else None, MODEL)
    assert caught.value.param == param


def test_query_of_another_model_is_a_conflict(database: Database, searcher: Searcher):
    put(database, [doc("1")])
    request = SearchRequest(collection="c", query="x")
    with pytest.raises(Conflict):
        searcher.search(request, vector("x", DIM + 1), MODEL)
    with pytest.raises(Conflict):
        searcher.search(request, vector("x"), "other")


# --- following --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_every_write_shows_at_the_next_search(database: Database, searcher: Searcher, mode: str):
    put(database, [doc("1"), doc("2")])
    assert set(ids(find(searcher, mode=mode))) == {"1", "2"}
    put(database, [doc("1", "some other text")])
    assert {c.text for c in find(searcher, mode=mode)} == {"some text", "some other text"}
    DocumentStore(database).delete("c", "2")
    assert ids(find(searcher, mode=mode)) == ["1"]


def test_collection_made_again_is_another_one(database: Database, searcher: Searcher):
    put(database, [doc("1", "old"), doc("2", "old")])
    assert len(find(searcher)) == 2
    CollectionStore(database).delete("c")
    with pytest.raises(CollectionNotFound):
        find(searcher)
    assert searcher.followers.all() == []
    put(database, [doc("3", "new")])
    put(database, [doc("4", "new")])
    assert set(ids(find(searcher))) == {"3", "4"}


def test_collection_made_again_unnoticed_is_another_one(database: Database, searcher: Searcher):
    put(database, [doc("1", "old")])
    find(searcher)
    CollectionStore(database).delete("c")
    put(database, [doc("2", "new")])
    assert ids(find(searcher)) == ["2"]


def test_follower_behind_the_log_starts_anew(
    database: Database, searcher: Searcher, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writes, "LOG_LENGTH", 2)
    put(database, [doc("1"), doc("2")])
    find(searcher)
    (old,) = searcher.followers.all()
    for version in range(5):
        put(database, [doc("1", f"version {version}")])
    assert {chunk.text for chunk in find(searcher)} == {"some text", "version 4"}
    assert searcher.followers.all() != [old]


def test_failure_while_following_heals(
    database: Database, searcher: Searcher, monkeypatch: pytest.MonkeyPatch
):
    put(database, [doc("1")])
    find(searcher)
    put(database, [doc("2")])

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("deployments.stores.lexical.LexicalIndex.commit", fail)
        with pytest.raises(MemoryError):
            find(searcher)
    assert set(ids(find(searcher))) == {"1", "2"}


def test_eventual_search_looks_at_the_log_only_once_a_second(
    database: Database, searcher: Searcher, monkeypatch: pytest.MonkeyPatch
):
    put(database, [doc("1")])
    assert ids(find(searcher, is_eventual=True)) == ["1"]
    put(database, [doc("2")])
    assert ids(find(searcher, is_eventual=True)) == ["1"]
    monkeypatch.setattr(module, "EVENTUAL_AGE_S", 0.0)
    assert set(ids(find(searcher, is_eventual=True))) == {"1", "2"}


def test_eventual_search_of_a_deleted_text_is_never_half(database: Database, searcher: Searcher):
    put(database, [doc("1"), doc("2")])
    find(searcher)
    put(database, [doc("1", "new text")])
    chunks = find(searcher, is_eventual=True)
    assert {chunk.text for chunk in chunks} == {"some text", "new text"}


def test_collections_in_memory_are_bounded(database: Database):
    searcher = Searcher(database, RetrieverArgs(max_collections_in_memory=2))
    for name in ("a", "b", "c"):
        put(database, [doc(name)], name)
    for name in ("a", "b", "a", "c", "b", "a"):
        assert ids(find(searcher, collection=name)) == [name]
        assert len(searcher.followers.all()) <= 2


def test_write_between_ranking_and_fetching_is_seen_whole(
    database: Database, searcher: Searcher, monkeypatch: pytest.MonkeyPatch
):
    put(database, [doc("1", "old"), doc("2", "kept")])
    real, versions = Follower.search, iter(["newer", "newest"])

    def search(*args: object, **options: object) -> list[object]:
        hits = real(*args, **options)
        for text in versions:
            put(database, [doc("1", text)])
            break
        return hits

    monkeypatch.setattr(Follower, "search", search)
    assert {chunk.text for chunk in find(searcher)} == {"newer", "kept"}


def test_index_that_disagrees_with_the_database_is_built_again(
    database: Database, searcher: Searcher
):
    put(database, [doc("1"), doc("2")])
    find(searcher)
    put(database, [doc("1", "new text")])
    (follower,) = searcher.followers.all()
    follower._sequence = 2  # as if it had followed
    with pytest.raises(StoreUnavailable):
        find(searcher)
    assert {chunk.text for chunk in find(searcher)} == {"some text", "new text"}


@ONLY_SQLITE
def test_search_reads_the_database_twice(database: Database, searcher: Searcher):
    put(database, [doc("1")])
    find(searcher)
    (connection,) = database._idle
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    find(searcher)
    assert [s.split()[0] for s in statements] == ["SELECT"] * 2


def test_vectors_survive_the_database_bit_for_bit(database: Database, searcher: Searcher):
    put(database, [doc("1")])
    find(searcher)
    (follower,) = searcher.followers.all()
    assert follower.num_vector_bytes == DIM * 4 + 8 + 1  # the vector, its number, its bit
    (stored,) = follower._indexes.dense.frozen().view.vectors(slice(None))
    assert np.array_equal(stored, vector("some text"))


def test_tenants_collections_of_one_name_are_searched_apart(database: Database):
    searcher = Searcher(database, RetrieverArgs())
    for path in ("c", "acme/c", "beta/c"):
        put(database, [doc("1", f"of {path}")], path)
    for path in ("c", "acme/c", "beta/c"):
        request = SearchRequest(collection=path, query="of", top_k=9, min_score=-1)
        chunks = searcher.search(request, vector("of"), MODEL)
        assert [chunk.text for chunk in chunks] == [f"of {path}"]
    for path in ("gamma/c", "default/c", "acme/c/c"):
        with pytest.raises(CollectionNotFound):
            searcher.search(SearchRequest(collection=path, query="of"), vector("of"), MODEL)
