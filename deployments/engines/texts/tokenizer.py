"""Texts to tokens with a model's own fast tokenizer. It knows neither batches nor weights."""

import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from deployments.engines.words import forget_words
from deployments.errors import EngineFailed

_SURROGATES = re.compile("[\ud800-\udfff]")


class FastTokenizer:
    """A fast tokenizer that cuts and pads nothing and takes every text as mere text.

    What looks like a control token in a text (`[SEP]`) is encoded as the characters it is made of.
    Thread-safe; the methods block, but release the GIL for most of their time.
    """

    def __init__(self, folder: Path, *, is_pair: bool = False) -> None:
        """Read a model's folder; `is_pair`: special tokens are counted as around two texts.

        Raises:
            EngineFailed: the folder has no tokenizer.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise EngineFailed("the model's folder has no tokenizer.json")
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self.num_special = self._tokenizer.num_special_tokens_to_add(is_pair=is_pair)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, special tokens included."""
        encodings: list[Encoding] = self._tokenizer.encode_batch_fast(
            [valid(text) for text in texts]
        )
        return [encoding.ids for encoding in encodings]

    def encode_pairs(self, first: str, texts: Sequence[str]) -> list[Encoding]:
        """Return a text with each of the others, as the model's template puts them together."""
        first = valid(first)
        encodings: list[Encoding] = self._tokenizer.encode_batch_fast(
            [(first, valid(text)) for text in texts]
        )
        return encodings

    def forget(self) -> None:
        """Forget the words of what was encoded."""
        forget_words(self._tokenizer)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the code points `[start, end)` of each token of a text, without special tokens."""
        encoding = self._tokenizer.encode(valid(text), add_special_tokens=False)
        spans: list[tuple[int, int]] = encoding.offsets
        return spans


def valid(text: str) -> str:
    """Return the text with lone surrogates replaced, which UTF-8 cannot hold; offsets stay."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)
