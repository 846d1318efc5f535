"""Text comes out whole and never shows a part of a stop string, however it is cut into tokens."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.engines.generation.text import Detokenizer, StopScanner, TextStream

TEXTS = st.text(alphabet=st.sampled_from("abc \n😀中שלé"), max_size=40)
STOPS = st.lists(st.text(alphabet="abc 中", min_size=1, max_size=4), max_size=3)


def decode_bytes(tokens: Sequence[int]) -> str:
    """Decode a byte per token, as byte-level tokenizers do."""
    return bytes(tokens).decode("utf-8", errors="replace")


def cut(text: str, stops: Sequence[str]) -> str:
    """Return the text before the stop that is complete first; of several, the longest."""
    for end in range(1, len(text) + 1):
        starts = [end - len(s) for s in stops if text[:end].endswith(s)]
        if starts:
            return text[: min(starts)]
    return text


@given(TEXTS)
def test_detokenizer_adds_up_to_the_text(text: str) -> None:
    detokenizer = Detokenizer(decode_bytes)
    deltas = [detokenizer.push(byte) for byte in text.encode()]
    assert "".join(deltas) == text
    assert detokenizer.flush() == ""
    assert all("\ufffd" not in delta for delta in deltas)


@given(st.binary(max_size=24))
def test_detokenizer_adds_up_to_the_decoding_of_any_bytes(data: bytes) -> None:
    detokenizer = Detokenizer(decode_bytes)
    deltas = [detokenizer.push(byte) for byte in data]
    assert "".join(deltas) + detokenizer.flush() == decode_bytes(data)


@given(TEXTS, STOPS, st.data())
def test_scanner_cuts_at_the_first_stop_for_any_split(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    scanner = StopScanner(stops)
    released, rest = "", text
    while rest and not scanner.is_stopped:
        size = data.draw(st.integers(1, len(rest)))
        released += scanner.push(rest[:size])
        rest = rest[size:]
        assert cut(text, stops).startswith(released)
    if not scanner.is_stopped:
        released += scanner.flush()
    assert released == cut(text, stops)
    assert scanner.is_stopped == any(stop in text for stop in stops)


@given(TEXTS, STOPS)
def test_stream_equals_the_cut_decoding(text: str, stops: list[str]) -> None:
    stream = TextStream(decode_bytes, stops)
    released = ""
    for byte in text.encode():
        released += stream.push(byte)
        if stream.is_stopped:
            break
    assert released + stream.flush() == cut(text, stops)


@pytest.mark.parametrize("text", ["😀", "中文", "שלום", "é"])
def test_detokenizer_holds_back_an_incomplete_character(text: str) -> None:
    detokenizer = Detokenizer(decode_bytes)
    first, *_ = text.encode()
    assert detokenizer.push(first) == ""
    assert detokenizer.flush() == "\ufffd"


def test_scanner_holds_back_what_may_begin_a_stop() -> None:
    scanner = StopScanner(["</s>"])
    assert [scanner.push(piece) for piece in ("a<", "/", "b")] == ["a", "", "</b"]
