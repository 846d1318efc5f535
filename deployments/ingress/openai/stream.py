"""What both streams of OpenAI's form share: where the usage stands, and how they end.

A subclass turns events into chunks.
"""

from typing import Any

from deployments.errors import RagError
from deployments.ingress.generation import Answer
from deployments.ingress.openai.usage import usage_of
from deployments.ingress.sse import DONE, EVENT_STREAM, PING, block, error_block


class OpenAIStream:
    """One answer on its way out, and what was counted of it."""

    media_type = EVENT_STREAM
    ping = PING

    def __init__(
        self,
        header: dict[str, Any],
        num_choices: int,
        *,
        request_id: str,
        has_usage_chunk: bool,
        has_logprobs: bool,
    ) -> None:
        """Begin; `header` is what every chunk has in common."""
        self._header = header
        self._request_id = request_id
        self._has_usage_chunk = has_usage_chunk
        self._has_logprobs = has_logprobs
        self.answer = Answer.of(num_choices)

    def end(self) -> bytes:
        """Return the usage chunk where it was asked for, and `[DONE]`."""
        self.answer.check_whole()
        if not self._has_usage_chunk:
            return DONE
        return block({**self._header, "choices": [], "usage": usage_of(self.answer)}) + DONE

    def error(self, error: RagError) -> bytes:
        """Return the terminal block of a stream that failed."""
        return error_block(error, self._request_id)

    def _finished(self, choice: dict[str, Any]) -> bytes:
        """Return a finish chunk; the last one carries the usage unless a chunk of its own does.

        Dify never asks for a usage chunk, and without any usage it tries to download a tokenizer.
        """
        chunk = {**self._header, "choices": [choice]}
        if self.answer.is_whole and not self._has_usage_chunk:
            chunk["usage"] = usage_of(self.answer)
        return block(chunk)
