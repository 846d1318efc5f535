import pytest

from deployments.errors import CollectionNotFound, Conflict, InvalidRequest
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.types import (
    CollectionChanges,
    CollectionSettings,
    IndexSettings,
    VectorSpace,
)
from tests.unit.stores.material import DIM, MODEL, doc, put, settings


@pytest.fixture
def store(database: Database) -> CollectionStore:
    return CollectionStore(database)


def test_created_collection_is_empty(store: CollectionStore):
    info = store.create("a", settings("about 猫"))
    assert (info.name, info.description, info.embedding_model, info.dim) == (
        "a",
        "about 猫",
        MODEL,
        DIM,
    )
    assert (info.num_documents, info.num_chunks, info.sequence) == (0, 0, 0)
    assert info.created_at.endswith("Z")
    assert store.get("a") == info


def test_collections_are_listed_by_name_with_sizes(store: CollectionStore, database: Database):
    for name in ("b", "a", "c"):
        store.create(name, settings(""))
    put(database, [doc("1", "x" * 50), doc("2", "y" * 10)], "b")
    assert [info.name for info in store.list()] == ["a", "b", "c"]
    assert [info.num_documents for info in store.list()] == [0, 2, 0]
    assert [info.num_chunks for info in store.list()] == [0, 4, 0]
    assert [info.sequence for info in store.list()] == [0, 1, 0]


@pytest.mark.parametrize("name", ["a", "0", "a.b_c-d", "a" * 64])
def test_good_name_is_accepted(store: CollectionStore, name: str):
    assert store.create(name, settings("")).name == name


@pytest.mark.parametrize(
    "name", ["", ".a", "A", "/a", "a/", "a/b/c", "default/a", "a b", "a" * 65, "é", "a\n", "a\x00"]
)
def test_bad_name_is_invalid_to_create_and_unknown_to_all_else(store: CollectionStore, name: str):
    with pytest.raises(InvalidRequest) as caught:
        store.create(name, settings(""))
    assert caught.value.param == "collection"
    for call in (store.get, store.delete):
        with pytest.raises(CollectionNotFound):
            call(name)


def test_taken_name_is_a_conflict(store: CollectionStore):
    store.create("a", settings("first"))
    with pytest.raises(Conflict):
        store.create("a", settings("second"))
    assert store.get("a").description == "first"


def test_description_that_cannot_be_stored_is_invalid(store: CollectionStore):
    with pytest.raises(InvalidRequest):
        store.create("a", settings("\x00"))
    assert store.list() == []


def test_deleted_collection_is_gone_with_everything(store: CollectionStore, database: Database):
    put(database, [doc("1"), doc("2")], "a")
    put(database, [doc("1", "new text")], "a")
    put(database, [doc("1")], "b")
    store.delete("a")
    with pytest.raises(CollectionNotFound):
        store.get("a")
    with pytest.raises(CollectionNotFound):
        DocumentStore(database).get("a", "1")
    assert [(info.name, info.num_documents) for info in store.list()] == [("b", 1)]


def test_deleting_an_unknown_collection_is_not_found(store: CollectionStore):
    with pytest.raises(CollectionNotFound):
        store.delete("a")


def test_tenants_have_collections_of_one_name(store: CollectionStore, database: Database):
    for path in ("c", "acme/c", "beta/c", "acme/b"):
        store.create(path, settings(f"of {path}"))
        with pytest.raises(Conflict):
            store.create(path, settings())
    put(database, [doc("1")], "acme/c")
    assert [info.name for info in store.list("acme")] == ["acme/b", "acme/c"]
    assert [info.name for info in store.list("default")] == ["c"]
    assert [info.name for info in store.list("nobody")] == []
    assert len(store.list()) == 4
    assert [store.get(path).num_documents for path in ("c", "acme/c", "beta/c")] == [0, 1, 0]
    store.delete("acme/c")
    assert store.get("beta/c").description == "of beta/c"
    for path in ("acme/c", "gamma/c"):
        with pytest.raises(CollectionNotFound):
            store.get(path)


def test_settings_are_shown_as_they_were_given(store: CollectionStore):
    given = CollectionSettings(
        embedding_model="",
        dim=3,
        metric="dot",
        index=IndexSettings(kind="hnsw", storage="fp16"),
        default_metadata={"team": "a", "tags": [1, None]},
    )
    info = store.create("a", given)
    assert (info.metric, info.index, info.default_metadata, info.embedding_model) == (
        "dot",
        given.index,
        given.default_metadata,
        "",
    )
    assert store.get("a") == info
    assert store.space("a") == VectorSpace("", 3, "dot")


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"metric": "dot", "index": IndexSettings(storage="int8")}, "index.storage"),
        ({"metric": "l2", "index": IndexSettings(storage="int8")}, "index.storage"),
        ({"default_metadata": {"_id": 1}}, "default_metadata"),
        ({"default_metadata": {"a": {"b": 1}}}, "default_metadata"),
        ({"default_metadata": {"a": float("nan")}}, "default_metadata"),
        ({"description": "\x00"}, "description"),
        ({"dim": 0}, "dim"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(
    store: CollectionStore, wrong: dict, param: str
):
    with pytest.raises(InvalidRequest) as caught:
        store.create("a", CollectionSettings(**{"embedding_model": MODEL, "dim": DIM} | wrong))
    assert caught.value.param == param
    assert store.list() == []


def test_update_changes_what_it_names_and_no_more(store: CollectionStore):
    store.create("t/a", settings("old"))
    kept = store.create("a", settings("kept"))
    changed = store.update("t/a", CollectionChanges(index_kind="ivfpq"))
    assert changed.index == IndexSettings(kind="ivfpq", storage="fp32")
    changed = store.update(
        "t/a", CollectionChanges(index_storage="int8", default_metadata={"a": 1}, description="")
    )
    assert (changed.index.kind, changed.index.storage) == ("ivfpq", "int8")
    assert (changed.description, changed.default_metadata) == ("", {"a": 1})
    assert store.update("t/a", CollectionChanges()) == changed
    assert store.get("a") == kept


def test_update_refuses_what_cannot_be_and_changes_nothing(store: CollectionStore):
    before = store.create("a", CollectionSettings(embedding_model=MODEL, dim=DIM, metric="l2"))
    for changes, param in (
        (CollectionChanges(description="new", index_storage="int8"), "index.storage"),
        (CollectionChanges(default_metadata={"_title": 1}), "default_metadata"),
        (CollectionChanges(description="\ud800"), "description"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            store.update("a", changes)
        assert caught.value.param == param
    assert store.get("a") == before
    with pytest.raises(CollectionNotFound):
        store.update("t/a", CollectionChanges(description="x"))
