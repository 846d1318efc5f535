"""What a request has produced and its reader has not taken yet. Lives in the event loop only."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from deployments.engines.generation.text import TextStream
from deployments.engines.generation.transformers.sampling import Alternatives
from deployments.errors import EngineFailed
from deployments.types import Delta, Finished, FinishReason, TokenLogprob


@dataclass(slots=True)
class Output:
    """One request's tokens on their way to text."""

    text: TextStream
    eos_token_ids: frozenset[int]
    max_tokens: int
    logprobs: list[Alternatives]
    token_bytes: Callable[[int], bytes]
    is_finished: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    _tokens: list[int] = field(default_factory=list)
    _num_taken: int = 0
    _is_failed: bool = False

    def put(self, tokens: list[int], *, is_failed: bool) -> int:
        """Take all tokens so far from the engine; returns how many are new."""
        num_new = len(tokens) - len(self._tokens)
        self._tokens = tokens
        self._is_failed = self._is_failed or is_failed
        self.wake.set()
        return num_new

    def add(self, tokens: Sequence[int], logprobs: Sequence[Alternatives]) -> None:
        """Take the tokens of one step from an engine that does not repeat earlier ones."""
        self._tokens.extend(tokens)
        self.logprobs.extend(logprobs)
        self.wake.set()

    def fail(self) -> None:
        """Let the reader fail once it has taken what there is."""
        self._is_failed = True
        self.wake.set()

    def take(self) -> list[Delta | Finished]:
        """Return one delta for everything that is ready, and the end if it is reached.

        Raises:
            EngineFailed: the engine died before the end.
        """
        self.wake.clear()
        text = ""
        logprobs: list[TokenLogprob] = []
        reason: FinishReason | None = None
        while reason is None and self._num_taken < len(self._tokens):
            token = self._tokens[self._num_taken]
            if token not in self.eos_token_ids:
                text += self.text.push(token)
                if len(self.logprobs) > self._num_taken:
                    logprobs.append(self._logprob(self.logprobs[self._num_taken]))
            self._num_taken += 1
            reason = self._end(token)
        if reason is not None:
            text += self.text.flush()
        events: list[Delta | Finished] = []
        if text or logprobs:
            events.append(Delta(text, logprobs=tuple(logprobs)))
        if reason is not None:
            self.is_finished = True
            events.append(Finished(reason, self._num_taken))
        elif self._is_failed:
            raise EngineFailed("the generation engine failed while it worked on this request")
        return events

    def _end(self, token: int) -> FinishReason | None:
        if token in self.eos_token_ids or self.text.is_stopped:
            return "stop"
        return "length" if self._num_taken >= self.max_tokens else None

    def _logprob(self, chosen: Alternatives) -> TokenLogprob:
        top = tuple(TokenLogprob(id_, self.token_bytes(id_), value) for id_, value in chosen.top)
        return TokenLogprob(chosen.token_id, self.token_bytes(chosen.token_id), chosen.logprob, top)
