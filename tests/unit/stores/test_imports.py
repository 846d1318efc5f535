"""Plain tables: what is stored of them, and which rows are refused."""

import io

import numpy as np
import pyarrow as pa
import pytest

from deployments.errors import CollectionNotFound, DeadlineExceeded, InvalidRequest
from deployments.stores import imports
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.imports import Import
from deployments.types import CollectionSettings, Document
from tests.unit.stores.material import DIM, settings, vector
from tests.unit.stores.transfers import SUPPRESSIONS, chunks, imported, table


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


def test_dot_product_keeps_lengths(database: Database):
    made = CollectionSettings(embedding_model="", dim=2, metric="dot")
    CollectionStore(database).create("c", made)
    imported(database, table(id=["a"], text=["b"], vector=[[3.0, 4.0]]))
    assert np.frombuffer(chunks(database, "c")[0][4], "<f4").tolist() == [3, 4]


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


def test_plain_table_needs_a_collection(database: Database):
    with pytest.raises(CollectionNotFound):
        imported(database, table(id=["a"], text=["b"], vector=[[1.0] * DIM]))


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
