"""B10: what a document holds reaches the model as words, within its fence, and never as control."""

import pytest
import transformers

from deployments.engines.generation.grounding import FENCE, ground
from deployments.engines.generation.transformers.chat import TextCodec
from deployments.engines.weights import locate
from deployments.types import Grounding, Message
from graphs.prompt import TEMPLATE
from tests.injections import documents

QUESTION = (Message("system", "Be brief."), Message("user", "Which port does the edge listen on?"))


@pytest.fixture(scope="module")
def codec() -> TextCodec:
    weights = locate("embedded:smollm2-135m-instruct")
    file = {"gguf_file": weights.gguf_file} if weights.gguf_file else {}
    return TextCodec(transformers.AutoTokenizer.from_pretrained(weights.folder, **file))


def chat_with(passage: str) -> tuple[Message, ...]:
    return ground(QUESTION, Grounding(TEMPLATE, (passage,)), 1)


def control_of(codec: TextCodec, messages: tuple[Message, ...]) -> list[int]:
    control = set(codec._control.values())
    return [token for token in codec.encode_chat(messages) if token in control]


def test_b10_there_are_200_documents() -> None:
    assert len(set(documents())) == 200


def test_b10_no_document_gives_control_tokens(codec: TextCodec) -> None:
    expected = control_of(codec, chat_with("The edge listens on port 8080."))
    assert len(expected) >= 5, "three turns begin, and two end"
    for document in documents():
        assert control_of(codec, chat_with(document)) == expected, document


def test_b10_no_document_leaves_its_fence_or_changes_the_others() -> None:
    system, question = QUESTION
    for document in documents():
        first, last = chat_with(document)
        assert first == system
        before, *rest = last.content.partition("<passages>\n")
        inside, _, after = rest[-1].partition("\n</passages>")
        assert inside == FENCE.sub(r"‹\1passages›", document)
        assert question.content in before
        assert after == f"\n\nQuestion: {question.content}"
