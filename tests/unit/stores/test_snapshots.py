"""A snapshot answers as the log does, and never instead of it when anything is wrong with it."""

from pathlib import Path

import pytest

from deployments.config import RetrieverArgs
from deployments.stores import lexical
from deployments.stores.buckets import Shard
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.search import Searcher
from tests.unit.stores.material import doc, put
from tests.unit.stores.replica import Replica, fill


def saved(database: Database, state: Path, **options: object) -> Path:
    """Have a replica write a snapshot; return its folder."""
    replica = Replica(database, state, **options)
    replica.find()
    replica.maintenance.round()
    replica.close()
    (folder,) = newest(state)
    return folder


def newest(state: Path) -> list[Path]:
    return [path for path in state.glob("snapshots/*/*/*") if path.name.isdecimal()]


def expected(database: Database) -> list[list[tuple[str, float, float | None]]]:
    replica = Replica(database, Path("/nowhere"))
    replica.searcher = Searcher(database, RetrieverArgs())
    return replica.answers()


@pytest.mark.parametrize("max_in_memory", [0, 1000], ids=["folder", "memory"])
def test_snapshot_and_the_rest_of_the_log_answer_as_the_whole_log(
    database: Database, state: Path, monkeypatch: pytest.MonkeyPatch, max_in_memory: int
):
    monkeypatch.setattr(lexical.LexicalIndex.__init__, "__defaults__", (None, max_in_memory))
    fill(database)
    put(database, [doc(f"d{i}", f"other word {i}", n=i) for i in range(0, 60, 7)])
    saved(database, state)
    replica = Replica(database, state)
    assert replica.answers() == expected(database)
    assert replica.snapshots.num_loaded == 1
    put(database, [doc("new", "word 3 fresh", n=3)])
    DocumentStore(database).delete("c", "d3")
    later = Replica(database, state)
    assert later.answers() == replica.answers()
    assert [[hit[0] for hit in hits] for hits in later.answers()[:1]] == [
        [hit[0] for hit in hits] for hits in expected(database)[:1]
    ]
    assert later.snapshots.num_loaded == 1


def test_snapshot_of_a_loaded_snapshot_answers_alike(database: Database, state: Path):
    fill(database)
    saved(database, state)
    second = Replica(database, state)
    fill(database, 30, first=60)
    second.find()
    second.maintenance.round()
    assert second.snapshots.num_saved == 1
    assert len(newest(state)) == 1, "the older one goes"
    third = Replica(database, state)
    assert third.answers() == second.answers()
    assert {hit[0] for hit in third.answers()[0]} == {hit[0] for hit in expected(database)[0]}
    assert third.snapshots.num_loaded == 1


def test_shards_have_their_own(database: Database, state: Path):
    fill(database)
    shards = [Shard(index, 2) for index in range(2)]
    for shard in shards:
        replica = Replica(database, state, shard)
        replica.find()
        replica.maintenance.round()
    names = {folder.parent.name for folder in newest(state)}
    assert names == {"0-of-2", "1-of-2"}
    found = []
    for shard in shards:
        replica = Replica(database, state, shard)
        found += [chunk.chunk_id for chunk in replica.find(top_k=1000)]
        assert replica.snapshots.num_loaded == 1
    everything = Replica(database, state).find(top_k=1000)
    assert len(found) == len(everything)
    assert set(found) == {chunk.chunk_id for chunk in everything}
