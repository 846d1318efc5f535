"""Rankings that several shards made of their parts of a collection, and how one is made of them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.stores.hits import Hit, first_of_each, fuse, in_order
from deployments.types import ScoredChunk, SearchRequest


@dataclass(frozen=True, slots=True)
class ShardRankings:
    """What one shard found: hits best first, and the chunks they name by number.

    One ranking; in hybrid mode two, of dense and of lexical search.
    """

    rankings: tuple[tuple[Hit, ...], ...]
    chunks: dict[int, ScoredChunk]


def num_wanted(request: SearchRequest, candidates: int) -> int:
    """Return how many hits of each ranking make the answer to a search.

    Args:
        request: the search.
        candidates: hits of each kind that hybrid mode fuses where the request does not say.
    """
    if request.mode == "hybrid":
        return max(request.candidates or candidates, request.top_k)
    return request.offset + request.top_k


def merge(
    request: SearchRequest, shards: Sequence[ShardRankings], *, candidates: int, rrf_k: int
) -> list[ScoredChunk]:
    """Return the chunks that one index of all shards would have found, best first.

    Cosines compare across shards. BM25 is each shard's own, with the frequencies of its part, so
    that lexical scores of shards differ slightly from those of one index.

    Args:
        request: the search that every shard was asked.
        shards: what each of them found.
        candidates: as in `num_wanted`.
        rrf_k: the constant of rank fusion.
    """
    size = num_wanted(request, candidates)
    rankings = [
        in_order(hit for ranking in part for hit in ranking)[:size]
        for part in zip(*(shard.rankings for shard in shards), strict=True)
    ]
    hits = fuse(rankings, rrf_k, request.weights) if len(rankings) > 1 else rankings[0]
    chunks = {number: chunk for shard in shards for number, chunk in shard.chunks.items()}
    if request.max_per_document:
        rows: dict[str, int] = {}
        owners = [rows.setdefault(chunks[hit.number].document_id, len(rows)) for hit in hits]
        hits = first_of_each(hits, owners, request.max_per_document)
    page = hits[request.offset : request.offset + request.top_k]
    return [
        dataclasses.replace(chunks[hit.number], score=hit.score, cosine=hit.cosine) for hit in page
    ]
