"""An export is one state of a collection, and comes back to the bit."""

import io
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest

from deployments.errors import CollectionNotFound
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.exports import Export
from deployments.types import CollectionSettings, Document, EmbeddedText, Segment
from tests.unit.stores.material import MODEL, doc, embed, put, vector
from tests.unit.stores.transfers import DOCUMENTS, chunks, exported, imported


def test_export_comes_back_to_the_bit(database: Database):
    put(database, DOCUMENTS)
    report = imported(database, exported(database), "d")
    assert (report.num_rows, report.num_created, report.num_failed) == (4, 4, 0)
    store = DocumentStore(database)
    for document in DOCUMENTS:
        assert store.get("d", document.id) == store.get("c", document.id)
    assert chunks(database, "d") == chunks(database, "c") != []
    copy, original = (CollectionStore(database).get(name) for name in "dc")
    assert (copy.embedding_model, copy.dim, copy.metric, copy.index, copy.num_chunks) == (
        (
            original.embedding_model,
            original.dim,
            original.metric,
            original.index,
            original.num_chunks,
        )
    )


def test_import_of_ones_own_export_changes_nothing(database: Database):
    put(database, DOCUMENTS)
    sequence = CollectionStore(database).get("c").sequence
    assert imported(database, exported(database)).num_unchanged == 4
    assert CollectionStore(database).get("c").sequence == sequence
    imported(database, exported(database), "d")
    assert [one.status for one in put(database, DOCUMENTS, "d")] == ["unchanged"] * 4


def test_own_vectors_stay_own(database: Database):
    made = embed("x" * 30)
    ready = Document(id="1", text="x" * 30, embedded=made)
    DocumentStore(database).upsert("c", MODEL, [ready], [made])
    imported(database, exported(database), "d")
    again = DocumentStore(database).upsert("d", MODEL, [ready], [made])
    assert again[0].status == "unchanged"


def test_empty_collection_keeps_its_settings(database: Database):
    made = CollectionSettings(
        description="说明", embedding_model="", dim=3, metric="l2", default_metadata={"a": [1]}
    )
    CollectionStore(database).create("c", made)
    assert imported(database, exported(database), "d").num_rows == 0
    copy = CollectionStore(database).get("d")
    assert (copy.description, copy.metric, copy.dim) == ("说明", "l2", 3)
    assert (copy.default_metadata, copy.embedding_model) == ({"a": [1]}, "")


def test_export_in_many_row_groups(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("deployments.stores.exports.GROUP_BYTES", 2000)
    monkeypatch.setattr("deployments.stores.imports.MAX_DOCUMENTS", 7)
    put(database, [doc(f"d{i}", f"text {i} " * 9) for i in range(60)])
    content = exported(database)
    assert pq.ParquetFile(io.BytesIO(content)).num_row_groups > 3
    assert imported(database, content, "d").num_created == 60
    assert chunks(database, "d") == chunks(database, "c")


def test_segments_overlap_as_they_did(database: Database):
    document = Document(id="1", text="0123456789")
    vectors = np.stack([vector("a"), vector("b")])
    made = EmbeddedText((Segment(0, 6, 1), Segment(4, 10, 1)), vectors)
    DocumentStore(database).upsert("c", MODEL, [document], [made])
    imported(database, exported(database), "d")
    assert chunks(database, "d") == chunks(database, "c")


def test_missing_collection_is_not_exported(database: Database):
    with pytest.raises(CollectionNotFound):
        exported(database, "none")


def test_export_is_one_state_while_a_writer_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("deployments.stores.exports.GROUP_BYTES", 500)
    ids = [f"d{i:03}" for i in range(50)]
    put(database, [doc(key, "version 0 " * 5) for key in ids])
    stop, num_writes = threading.Event(), 0

    def write() -> None:
        nonlocal num_writes
        while not stop.is_set():
            num_writes += 1
            put(database, [doc(key, f"version {num_writes} " * 5) for key in ids])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        states = []
        for _ in range(5):
            pieces, before = [], num_writes
            for piece in Export(database, "c").pieces():
                pieces.append(piece)
                while num_writes < before + 2 and len(pieces) == 1:
                    stop.wait(0.01)
            states.append(pq.read_table(io.BytesIO(b"".join(pieces))))
    finally:
        stop.set()
        writer.join()
    for state in states:
        assert state.num_rows == 50
        assert len(set(state["text"].to_pylist())) == 1, "two states in one export"
