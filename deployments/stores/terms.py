"""Terms as tantivy stores them, and the query for those of a text. It holds no index."""

from collections.abc import Mapping
from itertools import islice

import tantivy
from tantivy import Occur, Query

from deployments.stores.tokens import tokens

MAX_QUERY_TERMS = 256
"""Different terms of a query that count; the rest of a very long one adds little."""


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


def query_of(schema: tantivy.Schema, text: str) -> Query | None:
    """Return the query for chunks with any of a text's terms; None where it has none."""
    terms = query_terms(text)
    if not terms:
        return None
    return Query.boolean_query(
        [(Occur.Should, Query.term_query(schema, "terms", term, "freq")) for term in terms]
    )


def query_terms(text: str) -> list[str]:
    """Return the different terms that a query asks for."""
    return list(islice(dict.fromkeys(tokens(text)), MAX_QUERY_TERMS))
