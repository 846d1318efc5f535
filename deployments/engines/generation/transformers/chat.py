"""Text and chats to tokens, and back. Control tokens come from the chat template alone."""

import json
import re
import secrets
from collections.abc import Sequence
from typing import Any

import tokenizers

from deployments.engines.words import forget_words
from deployments.errors import InvalidRequest
from deployments.types import Message


class TextCodec:
    """Encodes and decodes with a model's tokenizer; cheap to call, and safe from any thread."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend: tokenizers.Tokenizer = tokenizer.backend_tokenizer
        self._plain = _without_control_tokens(self._backend)
        self._control = {
            token.content: id_
            for id_, token in tokenizer.added_tokens_decoder.items()
            if token.content.strip()
        }
        longest_first = sorted(self._control, key=len, reverse=True)
        self._control_pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a prompt; what looks like a control token is encoded as text."""
        return list(self._plain.encode(text).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, without control tokens."""
        return self._backend.decode(token_ids, skip_special_tokens=True)

    def forget(self) -> None:
        """Forget the words of what was encoded."""
        forget_words(self._backend)
        forget_words(self._plain)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a chat up to where the assistant speaks.

        The template is rendered with marks in place of the contents. Control tokens are looked for
        in what the template itself wrote; everything between two of them, template or content, is
        encoded together as plain text, so that a harmless chat has its usual tokens.

        Raises:
            InvalidRequest: the model has no chat template, or the template refuses the messages.
        """
        nonce = secrets.token_hex(8)
        marks = [f"\ue000{nonce}{i}\ue001" for i in range(len(messages))]
        rendered = self._render([(m.role, mark) for m, mark in zip(messages, marks, strict=True)])
        pieces = re.split(f"(\ue000{nonce}\\d+\ue001)", rendered)
        contents = {mark: m.content for m, mark in zip(messages, marks, strict=True)}
        ids: list[int] = []
        plain = ""
        for piece in pieces:
            if piece in contents:
                plain += contents[piece]
                continue
            start = 0
            for match in self._control_pattern.finditer(piece):
                ids += self._encode_plain(plain + piece[start : match.start()])
                ids.append(self._control[match.group()])
                plain, start = "", match.end()
            plain += piece[start:]
        return ids + self._encode_plain(plain)

    def _encode_plain(self, text: str) -> list[int]:
        return list(self._plain.encode(text, add_special_tokens=False).ids) if text else []

    def _render(self, turns: list[tuple[str, str]]) -> str:
        chat = [{"role": role, "content": content} for role, content in turns]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    chat, tokenize=False, add_generation_prompt=True
                )
            )
        except Exception as error:  # templates are code of the model's author and raise anything
            refused = InvalidRequest("the model's chat template does not accept these messages")
            refused.param = "messages"
            raise refused from error


def _without_control_tokens(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Return a copy that sees control tokens as text; tokens of white space only are kept."""
    state = json.loads(backend.to_str())
    for token in state["added_tokens"]:
        token["special"] = bool(token["content"].strip())
    plain = tokenizers.Tokenizer.from_str(json.dumps(state))
    plain.encode_special_tokens = True
    plain.no_truncation()
    plain.no_padding()
    return plain
