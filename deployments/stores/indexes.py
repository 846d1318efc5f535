"""The indexes of one collection, asked together: vectors, terms and metadata.

Their caller keeps readers and writers apart. They name chunks by number and documents by row, and
know nothing of the text or the database.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.stores.changes import Changes, Head
from deployments.stores.dense import DenseIndex, Selection
from deployments.stores.hits import Hit, first_of_each, fuse
from deployments.stores.lexical import LexicalIndex
from deployments.stores.metadata import MetadataIndex
from deployments.stores.metadata_file import load_metadata, save_metadata
from deployments.stores.plans import Limits
from deployments.stores.workspace import Workspace
from deployments.types import SearchRequest

Query = NDArray[np.float32]

MIN_BESIDE = 100_000
"""Chunks from which on the two searches of a hybrid one run beside each other.

Source: at 1,000,000, a hybrid search takes 1.7 times as long as a dense one then, one after the
other 2.2 times (`tests/bench/start.py`). Where a search is short, to wake a thread costs as much.
"""

_BESIDE = ThreadPoolExecutor(os.cpu_count(), "lexical")


class Indexes:
    """What is staged shows in none of them until `show`."""

    DENSE, LEXICAL, METADATA = "dense", "lexical", "metadata.arrow"
    """What a snapshot's files and folders are called."""

    def __init__(self, dense: DenseIndex, lexical: LexicalIndex, metadata: MetadataIndex) -> None:
        """Take indexes of one and the same state."""
        self.dense = dense
        self.lexical = lexical
        self.metadata = metadata

    @classmethod
    def empty(
        cls, head: Head, limits: Limits | None = None, workspace: Workspace | None = None
    ) -> "Indexes":
        """Return indexes without chunks."""
        dense = DenseIndex(head.dim, head.metric, head.index, limits)
        return cls(dense, LexicalIndex(workspace), MetadataIndex())

    @property
    def num_bytes(self) -> int:
        """Return the bytes held."""
        return self.dense.num_bytes + self.lexical.num_bytes + self.metadata.num_bytes

    @property
    def can_save(self) -> bool:
        """Return whether `save` works: not when the disk had no room for the words."""
        return self.lexical.can_save

    def save(self, folder: Path, links: Path) -> Callable[[], None]:
        """Return what writes this state into a folder; it may be called when changes go on again.

        Args:
            folder: empty but for `links`.
            links: an empty folder for files that are to be copied.
        """
        self.lexical.save(links)
        dense, metadata = self.dense.frozen(), self.metadata.frozen()

        def write() -> None:
            (folder / self.DENSE).mkdir(mode=0o700)
            dense.save(folder / self.DENSE)
            save_metadata(metadata, folder / self.METADATA)
            shutil.copytree(links, folder / self.LEXICAL)

        return write

    @classmethod
    def load(cls, folder: Path, head: Head, workspace: Workspace, working: Path) -> "Indexes":
        """Read what `save` wrote and nobody has changed since.

        Args:
            folder: what was saved.
            head: of the collection.
            workspace: for what the indexes will need.
            working: a folder of it that holds the files of the lexical index.
        """
        dense = DenseIndex.load(folder / cls.DENSE, head.dim, head.metric, head.index)
        metadata = MetadataIndex.thawed(load_metadata(folder / cls.METADATA))
        return cls(dense, LexicalIndex.load(working, workspace), metadata)

    def stage_rows(self, changes: Changes) -> None:
        """Append vectors and metadata; needs no reader to be at work, unlike the terms."""
        self.dense.stage(changes.numbers, changes.vectors)
        self.metadata.stage(changes.owners, changes.documents)

    def show(self, added: NDArray[np.int64], removed: NDArray[np.int64]) -> None:
        """Let searches see what was staged, and no longer what was removed."""
        self.dense.show(added)
        self.dense.hide(removed)
        kept = self.dense.compact()
        if kept is not None:
            self.metadata.keep(kept)
        self.lexical.show()

    def search(
        self, request: SearchRequest, query: Query | None, *, limit: int, depth: int, rrf_k: int
    ) -> list[Hit]:
        """Return the best hits, best first.

        Args:
            request: mode, text, filter and the other bounds of the search.
            query: float32[dim]; None only for lexical.
            limit: how many hits are wanted.
            depth: how many hits of each index are fused in hybrid mode.
            rrf_k: the constant of rank fusion.
        """
        ranker = self._ranker(request, query)
        if request.mode != "hybrid":
            return ranker.rankings(limit)[0]
        return ranker.grouped(fuse(ranker.rankings(depth), rrf_k, request.weights))[:limit]

    def rankings(
        self, request: SearchRequest, query: Query | None, *, limit: int
    ) -> list[list[Hit]]:
        """Return the `limit` best hits of dense and lexical search, of those that the mode asks."""
        return self._ranker(request, query).rankings(limit)

    def _ranker(self, request: SearchRequest, query: Query | None) -> "_Ranker":
        among = None
        if request.filter is not None:
            among = self.dense.select(self.metadata.matching(request.filter))
        return _Ranker(self, request, query, among)


class _Ranker:
    """One search: what it bounds its hits by."""

    def __init__(
        self, indexes: Indexes, request: SearchRequest, query: Query | None, among: Selection | None
    ) -> None:
        self._indexes = indexes
        self._request = request
        self._query = query
        self._among = among

    def rankings(self, limit: int) -> list[list[Hit]]:
        """Return the rankings that the mode asks for; dense goes before lexical."""
        if self._request.mode == "dense":
            return [self.nearest(limit)]
        if self._request.mode == "lexical":
            return [self.matching(limit)]
        if len(self._indexes.dense) < MIN_BESIDE:
            return [self.nearest(limit), self.matching(limit)]
        matching = _BESIDE.submit(self.matching, limit)
        try:
            return [self.nearest(limit), matching.result()]
        finally:  # the indexes may not change before both have ended
            wait([matching])

    def nearest(self, limit: int) -> list[Hit]:
        """Return hits by cosine."""
        assert self._query is not None
        bound = self._request.min_score
        return self._indexes.dense.search(
            self._query,
            limit,
            self._among,
            least=-np.inf if bound is None else bound,
            keep=self.grouped if self._request.max_per_document else None,
            nprobe=self._request.nprobe,
            ef_search=self._request.ef_search,
        )

    def matching(self, limit: int) -> list[Hit]:
        """Return hits by BM25."""
        search = self._indexes.lexical.search
        return search(self._request.query, limit, self._among, keep=self._measured)

    def grouped(self, hits: list[Hit]) -> list[Hit]:
        """Return the first hits of each document, as many as are wanted of one."""
        limit = self._request.max_per_document
        if limit is None:
            return hits
        positions = self._indexes.dense.positions(_numbers(hits))
        return first_of_each(hits, self._indexes.metadata.rows(positions), limit)

    def _measured(self, hits: list[Hit]) -> list[Hit]:
        """Return lexical hits with their cosines, if there is a query vector, and bounded so."""
        if self._query is not None:
            cosines = self._indexes.dense.cosines(self._query, _numbers(hits))
            pairs = zip(hits, cosines, strict=True)
            hits = [Hit(hit.number, hit.score, cosine) for hit, cosine in pairs]
        least = self._request.min_score
        if least is not None:
            hits = [hit for hit in hits if hit.cosine is not None and hit.cosine >= least]
        return self.grouped(hits)


def _numbers(hits: Iterable[Hit]) -> NDArray[np.int64]:
    return np.array([hit.number for hit in hits], dtype=np.int64)
