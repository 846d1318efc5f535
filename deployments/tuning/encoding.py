"""Examples become tokens, and of each token whether the model is to learn it.

Only what the assistant says is learned, and that it ends there. Prompts are encoded as requests
are when the model answers (``engines/generation/transformers/chat.py``), so it sees what it learned
on. It does not know batches.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deployments.engines.generation.transformers.chat import TextCodec
from deployments.errors import InvalidRequest
from deployments.types import BadLine, Example, Message

IGNORED = -100
"""The label of a token that is not learned, as torch's cross entropy has it."""

MARK = "\ue000turn\ue001"


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sequence: its tokens, and as `labels` the same ones or IGNORED."""

    tokens: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def num_learned(self) -> int:
        """Return how many tokens are learned; the first one has nothing to be told from."""
        return sum(label != IGNORED for label in self.labels[1:])


class Encoder:
    """Encodes examples for one model."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._codec = TextCodec(tokenizer)
        self._lead = self._codec.encode("")

    def encode_all(
        self, examples: Sequence[Example], max_tokens: int
    ) -> tuple[list[Encoded], list[BadLine]]:
        """Return the sequences of all examples, and the lines that make none."""
        encoded, bad = list[Encoded](), list[BadLine]()
        for example in examples:
            try:
                found = self.encode(example)
            except InvalidRequest:
                bad.append(BadLine(example.line, "the model's chat template does not accept it"))
                continue
            longest = max(len(one.tokens) for one in found)
            if longest > max_tokens:
                bad.append(BadLine(example.line, f"{longest} tokens; at most {max_tokens}"))
            encoded += found
        return encoded, bad

    def encode(self, example: Example) -> list[Encoded]:
        """Return the sequences of an example.

        A chat is one sequence, if the model reads its earlier turns as it would have said them;
        else each of the assistant's turns is a sequence with all that went before it.

        Raises:
            InvalidRequest: the model has no chat template, or it refuses the chat.
        """
        if not example.messages:
            prompt = tuple(self._codec.encode(example.prompt))
            end = int(self._tokenizer.eos_token_id)
            return [_joined(prompt, (*self._plain(example.completion), end))]
        turns = [Message(one["role"], one["content"]) for one in example.messages]
        end = self._end_of_turn()  # that the assistant ends there is learned, too
        places = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
        sequences = [
            _joined(
                tuple(self._codec.encode_chat(turns[:place])),
                (*self._plain(turns[place].content), end),
            )
            for place in places
        ]
        whole = _merged(sequences)
        return sequences if whole is None else [whole]

    def _plain(self, text: str) -> list[int]:
        """Return the tokens of a text that begins nothing."""
        return self._codec.encode(text)[len(self._lead) :]

    def _end_of_turn(self) -> int:
        """Return the control token that the template writes after the assistant's turn."""
        chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}]
        try:
            rendered = str(self._tokenizer.apply_chat_template(chat, tokenize=False))
        except Exception as error:  # templates are code of the model's author and raise anything
            raise InvalidRequest("the model's chat template accepts no answer") from error
        tail = rendered.rpartition(MARK)[2].lstrip()
        known = {one.content: id_ for id_, one in self._tokenizer.added_tokens_decoder.items()}
        ends = sorted(filter(str.strip, known), key=len, reverse=True)
        found = re.match("|".join(map(re.escape, ends)) or r"(?!)", tail)
        return known[found.group()] if found else int(self._tokenizer.eos_token_id)


def _joined(prompt: tuple[int, ...], answer: tuple[int, ...]) -> Encoded:
    return Encoded(prompt + answer, (IGNORED,) * len(prompt) + answer)


def _merged(sequences: Sequence[Encoded]) -> Encoded | None:
    """Return the last sequence with the answers of the earlier ones learned, if it repeats them."""
    last = sequences[-1]
    labels = list(last.labels)
    for one in sequences[:-1]:
        length = len(one.tokens)
        if last.tokens[:length] != one.tokens:
            return None
        labels[:length] = [
            new if new != IGNORED else old
            for old, new in zip(labels[:length], one.labels, strict=True)
        ]
    return Encoded(last.tokens, tuple(labels))
