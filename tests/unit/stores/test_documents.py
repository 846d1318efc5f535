import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.errors import (
    CollectionNotFound,
    Conflict,
    DocumentNotFound,
    EngineFailed,
    InvalidRequest,
)
from deployments.stores.collections import CollectionStore
from deployments.stores.content import BUILT_IN
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.types import CollectionChanges, CollectionSettings, Document, Segment
from tests.unit.stores.material import DIM, MODEL, ONLY_SQLITE, doc, embed, put

SETTINGS = CollectionSettings(embedding_model=MODEL, dim=DIM)


@pytest.fixture
def store(database: Database) -> DocumentStore:
    return DocumentStore(database)


def sequence(database: Database) -> int:
    return CollectionStore(database).get("c").sequence


def test_upsert_creates_the_collection(database: Database):
    assert [(d.id, d.status, d.num_chunks) for d in put(database, [doc("1", "x" * 45)])] == [
        ("1", "created", 3)
    ]
    info = CollectionStore(database).get("c")
    assert (info.embedding_model, info.dim, info.sequence) == (MODEL, DIM, 1)


def test_same_content_is_unchanged_and_costs_nothing(database: Database):
    put(database, [doc("1", a=1, b=2)])
    again = put(database, [replace(doc("1"), metadata={"b": 2, "a": 1})])
    assert [d.status for d in again] == ["unchanged"]
    assert [d.num_chunks for d in again] == [1]
    assert sequence(database) == 1


@pytest.mark.parametrize(
    "changed",
    [doc("1", "other"), doc("1", title="t"), doc("1", a=1), doc("1", a=True), doc("1", a=1.0)],
    ids=["text", "title", "metadata", "bool", "float"],
)
def test_changed_content_is_replaced(database: Database, store: DocumentStore, changed: Document):
    put(database, [doc("1", a=2)])
    before = store.get("c", "1")
    time.sleep(0.001)
    assert [d.status for d in put(database, [changed])] == ["replaced"]
    after = store.get("c", "1")
    assert after.document == changed
    assert after.created_at == before.created_at
    assert after.updated_at > before.updated_at
    assert sequence(database) == 2


def test_one_call_is_one_sequence_number(database: Database):
    put(database, [doc("1"), doc("2")])
    statuses = [d.status for d in put(database, [doc("2"), doc("1", "new"), doc("3")])]
    assert statuses == ["unchanged", "replaced", "created"]
    assert sequence(database) == 2


def test_no_documents_change_nothing(database: Database):
    assert put(database, []) == []
    assert CollectionStore(database).list() == []


def test_empty_text_is_stored_without_chunks(database: Database, store: DocumentStore):
    assert [d.num_chunks for d in put(database, [doc("1", "")])] == [0]
    assert store.get("c", "1").document.text == ""


@pytest.mark.parametrize(("model", "dim"), [("other", DIM), (MODEL, DIM + 1)])
def test_other_embedding_model_is_a_conflict(database: Database, model: str, dim: int):
    put(database, [doc("1")])
    with pytest.raises(Conflict):
        DocumentStore(database).upsert("c", model, [doc("2")], [embed("some text", dim=dim)])
    assert sequence(database) == 1


def test_id_given_twice_is_invalid_and_writes_nothing(database: Database):
    with pytest.raises(InvalidRequest) as caught:
        put(database, [doc("1", "a"), doc("2"), doc("1", "b")])
    assert caught.value.param == "id"
    assert CollectionStore(database).list() == []


@pytest.mark.parametrize(
    ("bad", "param"),
    [
        (doc(""), "id"),
        (doc("x" * 257), "id"),
        (doc("a\x00"), "id"),
        (doc("1", "a\x00b"), "text"),
        (doc("1", "a\ud800b"), "text"),
        (doc("1", title="\udfff"), "title"),
        (doc("1", a="\x00"), "metadata"),
        (doc("1", a=["ok", "\ud800"]), "metadata"),
        (doc("1", **{"\x00": 1}), "metadata"),
        (doc("1", a={"b": 1}), "metadata"),
        (doc("1", a=[[1]]), "metadata"),
        (doc("1", a=float("nan")), "metadata"),
        (doc("1", a=[float("inf")]), "metadata"),
    ],
)
def test_content_that_cannot_be_stored_is_invalid(database: Database, bad: Document, param: str):
    with pytest.raises(InvalidRequest) as caught:
        DocumentStore(database).upsert("c", MODEL, [doc("0"), bad], [embed("x"), embed("x")])
    assert caught.value.param == param
    assert CollectionStore(database).list() == []


def test_unusable_vectors_are_the_engines_failure(store: DocumentStore):
    good = embed("some text")
    broken = [
        replace(good, vectors=np.full_like(good.vectors, np.nan)),
        replace(good, vectors=good.vectors[0]),
        replace(good, vectors=good.vectors[:0]),
        replace(good, segments=(Segment(0, 10, 1),)),
        replace(good, segments=(Segment(5, 4, 1),)),
    ]
    for embedded in broken:
        with pytest.raises(EngineFailed):
            store.upsert("c", MODEL, [doc("1")], [embedded])
    with pytest.raises(EngineFailed):
        store.upsert("c", MODEL, [doc("1"), doc("2")], [good])


def test_deleted_document_is_gone(database: Database, store: DocumentStore):
    put(database, [doc("1"), doc("2")])
    store.delete("c", "1")
    with pytest.raises(DocumentNotFound):
        store.get("c", "1")
    with pytest.raises(DocumentNotFound):
        store.delete("c", "1")
    info = CollectionStore(database).get("c")
    assert (info.num_documents, info.num_chunks, info.sequence) == (1, 1, 2)


