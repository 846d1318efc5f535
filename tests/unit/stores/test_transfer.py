"""Collections out as Parquet and in again: what comes back, and what is refused."""

import io
import json
import random
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployments.errors import (
    CollectionNotFound,
    Conflict,
    DeadlineExceeded,
    InvalidRequest,
    RagError,
)
from deployments.stores import imports
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.exports import Export
from deployments.stores.imports import Import
from deployments.stores.suppressions import Suppressions
from deployments.types import CollectionSettings, Document, EmbeddedText, Imported, Segment
from tests.unit.stores.material import DIM, MODEL, doc, embed, put, settings, vector

SUPPRESSIONS = Suppressions(bytes(32))

DOCUMENTS = [
    doc("plain"),
    doc(
        "多语言",
        "检索增强生成。" * 20,
        title="标题 🦜",
        语言="中文",
        list=["a", 1, None],
        none=None,
    ),
    doc("empty", ""),
    Document(
        id="person", text="about someone", subject="subject-1", metadata={"f": 1.5, "b": True}
    ),
]


def exported(database: Database, collection: str = "c") -> bytes:
    return b"".join(Export(database, collection).pieces())


def imported(database: Database, content: bytes, collection: str = "c") -> Imported:
    return Import(database, SUPPRESSIONS, collection).run(io.BytesIO(content))


def table(**columns: object) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def chunks(database: Database, collection: str) -> list[tuple[object, ...]]:
    from sqlalchemy import select

    from deployments.stores import schema

    c = schema.chunks
    with database.read() as connection:
        statement = select(c.c.document_id, c.c.start, c.c.end, c.c.text, c.c.vector, c.c.bucket)
        joined = statement.join(schema.collections, schema.collections.c.id == c.c.collection_id)
        named = joined.where(schema.collections.c.name == collection)
        return sorted(tuple(row) for row in connection.execute(named))


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


@pytest.mark.parametrize("seed", range(210))
def test_damaged_export_is_refused_and_stores_nothing(seed: int, whole: bytes, database: Database):
    damaged = damage(whole, random.Random(seed))
    assert damaged != whole
    with pytest.raises(RagError) as caught:
        imported(database, damaged, "d")
    assert type(caught.value).status in (400, 404, 422)
    assert CollectionStore(database).list() == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, migrated_file: Path) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "x.db"
    path.write_bytes(migrated_file.read_bytes())
    database = Database(f"sqlite:///{path}")
    put(database, [*DOCUMENTS, *(doc(f"d{i}", f"text {i} " * 9) for i in range(30))])
    content = exported(database)
    database.close()
    return content


