"""Shards together find what one index finds."""

import time
from dataclasses import replace
from typing import Any

import pytest

from deployments.config import RetrieverArgs
from deployments.stores import indexes
from deployments.stores.buckets import NUM_BUCKETS, Shard, bucket_of
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.hits import Hit
from deployments.stores.rankings import merge
from deployments.stores.search import Searcher
from deployments.types import Condition, ScoredChunk, SearchRequest
from tests.unit.stores.material import MODEL, doc, put, vector

ARGS = RetrieverArgs(candidates=10)
REQUEST = SearchRequest(collection="c", query="word 3", top_k=7)


@pytest.fixture
def sharded(database: Database) -> list[Searcher]:
    """Return three shards over documents, of which some were replaced and some deleted."""
    put(database, [doc(f"d{i}", f"word {i % 5} " * (1 + i % 7), n=i) for i in range(60)])
    put(database, [doc(f"d{i}", f"other word {i} again", n=i) for i in range(0, 60, 9)])
    for i in range(0, 60, 11):
        DocumentStore(database).delete("c", f"d{i}")
    return [Searcher(database, ARGS, Shard(index, 3)) for index in range(3)]


def ask_shards(searchers: list[Searcher], request: SearchRequest) -> list[ScoredChunk]:
    query = None if request.mode == "lexical" else vector(request.query)
    found = [searcher.rankings(request, query, MODEL) for searcher in searchers]
    return merge(request, found, candidates=ARGS.candidates, rrf_k=ARGS.rrf_k)


def ask_one(database: Database, request: SearchRequest) -> list[ScoredChunk]:
    query = None if request.mode == "lexical" else vector(request.query)
    return Searcher(database, ARGS).search(request, query, MODEL)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"offset": 5},
        {"max_per_document": 1},
        {"min_score": 0.1},
        {"filter": Condition("n", "lt", 20)},
        {"neighbors": 1},
        {"top_k": 500},
    ],
    ids=lambda options: next(iter(options), "plain"),
)
def test_shards_find_by_cosine_what_one_index_finds(
    sharded: list[Searcher], database: Database, options: dict[str, Any]
):
    request = replace(REQUEST, mode="dense", **options)
    assert ask_shards(sharded, request) == ask_one(database, request) != []


def test_hybrid_of_shards_fuses_the_rankings_of_all(sharded: list[Searcher], database: Database):
    request = replace(REQUEST, mode="hybrid", weights=(1.0, 0.0), top_k=10)
    found, expected = ask_shards(sharded, request), ask_one(database, request)
    scored = [chunk for chunk in found if chunk.score > 0]
    assert scored == [chunk for chunk in expected if chunk.score > 0] != []


def test_words_are_found_in_every_shard(sharded: list[Searcher], database: Database):
    request = replace(REQUEST, mode="lexical", top_k=500)
    found, expected = ask_shards(sharded, request), ask_one(database, request)
    assert {chunk.chunk_id for chunk in found} == {chunk.chunk_id for chunk in expected} != set()
    assert [chunk.score for chunk in found] == sorted((c.score for c in found), reverse=True)


def test_hybrid_search_of_many_chunks_finds_what_that_of_few_does(
    sharded: list[Searcher], monkeypatch: pytest.MonkeyPatch
):
    request = replace(REQUEST, mode="hybrid", min_score=-0.5)
    one_after_the_other = ask_shards(sharded, request)
    monkeypatch.setattr(indexes, "MIN_BESIDE", 0)
    assert ask_shards(sharded, request) == one_after_the_other != []


@pytest.mark.parametrize("failing", ["dense", "lexical"])
def test_failing_hybrid_search_ends_when_both_parts_have(
    sharded: list[Searcher], monkeypatch: pytest.MonkeyPatch, failing: str
):
    monkeypatch.setattr(indexes, "MIN_BESIDE", 0)
    ended = []

    def part(name: str) -> Any:
        def search(*_: Any, **__: Any) -> list[Hit]:
            if name == failing:
                raise MemoryError(name)
            time.sleep(0.05)
            ended.append(name)
            return []

        return search

    monkeypatch.setattr(indexes.DenseIndex, "search", part("dense"))
    monkeypatch.setattr(indexes.LexicalIndex, "search", part("lexical"))
    with pytest.raises(MemoryError, match=failing):
        sharded[0].search(replace(REQUEST, mode="hybrid"), vector("word 3"), MODEL)
    assert len(ended) == 1


def test_hybrid_limits_the_chunks_of_a_document(sharded: list[Searcher]):
    found = ask_shards(sharded, replace(REQUEST, max_per_document=1, top_k=10))
    owners = [chunk.document_id for chunk in found]
    assert len(owners) == len(set(owners)) > 1


def test_writes_and_deletes_show_in_their_shard(sharded: list[Searcher], database: Database):
    put(database, [doc("new", "a fresh text")])
    request = replace(REQUEST, query="fresh", mode="lexical")
    assert [chunk.document_id for chunk in ask_shards(sharded, request)] == ["new"]
    DocumentStore(database).delete("c", "new")
    assert ask_shards(sharded, request) == []


def test_shards_divide_all_buckets_in_similar_parts():
    for total in (1, 2, 3, 7, 64):
        parts = [Shard(index, total).buckets for index in range(total)]
        assert [b for part in parts for b in part] == list(range(NUM_BUCKETS))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_bucket_of_a_document_is_fixed():
    assert [bucket_of(document_id) for document_id in ("a", "guide/1", "猫")] == [85, 518, 70]
