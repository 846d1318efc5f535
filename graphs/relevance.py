"""Which of the passages that a search found are worth showing to a model.

Two rules, both for small models, which use whatever they are given: a passage of weak similarity
must share a word with the question, and what is clearly behind the best passage is left out.
"""

import re
from collections.abc import Sequence

from deployments.types import ScoredChunk

MIN_LETTERS = 4
ENGLISH = """
about also been between could does from have into just like more most much many only other over same
should some such than that their them then there these they this those through under until very want
were what when where which while whom whose will with would your
"""
FUNCTION_WORDS = frozenset(ENGLISH.split())
"""English words of four letters and more that say nothing about a subject."""

WORD = re.compile(r"[^\W_]+")
CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{2}")


def relevant(
    chunks: Sequence[ScoredChunk],
    question: str,
    *,
    strong_score: float,
    relative_score: float,
) -> list[ScoredChunk]:
    """Return the chunks to answer from, in their order; often fewer than were found.

    Args:
        chunks: best first, each with its cosine.
        question: in the user's words.
        strong_score: cosine from which on similarity is enough; below it a word must be shared.
        relative_score: least share of the best remaining chunk's cosine.

    Source: `tests/e2e/test_facts.py`. With three passages and neither rule the embedded model held
    29 of 50 facts; the question about a penguin's sweater lies at 0.30 from a fact about wool,
    while good questions about technical documents lie at 0.2 to 0.3 and share their words.
    """
    words = content_words(question)
    near = [
        chunk
        for chunk in chunks
        if cosine(chunk) >= strong_score or words & content_words(f"{chunk.title} {chunk.text}")
    ]
    best = max(map(cosine, near), default=0.0)
    return [chunk for chunk in near if cosine(chunk) >= relative_score * best]


def cosine(chunk: ScoredChunk) -> float:
    """Return the chunk's cosine, 0 where none was computed."""
    return chunk.cosine or 0.0


def content_words(text: str) -> set[str]:
    """Return the words of a text that can name a subject, folded; pairs of CJK characters too.

    A plural's final s is dropped, so that `turbines` meets `turbine`.
    """
    folded = text.casefold()
    words = {word for word in WORD.findall(folded) if len(word) >= MIN_LETTERS}
    pairs = {folded[i : i + 2] for i in range(len(folded) - 1) if CJK.match(folded, i)}
    return {word.removesuffix("s") for word in words - FUNCTION_WORDS} | pairs