def damage(content: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(6)
    place = rng.randrange(len(content))
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + content[place + 1 + rng.randrange(20) :]
    if kind == 2:
        return content[:place] + rng.randbytes(1 + rng.randrange(20)) + content[place:]
    if kind == 3:
        start = rng.randrange(max(1, len(content) - 64))
        zeros = bytes(64) if content[start : start + 64] != bytes(64) else b"\x01" * 64
        return content[:start] + zeros + content[start + 64 :]
    if kind == 4:  # the footer, where nothing but the seal looks
        footer = int.from_bytes(content[-8:-4], "little")
        place = len(content) - 1 - rng.randrange(footer + 8)
    flipped = content[place] ^ (1 << rng.randrange(8))
    return content[:place] + bytes([flipped]) + content[place + 1 :]


def test_every_bit_of_the_footer_counts(whole: bytes, database: Database):
    footer = int.from_bytes(whole[-8:-4], "little")
    for place in range(len(whole) - 8 - footer, len(whole), 17):
        damaged = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        with pytest.raises(RagError):
            imported(database, damaged, "d")
    assert CollectionStore(database).list() == []


def test_other_model_dimension_or_metric_is_a_conflict(database: Database):
    put(database, [doc("1")])
    content = exported(database)
    for other in (
        CollectionSettings(embedding_model="other", dim=DIM),
        CollectionSettings(embedding_model=MODEL, dim=DIM + 1),
        CollectionSettings(embedding_model=MODEL, dim=DIM, metric="dot"),
    ):
        CollectionStore(database).create("d", other)
        with pytest.raises(Conflict):
            imported(database, content, "d")
        assert CollectionStore(database).get("d").num_documents == 0
        CollectionStore(database).delete("d")


@pytest.mark.parametrize("kind", ["fixed", "list", "large", "double", "half", "int"])
def test_plain_table_is_stored_with_normalised_vectors(database: Database, kind: str):
    CollectionStore(database).create("c", settings())
    raw = np.random.default_rng(1).integers(1, 9, (3, DIM))
    kinds = {
        "fixed": pa.list_(pa.float32(), DIM),
        "list": pa.list_(pa.float32()),
        "large": pa.large_list(pa.float32()),
        "double": pa.list_(pa.float64()),
        "half": pa.list_(pa.float16()),
        "int": pa.list_(pa.int64()),
    }
    dtype = np.float16 if kind == "half" else None
    vectors = pa.array([row.astype(dtype) if dtype else row.tolist() for row in raw], kinds[kind])
    content = table(id=["a", "b", "c"], text=["one", "two", "three"], vector=vectors)
    assert imported(database, content).num_created == 3
    stored = [np.frombuffer(row[4], "<f4") for row in chunks(database, "c")]
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(stored, expected, atol=1e-6)
    assert [row[1:4] for row in chunks(database, "c")] == [
        (0, 3, "one"),
        (0, 3, "two"),
        (0, 5, "three"),
    ]


def test_plain_table_takes_title_metadata_and_subject(database: Database):
    CollectionStore(database).create("c", settings())
    vectors = [vector(text).tolist() for text in "ab"]
    content = table(
        id=["a", "b"], text=["one", "two"], vector=vectors, title=["题", None],
        metadata=['{"x": [1, null], "y": "é"}', None], subject=[None, "s"],
    )  # fmt: skip
    assert imported(database, content).num_created == 2
    store = DocumentStore(database)
    assert store.get("c", "a").document == Document(
        id="a", text="one", title="题", metadata={"x": [1, None], "y": "é"}
    )
    assert store.get("c", "b").document == Document(id="b", text="two", subject="s")
    content = table(
        id=["a"], text=["one"], vector=vectors[:1],
        metadata=[{"n": 1, "tags": ["x"], "none": None}],
    )  # fmt: skip
    assert imported(database, content).num_replaced == 1
    assert store.get("c", "a").document.metadata == {"n": 1, "tags": ["x"]}


def test_bad_rows_are_reported_and_keep_no_other_out(database: Database):
    CollectionStore(database).create("c", settings())
    good = vector("x").tolist()
    rows = [
        ("ok", "text", good, None, None),
        ("short", "text", good[1:], None, "vector"),
        ("nan", "text", [*good[1:], float("nan")], None, "vector"),
        ("inf", "text", [*good[1:], float("inf")], None, "vector"),
        ("huge", "text", [*good[1:], 1e300], None, "vector"),
        ("null", "text", None, None, "vector"),
        ("hole", "text", [*good[1:], None], None, "vector"),
        ("zero", "text", [0.0] * DIM, None, "vector"),
        ("", "text", good, None, "id"),
        (None, "text", good, None, "id"),
        ("x" * 257, "text", good, None, "id"),
        ("nul\x00", "text", good, None, "id"),
        ("blank", " \n", good, None, "text"),
        ("missing", None, good, None, "text"),
        ("nul", "a\x00b", good, None, "text"),
        ("large", "x" * 2000, good, None, "text"),
        ("nested", "text", good, '{"a": {"b": 1}}', "metadata"),
        ("list", "text", good, "[1]", "metadata"),
        ("broken", "text", good, "{", "metadata"),
        ("built-in", "text", good, '{"_id": 1}', "metadata"),
        ("last", "text", good, "{}", None),
    ]  # fmt: skip
    ids, texts, vectors, metadata, _ = (list(column) for column in zip(*rows, strict=True))
    content = table(
        id=ids, text=texts, vector=pa.array(vectors, pa.list_(pa.float64())), metadata=metadata
    )
    report = Import(database, SUPPRESSIONS, "c", imports.Limits(1000)).run(io.BytesIO(content))
    assert (report.num_rows, report.num_created, report.num_failed) == (21, 2, 19)
    assert [(e.row, e.param) for e in report.errors] == [
        (i, row[4]) for i, row in enumerate(rows) if row[4]
    ]
    assert [e.id for e in report.errors][:3] == ["short", "nan", "inf"]


def test_reported_rows_are_bounded(database: Database):
    CollectionStore(database).create("c", settings())
    content = table(id=[f"d{i}" for i in range(500)], text=["x"] * 500, vector=[[1.0]] * 500)
    report = imported(database, content)
    assert (report.num_failed, len(report.errors)) == (500, imports.MAX_ERRORS)


def test_text_that_is_not_utf8_is_reported(database: Database):
    CollectionStore(database).create("c", settings())
    raw = pa.array([b"fine", b"\xff\xfe"], pa.binary()).view(pa.string())
    content = table(id=["a", "b"], text=raw, vector=[vector("x").tolist()] * 2)
    report = imported(database, content)
    assert (report.num_created, [e.row for e in report.errors]) == (1, [1])


def test_last_of_rows_with_the_same_id_wins(database: Database):
    CollectionStore(database).create("c", settings())
    content = table(id=["a", "b", "a"], text=["1", "2", "3"], vector=[vector("x").tolist()] * 3)
    assert imported(database, content).num_rows == 3
    assert DocumentStore(database).get("c", "a").document.text == "3"


@pytest.mark.parametrize(
    "columns",
    [
        {"id": ["a"], "text": ["b"]},
        {"id": ["a"], "text": ["b"], "vector": [[1.0] * DIM], "other": [1]},
        {"id": [1], "text": ["b"], "vector": [[1.0] * DIM]},
        {"id": ["a"], "text": ["b"], "vector": ["c"]},
        {"id": ["a"], "text": ["b"], "vector": [["c"]]},
        {"id": ["a"], "text": [b"b"], "vector": [[1.0] * DIM]},
    ],
    ids=["no vector", "unknown", "id", "vector", "vector of texts", "binary"],
)
def test_table_with_other_columns_is_invalid(database: Database, columns: dict[str, object]):
    CollectionStore(database).create("c", settings())
    with pytest.raises(InvalidRequest):
        imported(database, table(**columns))
    assert CollectionStore(database).get("c").num_documents == 0


def test_plain_table_needs_a_collection(database: Database):
    with pytest.raises(CollectionNotFound):
        imported(database, table(id=["a"], text=["b"], vector=[[1.0] * DIM]))


def test_table_that_claims_to_be_an_export_is_refused(database: Database):
    put(database, [doc("1")])
    file = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(exported(database))), file)
    with pytest.raises(RagError):
        imported(database, file.getvalue(), "d")


