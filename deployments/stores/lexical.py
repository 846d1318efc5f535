"""The words of one collection in memory: BM25 by tantivy, which knows only our terms.

A query is data: it is cut into terms by `tokens`, never parsed, so no character in it has a
meaning. Scores count deleted chunks in the statistics until tantivy merges their segments.
"""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import tantivy
from numpy.typing import NDArray
from tantivy import Occur, Query

from deployments.stores.hits import Hit, nearest
from deployments.stores.tokens import document_tokens, tokens

MAX_QUERY_TERMS = 256
"""Different terms of a query that count; the rest of a very long one adds little."""

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

    def search(self, text: str, limit: int) -> list[Hit]:
        """Return the `limit` chunks with the highest BM25, best first; ties by the log's order.

        A chunk without any of the text's terms is no hit.
        """
        terms = list(islice(dict.fromkeys(tokens(text)), MAX_QUERY_TERMS))
        searcher = self._searcher
        if not terms or searcher.num_docs == 0:
            return []
        clauses = [
            (Occur.Should, Query.term_query(self._schema, "terms", term, "freq")) for term in terms
        ]
        query = Query.boolean_query(clauses)

        def search(size: int) -> list[Hit]:
            found = searcher.search(query, size, count=False).hits
            numbers = searcher.fast_field_values("number", [address for _, address in found])
            return [
                Hit(int(number or 0), float(score))
                for number, (score, _) in zip(numbers, found, strict=True)
            ]

        return nearest(search, limit, searcher.num_docs)
