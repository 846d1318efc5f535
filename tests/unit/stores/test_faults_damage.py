"""A damaged database file or log: what comes back is what was stored, or an error.

One thing cannot be told from a crash: SQLite drops a log from the first damaged frame on, so the
transactions since the last checkpoint may be missing, each of them wholly.
"""

import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployments.config import RetrieverArgs
from deployments.errors import RagError
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.migrations import migrate
from deployments.stores.search import Searcher
from deployments.types import SearchRequest
from tests.faults import IS_COMPLETE
from tests.unit.stores.material import MODEL, doc, put, vector

NUM_VARIANTS = 2000 if IS_COMPLETE else 200
PAGE = 4096
NAMES = [f"doc{number}" for number in range(40)]
Answers = dict[str, Any]


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a folder whose log holds the last writes, and one of an earlier moment."""
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
    kept = folder / "kept"
    shutil.copytree(state, kept)
    database.close()
    assert (kept / "test.db-wal").stat().st_size > 10 * PAGE
    return kept, older


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


def answers(state: Path) -> Answers:
    """Return what a replica says of every document and to some searches; None where it refuses."""
    database = Database(f"sqlite:///{state / 'test.db'}")
    said: Answers = {}
    try:
        searcher, store = Searcher(database, RetrieverArgs()), DocumentStore(database)
        for name in NAMES:
            said[name] = told(lambda name=name: store.get("c", name).document)
        for mode, word in (("dense", "doc1"), ("lexical", "version1"), ("lexical", "version3")):
            request = SearchRequest(collection="c", query=word, mode=mode, top_k=1000)
            found = told(lambda r=request, w=word: searcher.search(r, vector(w), MODEL))
            said[f"{mode} {word}"] = found and sorted(map(repr, found))
    finally:
        database.close()
    return said


def told(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except (RagError, ValueError):
        return None


def wrong(said: Answers, truths: list[Answers]) -> set[str]:
    """Return the questions whose answer was never true."""
    return {key for key, value in said.items() if value not in (None, *(t[key] for t in truths))}


def difference(said: Answers, truth: Answers, bad: set[str]) -> list[Any]:
    """Return what one wrong answer has that the true one has not, and the other way round."""
    key = min(bad)
    if not isinstance(said[key], list):
        return [said[key], truth[key]]
    pairs = ((said[key], truth[key]), (truth[key], said[key]))
    return [key, *([one for one in these if one not in those] for these, those in pairs)]


def kind_of(said: Answers, newest: Answers) -> str:
    if None in said.values():
        return "partly refused"
    return "identical" if said == newest else "older"


def truths_of(states: tuple[Path, Path], folder: Path) -> list[Answers]:
    """Return the answers at each commit that the files hold, the newest first."""
    kept, older = states
    truths = []
    for number, (source, has_log) in enumerate([(kept, True), (older, True), (kept, False)]):
        state = Path(shutil.copytree(source, folder / f"truth{number}"))
        (state / "test.db-shm").unlink()
        if not has_log:
            (state / "test.db-wal").unlink()
        truths.append(answers(state))
        assert None not in truths[-1].values()
    return truths


def test_damaged_files_never_answer_wrongly(states: tuple[Path, Path], tmp_path: Path):
    rng = random.Random(2026)
    truths = truths_of(states, tmp_path)
    seen: Counter[str] = Counter()
    failures = []
    for number in range(NUM_VARIANTS):
        damage, name = DAMAGES[number % len(DAMAGES)], ("test.db", "test.db-wal")[number % 2]
        state = Path(shutil.copytree(states[0], tmp_path / "state"))
        (state / "test.db-shm").unlink()
        data = bytearray((state / name).read_bytes())
        damage(data, rng)
        (state / name).write_bytes(data)
        try:
            said = answers(state)
        except RagError:
            seen[f"{name} {damage.__name__}: refused"] += 1
        else:
            kind = kind_of(said, truths[0])
            bad = wrong(said, truths if name == "test.db-wal" else truths[:1])
            if bad:
                failures.append((number, name, damage.__name__, difference(said, truths[0], bad)))
                kind = "WRONG"
            seen[f"{name} {damage.__name__}: {kind}"] += 1
        shutil.rmtree(state)
    print("", *sorted(seen.items()), sep="\n")
    assert failures == []


def test_log_of_another_moment_is_not_mixed_in(states: tuple[Path, Path], tmp_path: Path):
    truths = truths_of(states, tmp_path)
    state = Path(shutil.copytree(states[0], tmp_path / "state"))
    (state / "test.db-shm").unlink()
    shutil.copy(states[1] / "test.db-wal", state / "test.db-wal")
    assert wrong(answers(state), truths) == set()
    connection = sqlite3.connect(state / "test.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
