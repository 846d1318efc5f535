"""The vectors of one collection in memory: a row store, and what makes its search faster.

Rows are appended and never moved until `compact`; a mask says which of them count. An accelerator
may cover the first rows; those after it are searched exactly. The caller keeps readers and writers
apart.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.stores.exact import Found, best_of, exactly
from deployments.stores.faiss_views import RowView, faiss
from deployments.stores.frozen import FrozenDense
from deployments.stores.growing import GrowingArray
from deployments.stores.hits import Hit, nearest
from deployments.stores.plans import Limits, Plan, plan
from deployments.stores.rows import Rows
from deployments.stores.selection import LivingRows
from deployments.stores.selection import Selection as Selection
from deployments.stores.tuning import Built
from deployments.types import IndexSettings, IndexStats, Metric, Vectors

MIN_DEAD_ROWS = 1024
"""Dead rows below which compaction is not worth the copy."""

DEEP = 16
"""Hits from which on a search must look at more than what was enough for the best 10."""

Query = NDArray[np.float32]


class DenseIndex:
    """Chunk numbers and their vectors. Numbers grow from row to row, so lookup is a bisection."""

    def __init__(
        self,
        dim: int,
        metric: Metric = "cosine",
        settings: IndexSettings | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._metric: Metric = metric
        self._settings = settings or IndexSettings()
        self._limits = limits or Limits()
        self._rows = Rows(dim, metric, self._settings.storage)
        self._numbers = GrowingArray(np.int64)
        self._alive = LivingRows()
        self._built: Built | None = None
        self._tail: RowView | None = None
        self._num_refused = 0  # rows of an accelerator that found too little

    def __len__(self) -> int:
        """Return the number of chunks that a search can find."""
        return len(self._alive)

    @property
    def num_rows(self) -> int:
        """Return the number of rows held, dead ones included."""
        return len(self._numbers)

    @property
    def num_dead(self) -> int:
        """Return the number of rows that no search finds."""
        return len(self._numbers) - len(self._alive)

    @property
    def num_bytes(self) -> int:
        """Return the bytes of everything held, unused room included."""
        held = self._rows.num_bytes + self._numbers.num_bytes + self._alive.num_bytes
        return held + (0 if self._built is None else self._built.accelerator.num_bytes)

    def stage(self, numbers: NDArray[np.int64], vectors: Vectors) -> None:
        """Append rows that no search finds until `show`; numbers must exceed all before."""
        self._detach()  # the row store can grow in place only while nothing looks at it
        self._rows.append(np.ascontiguousarray(vectors, dtype=np.float32))
        self._numbers.append(numbers)
        self._alive.make_room(len(self._numbers))
        self._attach()

    def show(self, numbers: NDArray[np.int64]) -> None:
        """Let searches find these rows."""
        self._alive.set(self.positions(numbers), alive=True)

    def hide(self, numbers: NDArray[np.int64]) -> None:
        """Take rows out of every later search; unknown numbers are ignored."""
        self._alive.set(self.positions(numbers), alive=False)

    def positions(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of those numbers that are held, dead ones too."""
        held = self._numbers.values
        rows = np.searchsorted(held, numbers)
        inside = rows < len(held)
        rows, numbers = rows[inside].astype(np.int64, copy=False), numbers[inside]
        found: NDArray[np.int64] = rows[held[rows] == numbers]
        return found

    def select(self, mask: NDArray[np.bool_]) -> Selection:
        """Return those of the chunks that a search can find for which `mask` is true, bool[n].

        Args:
            mask: for every row in the order in which it was staged, as `compact` left it.
        """
        return Selection(self._numbers.values, mask & self._alive.mask(len(self._numbers)))

    def search(
        self,
        query: Query,
        limit: int,
        among: Selection | None = None,
        *,
        least: float = -math.inf,
        keep: Callable[[list[Hit]], list[Hit]] | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
    ) -> list[Hit]:
        """Return the `limit` nearest chunks, best first; equal scores in the order of the log.

        An exact search returns exactly these; an accelerated one may miss some, but always returns
        as many.

        Args:
            query: float32[dim], L2-normalised for the metric `cosine`.
            limit: at least 1.
            among: the chunks that count; None is all.
            least: cosine below which no hit is wanted; with other metrics than `cosine` it takes
                hits from the `limit` nearest, and none comes in their place.
            keep: as in `nearest`.
            nprobe: lists to look at, where there are lists.
            ef_search: nodes to look at, where there is a graph.
        """
        total = len(self) if among is None else len(among)
        is_cosine = self._metric == "cosine"
        faiss.omp_set_num_threads(1)  # of this thread; one query is not worth waking others for

        def search(size: int) -> list[Hit]:
            rows, scores = self._best(query, size, among, nprobe, ef_search)
            numbers = self._numbers.values[rows].tolist()
            if is_cosine:
                cosines = _clipped(scores)
                return list(map(Hit, numbers, cosines, cosines))
            return list(map(Hit, numbers, scores.tolist(), self._cosines(query, rows)))

        bound = least if is_cosine else -math.inf
        hits = nearest(search, limit, total, least=bound, keep=keep)
        if is_cosine or least == -math.inf:
            return hits
        return [hit for hit in hits if hit.cosine is not None and hit.cosine >= least]

    def cosines(self, query: Query, numbers: NDArray[np.int64]) -> list[float]:
        """Return the cosine of each chunk, by the same arithmetic as `search`; all must be held."""
        rows = self.positions(numbers)
        assert len(rows) == len(numbers)
        faiss.omp_set_num_threads(1)
        return self._cosines(query, rows)

    def _cosines(self, query: Query, rows: NDArray[np.int64]) -> list[float]:
        view = self._rows.view
        if self._metric == "cosine":
            return _clipped(view.scores(query, rows))
        vectors = view.vectors(rows)
        norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
        products = vectors @ query
        return _clipped(np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0))

    def _best(
        self,
        query: Query,
        size: int,
        among: Selection | None,
        nprobe: int | None,
        ef_search: int | None,
    ) -> Found:
        """Return the best rows in no order, `size` of them if so many count."""
        selected = self._alive if among is None else among
        if self._built is not None:
            accelerator = self._built.accelerator
            asked = nprobe if accelerator.kind == "ivfpq" else ef_search
            effort = asked or self._effort(accelerator.effort, size, len(selected))
            cost = self._limits.cost_factor * accelerator.cost(max(effort, size))
            if cost < len(selected):
                found = self._accelerated(self._built, query, size, among, effort)
                if len(found[0]) >= min(size, len(selected)):
                    return found
        return exactly(self._rows.view, query, size, selected)

    def _effort(self, effort: int, size: int, num_selected: int) -> int:
        """Return what a search needs that was tuned for the best 10 of all rows."""
        among_all = len(self._numbers) / max(num_selected, 1)
        return math.ceil(effort * among_all * math.sqrt(max(1.0, size / DEEP)))

    def _accelerated(
        self, built: Built, query: Query, size: int, among: Selection | None, effort: int
    ) -> Found:
        first = len(built.accelerator)
        selected = self._alive if among is None else among
        is_all = len(selected) == len(self._numbers)
        selector = None if is_all else selected.selector()
        rows = built.accelerator.propose(query, min(size, first), effort, selector)
        if self._tail is not None:
            parameters = faiss.SearchParameters(sel=selected.selector(first))
            newest = first + self._tail.search(query, size, parameters)
            rows = np.concatenate([rows, newest])
        return best_of(rows, self._rows.view.scores(query, rows), size)

    def compact(self) -> NDArray[np.int64] | None:
        """Drop dead rows when they outnumber the living; return the rows that were kept, if so.

        Not where there is an accelerator: that one is built anew, see `Follower.wants_rebuild`.
        """
        if self._built is not None or self.num_dead < max(MIN_DEAD_ROWS, len(self)):
            return None
        kept = self._alive.rows()
        self._detach()
        self._rows = self._rows.only(kept)
        self._numbers = GrowingArray(np.int64, self._numbers.values[kept])
        self._alive = LivingRows()
        self._alive.make_room(len(kept))
        self._alive.set(np.arange(len(kept)), alive=True)
        self._num_refused = 0
        return kept

    def stats(self) -> IndexStats:
        """Return what is held and how well it finds."""
        accelerator = None if self._built is None else self._built.accelerator
        kind = "flat" if accelerator is None else accelerator.kind
        effort = None if accelerator is None else accelerator.effort
        return IndexStats(
            kind=kind,
            storage=self._settings.storage,
            num_rows=len(self._numbers),
            num_indexed=0 if accelerator is None else len(accelerator),
            num_dead=self.num_dead,
            num_bytes=self.num_bytes,
            recall_at_10=None if self._built is None else self._built.recall_at_10,
            nprobe=effort if kind == "ivfpq" else None,
            ef_search=effort if kind == "hnsw" else None,
            built_at=None if self._built is None else self._built.built_at,
        )

    def frozen(self) -> FrozenDense:
        """Return this state, to be read without a lock."""
        bits, numbers = self._alive.bits(), self._numbers.values
        return FrozenDense(self._rows.view, numbers, bits, self._built, self._settings, self._rows)

    def plan(self) -> Plan | None:
        """Return what would make searches faster, if anything."""
        if len(self._numbers) < 2 * self._num_refused:
            return None
        accelerator = None if self._built is None else self._built.accelerator
        return plan(self._settings.kind, len(self._numbers), accelerator, self._limits)

    def adopt(self, built: Built, frozen: FrozenDense) -> None:
        """Search through what was built from an earlier state, unless it is of no use."""
        if frozen.source is not self._rows:
            return  # compacted meanwhile: its rows are others
        self._detach()
        self._built = built
        if self._settings.kind == "auto" and built.recall_at_10 < self._limits.min_auto_recall:
            self._built, self._num_refused = None, len(frozen.view)
        self._attach()

    def save(self, folder: Path) -> None:
        """Write this state into an empty folder; `frozen().save` needs no lock meanwhile."""
        self.frozen().save(folder)

    @classmethod
    def load(
        cls,
        folder: Path,
        dim: int,
        metric: Metric = "cosine",
        settings: IndexSettings | None = None,
        limits: Limits | None = None,
    ) -> "DenseIndex":
        """Return what `save` wrote; the caller has checked that the files are whole.

        Raises:
            ValueError: the files are of another collection's settings, or not of one index.
            OSError: a file could not be read.
        """
        index = cls(dim, metric, settings, limits)
        frozen = FrozenDense.load(folder)
        codec = frozen.view.codec
        if (codec.dim, codec.metric, frozen.settings) != (dim, metric, index._settings):
            raise ValueError("the saved dense index has other settings")
        index._rows = Rows.of(frozen.view, index._settings.storage)
        index._numbers = GrowingArray(np.int64, frozen.numbers)
        index._alive = LivingRows(frozen.alive)
        index._built = frozen.built
        index._attach()
        return index

    def _detach(self) -> None:
        self._tail = None
        if self._built is not None:
            self._built.accelerator.attach(None)

    def _attach(self) -> None:
        if self._built is not None:
            view, first = self._rows.view, len(self._built.accelerator)
            self._built.accelerator.attach(view)
            self._tail = view.part(first, len(view)) if first < len(view) else None


def _clipped(products: NDArray[np.float32]) -> list[float]:
    """Return inner products as cosines: rounding takes some of them past 1."""
    clipped: list[float] = products.clip(-1.0, 1.0).tolist()
    return clipped
