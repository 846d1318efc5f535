"""The chunks of a streamed chat completion.

All that is the same in every chunk is encoded once; a delta costs one string literal.
"""

from typing import Any

from deployments.errors import RagError
from deployments.ingress.generation import Answer
from deployments.ingress.openai.logprobs import chat_logprobs
from deployments.ingress.openai.usage import usage_of
from deployments.ingress.services import sources_of
from deployments.ingress.sse import DONE, block, dumps, error_block, quote
from deployments.types import AnswerEvent, Delta, Finished, PromptAccepted


class ChatStream:
    """Encodes one chat completion; with sources, they stand on the very first chunk."""

    def __init__(
        self,
        header: dict[str, Any],
        num_choices: int,
        *,
        request_id: str,
        has_usage_chunk: bool,
        has_logprobs: bool,
        collection: str | None,
    ) -> None:
        self._header = {**header, "object": "chat.completion.chunk"}
        self._request_id = request_id
        self._has_usage_chunk = has_usage_chunk
        self._has_logprobs = has_logprobs
        self._collection = collection
        self._has_begun = [False] * num_choices
        self.answer = Answer.of(num_choices)
        self._heads = self._made_heads()

    def event(self, event: AnswerEvent) -> bytes:
        """Return the chunks of an event, often none."""
        if isinstance(event, Delta):
            if not event.text and not event.logprobs:
                return b""
            return self._begin(event.index) + self._delta(event)
        self.answer.count(event)
        if isinstance(event, PromptAccepted) and event.model:
            self._header = self.answer.named(self._header)
            self._heads = self._made_heads()
        if isinstance(event, Finished):
            return self._begin(event.index) + self._finish(event)
        return b""

    def end(self) -> bytes:
        """Return the usage chunk where it was asked for, and `[DONE]`."""
        self.answer.check_whole()
        if not self._has_usage_chunk:
            return DONE
        return block({**self._header, "choices": [], "usage": usage_of(self.answer)}) + DONE

    def error(self, error: RagError) -> bytes:
        """Return the terminal block of a stream that failed."""
        return error_block(error, self._request_id)

    def _made_heads(self) -> list[str]:
        prefix = f'data: {dumps(self._header)[:-1]},"choices":[{{"index":'
        return [f'{prefix}{i},"delta":{{"content":' for i in range(len(self._has_begun))]

    def _begin(self, index: int) -> bytes:
        """Return the chunk with the role, before a choice's first other chunk."""
        if self._has_begun[index]:
            return b""
        chunk = self._chunk(index, {"role": "assistant", "content": ""}, None)
        if self._collection and not any(self._has_begun):
            chunk["sources"] = sources_of(self._collection, self.answer.chunks or ())
        self._has_begun[index] = True
        return block(chunk)

    def _delta(self, delta: Delta) -> bytes:
        logprobs = "null"
        if self._has_logprobs:
            logprobs = dumps(chat_logprobs(delta.logprobs))
        head = self._heads[delta.index]
        tail = f'}},"logprobs":{logprobs},"finish_reason":null}}]}}\n\n'
        return f"{head}{quote(delta.text)}{tail}".encode("ascii")

    def _finish(self, event: Finished) -> bytes:
        """Return the finish chunk; the last one carries the usage unless a chunk of its own does.

        Dify never asks for a usage chunk, and without any usage it tries to download a tokenizer.
        """
        chunk = self._chunk(event.index, {}, event.finish_reason)
        if self.answer.is_whole and not self._has_usage_chunk:
            chunk["usage"] = usage_of(self.answer)
        return block(chunk)

    def _chunk(self, index: int, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self._header, "choices": [choice]}
