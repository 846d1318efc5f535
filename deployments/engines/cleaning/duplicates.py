"""Finds texts that say the same as an earlier one: exactly, or nearly. It removes nothing.

Near duplicates are those whose sets of word triples have a Jaccard similarity of at least a bound.
Two sets that similar must share one of the rarest triples of each, so only texts that do are
compared: all pairs over the bound are found, and no other one, except among more than a hundred
texts with the same template, of which each is compared with the last hundred before it only.

Source: prefix filtering (Chaudhuri, Ganti, Kaushik 2006; Bayardo, Ma, Srikant 2007); shingles and
their resemblance are Broder's (1997).
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.engines.cleaning.options import DuplicateKind

_SHINGLE = 3
_MAX_HOLDERS = 100
"""Texts compared for one triple. Source: without it, a list of 11,000 similar lines took 95 s."""

_IDEOGRAPHIC = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_IDEOGRAPHIC}]|[^\W{_IDEOGRAPHIC}]+")
"""Chinese and Japanese write no spaces: each of their characters counts as a word."""


@dataclass(frozen=True, slots=True)
class Match:
    """The earlier text that a text repeats."""

    kind: DuplicateKind
    index: int
    similarity: float


def find_duplicates(texts: Sequence[str], min_similarity: float | None) -> list[Match | None]:
    """Return for each text the most similar earlier one that is no duplicate itself.

    Args:
        texts: compared without regard to white space.
        min_similarity: in (0, 1]; None finds exact duplicates only.
    """
    matches: list[Match | None] = []
    first: dict[str, int] = {}
    for position, text in enumerate(texts):
        earlier = first.setdefault(" ".join(text.split()), position)
        matches.append(None if earlier == position else Match("exact", earlier, 1.0))
    if min_similarity is not None:
        kept = [position for position, match in enumerate(matches) if match is None]
        nears = _find_near([_shingles(texts[position]) for position in kept], min_similarity)
        for position, near in zip(kept, nears, strict=True):
            if near is not None:
                matches[position] = Match("near", kept[near[0]], round(near[1], 4))
        matches = [_at_its_end(match, matches) for match in matches]
    return matches


def _at_its_end(match: Match | None, matches: Sequence[Match | None]) -> Match | None:
    """Return a match with what stays: an exact copy's original may be a near duplicate."""
    further = matches[match.index] if match is not None else None
    return further if further is not None else match


def _shingles(text: str) -> frozenset[int]:
    words = _WORD.findall(text.casefold())
    if len(words) <= _SHINGLE:
        return frozenset([hash(tuple(words))] if words else ())
    return frozenset(map(hash, zip(words, words[1:], words[2:], strict=False)))


def _find_near(
    sets: Sequence[frozenset[int]], min_similarity: float
) -> list[tuple[int, float] | None]:
    frequencies = Counter(shingle for shingles in sets for shingle in shingles)
    holders: defaultdict[int, list[int]] = defaultdict(list)
    found: list[tuple[int, float] | None] = []
    for position, shingles in enumerate(sets):
        rarest = sorted(shingles, key=lambda shingle: (frequencies[shingle], shingle))
        prefix = rarest[: len(rarest) - math.ceil(min_similarity * len(rarest)) + 1]
        candidates = {holder for shingle in prefix for holder in holders[shingle][-_MAX_HOLDERS:]}
        scored = ((_jaccard(shingles, sets[one]), -one) for one in candidates)
        best = max((score for score in scored if score[0] >= min_similarity), default=None)
        found.append(None if best is None else (-best[1], best[0]))
        if best is None:
            for shingle in prefix:
                holders[shingle].append(position)
    return found


def _jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)
