"""Any sequence of writes by two replicas: both find what a plain dictionary says."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from deployments.config import RetrieverArgs
from deployments.errors import CollectionNotFound, DocumentNotFound
from deployments.stores import changes, dense, writes
from deployments.stores.collections import CollectionStore
from deployments.stores.database import Database
from deployments.stores.documents import DocumentStore
from deployments.stores.migrations import migrate
from deployments.stores.search import Searcher
from deployments.types import ScoredChunk, SearchRequest
from tests.unit.stores.material import MODEL, doc, embed, put, vector

WORDS = ["apple", "pear", "猫が好き", "🚀", "naïve", "שלום", "x" * 30]
SIZE = 12
ids = st.sampled_from("abcdef")
texts = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)


class Replicas(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        url = f"sqlite:///{self.folder / 'state' / 'test.db'}"
        migrate(url)
        self.database = Database(url)
        self.replicas = [Searcher(self.database, RetrieverArgs()) for _ in range(2)]
        self.stored: dict[str, str] | None = None

    def teardown(self) -> None:
        self.database.close()
        shutil.rmtree(self.folder)

    @rule(batch=st.dictionaries(ids, texts, min_size=1, max_size=4))
    def upsert(self, batch: dict[str, str]) -> None:
        before = self.stored or {}
        indexed = put(self.database, [doc(key, text) for key, text in batch.items()], size=SIZE)
        for one, (key, text) in zip(indexed, batch.items(), strict=True):
            old = before.get(key)
            expected = "created" if old is None else "unchanged" if old == text else "replaced"
            assert (one.id, one.status) == (key, expected)
        self.stored = before | batch

    @rule(key=ids)
    def delete(self, key: str) -> None:
        try:
            DocumentStore(self.database).delete("c", key)
        except (CollectionNotFound, DocumentNotFound):
            assert key not in (self.stored or {})
        else:
            del self.stored[key]

    @rule()
    def drop(self) -> None:
        if self.stored is not None:
            CollectionStore(self.database).delete("c")
        self.stored = None

    @rule(replica=st.integers(0, 1))
    def restart(self, replica: int) -> None:
        self.replicas[replica] = Searcher(self.database, RetrieverArgs())

    @rule(
        replica=st.integers(0, 1),
        query=st.sampled_from(WORDS),
        top_k=st.integers(1, 12),
        min_score=st.none() | st.floats(-1, 1),
    )
    def dense_equals_brute_force(self, replica, query, top_k, min_score) -> None:
        chunks = self.search(replica, query, "dense", top_k, min_score)
        assert all(c.text == self.stored[c.document_id][c.start : c.end] for c in chunks)
        expected = sorted((float(v @ vector(query)) for v in self.vectors()), reverse=True)
        bound = -2.0 if min_score is None else min_score
        near = [value for value in expected if value >= bound - 1e-5][:top_k]
        sure = [value for value in expected if value >= bound + 1e-5][:top_k]
        assert len(sure) <= len(chunks) <= len(near)
        np.testing.assert_allclose([c.score for c in chunks], near[: len(chunks)], atol=1e-5)

    @rule(replica=st.integers(0, 1), word=st.sampled_from(WORDS[:2]))
    def lexical_finds_exactly_the_chunks_with_the_word(self, replica: int, word: str) -> None:
        expected = {
            (key, segment.start)
            for key, text in (self.stored or {}).items()
            for segment in embed(text, SIZE).segments
            if word in text[segment.start : segment.end].split()
        }
        chunks = self.search(replica, word, "lexical", 100, None)
        assert {(chunk.document_id, chunk.start) for chunk in chunks} == expected

    @rule(query=st.sampled_from(WORDS), top_k=st.integers(1, 12))
    def replicas_agree(self, query: str, top_k: int) -> None:
        first, second = (self.search(i, query, "dense", top_k, None) for i in range(2))
        assert first == second
        everything = [
            {c.chunk_id for c in self.search(i, query, "hybrid", 999, None)} for i in (0, 1)
        ]
        assert everything[0] == everything[1]

    @invariant()
    def sizes_add_up(self) -> None:
        if getattr(self, "stored", None) is not None:
            info = CollectionStore(self.database).get("c")
            assert info.num_documents == len(self.stored)
            assert info.num_chunks == len(self.vectors())

    def vectors(self) -> list[np.ndarray]:
        return [v for text in (self.stored or {}).values() for v in embed(text, SIZE).vectors]

    def search(self, replica: int, query: str, mode, top_k, min_score) -> list[ScoredChunk]:
        request = SearchRequest(
            collection="c", query=query, mode=mode, top_k=top_k, min_score=min_score
        )
        try:
            return self.replicas[replica].search(request, vector(query), MODEL)
        except CollectionNotFound:
            assert self.stored is None
            return []


def test_replicas_find_what_is_stored(monkeypatch):
    monkeypatch.setattr(changes, "MAX_ROWS", 3)
    monkeypatch.setattr(dense, "MIN_DEAD_ROWS", 4)
    monkeypatch.setattr(writes, "LOG_LENGTH", 3)
    run_state_machine_as_test(
        Replicas,
        settings=settings(max_examples=10, stateful_step_count=25, deadline=None),
    )
