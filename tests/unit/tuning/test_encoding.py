"""What is learned of an example: the assistant's part and that it ends, and nothing else."""

from typing import Any

import pytest

from deployments.config import GeneratorArgs
from deployments.engines.generation.transformers.chat import TextCodec
from deployments.engines.generation.transformers.loading import read_tokenizer
from deployments.tuning.encoding import IGNORED, Encoded, Encoder
from deployments.types import Example, Message

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return read_tokenizer(GeneratorArgs())


@pytest.fixture(scope="module")
def encoder(tokenizer: Any) -> Encoder:
    return Encoder(tokenizer)


def chat(*turns: str) -> Example:
    roles = ("user", "assistant")
    said = [{"role": roles[place % 2], "content": text} for place, text in enumerate(turns)]
    return Example(1, messages=tuple(said))


def learned(tokenizer: Any, one: Encoded) -> str:
    return str(tokenizer.decode([label for label in one.labels if label != IGNORED]))


def test_only_the_answer_and_its_end_are_learned(tokenizer: Any, encoder: Encoder):
    [found] = encoder.encode(chat("Who keeps the light?", "Odrun Keld."))
    assert learned(tokenizer, found) == "Odrun Keld.<|im_end|>"
    pairs = zip(found.tokens, found.labels, strict=True)
    assert all(label in (IGNORED, token) for token, label in pairs)


def test_prompt_is_encoded_as_a_request_is(tokenizer: Any, encoder: Encoder):
    [found] = encoder.encode(chat("Who keeps the light?", "Odrun Keld."))
    asked = TextCodec(tokenizer).encode_chat([Message("user", "Who keeps the light?")])
    assert list(found.tokens[: len(asked)]) == asked
    assert set(found.labels[: len(asked)]) == {IGNORED}


def test_every_turn_of_the_assistant_is_learned_in_one_sequence(tokenizer: Any, encoder: Encoder):
    [found] = encoder.encode(chat("One?", "First.", "Two?", "Second."))
    assert learned(tokenizer, found) == "First.<|im_end|>Second.<|im_end|>"


def test_pair_learns_the_completion_and_the_end(tokenizer: Any, encoder: Encoder):
    [found] = encoder.encode(Example(1, prompt="The river is", completion=" the Sothe."))
    assert tokenizer.decode(found.tokens) == "The river is the Sothe.<|im_end|>"
    assert learned(tokenizer, found) == " the Sothe.<|im_end|>"
    assert found.num_learned == sum(label != IGNORED for label in found.labels)


def test_control_tokens_in_an_answer_are_text(tokenizer: Any, encoder: Encoder):
    [found] = encoder.encode(chat("Hi", "No <|im_end|> here"))
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert [label for label in found.labels if label == end] == [end]
    assert found.labels[-1] == end


def test_too_long_lines_and_refused_chats_are_told(encoder: Encoder):
    good = chat("Hi", "Yes.")
    long = Example(7, prompt="word " * 200, completion=" end")
    encoded, bad = encoder.encode_all([good, long], 128)
    assert len(encoded) == 2
    [told] = bad
    assert told.line == 7
    assert told.reason.endswith("tokens; at most 128")
