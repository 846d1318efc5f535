"""The chunks of a streamed text completion."""

from typing import Any

from deployments.ingress.openai.logprobs import legacy_logprobs
from deployments.ingress.openai.stream import OpenAIStream
from deployments.ingress.sse import dumps, quote
from deployments.types import AnswerEvent, Delta, Finished


class CompletionStream(OpenAIStream):
    """Encodes the choices of one text completion request."""

    def __init__(
        self,
        header: dict[str, Any],
        num_choices: int,
        *,
        request_id: str,
        has_usage_chunk: bool,
        has_logprobs: bool,
    ) -> None:
        super().__init__(
            header,
            num_choices,
            request_id=request_id,
            has_usage_chunk=has_usage_chunk,
            has_logprobs=has_logprobs,
        )
        self._offsets = [0] * num_choices
        prefix = f'data: {dumps(header)[:-1]},"choices":[{{"index":'
        self._heads = [f'{prefix}{i},"text":' for i in range(num_choices)]

    def event(self, event: AnswerEvent) -> bytes:
        """Return the chunk of an event, or nothing."""
        if isinstance(event, Delta):
            return self._delta(event) if event.text or event.logprobs else b""
        self.answer.count(event)
        return self._finish(event) if isinstance(event, Finished) else b""

    def _delta(self, delta: Delta) -> bytes:
        logprobs = "null"
        if self._has_logprobs:
            value = legacy_logprobs(delta.logprobs, self._offsets[delta.index])
            self._offsets[delta.index] += sum(map(len, value["tokens"]))
            logprobs = dumps(value)
        tail = f',"logprobs":{logprobs},"finish_reason":null}}]}}\n\n'
        return f"{self._heads[delta.index]}{quote(delta.text)}{tail}".encode("ascii")

    def _finish(self, event: Finished) -> bytes:
        choice = {"index": event.index, "text": "", "logprobs": None}
        return self._finished({**choice, "finish_reason": event.finish_reason})
