"""What the shared engine needs of a loaded model: a tokenizer of pairs and a scorer of pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, overload

from deployments.types import Vectors


@dataclass(frozen=True, slots=True)
class Pair(Sequence[int]):
    """The token ids of a query and a text, special ones included, and the kind of each.

    As a sequence it is its ids, which is what a batcher counts.
    """

    ids: Sequence[int]
    kinds: Sequence[int]

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        return self.ids[index]

    def __len__(self) -> int:
        return len(self.ids)


Score = Callable[[Sequence[Pair]], Vectors]
"""Blocking; n pairs to logits float32[n, 1]: what a sigmoid turns into a score in [0, 1]."""


class PairTokenizer(Protocol):
    """Turns texts into tokens; blocking, used from one thread."""

    @property
    def num_special(self) -> int:
        """Return how many special tokens a pair has."""
        ...

    def pairs(self, query: str, texts: Sequence[str]) -> list[Pair]:
        """Return the query with each text, nothing cut."""
        ...

    def forget(self) -> None:
        """Forget what of earlier texts is remembered."""
        ...

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Return the code points `[start, end)` of each token, in order, special ones left out."""
        ...


@dataclass(frozen=True, slots=True)
class PairModel:
    """A loaded model; a pair of more than `max_tokens` would be out of its reach.

    `score` may run on `num_workers` threads at once, after `prepare_worker` on each.
    """

    tokenizer: PairTokenizer
    score: Score
    max_tokens: int
    num_workers: int = 1
    prepare_worker: Callable[[], None] = lambda: None
