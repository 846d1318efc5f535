"""From tokens to text that may be shown: whole characters only, and nothing of a stop string.

Engine-neutral: it knows a function that decodes token ids, and no tokenizer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

REPLACEMENT = "\ufffd"

Decode = Callable[[Sequence[int]], str]


@dataclass(slots=True)
class Detokenizer:
    """Decodes tokens one by one; the texts it returns add up to the decoding of all tokens.

    A character whose bytes are spread over several tokens is held back until it is whole. Each
    decoding covers the tokens of the last step too, because some tokenizers decode a token
    differently at the start of a text.
    """

    decode: Decode
    _tokens: list[int] = field(default_factory=list)
    _num_settled: int = 0
    _settled: str = ""
    _shown: int = 0

    def push(self, token: int) -> str:
        """Return the text that this token completes; empty while a character is incomplete."""
        self._tokens.append(token)
        text = self.decode(self._tokens)
        whole = text.rstrip(REPLACEMENT)
        new = whole[self._shown :]
        self._shown = max(self._shown, len(whole))
        if whole and len(whole) == len(text):
            self._forget()
        return new

    def flush(self) -> str:
        """Return what was held back; bytes that never became a character are U+FFFD."""
        text = self.decode(self._tokens)[self._shown :]
        self._shown += len(text)
        return text

    def _forget(self) -> None:
        """Keep only the tokens since the last whole character as context for the next ones."""
        self._tokens = self._tokens[self._num_settled :]
        self._num_settled = len(self._tokens)
        self._shown = len(self.decode(self._tokens))


class StopScanner:
    """Cuts a text at the first stop string and never releases a part of one.

    The first stop is the one that is complete first; of those complete at once, the longest.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.is_stopped = False

    def push(self, text: str) -> str:
        """Return the text that can no longer belong to a stop."""
        if not self._stops:
            return text
        self._held += text
        cut = self._find()
        if cut is not None:
            self.is_stopped = True
            released, self._held = self._held[:cut], ""
            return released
        keep = self._num_undecided()
        released = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return released

    def flush(self) -> str:
        """Return what was held back, now that no more text comes."""
        released, self._held = self._held, ""
        return released

    def _find(self) -> int | None:
        starts = ((self._held.find(stop), len(stop)) for stop in self._stops)
        found = [(start + length, start) for start, length in starts if start >= 0]
        return min(found)[1] if found else None

    def _num_undecided(self) -> int:
        """Return the length of the longest end of the text that a stop may begin with."""
        longest = min(len(self._held), max(map(len, self._stops)) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0


class TextStream:
    """Tokens in, releasable text out; `is_stopped` once a stop string was met."""

    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self._detokenizer = Detokenizer(decode)
        self._scanner = StopScanner(stops)

    @property
    def is_stopped(self) -> bool:
        """Return whether a stop string was met; the tokens after it are of no use."""
        return self._scanner.is_stopped

    def push(self, token: int) -> str:
        """Return the text that this token releases."""
        text = self._detokenizer.push(token)
        return self._scanner.push(text) if text else ""

    def flush(self) -> str:
        """Return the rest of the text after the last token."""
        if self.is_stopped:
            return ""
        text = self._scanner.push(self._detokenizer.flush())
        return text if self.is_stopped else text + self._scanner.flush()
