"""The chunks of a streamed text completion."""

from typing import Any

from deployments.errors import RagError
from deployments.ingress.generation import Answer
from deployments.ingress.openai.logprobs import legacy_logprobs
from deployments.ingress.openai.usage import usage_of
from deployments.ingress.sse import DONE, block, dumps, error_block, quote
from deployments.types import AnswerEvent, Delta, Finished


class CompletionStream:
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
        self._header = header
        self._request_id = request_id
        self._has_usage_chunk = has_usage_chunk
        self._has_logprobs = has_logprobs
        self._offsets = [0] * num_choices
        self.answer = Answer.of(num_choices)
        prefix = f'data: {dumps(header)[:-1]},"choices":[{{"index":'
        self._heads = [f'{prefix}{i},"text":' for i in range(num_choices)]

    def event(self, event: AnswerEvent) -> bytes:
        """Return the chunk of an event, or nothing."""
        if isinstance(event, Delta):
            return self._delta(event) if event.text or event.logprobs else b""
        self.answer.count(event)
        return self._finish(event) if isinstance(event, Finished) else b""

    def end(self) -> bytes:
        """Return the usage chunk where it was asked for, and `[DONE]`."""
        self.answer.check_whole()
        if not self._has_usage_chunk:
            return DONE
        return block({**self._header, "choices": [], "usage": usage_of(self.answer)}) + DONE

    def error(self, error: RagError) -> bytes:
        """Return the terminal block of a stream that failed."""
        return error_block(error, self._request_id)

    def _delta(self, delta: Delta) -> bytes:
        logprobs = "null"
        if self._has_logprobs:
            value = legacy_logprobs(delta.logprobs, self._offsets[delta.index])
            self._offsets[delta.index] += sum(map(len, value["tokens"]))
            logprobs = dumps(value)
        tail = f',"logprobs":{logprobs},"finish_reason":null}}]}}\n\n'
        return f"{self._heads[delta.index]}{quote(delta.text)}{tail}".encode("ascii")

    def _finish(self, event: Finished) -> bytes:
        choice = {
            "index": event.index,
            "text": "",
            "logprobs": None,
            "finish_reason": event.finish_reason,
        }
        chunk = {**self._header, "choices": [choice]}
        if self.answer.is_whole and not self._has_usage_chunk:
            chunk["usage"] = usage_of(self.answer)
        return block(chunk)
