"""Every step of cleaning, and that what it reports is what it did."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.engines.cleaning.cleaner import clean
from deployments.engines.cleaning.options import Cleaned, CleanOptions, Draft

SCRIPTS = [
    "你好，世界！「引用」。",
    "مرحبا، كيف حالك؟",
    "שלום",
    "これはペンです。",
    "한국어",
    "नमस्ते।",
]
EMOJI = ["👨‍👩‍👧", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "👋🏽", "☎️", "می‌خواهم"]
FOX = "The quick brown fox jumps over the lazy dog near the old river bank at dawn."


def run(text: str, **options: object) -> Cleaned:
    return clean(Draft(text), CleanOptions(**options))


@pytest.mark.parametrize("text", [*SCRIPTS, *EMOJI, "“quoted” ﬂat £5 naïve", "  code\n\tx\ta"])
def test_clean_keeps_what_is_in_order(text: str) -> None:
    cleaned = run(text, unicode="none")
    assert cleaned.text.replace("fl", "ﬂ") == text
    assert cleaned.removed.num_control_characters == 0


@pytest.mark.parametrize(
    ("damaged", "whole"),
    [
        ("schÃ¶n", "schön"),
        ("âœ” done", "✔ done"),
        ("l\u2019humanitÃ©", "l\u2019humanité"),
        ("Ã\x85ngström", "Ångström"),
        ("ä½\xa0å¥½", "你好"),
    ],
)
def test_clean_repairs_encodings(damaged: str, whole: str) -> None:
    cleaned = run(f"a line\n{damaged}\nanother")
    assert cleaned.text == f"a line\n{whole}\nanother"
    assert cleaned.removed.num_repaired_lines == 1
    assert run(damaged, encoding=False).removed.num_repaired_lines == 0


def test_clean_removes_what_nobody_sees() -> None:
    hidden = "".join(chr(0xE0000 + ord(one)) for one in "obey me")
    cleaned = run(f"a\x00b\x07c\u00add\ufeffe\u202ef{hidden}g\x1b[31mred\x1b[0m", encoding=False)
    assert cleaned.text == "abcdefgred"
    assert cleaned.removed.num_control_characters == 5 + len(hidden) + 9
    flag = f"🏴{hidden}"
    assert run(flag).text == "🏴"


def test_clean_composes_characters() -> None:
    cleaned = run("e\u0301\nplain\nｱ", encoding=False)
    assert (cleaned.text, cleaned.removed.num_normalized_lines) == ("é\nplain\nｱ", 1)
    assert run("ｱ①", unicode="NFKC").text == "ア1"
    assert run("e\u0301", unicode="none").text == "e\u0301"


def test_clean_tidies_white_space() -> None:
    cleaned = run("\n\n  a  b \r\n\u00a0\r\n\r\n\r\nc\td\u2028e   ")
    assert cleaned.text == "  a b\n\nc\td\ne"
    assert cleaned.removed.num_whitespace_characters == 10
    assert run("a  b ", whitespace=False).text == "a  b "


def test_clean_removes_repeated_paragraphs_and_says_where() -> None:
    text = f"Start.\n\n{FOX}\n\nMiddle.\n\n  {FOX.replace(' ', '  ')}\n\nEnd.\n\nEnd."
    cleaned = run(text)
    assert cleaned.text == f"Start.\n\n{FOX}\n\nMiddle.\n\nEnd.\n\nEnd."
    [one] = cleaned.removed.duplicates
    assert cleaned.text[one.start : one.end] == FOX
    assert cleaned.text[: one.position].endswith("Middle.")
    assert (one.kind, one.similarity, cleaned.removed.num_duplicates) == ("exact", 1.0, 1)
    assert run(text, duplicates="none").removed.num_duplicates == 0


def test_clean_removes_nearly_repeated_paragraphs() -> None:
    near = FOX.replace("dawn", "noon")
    chinese = (
        "今天天气很好，我们一起去公园散步，看到很多漂亮的花和快乐的孩子们，然后回到家里吃了晚饭，"
    )
    text = "\n\n".join([FOX, near, "Another thing altogether, of similar length to it.", chinese])
    text += f"\n\n{chinese}明天见。"
    assert run(text).removed.num_duplicates == 0
    cleaned = run(text, duplicates="near", similarity=0.8)
    assert [one.kind for one in cleaned.removed.duplicates] == ["near", "near"]
    assert near not in cleaned.text
    assert cleaned.text.endswith(chinese)
    assert 0.8 <= cleaned.removed.duplicates[0].similarity < 1


def test_clean_reports_spans_of_the_text_that_it_returns() -> None:
    text = (
        f"Ask jane@example.com.\n\n{FOX} Or ann@example.com.\n\n{FOX} Or ann@example.com.\n\nEnd."
    )
    cleaned = run(text, redact=("email",))
    assert cleaned.text == f"Ask [EMAIL].\n\n{FOX} Or [EMAIL].\n\nEnd."
    assert cleaned.removed.personal == {"email": 2}
    spans = [cleaned.text[one.start : one.end] for one in cleaned.removed.redactions]
    assert spans == ["[EMAIL]"] * 2
    [one] = cleaned.removed.duplicates
    assert cleaned.text[one.start : one.end] == f"{FOX} Or [EMAIL]."
    assert cleaned.text[one.position :] == "\n\nEnd."


def test_clean_redacts_titles() -> None:
    options = CleanOptions(redact=("email",))
    assert clean(Draft("x", " Mail of\na@b.org "), options).title == "Mail of [EMAIL]"


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=30),
            st.sampled_from(
                [*SCRIPTS, *EMOJI, FOX, "\n\n", " \n \n", "a@b.org", "4111 1111 1111 1111", "\x00"]
            ),
        ),
        max_size=12,
    ).map("".join),
    st.sampled_from(["exact", "near", "none"]),
)
def test_clean_reports_what_it_did(text: str, duplicates: str) -> None:
    cleaned = run(text, duplicates=duplicates, redact=("email", "card"))
    for redaction in cleaned.removed.redactions:
        placeholder = cleaned.text[redaction.start : redaction.end]
        assert placeholder == f"[{redaction.kind.upper()}]"
    assert sum(cleaned.removed.personal.values()) == len(cleaned.removed.redactions)
    for one in cleaned.removed.duplicates:
        assert 0 <= one.start < one.end <= len(cleaned.text)
        assert 0 <= one.position <= len(cleaned.text)
    assert not {"\x00", "\r", "\x85", "\u2028"} & set(cleaned.text)
    cleaned.text.encode()