def test_dot_product_keeps_lengths(database: Database):
    made = CollectionSettings(embedding_model="", dim=2, metric="dot")
    CollectionStore(database).create("c", made)
    imported(database, table(id=["a"], text=["b"], vector=[[3.0, 4.0]]))
    assert np.frombuffer(chunks(database, "c")[0][4], "<f4").tolist() == [3, 4]


def test_stopped_import_says_what_it_stored(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(imports, "MAX_DOCUMENTS", 10)
    CollectionStore(database).create("c", settings())
    content = table(
        id=[f"d{i}" for i in range(35)], text=["x"] * 35, vector=[vector("x").tolist()] * 35
    )
    asked = iter([False, False, True])
    with pytest.raises(DeadlineExceeded) as caught:
        Import(database, SUPPRESSIONS, "c").run(io.BytesIO(content), lambda: next(asked))
    assert "first 20 rows" in caught.value.message
    assert CollectionStore(database).get("c").num_documents == 20
    assert imported(database, content).num_unchanged == 20


def test_vectors_of_an_export_are_checked(database: Database):
    put(database, [doc("1")])
    from deployments.stores.exports import EXPORT, SETTINGS, VERSION
    from deployments.stores.seals import sealed

    file = pq.ParquetFile(io.BytesIO(exported(database)))
    metadata = {n: file.metadata.metadata[n.encode()].decode() for n in (VERSION, SETTINGS)}
    row = file.read().to_pylist()[0]
    bad = [
        {**row, "chunks": [{"start": 0, "end": 9, "vector": [2.0] * DIM}]},
        {**row, "chunks": [{"start": 0, "end": 9, "vector": [float("nan")] * DIM}]},
        {**row, "chunks": [{"start": 0, "end": 10, "vector": row["chunks"][0]["vector"]}]},
        {**row, "chunks": [{"start": -1, "end": 9, "vector": row["chunks"][0]["vector"]}]},
        {**row, "created_at": "yesterday"},
    ]
    content = sealed(pa.Table.from_pylist(bad, EXPORT), metadata)
    assert imported(database, content, "d").num_failed == 5
    other = {**metadata, VERSION: "99"}
    with pytest.raises(RagError, match="format"):
        imported(database, sealed(pa.Table.from_pylist([row], EXPORT), other), "e")
    assert json.loads(metadata[SETTINGS])["dim"] == DIM


def test_segments_overlap_as_they_did(database: Database):
    document = Document(id="1", text="0123456789")
    vectors = np.stack([vector("a"), vector("b")])
    made = EmbeddedText((Segment(0, 6, 1), Segment(4, 10, 1)), vectors)
    DocumentStore(database).upsert("c", MODEL, [document], [made])
    imported(database, exported(database), "d")
    assert chunks(database, "d") == chunks(database, "c")
