"""Segmentation: nothing lost, nothing over the limit, cuts where a reader would cut."""

import re

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.engines.embedding.fake import FakeTokenizer
from deployments.engines.texts.segmentation import Segmenter
from deployments.engines.texts.tokenizer import FastTokenizer
from deployments.engines.weights import locate
from deployments.types import Segment

WORDPIECE = FastTokenizer(locate("embedded:all-minilm-l6-v2").folder)

PIECES = st.sampled_from(
    [
        "word ",
        "Unbelievably ",
        "end. ",
        "Why? ",
        "\n\n",
        "\n",
        "# Head\n",
        "你好",
        "世界。",
        "カタカナ",
        "！",
    ]
    + [
        "👨‍👩‍👧",
        "🇩🇪",
        "e\u0301",
        "\u200b",
        "\x00",
        " ",
        "[SEP] ",
        "antidisestablishmentarianism",
        "3.14159",
        "नमस्ते ",
        "مرحبا؟ ",
        "👩🏽‍🚀",
        "……",
        "## 标题\n\n",
    ]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=300).map("".join), st.text(max_size=400))


class ByteTokenizer:
    """One token per UTF-8 byte, as byte-level models have for rare characters."""

    num_special = 2

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [
            (index, index + 1)
            for index, character in enumerate(text)
            for _ in character.encode("utf-8", "surrogatepass")
        ]


def segment(text: str, max_tokens: int = 18, overlap: int = 0) -> list[Segment]:
    return Segmenter(FakeTokenizer(), max_tokens, overlap).segment(text)


def pieces(text: str, **options: int) -> list[str]:
    return [text[part.start : part.end] for part in segment(text, **options)]


@settings(max_examples=150, deadline=None)
@given(
    TEXTS,
    st.sampled_from([FakeTokenizer(), WORDPIECE, ByteTokenizer()]),
    st.integers(16, 60),
    st.integers(0, 40),
)
def test_segments_cover_the_text_within_the_limit(
    text: str, tokens: FakeTokenizer, max_tokens: int, overlap: int
) -> None:
    segments = Segmenter(tokens, max_tokens, overlap).segment(text)
    covered = {index for part in segments for index in range(part.start, part.end)}
    assert all(index in covered or text[index].isspace() for index in range(len(text)))
    for part in segments:
        inside = text[part.start : part.end]
        assert inside == inside.strip() != ""
        assert part.num_tokens == len(tokens.spans(inside)) + tokens.num_special <= max_tokens
    for before, after in zip(segments, segments[1:], strict=False):
        assert before.start < after.start
        assert before.end < after.end
        shared = len(tokens.spans(text[after.start : before.end]))
        assert overlap or after.start >= before.end
        # Alone, the shared text may make a few tokens more than in its place.
        assert shared <= min(overlap, max_tokens // 2) + 4


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from(["👨‍👩‍👧", "🇩🇪", "e\u0301", "한", "नि"]), min_size=100, max_size=200)
)
def test_segments_never_cut_a_grapheme(graphemes: list[str]) -> None:
    text = "".join(graphemes)
    borders = {match.start() for match in regex.finditer(r"\X", text)} | {len(text)}
    for part in Segmenter(ByteTokenizer(), 100, 20).segment(text):
        assert {part.start, part.end} <= borders


@pytest.mark.parametrize("text", ["", " ", "\n\t \u3000\u2028"])
def test_segments_of_white_space_are_none(text: str) -> None:
    assert segment(text) == []


def test_segment_of_a_short_text_is_the_text_without_its_margins() -> None:
    assert segment("  two words\n") == [Segment(2, 11, 4)]


def test_segments_end_at_paragraphs_where_these_fill_half_a_segment() -> None:
    first, second = "one two three four. five six seven eight. nine ten.", "a b c d. e f g h. i j."
    assert pieces(f"{first}\n\n{second}") == [first, second]


def test_segments_keep_a_heading_with_what_it_heads() -> None:
    text = "a b c d e f g h i j k l.\n# Head\nm n o p q r s."
    assert pieces(text) == ["a b c d e f g h i j k l.", "# Head\nm n o p q r s."]