def test_document_without_chunks_can_be_deleted(database: Database, store: DocumentStore):
    put(database, [doc("1", "")])
    store.delete("c", "1")
    assert CollectionStore(database).get("c").num_documents == 0


@pytest.mark.parametrize("document_id", ["", "2", "\x00", "\ud800", "x" * 300])
def test_unknown_document_is_not_found(database: Database, store: DocumentStore, document_id: str):
    put(database, [doc("1")])
    for call in (store.get, store.delete):
        with pytest.raises(DocumentNotFound):
            call("c", document_id)
        with pytest.raises(CollectionNotFound):
            call("other", document_id)


@ONLY_SQLITE
def test_text_of_deleted_documents_is_wiped_from_the_database_file(
    database: Database, store: DocumentStore, database_url: str
):
    path = Path(database_url.removeprefix("sqlite:///"))
    canary = "canary-" * 30
    put(database, [doc("1", canary)])
    store.delete("c", "1")
    database.close()  # the last connection folds the log into the file
    assert b"canary-" not in path.read_bytes()


storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=60)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | storable


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=storable,
    title=storable,
    metadata=st.dictionaries(
        storable.filter(lambda key: key not in BUILT_IN),
        scalars.filter(lambda x: x not in (float("inf"), -float("inf"))),
    ),
)
def test_any_document_comes_back_as_it_was(
    database: Database, text: str, title: str, metadata: dict[str, object]
):
    document = Document(id="1", text=text, title=title, metadata=metadata)
    put(database, [document])
    stored = DocumentStore(database).get("c", "1")
    assert stored.document == document
    assert put(database, [stored.document])[0].status == "unchanged"


def test_brought_vectors_are_part_of_the_content(database: Database):
    store = DocumentStore(database)
    statuses = []
    for numbers in ("a", None, "b", "b"):
        embedded = embed("some text") if numbers is None else embed(numbers * 9)
        brought = None if numbers is None else embedded
        document = Document(id="1", text="some text", embedded=brought)
        statuses += [one.status for one in store.upsert("c", MODEL, [document], [embedded])]
    assert statuses == ["created", "replaced", "replaced", "unchanged"]
    assert store.get("c", "1").document.embedded is None


def test_default_metadata_fills_what_a_document_leaves_out(
    store: DocumentStore, database: Database
):
    collections = CollectionStore(database)
    defaults = {"team": "a", "year": 2026}
    collections.create("c", replace(SETTINGS, default_metadata=defaults))
    put(database, [doc("1", year=1999, own=True), doc("2", team=None)])
    assert store.get("c", "1").document.metadata == {"team": "a", "year": 1999, "own": True}
    assert store.get("c", "2").document.metadata == {"team": None, "year": 2026}


def test_new_defaults_are_for_documents_stored_from_then_on(
    store: DocumentStore, database: Database
):
    collections = CollectionStore(database)
    collections.create("c", SETTINGS)
    documents = [doc("1"), doc("2", team="own")]
    put(database, documents)
    collections.update("c", CollectionChanges(default_metadata={"team": "a"}))
    assert store.get("c", "1").document.metadata == {}
    assert [one.status for one in put(database, documents)] == ["replaced", "unchanged"]
    assert store.get("c", "1").document.metadata == {"team": "a"}
    assert [one.status for one in put(database, documents)] == ["unchanged", "unchanged"]


def test_subject_is_stored_and_a_new_one_replaces(store: DocumentStore, database: Database):
    def of(subject: str | None) -> str:
        (one,) = put(database, [replace(doc("1"), subject=subject)])
        assert store.get("c", "1").document.subject == subject
        return one.status

    subjects = [None, "anna", "anna", "ben", None]
    statuses = ["created", "replaced", "unchanged", "replaced", "replaced"]
    assert [of(subject) for subject in subjects] == statuses


def test_documents_are_listed_in_pages_by_id(store: DocumentStore, database: Database):
    put(database, [replace(doc(f"d{n}", title=f"t{n}", n=n), subject="s") for n in range(7)])
    put(database, [doc("other")], "t/c")
    first = store.page("c", 3)
    assert [(one.id, one.title, one.metadata) for one in first] == [
        (f"d{n}", f"t{n}", {"n": n}) for n in range(3)
    ]
    assert (first[0].subject, first[0].num_chunks) == ("s", 1)
    assert first[0].created_at == store.get("c", "d0").created_at
    assert [one.id for one in store.page("c", 3, after="d4")] == ["d5", "d6"]
    assert store.page("c", 3, after="d6") == []
    assert [one.id for one in store.page("t/c", 3)] == ["other"]
    with pytest.raises(CollectionNotFound):
        store.page("x/c", 3)


def test_write_for_another_metric_is_a_conflict(store: DocumentStore, database: Database):
    CollectionStore(database).create("c", replace(SETTINGS, metric="dot"))
    for metric, expected in (("dot", "created"), (None, "unchanged")):
        (one,) = store.upsert("c", MODEL, [doc("1")], [embed("some text")], metric)
        assert one.status == expected
    with pytest.raises(Conflict):
        store.upsert("c", MODEL, [doc("2")], [embed("some text")], "cosine")


def test_write_that_may_not_create_needs_the_collection(store: DocumentStore, database: Database):
    def write() -> str:
        vectors = [embed("some text")]
        return store.upsert("c", "", [doc("1")], vectors, may_create=False)[0].status

    with pytest.raises(CollectionNotFound):
        write()
    CollectionStore(database).create("c", replace(SETTINGS, embedding_model=""))
    assert write() == "created"
