"""A replica's searcher and maintenance over a state folder of the tests, and what it answers."""

from dataclasses import replace
from pathlib import Path

from deployments.config import RetrieverArgs
from deployments.stores.buckets import WHOLE, Shard
from deployments.stores.changes import heads
from deployments.stores.collection_rows import change_collection
from deployments.stores.collections import require_collection
from deployments.stores.database import Database
from deployments.stores.follower import Follower
from deployments.stores.maintenance import Maintenance, Pace
from deployments.stores.search import Searcher
from deployments.types import Condition, ScoredChunk, SearchRequest
from tests.unit.stores.material import MODEL, doc, put, vector

PACE = Pace(interval_s=0.01, sweep_s=-1.0, min_rows=1, min_changed=0.1)

REQUESTS = [
    SearchRequest(collection="c", query="word 3", top_k=20, **options)
    for options in (
        {"mode": "dense"},
        {"mode": "lexical"},
        {"mode": "hybrid"},
        {"mode": "dense", "filter": Condition("n", "lt", 20)},
        {"mode": "lexical", "filter": Condition("tags", "contains", "even")},
        {"mode": "hybrid", "max_per_document": 1},
    )
]


class Replica:
    """What a Retriever has, without its threads."""

    def __init__(
        self,
        database: Database,
        state: Path,
        shard: Shard = WHOLE,
        pace: Pace = PACE,
        **args: int,
    ) -> None:
        self.searcher = Searcher(database, RetrieverArgs(**args), shard, state)
        self.maintenance = Maintenance(self.searcher, database, pace)

    @property
    def snapshots(self):
        assert self.searcher.snapshots is not None
        return self.searcher.snapshots

    def find(self, request: SearchRequest = REQUESTS[0], **options: object) -> list[ScoredChunk]:
        request = replace(request, **options)
        return self.searcher.search(request, vector(request.query), MODEL)

    def answers(self) -> list[list[tuple[str, float, float | None]]]:
        """Return what it answers to every request; scores of words are rounded."""
        return [
            [(hit.chunk_id, round(hit.score, 5), hit.cosine) for hit in self.find(request)]
            for request in REQUESTS
        ]

    def close(self) -> None:
        self.maintenance.close()
        self.searcher.close()


def fill(database: Database, num_documents: int = 60, first: int = 0, collection: str = "c"):
    """Store documents of which words, vectors and metadata differ."""
    documents = [
        doc(
            f"d{i}",
            f"word {i % 5} " * (1 + i % 7) + f"unique{i}",
            n=i,
            tags=["even"] if i % 2 == 0 else ["odd", i],
            note=None if i % 3 else "note",
        )
        for i in range(first, first + num_documents)
    ]
    put(database, documents, collection=collection)


def change(database: Database, **values: object) -> str:
    """Change the collection's row; return its id."""
    with database.write() as connection:
        change_collection(connection, require_collection(connection, "c"), **values)
    (collection_id,) = heads(database.rows)
    return collection_id


def only(replica: Replica) -> Follower:
    """Return the follower of the one collection that it has in memory."""
    (follower,) = replica.searcher.followers.all()
    return follower


def snapshots_in(state: Path) -> list[str]:
    """Return the names of the whole snapshots in a state folder."""
    return [path.name for path in state.glob("snapshots/*/*/*") if path.name.isdecimal()]
