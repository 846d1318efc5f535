"""The words of one collection in memory: BM25 by tantivy, which knows only our terms.

A query is data: it is cut into terms by `tokens`, never parsed, so no character in it has a
meaning. Scores count deleted chunks in the statistics until tantivy merges their segments.
"""

from collections.abc import Callable, Sequence
from itertools import compress, islice

import numpy as np
import tantivy
from numpy.typing import NDArray
from tantivy import Occur, Query

from deployments.stores.dense import Selection
from deployments.stores.hits import Hit, nearest
from deployments.stores.tokens import document_tokens, tokens

MAX_QUERY_TERMS = 256
"""Different terms of a query that count; the rest of a very long one adds little."""

MAX_LOOKED_UP = 4096
"""Selected chunks up to which a search looks at exactly those."""

WRITER_BYTES = 15_000_000
"""The least that tantivy accepts; taken while a change is applied, then freed."""


class LexicalIndex:
    """Chunk numbers and their terms. Changes show after `commit` and `show`."""

    def __init__(self) -> None:
        builder = tantivy.SchemaBuilder()
        builder.add_unsigned_field("number", indexed=True, fast=True)
        builder.add_text_field("terms", tokenizer_name="whitespace", index_option="freq")
        self._schema = builder.build()
        self._index = tantivy.Index(self._schema)
        self._index.config_reader("manual")
        self._searcher = self._index.searcher()
        self._writer: tantivy.IndexWriter | None = None

    def stage(
        self, numbers: NDArray[np.int64], texts: Sequence[str], removed: NDArray[np.int64]
    ) -> None:
        """Prepare a change; nothing shows yet."""
        if self._writer is None:
            self._writer = self._index.writer(WRITER_BYTES, 1)
        if len(removed):  # by query: deletion by term takes every integer for a signed one
            gone = Query.term_set_query(self._schema, "number", removed.tolist())
            self._writer.delete_documents_by_query(gone)
        for number, text in zip(numbers.tolist(), texts, strict=True):
            fields = {"number": number, "terms": " ".join(document_tokens(text))}
            self._writer.add_document(tantivy.Document.from_dict(fields, self._schema))

    def commit(self) -> None:
        """Finish what was staged, so that `show` has nothing left to compute."""
        if self._writer is not None:
            self._writer.commit()
            self._writer.wait_merging_threads()
            self._writer = None

    def show(self) -> None:
        """Let searches see everything committed."""
        self._index.reload()
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

        A chunk without any of the text's terms is no hit. Few selected chunks are looked up by
        number; of many, the ranking is read until enough of them have come.

        Args:
            text: what to look for.
            limit: at least 1.
            among: the chunks that count; None is all.
            keep: as in `nearest`.
        """
        searcher = self._searcher
        query = self._query(query_terms(text))
        if query is None or searcher.num_docs == 0 or (among is not None and not among):
            return []
        total, size = searcher.num_docs, 0
        if among is not None and len(among) <= MAX_LOOKED_UP:
            numbers = among.numbers().tolist()
            chosen = Query.term_set_query(self._schema, "number", numbers)
            query = Query.boolean_query(
                [(Occur.Must, query), (Occur.Must, Query.const_score_query(chosen, 0.0))]
            )
            total = len(among)
        elif among is not None:
            size = 2 * limit * total // len(among)
            keep = _both(lambda hits: _selected(hits, among), keep)

        def search(size: int) -> list[Hit]:
            found = searcher.search(query, size, count=False).hits
            numbers = searcher.fast_field_values("number", [address for _, address in found])
            return [
                Hit(int(number or 0), float(score))
                for number, (score, _) in zip(numbers, found, strict=True)
            ]

        return nearest(search, limit, total, size=size, keep=keep)

    def _query(self, terms: Sequence[str]) -> Query | None:
        if not terms:
            return None
        return Query.boolean_query(
            [(Occur.Should, Query.term_query(self._schema, "terms", t, "freq")) for t in terms]
        )


def query_terms(text: str) -> list[str]:
    """Return the different terms that a query asks for."""
    return list(islice(dict.fromkeys(tokens(text)), MAX_QUERY_TERMS))


def _selected(hits: list[Hit], among: Selection) -> list[Hit]:
    numbers = np.array([hit.number for hit in hits], dtype=np.int64)
    return list(compress(hits, among.has(numbers)))


def _both(
    first: Callable[[list[Hit]], list[Hit]], then: Callable[[list[Hit]], list[Hit]] | None
) -> Callable[[list[Hit]], list[Hit]]:
    return first if then is None else lambda hits: then(first(hits))
