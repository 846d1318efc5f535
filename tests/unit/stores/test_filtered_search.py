"""Searches bounded by metadata: nothing else is found, and enough of what matches is."""

import numpy as np
import pytest

from deployments.config import RetrieverArgs
from deployments.stores import changes, dense, lexical
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.search import Searcher
from deployments.types import AllOf, Condition, Document, MetadataFilter, Not
from tests.unit.stores.material import doc, put
from tests.unit.stores.test_search import MODES, find, ids


@pytest.fixture
def searcher(database: Database) -> Searcher:
    return Searcher(database, RetrieverArgs(candidates=3))


def where(field: str, operator: str, value: object = None) -> Condition:
    return Condition(field, operator, value)


@pytest.mark.parametrize("max_looked_up", [0, 4096])
@pytest.mark.parametrize("mode", MODES)
def test_rare_matches_are_found_among_many(
    database: Database, searcher: Searcher, mode: str, max_looked_up: int, monkeypatch
):
    monkeypatch.setattr(lexical, "MAX_LOOKED_UP", max_looked_up)
    put(database, [doc(str(i), f"some text {i}", rare=i % 500 == 7) for i in range(2000)])
    chunks = find(searcher, mode=mode, top_k=10, filter=where("rare", "eq", True))
    assert sorted(ids(chunks), key=int) == ["7", "507", "1007", "1507"]
    everything = find(searcher, mode=mode, top_k=2000)
    expected = [c for c in everything if c.metadata["rare"]]
    if mode != "hybrid":  # whose score is of ranks
        assert [c.score for c in chunks] == pytest.approx([c.score for c in expected])
        assert ids(chunks) == ids(expected)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_matches_is_no_error(database: Database, searcher: Searcher, mode: str):
    put(database, [doc("1", year=1)])
    assert find(searcher, mode=mode, filter=where("year", "gt", 1)) == []
    assert find(searcher, mode=mode, filter=where("unknown", "eq", 1)) == []
    assert ids(find(searcher, mode=mode, filter=Not(where("year", "gt", 1)))) == ["1"]


@pytest.mark.parametrize("mode", MODES)
def test_changed_metadata_of_an_unchanged_text_shows(
    database: Database, searcher: Searcher, mode: str
):
    new = where("state", "eq", "new")
    put(database, [doc("1", "x " * 40, state="new"), doc("2", state="new")])
    assert set(ids(find(searcher, "x text", mode=mode, filter=new))) == {"1", "2"}
    (indexed,) = put(database, [doc("1", "x " * 40, state="old")])
    assert indexed.status == "replaced"
    assert ids(find(searcher, "x text", mode=mode, filter=new)) == ["2"]
    old = find(searcher, "x text", mode=mode, filter=where("state", "eq", "old"))
    assert {(c.document_id, c.metadata["state"]) for c in old} == {("1", "old")}
    assert len(old) == 4


def test_fields_of_every_document(database: Database, searcher: Searcher):
    put(database, [doc("a/1", title="One"), doc("b/2", title="Two")])
    stored = DocumentStore(database).get("c", "b/2")

    def found(*filters: MetadataFilter) -> list[str]:
        return ids(find(searcher, filter=AllOf(filters)))

    assert found(where("_id", "starts_with", "a/")) == ["a/1"]
    assert found(where("_title", "in", ["Two", "Three"])) == ["b/2"]
    assert set(found(where("_created_at", "after", "2020-01-01"))) == {"a/1", "b/2"}
    assert found(where("_updated_at", "before", "2020-01-01")) == []
    assert set(found(where("_updated_at", "eq", stored.updated_at))) == {"a/1", "b/2"}


@pytest.mark.parametrize("name", ["_id", "_title", "_created_at", "_updated_at"])
def test_no_document_can_claim_them(database: Database, name: str):
    with pytest.raises(Exception, match="must not use the names"):
        put(database, [Document(id="1", text="x", metadata={name: "y"})])


def test_filter_follows_writes_deletes_and_compaction(
    database: Database, searcher: Searcher, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(changes, "MAX_ROWS", 3)
    monkeypatch.setattr(dense, "MIN_DEAD_ROWS", 4)
    stored: dict[str, int] = {}
    random = np.random.default_rng(5)
    for _ in range(40):
        for name in random.choice(list("abcdefgh"), 3, replace=False).tolist():
            if name in stored and random.random() < 0.4:
                DocumentStore(database).delete("c", name)
                del stored[name]
            else:
                stored[name] = int(random.integers(3))
                text = "text of more than one chunk " * int(random.integers(1, 4))
                put(database, [doc(name, text, n=stored[name])])
        wanted = int(random.integers(3))
        expected = {name for name, n in stored.items() if n == wanted}
        for mode in MODES:
            args = {"mode": mode, "top_k": 100, "candidates": 100}
            chunks = find(searcher, "text", filter=where("n", "eq", wanted), **args)
            assert {c.metadata["n"] for c in chunks} <= {wanted}
            if mode != "lexical":
                assert set(ids(chunks)) == expected


def test_min_score_and_filter_bound_together(database: Database, searcher: Searcher):
    put(database, [doc(str(i), f"apple {i}", even=i % 2 == 0) for i in range(60)])
    everything = find(searcher, "apple", mode="dense", top_k=60)
    bound = everything[20].score
    expected = [c.document_id for c in everything[:21] if c.metadata["even"]]
    for mode in MODES:
        options = {"min_score": bound, "filter": where("even", "eq", True)}
        chunks = find(searcher, "apple", mode=mode, top_k=60, **options)
        assert sorted(ids(chunks)) == sorted(expected)
