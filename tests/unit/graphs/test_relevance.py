"""Passages that would mislead a small model are left out."""

from deployments.types import ScoredChunk
from graphs.relevance import content_words, relevant


def chunk(text: str, cosine: float, title: str = "") -> ScoredChunk:
    return ScoredChunk(
        chunk_id=text,
        document_id="d",
        title=title,
        text=text,
        start=0,
        end=len(text),
        score=cosine,
        cosine=cosine,
    )


def kept(question: str, *chunks: ScoredChunk) -> list[str]:
    found = relevant(chunks, question, strong_score=0.35, relative_score=0.7)
    return [one.text for one in found]


def test_weak_passage_must_share_a_word() -> None:
    wool = chunk("The wool of the Harl goat is used to make violin strings.", 0.30)
    assert kept("How do I knit a sweater for a penguin?", wool) == []
    port = chunk("The edge listens on port 8080.", 0.23)
    assert kept("Which port is used?", port) == [port.text]
    assert kept("What colour?", chunk("Nothing in common", 0.5)) == ["Nothing in common"]


def test_title_counts_as_text() -> None:
    assert kept("vacation rules", chunk("28 days.", 0.25, title="Vacation")) == ["28 days."]


def test_function_words_and_plurals() -> None:
    assert content_words("What about those turbines?") == {"turbine"}
    assert not content_words("What is this with that?")


def test_chinese_words_are_pairs() -> None:
    assert kept("灯塔多高", chunk("这座灯塔建于1743年", 0.22)) == ["这座灯塔建于1743年"]
    assert kept("企鹅毛衣", chunk("这座灯塔建于1743年", 0.22)) == []


def test_what_is_far_behind_the_best_is_left_out() -> None:
    best, close, far = chunk("best", 0.8), chunk("close", 0.6), chunk("far", 0.5)
    assert kept("anything", best, close, far) == ["best", "close"]


def test_order_is_kept_and_nothing_found_is_nothing() -> None:
    assert kept("anything", chunk("b", 0.7), chunk("a", 0.8)) == ["b", "a"]
    assert kept("anything") == []
