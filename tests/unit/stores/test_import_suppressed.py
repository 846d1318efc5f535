"""Imports after erasures: what was erased stays so, and what is stored anew may come."""

import io
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.erasures import ErasureStore
from deployments.stores.exports import EXPORT, SETTINGS, SOURCE, VERSION, Export
from deployments.stores.imports import Import
from deployments.stores.seals import sealed
from deployments.stores.suppressions import Suppressions
from deployments.types import Condition, ErasureScope, Imported
from tests.unit.stores.material import doc, put, vector

PEPPER = bytes(32)


@pytest.fixture
def export(database: Database) -> bytes:
    """Two documents of Ann's and one of Bob's, as they were before anything was erased."""
    documents = [
        replace(doc("a1", "text of a1", kind="letter"), subject="ann"),
        replace(doc("a2", "text of a2"), subject="ann"),
        replace(doc("b1", "text of b1", kind="letter"), subject="bob"),
    ]
    put(database, documents)
    return b"".join(Export(database, "c").pieces())


def erase(database: Database, **fields: object) -> None:
    scope = ErasureScope(**({"tenant": "default", "collection": "c"} | fields))  # type: ignore[arg-type]
    ErasureStore(database, PEPPER).erase(scope)


def imported(database: Database, content: bytes, collection: str = "c") -> Imported:
    return Import(database, Suppressions(PEPPER), collection).run(io.BytesIO(content))


def stored(database: Database, collection: str = "c") -> set[str]:
    return {one.id for one in DocumentStore(database).page(collection, 100)}


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"document_ids": ("a1",)}, {"a2", "b1"}),
        ({"filter": Condition("kind", "eq", "letter")}, {"a2"}),
        ({"subject": "ann"}, {"b1"}),
        ({"subject": "ann", "collection": None}, {"b1"}),
        ({}, set()),
    ],
    ids=["document", "filter", "subject", "subject everywhere", "collection"],
)
@pytest.mark.parametrize("target", ["c", "copy"])
def test_import_leaves_out_what_was_erased(
    database: Database, export: bytes, fields: dict, left: set[str], target: str
):
    erase(database, **fields)
    report = imported(database, export, target)
    assert stored(database, target) == left
    assert (report.num_rows, report.num_suppressed) == (3, 3 - len(left))
    assert (report.num_failed, report.errors) == (0, ())
    stayed = len(left) if target == "c" else 0
    assert (report.num_created, report.num_unchanged) == (len(left) - stayed, stayed)


def test_import_of_what_another_collection_held_is_left_alone(database: Database, export: bytes):
    put(database, [doc("a1", "another document of this id")], "other")
    erase(database, collection="other", document_ids=("a1",))
    report = imported(database, export, "copy")
    assert (report.num_created, report.num_suppressed) == (3, 0)


def test_import_under_the_name_of_an_erased_document_leaves_it_out(
    database: Database, export: bytes
):
    imported(database, export, "copy")
    copy = b"".join(Export(database, "copy").pieces())
    erase(database, document_ids=("a1",))
    assert imported(database, copy).num_suppressed == 1
    assert stored(database) == {"a2", "b1"}
    assert stored(database, "copy") == {"a1", "a2", "b1"}


def test_what_was_stored_after_an_erasure_comes_back_from_an_export(database: Database):
    put(database, [doc("a", "old")])
    erase(database)
    put(database, [doc("a", "new")])
    export = b"".join(Export(database, "c").pieces())
    CollectionStore(database).delete("c")
    report = imported(database, export)
    assert (report.num_created, report.num_suppressed) == (1, 0)
    assert DocumentStore(database).get("c", "a").document.text == "new"


def test_import_keeps_what_was_stored_after_the_erasure(database: Database, export: bytes):
    erase(database, document_ids=("a1",))
    put(database, [doc("a1", "stored anew")])
    assert imported(database, export).num_suppressed == 1
    assert DocumentStore(database).get("c", "a1").document.text == "stored anew"


def test_plain_table_stores_anew(database: Database, export: bytes):
    erase(database, subject="ann")
    columns = {"id": ["a1"], "text": ["text of a1"], "subject": ["ann"]}
    file = io.BytesIO()
    pq.write_table(pa.table({**columns, "vector": [vector("x").tolist()]}), file)
    report = imported(database, file.getvalue())
    assert (report.num_created, report.num_suppressed) == (1, 0)


def test_erasures_of_other_tenants_do_not_show(database: Database, export: bytes):
    erase(database, subject="ann", collection=None)
    report = imported(database, export, "other/c")
    assert (report.num_created, report.num_suppressed) == (3, 0)


def test_export_without_its_name_is_known_by_the_collection(database: Database, export: bytes):
    file = pq.ParquetFile(io.BytesIO(export))
    metadata = {n: file.metadata.metadata[n.encode()].decode() for n in (VERSION, SETTINGS)}
    assert file.metadata.metadata[SOURCE.encode()] == b"c"
    older = sealed(file.read().cast(EXPORT), metadata)
    erase(database, document_ids=("a1",))
    assert imported(database, older).num_suppressed == 1
    assert stored(database) == {"a2", "b1"}


def test_erasure_during_an_import_holds_for_the_rest(
    database: Database, export: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("deployments.stores.imports.MAX_DOCUMENTS", 1)
    CollectionStore(database).delete("c")
    parts = iter([None, lambda: erase(database, subject="ann", collection=None), None])

    def between() -> bool:
        act = next(parts)
        if act is not None:
            act()
        return False

    report = Import(database, Suppressions(PEPPER), "c").run(io.BytesIO(export), between)
    assert (report.num_created, report.num_suppressed) == (2, 1)
    assert stored(database) == {"b1"}
