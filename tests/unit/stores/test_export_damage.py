"""An export that was changed on its way is refused, and so is one that does not fit."""

import io
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployments.errors import Conflict, RagError
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.exports import EXPORT, SETTINGS, VERSION
from deployments.stores.seals import sealed
from deployments.types import CollectionSettings
from tests.unit.stores.material import DIM, MODEL, doc, put
from tests.unit.stores.transfers import DOCUMENTS, exported, imported


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, migrated_file: Path) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "x.db"
    path.write_bytes(migrated_file.read_bytes())
    database = Database(f"sqlite:///{path}")
    put(database, [*DOCUMENTS, *(doc(f"d{i}", f"text {i} " * 9) for i in range(30))])
    content = exported(database)
    database.close()
    return content


@pytest.mark.parametrize("seed", range(210))
def test_damaged_export_is_refused_and_stores_nothing(seed: int, whole: bytes, database: Database):
    damaged = damage(whole, random.Random(seed))
    assert damaged != whole
    with pytest.raises(RagError) as caught:
        imported(database, damaged, "d")
    assert type(caught.value).status in (400, 404, 422)
    assert CollectionStore(database).list() == []


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


def test_table_that_claims_to_be_an_export_is_refused(database: Database):
    put(database, [doc("1")])
    file = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(exported(database))), file)
    with pytest.raises(RagError):
        imported(database, file.getvalue(), "d")


def test_vectors_of_an_export_are_checked(database: Database):
    put(database, [doc("1")])
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
