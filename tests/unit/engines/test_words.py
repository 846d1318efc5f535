"""A tokenizer's memory of words is emptied where it has one."""

from typing import Any

import pytest
from tokenizers import Tokenizer, models

from deployments.engines.words import forget_words


@pytest.mark.parametrize("kind", [models.BPE, models.Unigram])
def test_kinds_that_remember_words_can_forget_them(kind: Any) -> None:
    tokenizer = Tokenizer(kind())
    assert callable(tokenizer.model._clear_cache), "the library has renamed it"
    forget_words(tokenizer)
    assert tokenizer.encode("").ids == []


def test_kinds_without_a_memory_are_left_alone() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    forget_words(tokenizer)
    assert tokenizer.encode("a").ids == [0]
    assert not [name for name in dir(models.WordPiece) if "cache" in name]


def test_memory_is_emptied_in_place() -> None:
    class Model:
        num_emptied = 0

        def _clear_cache(self) -> None:
            self.num_emptied += 1

    class Stub:
        model = Model()

    forget_words(Stub())  # type: ignore[arg-type]
    assert Stub.model.num_emptied == 1
