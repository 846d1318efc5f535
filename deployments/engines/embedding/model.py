"""What the shared engine needs of a loaded model: a tokenizer and an encoder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from deployments.types import Vectors

TokenIds = Sequence[int]
Encode = Callable[[Sequence[TokenIds]], Vectors]
"""Blocking; token ids of n sequences, special ones included, to float32[n, dim], L2-normalised."""


class TextTokenizer(Protocol):
    """Turns texts into tokens; blocking, used from one thread."""

    @property
    def num_special(self) -> int:
        """Return how many special tokens `encode` adds to each text."""
        ...

    def encode(self, texts: Sequence[str]) -> Sequence[TokenIds]:
        """Return the token ids of each text, special tokens included, nothing cut."""
        ...

    def forget(self) -> None:
        """Forget what of earlier texts is remembered."""
        ...

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Return the code points `[start, end)` of each token, in order, special ones left out."""
        ...


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model; a sequence of more than `max_tokens` would be out of its reach.

    `encode` may run on `num_workers` threads at once, after `prepare_worker` on each.
    """

    tokenizer: TextTokenizer
    encode: Encode
    dim: int
    max_tokens: int
    num_workers: int = 1
    prepare_worker: Callable[[], None] = lambda: None
