import pytest

from deployments.errors import CollectionNotFound, Conflict, InvalidRequest
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
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


@pytest.mark.parametrize("name", ["", ".a", "-a", "A", "a/b", "a b", "a" * 65, "é", "a\n", "a\x00"])
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
