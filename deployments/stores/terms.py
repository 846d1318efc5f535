"""Terms as tantivy stores them, and the query for those of a text. It holds no index."""

from collections.abc import Mapping, Sequence
from itertools import islice

import tantivy
from tantivy import Occur, Query

from deployments.stores.tokens import tokens

MAX_QUERY_TERMS = 256
"""Different terms of a query that count; the rest of a very long one adds little."""

MIN_CHUNKS = 200_000
"""Chunks from which on common terms are left out: below, a search for all terms takes 2 ms."""

COMMON = 0.1
"""Share of the chunks that have a common term.

It tells little of a chunk, and nearly all the time of a search goes into reading where it occurs.
Source: at 1,000,000 chunks, six words by Zipf's law take 12.7 ms, those of them that are not common
1.2. On the labelled set, where the words of 752 questions are few, nDCG@10 falls from .844 to .839
(hybrid) and from .685 to .652 (lexical).
"""


def terms_schema() -> tantivy.Schema:
    """Return what is stored of a chunk: its number and its terms."""
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("number", indexed=True, fast=True)
    builder.add_text_field("terms", tokenizer_name="whitespace", index_option="freq")
    return builder.build()


def add_terms(
    writer: tantivy.IndexWriter, schema: tantivy.Schema, terms: Mapping[int, str]
) -> None:
    """Write the terms of chunks, by number, joined by spaces."""
    for number, text in terms.items():
        fields = {"number": number, "terms": text}
        writer.add_document(tantivy.Document.from_dict(fields, schema))


def any_of(schema: tantivy.Schema, terms: Sequence[str]) -> Query:
    """Return the query for chunks with any of the terms."""
    return Query.boolean_query(
        [(Occur.Should, Query.term_query(schema, "terms", term, "freq")) for term in terms]
    )


def telling(searcher: tantivy.Searcher, terms: Sequence[str]) -> Sequence[str]:
    """Return those terms that are not common; all of them in a small index, or if all are."""
    if searcher.num_docs < MIN_CHUNKS:
        return terms
    limit = COMMON * searcher.num_docs
    return [term for term in terms if searcher.doc_freq("terms", term) <= limit] or terms


def query_terms(text: str) -> list[str]:
    """Return the different terms that a query asks for."""
    return list(islice(dict.fromkeys(tokens(text)), MAX_QUERY_TERMS))
