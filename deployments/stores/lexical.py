"""The words of one collection: BM25 by tantivy, which knows only our terms.

A query is data: it is cut into terms by `tokens`, never parsed, so no character in it has a
meaning. Scores count deleted chunks in the statistics until tantivy merges their segments.

A small index is in memory, with its terms, so that it can be written to a folder when it grows; a
larger one is in a working folder, mapped, because only files can be saved.

Source: of 20 chunks, an index in memory costs 7 ms and 0.1 MB, one in a folder 16 ms, 8 mapped
files and a thread that tantivy starts for each. Of 20,000 chunks they take equally long.
"""

import shutil
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import compress
from pathlib import Path

import numpy as np
import tantivy
from numpy.typing import NDArray
from tantivy import Occur, Query

from deployments.errors import StoreUnavailable
from deployments.stores.dense import Selection
from deployments.stores.hits import Hit, nearest
from deployments.stores.lexical_files import copy_index, num_file_bytes
from deployments.stores.terms import add_terms, any_of, query_terms, telling, terms_schema
from deployments.stores.tokens import document_tokens
from deployments.stores.workspace import Workspace

MAX_LOOKED_UP = 4096
"""Selected chunks up to which a search looks at exactly those."""

MIN_SPARE = 16
"""Hits looked at beyond twice those wanted: they cost little, another search as much as the first.

Source: short texts often score equally; without it, every other search of 1,000,000 ran twice.
"""

WRITER_BYTES = 15_000_000
"""The least that tantivy accepts; taken while a change is applied, then freed."""


MAX_IN_MEMORY = 1000
"""Chunks up to which an index is in memory: their terms take 0.4 MB."""

BASE_BYTES = 100_000
"""What an index in memory takes beside its terms."""


