"""Reranking engines: how well each of some texts answers a query, read together."""
