"""A damaged database file or log: what comes back is what was stored last, or a refusal."""

import io
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from deployments.config import RetrieverArgs
from deployments.errors import DatabaseDamaged, RagError, StoreUnavailable
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.exports import Export
from deployments.stores.keys import KeyStore
from deployments.stores.migrations import migrate
from deployments.stores.search import Searcher
from deployments.types import SearchRequest
from tests.faults import IS_COMPLETE
from tests.unit.stores.material import MODEL, doc, put, vector

NUM_VARIANTS = 200 if IS_COMPLETE else 35
PAGE = 4096
NAMES = [f"doc{number}" for number in range(40)]
Answers = dict[str, Any]


@dataclass(frozen=True)
class States:
    """Folders whose log holds the last writes, of an earlier moment, and without a log; a key."""

    kept: Path
    older: Path
    folded: Path
    bearer: str


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> States:
    folder = tmp_path_factory.mktemp("damage")
    state, older = folder / "state", folder / "older"
    url = f"sqlite:///{state / 'test.db'}"
    migrate(url)
    database = Database(url)
    put(database, [document(name, 1) for name in NAMES])
    database.close()
    put(database, [document(name, 2) for name in NAMES[:10]])
    shutil.copytree(state, older)
    put(database, [document(name, 3) for name in NAMES[5:15]])
    _, bearer = KeyStore(database, state).create("reader")
    kept = folder / "kept"
    shutil.copytree(state, kept)
    database.close()
    folded = Path(shutil.copytree(state, folder / "folded"))
    assert (kept / "test.db-wal").stat().st_size > 10 * PAGE
    return States(kept, older, folded, bearer)


def document(name: str, version: int):
    return doc(name, f"{name} version{version} " * 6, f"title of {name}", version=version)


def flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def zero(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) // PAGE) * PAGE
    data[start : start + PAGE] = bytes(PAGE)


def swap(data: bytearray, rng: random.Random) -> None:
    first, second = (rng.randrange(len(data) // PAGE) * PAGE for _ in range(2))
    one, other = data[first : first + PAGE], data[second : second + PAGE]
    data[first : first + PAGE], data[second : second + PAGE] = other, one


def noise(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    size = min(len(data) - start, rng.randrange(1, 64))
    data[start : start + size] = rng.randbytes(size)


Damage = Callable[[bytearray, random.Random], None]
DAMAGES: list[Damage] = [flip, flip, flip, noise, cut, zero, swap]


def answers(state: Path, bearer: str) -> Answers:
    """Return what a replica says of everything that is stored; None where it refuses.

    That something is not found is an answer.
    """
    database = Database(f"sqlite:///{state / 'test.db'}")
    said: Answers = {}
    try:
        searcher, store = Searcher(database, RetrieverArgs()), DocumentStore(database)
        for name in NAMES:
            said[name] = told(lambda name=name: store.get("c", name).document)
        said["page"] = told(lambda: store.page("c", 1000))
        said["collections"] = told(lambda: CollectionStore(database).list())
        said["keys"] = told(lambda: KeyStore(database, state).list())
        said["key"] = told(lambda: KeyStore(database, state).verify(bearer))
        said["export"] = told(lambda: exported(database))
        for mode, word in (("dense", "doc1"), ("lexical", "version1"), ("lexical", "version3")):
            request = SearchRequest(collection="c", query=word, mode=mode, top_k=1000)
            found = told(lambda r=request, w=word: searcher.search(r, vector(w), MODEL))
            said[f"{mode} {word}"] = (
                found if isinstance(found, str | None) else sorted(map(repr, found))
            )
    finally:
        database.close()
    return said


def exported(database: Database) -> list[Any]:
    """Return the rows of an export; its bytes differ with the version of the writer."""
    raw = io.BytesIO(b"".join(Export(database, "c").pieces()))
    return pq.read_table(raw).to_pylist()


def told(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except (DatabaseDamaged, StoreUnavailable):
        return None
    except RagError as error:
        return repr(error)


def wrong(said: Answers, truth: Answers) -> set[str]:
    """Return the questions whose answer is not the true one."""
    return {key for key, value in said.items() if value not in (None, truth[key])}


def difference(said: Answers, truth: Answers, bad: set[str]) -> list[Any]:
    """Return what one wrong answer has that the true one has not, and the other way round."""
    key = min(bad)
    if not isinstance(said[key], list):
        return [key, said[key], truth[key]]
    pairs = ((said[key], truth[key]), (truth[key], said[key]))
    return [key, *([one for one in these if one not in those] for these, those in pairs)]


def kind_of(said: Answers, truth: Answers) -> str:
    refused = sum(value is None for value in said.values())
    if not refused:
        return "identical" if said == truth else "WRONG"
    return "refused" if refused == len(said) else "partly refused"


@pytest.fixture(scope="module")
def truth(states: States, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Return the answers of the undamaged files."""
    state = Path(shutil.copytree(states.kept, tmp_path_factory.mktemp("truth") / "state"))
    (state / "test.db-shm").unlink()
    said = answers(state, states.bearer)
    assert None not in said.values()
    assert not any(isinstance(value, str) for value in said.values())
    return said


FILES = {
    "database without a log": ("folded", "test.db"),
    "database under a log": ("kept", "test.db"),
    "log": ("kept", "test.db-wal"),
}


@pytest.mark.parametrize("kind_of_file", FILES)
def test_damaged_file_never_answers_wrongly(
    kind_of_file: str, states: States, truth: Answers, tmp_path: Path
):
    folder, name = FILES[kind_of_file]
    rng = random.Random(2026)
    seen: Counter[str] = Counter()
    failures = []
    for number in range(NUM_VARIANTS):
        damage = DAMAGES[number % len(DAMAGES)]
        state = Path(shutil.copytree(getattr(states, folder), tmp_path / "state"))
        (state / "test.db-shm").unlink(missing_ok=True)
        data = bytearray((state / name).read_bytes())
        damage(data, rng)
        (state / name).write_bytes(data)
        said = answers(state, states.bearer)
        kind = kind_of(said, truth)
        if bad := wrong(said, truth):
            failures.append((number, damage.__name__, difference(said, truth, bad)))
            kind = "WRONG"
        seen[kind] += 1
        seen[f"{damage.__name__}: {kind}"] += 1
        shutil.rmtree(state)
    print(f"\n{kind_of_file}", *sorted(seen.items()), sep="\n")
    assert failures == []


def test_log_of_another_moment_is_refused(states: States, tmp_path: Path):
    state = Path(shutil.copytree(states.kept, tmp_path / "state"))
    (state / "test.db-shm").unlink()
    shutil.copy(states.older / "test.db-wal", state / "test.db-wal")
    assert set(answers(state, states.bearer).values()) == {None}
    connection = sqlite3.connect(state / "test.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


@pytest.mark.parametrize("name", ["test.db", "test.db-wal"])
def test_file_of_an_earlier_moment_or_none_is_refused(name: str, states: States, tmp_path: Path):
    state = Path(shutil.copytree(states.older, tmp_path / "state"))
    for other in states.kept.iterdir():
        if other.name not in (name, "test.db-shm"):
            shutil.copy(other, state / other.name)
    (state / "test.db-shm").unlink()
    if name == "test.db-wal":
        (state / name).unlink()
    else:
        (state / "test.db-wal").unlink()
    assert set(answers(state, states.bearer).values()) == {None}