class LexicalIndex:
    """Chunk numbers and their terms. Changes show after `commit` and `show`."""

    def __init__(
        self, workspace: Workspace | None = None, max_in_memory: int = MAX_IN_MEMORY
    ) -> None:
        """Start empty, in memory.

        Args:
            workspace: where to go when it grows; None: it stays in memory and cannot be saved.
            max_in_memory: chunks up to which it is in memory.
        """
        self._workspace = workspace
        self._max_in_memory = max_in_memory
        self._schema = terms_schema()
        self._terms: dict[int, str] | None = {} if workspace is not None else None
        self._num_chars = 0
        self._folder: Path | None = None
        self._file_bytes = 0
        self._writer: tantivy.IndexWriter | None = None
        self._open(tantivy.Index(self._schema))

    @classmethod
    def load(cls, folder: Path, workspace: Workspace) -> "LexicalIndex":
        """Take over a working folder with what `save` wrote; it goes away with the index.

        Raises:
            ValueError: tantivy cannot open it.
        """
        index = cls(workspace)
        index._adopt(folder)
        return index

    @property
    def num_bytes(self) -> int:
        """Return the bytes held; those of files count, because they are mapped."""
        if self._folder is None:
            return BASE_BYTES + 2 * self._num_chars
        return self._file_bytes

    @property
    def can_save(self) -> bool:
        """Return whether `save` can write what the index holds."""
        return self._terms is not None or self._folder is not None

    def stage(
        self, numbers: NDArray[np.int64], texts: Sequence[str], removed: NDArray[np.int64]
    ) -> None:
        """Prepare a change; nothing shows yet."""
        terms = {
            number: " ".join(document_tokens(text))
            for number, text in zip(numbers.tolist(), texts, strict=True)
        }
        self._num_chars += sum(map(len, terms.values()))
        with self._resting():
            self._stage(terms, removed)

    def _stage(self, terms: Mapping[int, str], removed: NDArray[np.int64]) -> None:
        if self._terms is not None:
            self._grow(len(terms))
        if self._writer is None:
            self._writer = self._index.writer(WRITER_BYTES, 1)
        if len(removed):  # by query: deletion by term takes every integer for a signed one
            gone = Query.term_set_query(self._schema, "number", removed.tolist())
            self._writer.delete_documents_by_query(gone)
        add_terms(self._writer, self._schema, terms)
        if self._terms is not None:
            for number in removed.tolist():
                self._terms.pop(number, None)
            self._terms |= terms

    def commit(self) -> None:
        """Finish what was staged, so that `show` has nothing left to compute."""
        if self._writer is not None:
            with self._resting():
                self._writer.commit()
                self._writer.wait_merging_threads()
            self._writer = None

    @contextmanager
    def _resting(self) -> Iterator[None]:
        """Leave the disk alone for a while when it refuses; the next index stays in memory."""
        try:
            yield
        except (OSError, ValueError) as error:
            if self._folder is None or self._workspace is None:
                raise
            self._workspace.rest(error)
            raise StoreUnavailable("the disk refused an index, which is built again") from error

    def show(self) -> None:
        """Let searches see everything committed."""
        self._index.reload()
        self._searcher = self._index.searcher()
        if self._folder is not None:
            self._file_bytes = num_file_bytes(self._folder)

    def save(self, folder: Path) -> None:
        """Write everything committed into an empty folder; nobody may stage meanwhile.

        The files may be links to this index's own, which never change.
        """
        assert self._writer is None
        if self._folder is not None:
            copy_index(self._folder, folder)
            return
        assert self._terms is not None
        writer = tantivy.Index(self._schema, str(folder)).writer(WRITER_BYTES, 1)
        add_terms(writer, self._schema, self._terms)
        writer.commit()
        writer.wait_merging_threads()

    def _grow(self, num_added: int) -> None:
        """Move to a folder before there are too many chunks for the memory."""
        assert self._terms is not None
        assert self._workspace is not None
        if len(self._terms) + num_added <= self._max_in_memory:
            return
        folder = self._workspace.new_folder()
        terms, self._terms = self._terms, None
        if folder is None:  # it stays in memory for good, and cannot be saved
            return
        self._writer = None  # nothing of it was committed, or shows
        searcher = self._searcher
        self._adopt(folder)
        self._searcher = searcher
        self._writer = self._index.writer(WRITER_BYTES, 1)
        add_terms(self._writer, self._schema, terms)

    def _adopt(self, folder: Path) -> None:
        self._terms, self._folder = None, folder
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._open(tantivy.Index(self._schema, str(folder)))
        self._file_bytes = num_file_bytes(folder)

    def _open(self, index: tantivy.Index) -> None:
        self._index = index
        self._index.config_reader("manual")
        self._searcher = self._index.searcher()

    def search(
        self,
        text: str,
        limit: int,
        among: Selection | None = None,
        *,
        keep: Callable[[list[Hit]], list[Hit]] | None = None,
    ) -> list[Hit]:
        """Return the `limit` chunks with the highest BM25, best first; ties by the log's order.

        A chunk without any of the text's `telling` terms is no hit. Few selected chunks are looked
        up by number; of many, the ranking is read until enough of them have come.

        Args:
            text: what to look for.
            limit: at least 1.
            among: the chunks that count; None is all.
            keep: as in `nearest`.
        """
        searcher = self._searcher
        terms = telling(searcher, query_terms(text))
        if not terms or searcher.num_docs == 0 or (among is not None and not among):
            return []
        query = any_of(self._schema, terms)
        total, size = searcher.num_docs, 2 * limit + MIN_SPARE
        if among is not None and len(among) <= MAX_LOOKED_UP:
            numbers = among.numbers().tolist()
            chosen = Query.term_set_query(self._schema, "number", numbers)
            query = Query.boolean_query(
                [(Occur.Must, query), (Occur.Must, Query.const_score_query(chosen, 0.0))]
            )
            total = len(among)
        elif among is not None:
            size = size * total // len(among)
            keep = _both(lambda hits: _selected(hits, among), keep)

        def search(size: int) -> list[Hit]:
            found = searcher.search(query, size, count=False).hits
            numbers = searcher.fast_field_values("number", [address for _, address in found])
            return [
                Hit(int(number or 0), float(score))
                for number, (score, _) in zip(numbers, found, strict=True)
            ]

        return nearest(search, limit, total, size=size, keep=keep)


def _selected(hits: list[Hit], among: Selection) -> list[Hit]:
    numbers = np.array([hit.number for hit in hits], dtype=np.int64)
    return list(compress(hits, among.has(numbers)))


def _both(
    first: Callable[[list[Hit]], list[Hit]], then: Callable[[list[Hit]], list[Hit]] | None
) -> Callable[[list[Hit]], list[Hit]]:
    return first if then is None else lambda hits: then(first(hits))