def test_segments_end_at_sentences_where_no_paragraph_does() -> None:
    assert pieces("A b c d e f g h i j. K l m n o p q.") == [
        "A b c d e f g h i j.",
        "K l m n o p q.",
    ]


def test_segments_do_not_end_within_abbreviations() -> None:
    assert pieces("a b c d e f g h i j e.g. k l m n o p q r")[0].endswith(" o")


def test_segments_never_end_with_a_heading() -> None:
    text = "a b c d e f g h i j.\n\n# Head\n\n## Under it\n\nk l m n o p q r."
    assert pieces(text) == ["a b c d e f g h i j.", "# Head\n\n## Under it\n\nk l m n o p q r."]
    sheet = "a b c d e f g h i j k\n\n# Sheet\nl m n\no p q"
    assert pieces(sheet) == ["a b c d e f g h i j k", "# Sheet\nl m n\no p q"]


@pytest.mark.parametrize(
    "sentence",
    [
        "これは長い日本語の文章です。",
        "「今日は天気がいいですね！」",
        "他看了看窗外的雨……",
        "真的吗?",
        "هذه جملة عربية قصيرة جدا؟ ",
        "यह एक छोटा हिन्दी वाक्य है। ",
        "ይህ አጭር ዓረፍተ ነገር ነው።",
    ],
)
def test_segments_end_at_the_sentences_of_each_script(sentence: str) -> None:
    text = sentence * 30
    parts = Segmenter(WORDPIECE, 64, 0).segment(text)
    assert len(parts) > 1
    bare = len(sentence.rstrip())
    assert all((part.end - bare) % len(sentence) == 0 for part in parts)


@pytest.mark.parametrize("stop", ["。", "！", "？"])
def test_segments_end_at_chinese_sentences(stop: str) -> None:
    sentence = "这是一个没有空格的句子" + stop
    parts = Segmenter(WORDPIECE, 32, 0).segment(sentence * 9)
    assert [part.end % len(sentence) for part in parts] == [0] * len(parts)
    assert len(parts) == 5


def test_segments_overlap_by_whole_sentences() -> None:
    text = "A b c d e. F g h i j. K l m. N o p q r. S t u v w."
    assert pieces(text, overlap=4) == [
        "A b c d e. F g h i j. K l m.",
        "K l m. N o p q r. S t u v w.",
    ]


def test_segments_overlap_by_words_where_no_sentence_ends() -> None:
    words = [f"w{number}" for number in range(40)]
    assert [part.split()[0] for part in pieces(" ".join(words), overlap=4)] == ["w0", "w12", "w24"]


def test_segments_of_a_text_without_borders_are_full() -> None:
    parts = Segmenter(WORDPIECE, 66, 0).segment("你好" * 160)
    assert [part.num_tokens for part in parts] == [66] * 5


def test_segments_hold_when_a_cut_makes_more_tokens() -> None:
    """A word's tail costs more tokens alone; the limit holds for what is really encoded."""
    text = "antidisestablishmentarianism" * 40
    limit = 20
    text = re.sub(r"(.{90})", r"\1-", text)
    for part in Segmenter(WORDPIECE, limit, 6).segment(text):
        assert len(WORDPIECE.encode([text[part.start : part.end]])[0]) <= limit


def test_segments_of_a_long_text_come_fast_and_cross_blocks() -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 6000
    parts = Segmenter(FakeTokenizer(), 256, 32).segment(text)
    assert parts[-1].end == len(text.rstrip())
    assert all(text[part.end - 1] == "." for part in parts)


@pytest.mark.parametrize("unit", [".", ". ", "\n", " ", "'.", "。", "?!x", "\u0301", "\n \n"])
@pytest.mark.timeout(20)
def test_segments_of_hostile_texts_take_linear_time(unit: str) -> None:
    text = unit * 100_000 + "x"
    assert Segmenter(FakeTokenizer(), 256, 32).segment(text)[-1].end == len(text)
