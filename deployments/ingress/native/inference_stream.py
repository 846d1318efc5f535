"""A streamed inference as server-sent events of our own form."""

from typing import Any

from deployments.errors import RagError
from deployments.ingress.errors import error_object
from deployments.ingress.generation import Answer
from deployments.ingress.openai.logprobs import chat_logprobs
from deployments.ingress.openai.usage import usage_of
from deployments.ingress.services import sources_of
from deployments.ingress.sse import EVENT_STREAM, PING, block, dumps, quote
from deployments.types import AnswerEvent, Delta, Sources


class InferenceStream:
    """Encodes a streamed inference: `sources`, then `delta`s, then one `done` or `error`."""

    media_type = EVENT_STREAM
    ping = PING

    def __init__(
        self,
        header: dict[str, str],
        num_choices: int,
        request_id: str,
        has_logprobs: bool,
        collection: str,
    ) -> None:
        self._header = header
        self._request_id = request_id
        self._has_logprobs = has_logprobs
        self._collection = collection
        self.answer = Answer.of(num_choices)
        prefix = 'data: {"type":"delta","index":'
        self._heads = [f'{prefix}{i},"text":' for i in range(num_choices)]

    def event(self, event: AnswerEvent) -> bytes:
        """Return the blocks of an event, often none."""
        if isinstance(event, Delta):
            return self._delta(event) if event.text or event.logprobs else b""
        self.answer.count(event)
        if isinstance(event, Sources):
            sources = sources_of(self._collection, event.chunks)
            return self._block("sources", {"sources": sources})
        return b""

    def end(self) -> bytes:
        """Return the terminal event."""
        self.answer.check_whole()
        reasons = [choice.finish_reason for choice in self.answer.choices]
        done: dict[str, Any] = {**self.answer.named(self._header), "finish_reason": reasons[0]}
        if len(reasons) > 1:
            done["finish_reasons"] = reasons
        return self._block("done", {**done, "usage": usage_of(self.answer)})

    def error(self, error: RagError) -> bytes:
        """Return the terminal event of a stream that failed."""
        return self._block("error", {"error": error_object(error, self._request_id)})

    def _block(self, kind: str, event: dict[str, Any]) -> bytes:
        return block({"type": kind, **event})

    def _delta(self, delta: Delta) -> bytes:
        logprobs = ""
        if self._has_logprobs:
            logprobs = f',"logprobs":{dumps(chat_logprobs(delta.logprobs)["content"])}'
        text = f"{self._heads[delta.index]}{quote(delta.text)}{logprobs}}}\n\n"
        return text.encode("ascii")
