"""A deterministic embedder without weights, so that the whole system can be exercised anywhere.

Texts that share words or letter groups get near vectors. A token is a word without white space in
it, or 16 characters of a longer one; its id spells it out, so the encoder needs no vocabulary.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import partial

import numpy as np

from deployments.config import EmbedderArgs
from deployments.engines.embedding.engine import BatchedEmbedder
from deployments.engines.embedding.model import Model, TokenIds
from deployments.types import Vectors

MAX_TOKENS = 256

_TOKEN = re.compile(r"\S{1,16}")
_NUM_SPECIAL = 2
_SPECIAL = 0


class FakeTokenizer:
    """Splits at white space, and long words after every 16 characters."""

    num_special = _NUM_SPECIAL

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's tokens, spelt out as numbers, between two special ones."""
        return [[_SPECIAL, *map(_spell, _TOKEN.findall(text)), _SPECIAL] for text in texts]

    def forget(self) -> None:
        """Do nothing: it remembers nothing."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the code points of each token."""
        return [match.span() for match in _TOKEN.finditer(text)]


class FakeEmbedder(BatchedEmbedder):
    """Hashes words and letter groups into a few dimensions."""

    def load(self, args: EmbedderArgs) -> Model:
        """Return the fake model; there is nothing to load."""
        encode = partial(_encode, dim=args.fake_dim)
        return Model(FakeTokenizer(), encode, args.fake_dim, MAX_TOKENS)


def _spell(token: str) -> int:
    return int.from_bytes(token.casefold().encode("utf-8", "surrogatepass"), "big")


def _encode(sequences: Sequence[TokenIds], dim: int) -> Vectors:
    return np.stack([_vector(sequence, dim) for sequence in sequences])


def _vector(sequence: TokenIds, dim: int) -> Vectors:
    vector = np.zeros(dim, np.float32)
    for token in filter(None, sequence):
        word = token.to_bytes((token.bit_length() + 7) // 8, "big")
        for feature in (word, *(word[i : i + 3] for i in range(len(word) - 2))):
            digest = hashlib.blake2b(feature, digest_size=2).digest()
            vector[digest[0] % dim] += 1.0 if digest[1] % 2 else -1.0
    norm = float(np.linalg.norm(vector))
    if norm == 0.0:
        vector[0] = norm = 1.0
    return vector / np.float32(norm)
