"""The chunks of a streamed chat completion.

All that is the same in every chunk is encoded once; a delta costs one string literal.
"""

from typing import Any

from deployments.ingress.openai.logprobs import chat_logprobs
from deployments.ingress.openai.stream import OpenAIStream
from deployments.ingress.services import sources_of
from deployments.ingress.sse import block, dumps, quote
from deployments.types import AnswerEvent, Delta, Finished, PromptAccepted


class ChatStream(OpenAIStream):
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
        super().__init__(
            {**header, "object": "chat.completion.chunk"},
            num_choices,
            request_id=request_id,
            has_usage_chunk=has_usage_chunk,
            has_logprobs=has_logprobs,
        )
        self._collection = collection
        self._has_begun = [False] * num_choices
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

    def _made_heads(self) -> list[str]:
        prefix = f'data: {dumps(self._header)[:-1]},"choices":[{{"index":'
        return [f'{prefix}{i},"delta":{{"content":' for i in range(len(self._has_begun))]

    def _begin(self, index: int) -> bytes:
        """Return the chunk with the role, before a choice's first other chunk."""
        if self._has_begun[index]:
            return b""
        choice = _choice(index, {"role": "assistant", "content": ""}, None)
        chunk = {**self._header, "choices": [choice]}
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
        return self._finished(_choice(event.index, {}, event.finish_reason))


def _choice(index: int, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
