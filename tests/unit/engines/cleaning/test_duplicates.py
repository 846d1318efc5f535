"""Duplicates: all pairs over the bound are found, and no other one."""

import random
import time

from deployments.engines.cleaning.duplicates import Match, _jaccard, _shingles, find_duplicates


def test_exact_duplicates_differ_in_white_space_only() -> None:
    found = find_duplicates(["a b", "A b", " a\n b ", "c", "a b"], None)
    assert found == [None, None, Match("exact", 0, 1.0), None, Match("exact", 0, 1.0)]


def test_near_duplicates_are_those_that_comparing_every_pair_finds() -> None:
    random.seed(3)
    words = [f"w{number}" for number in range(60)]
    texts: list[str] = []
    for _ in range(150):
        text = [random.choice(words) for _ in range(30)]
        texts.append(" ".join(text))
        for _ in range(random.randrange(3)):
            text[random.randrange(30)] = random.choice(words)
            texts.append(" ".join(text))
    found = find_duplicates(texts, 0.7)
    kept: list[int] = []
    for position, text in enumerate(texts):
        scores = [(_jaccard(_shingles(text), _shingles(texts[one])), -one) for one in kept]
        best = max((score for score in scores if score[0] >= 0.7), default=None)
        match = found[position]
        if best is None:
            assert match is None
            kept.append(position)
        else:
            assert match is not None
            assert match.index == -best[1]
            assert abs(match.similarity - best[0]) < 1e-3
    assert len(kept) < len(texts) - 20


def test_a_match_always_names_a_text_that_stays() -> None:
    base = " ".join(f"w{number}" for number in range(40))
    near = base + " more"
    found = find_duplicates([base, near, near], 0.8)
    assert [match and match.index for match in found] == [None, 0, 0]


def test_many_paragraphs_of_one_template_are_compared_in_time() -> None:
    template = (
        "The {} quick brown fox jumps over the lazy dog near the old river bank at dawn. Yes."
    )
    texts = [template.format(number) for number in range(10_000)]
    started = time.process_time()
    assert find_duplicates(texts, 0.85)[-1] is None
    assert time.process_time() - started < 10
