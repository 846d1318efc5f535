"""Late fusion: how well texts answer a query, from cosines and shared words, without a model more.

`score = 0.5 · max(0, cosine) + 0.5 · lexical`, in [0, 1]: never falls when the cosine or the
lexical part rises. The lexical part is BM25 over the given texts alone (their own frequencies and
mean length), divided by the most that a text could reach: the query's terms without number. So it
is the share of the query, weighted by how rare its terms are here, that a text holds.

Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009; a
convex combination of scores with known bounds, instead of one of ranks: Bruch, Gai and Ingber, An
Analysis of Fusion Functions for Hybrid Retrieval, 2023.
"""

import math
from collections import Counter
from collections.abc import Sequence

from deployments.stores.tokens import document_tokens, tokens

COSINE_WEIGHT = 0.5
"""Source: `tests/bench/reranking.py`, mean reciprocal rank with the embedded model for questions in
other words, two words of the question, and two words of the text: 1.00, 0.82, 0.93 at 0.5; 1.00,
0.84, 0.84 at 0.8; 1.00, 0.84, 0.68 for the cosine alone; 0.96, 0.60, 0.89 without it."""

K1 = 1.2
B = 0.75


def fused(query: str, texts: Sequence[str], cosines: Sequence[float]) -> tuple[float, ...]:
    """Return one score in [0, 1] per text, in order.

    Args:
        query: what is asked.
        texts: what may answer it.
        cosines: of the query's vector with each text's, in [-1, 1]; below 0 counts as unrelated.
    """
    return tuple(
        COSINE_WEIGHT * min(max(cosine, 0.0), 1.0) + (1 - COSINE_WEIGHT) * lexical
        for cosine, lexical in zip(cosines, shared_terms(query, texts), strict=True)
    )


def shared_terms(query: str, texts: Sequence[str]) -> list[float]:
    """Return each text's BM25 over its bound, in [0, 1)."""
    terms = sorted(set(tokens(query)))
    counts = [Counter(document_tokens(text)) for text in texts]
    lengths = [counted.total() for counted in counts]
    mean_length = sum(lengths) / len(lengths) if any(lengths) else 1.0
    rarity = {term: _rarity(sum(term in one for one in counts), len(texts)) for term in terms}
    bound = math.fsum(rarity.values())
    if bound == 0.0:
        return [0.0] * len(texts)
    return [
        math.fsum(
            rarity[term] * _saturated(counted[term], length / mean_length)
            for term in terms
            if term in counted
        )
        / bound
        for counted, length in zip(counts, lengths, strict=True)
    ]


def _rarity(num_holding: int, num_texts: int) -> float:
    """Return the inverse document frequency, always positive."""
    return math.log1p((num_texts - num_holding + 0.5) / (num_holding + 0.5))


def _saturated(count: int, relative_length: float) -> float:
    """Return the weight of a term that a text holds `count` times, in [0, 1)."""
    return count / (count + K1 * (1 - B + B * relative_length))
