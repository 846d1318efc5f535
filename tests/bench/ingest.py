"""How fast ready vectors are imported from Parquet into SQLite, against SQLite alone.

    python -m tests.bench.ingest --rows 20000 --dim 384

The limit is plain `sqlite3`: `executemany` of the same bytes into the same tables with the same
indexes, and one commit for as many rows. Import and limit take turns, each in a file of its own.
"""

import argparse
import io
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from deployments.stores import schema
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.exports import Export
from deployments.stores.imports import MAX_DOCUMENTS, Import
from deployments.stores.migrations import migrate
from deployments.stores.suppressions import Suppressions
from deployments.types import CollectionSettings

GOAL = 10_000
COLLECTION = "bench"
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON")


def parquet(num_rows: int, dim: int) -> bytes:
    """Return a plain table of random unit vectors and texts of 250 characters."""
    random = np.random.default_rng(1)
    vectors = random.standard_normal((num_rows, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = pa.table(
        {
            "id": [f"d{i}" for i in range(num_rows)],
            "text": [f"document {i:08} " * 14 for i in range(num_rows)],
            "metadata": [f'{{"n":{i},"tag":"x"}}' for i in range(num_rows)],
            "vector": pa.FixedSizeListArray.from_arrays(vectors.ravel(), dim),
        }
    )
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def empty(folder: Path, name: str, dim: int) -> Database:
    url = f"sqlite:///{folder / name}"
    migrate(url)
    database = Database(url)
    settings = CollectionSettings(embedding_model="", dim=dim)
    CollectionStore(database).create(COLLECTION, settings)
    return database


def ours(database: Database, content: bytes, num_rows: int) -> float:
    """Return the rows per second of an import, from the Parquet file to the last commit."""
    start_s = time.perf_counter()
    report = Import(database, Suppressions(bytes(32)), COLLECTION).run(io.BytesIO(content))
    rate = num_rows / (time.perf_counter() - start_s)
    assert report.num_created == num_rows
    return rate


def exported(database: Database, num_rows: int) -> float:
    start_s = time.perf_counter()
    export = Export(database, COLLECTION)
    for _ in export.pieces():
        pass
    assert export.num_documents == num_rows
    return num_rows / (time.perf_counter() - start_s)


def limit(source: Path, target: Path, num_rows: int) -> float:
    """Return the rows per second of plain SQLite, which finds all values ready in memory."""
    reader = sqlite3.connect(source)
    tables = [table.name for table in (schema.documents, schema.chunks)]
    rows = {name: reader.execute(f"SELECT * FROM {name}").fetchall() for name in tables}  # noqa: S608
    collections = reader.execute("SELECT * FROM collections").fetchall()
    reader.close()
    migrate(f"sqlite:///{target}")
    writer = sqlite3.connect(target, isolation_level=None)
    for pragma in PRAGMAS:
        writer.execute(f"PRAGMA {pragma}")
    marks = {name: ",".join("?" * len(rows[name][0])) for name in tables}
    writer.executemany(
        f"INSERT INTO collections VALUES ({','.join('?' * len(collections[0]))})", collections
    )
    start_s = time.perf_counter()
    for first in range(0, num_rows, MAX_DOCUMENTS):
        writer.execute("BEGIN IMMEDIATE")
        for name in tables:
            part = rows[name][first : first + MAX_DOCUMENTS]
            writer.executemany(f"INSERT INTO {name} VALUES ({marks[name]})", part)
        writer.execute("COMMIT")
    rate = num_rows / (time.perf_counter() - start_s)
    writer.close()
    return rate


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    content = parquet(options.rows, options.dim)
    rates: dict[str, list[float]] = {"import": [], "plain sqlite3": [], "export": []}
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            database = empty(folder, "ours.db", options.dim)
            rates["import"].append(ours(database, content, options.rows))
            rates["export"].append(exported(database, options.rows))
            database.close()
            plain = limit(folder / "ours.db", folder / f"plain{number}.db", options.rows)
            rates["plain sqlite3"].append(plain)
    table = Table("", "rows/s, median", "lowest ... highest", "goal")
    for name, values in rates.items():
        spread = f"{min(values):.0f} ... {max(values):.0f}"
        goal = f"{GOAL}" if name == "import" else ""
        table.add_row(name, f"{statistics.median(values):.0f}", spread, goal)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
