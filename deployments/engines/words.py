"""The words that a fast tokenizer remembers, to spare itself splitting them once more."""

from typing import Any

from tokenizers import Tokenizer


def forget_words(tokenizer: Tokenizer) -> None:
    """Empty a tokenizer's memory of words; those of some kinds, such as WordPiece, have none."""
    model: Any = tokenizer.model
    if hasattr(model, "_clear_cache"):
        model._clear_cache()
