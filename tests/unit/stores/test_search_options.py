"""What a search can ask for besides the best chunks: grouping, pages, neighbours, highlights."""

import math

import numpy as np
import pytest

from deployments.config import RetrieverArgs
from deployments.errors import InvalidRequest
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.search import Searcher
from deployments.stores.vectors import ready_vector
from deployments.types import (
    CollectionSettings,
    Condition,
    EmbeddedText,
    SearchRequest,
    Segment,
)
from tests.unit.stores.material import DIM, doc, put, vector
from tests.unit.stores.test_search import MODES, find, ids


@pytest.fixture
def searcher(database: Database) -> Searcher:
    return Searcher(database, RetrieverArgs())


@pytest.mark.parametrize("max_per_document", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_grouping_keeps_each_documents_best(
    database: Database, searcher: Searcher, mode: str, max_per_document: int
):
    put(database, [doc("long", "some text, again and again. " * 60)])
    put(database, [doc(str(i), f"some text {i}" * 4) for i in range(6)])
    everything = find(searcher, mode=mode, top_k=100, candidates=1000)
    chunks = find(
        searcher, mode=mode, top_k=7 * max_per_document, max_per_document=max_per_document
    )
    kept = ids(chunks)
    assert set(kept) == set(ids(everything)) == {"long", *map(str, range(6))}
    assert max(map(kept.count, kept)) == max_per_document
    if mode != "hybrid":  # whose score is of ranks
        for name in set(kept):
            best = [c.score for c in everything if c.document_id == name][:max_per_document]
            assert [c.score for c in chunks if c.document_id == name] == pytest.approx(best)


@pytest.mark.parametrize("mode", MODES)
def test_pages_follow_each_other(database: Database, searcher: Searcher, mode: str):
    put(database, [doc(str(i), f"some text {i % 7}") for i in range(45)])
    options = {"mode": mode, "candidates": 45} if mode == "hybrid" else {"mode": mode}
    whole = find(searcher, top_k=45, **options)
    pages = [find(searcher, top_k=10, offset=offset, **options) for offset in range(0, 60, 10)]
    assert [chunk for page in pages for chunk in page] == whole
    assert [len(page) for page in pages] == [10, 10, 10, 10, 5, 0]


def test_hybrid_pages_come_from_one_fusion(database: Database, searcher: Searcher):
    put(database, [doc(str(i), f"some text {i}") for i in range(200)])
    pages = [find(searcher, "text 7", top_k=10, offset=offset) for offset in range(0, 120, 10)]
    found = [chunk.chunk_id for page in pages for chunk in page]
    assert 50 <= len(found) == len(set(found)) <= 100
    scores = [chunk.score for page in pages for chunk in page]
    assert scores == sorted(scores, reverse=True)


def test_weights_turn_hybrid_into_either(database: Database, searcher: Searcher):
    put(database, [doc(str(i), f"apple {i}" if i % 3 else f"pear {i}") for i in range(30)])
    for mode, weights in (("dense", (1.0, 0.0)), ("lexical", (0.0, 1.0))):
        fused = ids(find(searcher, "pear 3", weights=weights, top_k=5))
        assert fused == ids(find(searcher, "pear 3", mode=mode, top_k=5))


@pytest.mark.parametrize("mode", MODES)
def test_neighbors_are_the_chunks_around(database: Database, searcher: Searcher, mode: str):
    text = "".join(f"this is sentence {i:02}." for i in range(30))
    put(database, [doc("before", "x" * 60), doc("1", text), doc("after", "y" * 60)])
    spans = [(start, start + 20) for start in range(0, 600, 20)]
    for chunk in find(searcher, "sentence", mode=mode, top_k=100, neighbors=2):
        if chunk.document_id != "1":
            continue
        at = spans.index((chunk.start, chunk.end))
        assert [(p.start, p.end) for p in chunk.before] == spans[max(0, at - 2) : at]
        assert [(p.start, p.end) for p in chunk.after] == spans[at + 1 : at + 3]
        assert all(p.text == text[p.start : p.end] for p in (*chunk.before, *chunk.after))
    (alone,) = find(searcher, "sentence", mode=mode, top_k=1)
    assert (alone.before, alone.after) == ((), ())


def test_neighbors_of_many_hits_span_many_pages(database: Database, searcher: Searcher):
    put(database, [doc(str(i), "z" * 200) for i in range(100)])
    chunks = find(searcher, mode="dense", top_k=100, neighbors=10)
    assert len(chunks) == 100
    assert all(len(c.before) + len(c.after) == 9 for c in chunks)


def test_highlights_are_of_the_querys_words(database: Database, searcher: Searcher):
    put(database, [doc("1", "Red apples, RED Apple")], size=40)
    (chunk,) = find(searcher, "red apple", has_highlights=True)
    assert [chunk.text[a:b] for a, b in chunk.highlights] == ["Red", "RED", "Apple"]
    (chunk,) = find(searcher, "red apple")
    assert chunk.highlights == ()


def test_ready_vector_searches_as_the_query_does(database: Database, searcher: Searcher):
    put(database, [doc(str(i), f"text {i}", n=i) for i in range(30)])
    by_query = find(searcher, mode="dense", filter=Condition("n", "lt", 20))
    ready = tuple(float(x) * 7.5e30 for x in vector("some text"))
    request = SearchRequest(
        collection="c", vector=ready, mode="dense", filter=Condition("n", "lt", 20)
    )
    by_vector = searcher.search(request, None, None)
    assert ids(by_vector) == ids(by_query)
    assert [c.score for c in by_vector] == pytest.approx([c.score for c in by_query], abs=1e-6)


@pytest.mark.parametrize(
    "numbers",
    [
        (1.0,) * (DIM - 1),
        (1.0,) * (DIM + 1),
        (),
        (0.0,) * DIM,
        (math.nan,) * DIM,
        (math.inf,) * DIM,
    ],
    ids=["short", "long", "none", "zero", "nan", "infinite"],
)
def test_unusable_ready_vector_is_invalid(
    database: Database, searcher: Searcher, numbers: tuple[float, ...]
):
    put(database, [doc("1")])
    with pytest.raises(InvalidRequest) as caught:
        searcher.search(SearchRequest(collection="c", vector=numbers, mode="dense"), None, None)
    assert caught.value.param == "vector"


@pytest.mark.parametrize("mode", ["lexical", "hybrid"])
def test_ready_vector_is_for_dense_mode(database: Database, searcher: Searcher, mode: str):
    put(database, [doc("1")])
    with pytest.raises(InvalidRequest):
        searcher.search(SearchRequest(collection="c", vector=(1.0,) * DIM, mode=mode), None, None)


@pytest.mark.parametrize(("metric", "best"), [("cosine", "half"), ("dot", "long"), ("l2", "same")])
def test_ready_vector_is_compared_by_the_collections_metric(
    database: Database, metric: str, best: str
):
    vectors = {"half": (1.0, 0.1), "same": (2.0, 0.2), "long": (9.0, 9.0)}
    settings = CollectionSettings(embedding_model="", dim=2, metric=metric)
    CollectionStore(database).create("m", settings)
    embedded = [
        EmbeddedText((Segment(0, 1, 0),), ready_vector(numbers, 2, "v", metric)[np.newaxis])
        for numbers in vectors.values()
    ]
    DocumentStore(database).upsert("m", "", [doc(name, "x") for name in vectors], embedded)
    request = SearchRequest(collection="m", vector=(2.0, 0.2), mode="dense", top_k=3)
    found = Searcher(database, RetrieverArgs()).search(request, None, None)
    assert found[0].document_id == best
