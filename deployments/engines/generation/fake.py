"""A deterministic engine without weights, for exercising the whole system around it.

It ships in the product (`engine: fake`). Words and single other characters are its tokens, and its
answer is a fixed transformation of the last user message, so a test can say what must come out.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from deployments.config import GeneratorArgs
from deployments.engines.generation.admission import check_length, check_queue, no_adapter
from deployments.engines.generation.base import EngineRequest
from deployments.engines.generation.rate import TokenRate
from deployments.engines.generation.text import TextStream
from deployments.engines.inspection.adapters import inspect_adapter
from deployments.errors import EngineFailed, InvalidRequest
from deployments.types import (
    Delta,
    EngineStats,
    Finished,
    Message,
    Role,
    SamplingParams,
    TokenLogprob,
)

MAX_RUNNING = 16
EOS = 0
CONTROL: dict[Role, int] = {"system": 1, "user": 2, "assistant": 3}
FIRST_CHARACTER = 16
"""Token `FIRST_CHARACTER + c` is the character with code point c; those below are control."""

UNSUPPORTED = {
    "grammar": ("response_format", None),
    "logit_bias": ("logit_bias", ()),
}


class FakeEngine:
    """Answers `Echo: ` and the last user message, one character per token.

    With a temperature above 0 and a seed, the answer begins with a word that depends on the seed,
    and with an adapter it begins with the adapter's id. Of an adapter's files the headers are read.
    """

    def __init__(self, args: GeneratorArgs) -> None:
        self._args = args
        self._delay_s = args.fake_token_delay_s
        self._slots = asyncio.Semaphore(MAX_RUNNING)
        self._num_running = 0
        self._num_queued = 0
        self._rate = TokenRate()
        self._running_tokens: dict[str, int] = {}
        self._is_running = False
        self._adapters: set[str] = set()

    @property
    def context_length(self) -> int:
        """Return the configured context; a fake model has no limit of its own."""
        return min(self._args.context_length, self._args.kv_cache_tokens)

    async def start(self) -> None:
        """Be ready at once."""
        self._is_running = True

    def encode(self, text: str) -> list[int]:
        """Return one token per character."""
        return [FIRST_CHARACTER + ord(character) for character in text]

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Return each message after its role's control token, then the assistant's."""
        ids: list[int] = []
        for message in messages:
            ids += [CONTROL[message.role], *self.encode(message.content)]
        return [*ids, CONTROL["assistant"]]

    def check(self, sampling: SamplingParams) -> None:
        """Refuse grammars and biases: a fixed answer cannot follow them."""
        for name, (param, off) in UNSUPPORTED.items():
            if getattr(sampling, name) != off:
                refused = InvalidRequest(f"the fake engine does not support {param}")
                refused.param = param
                raise refused

    async def attach(self, adapter: str, location: str) -> None:
        """Know an adapter from now on, if its files are such."""
        self.check_health()
        if adapter not in self._adapters:
            await asyncio.to_thread(inspect_adapter, Path(location), is_trusted=True)
            self._adapters.add(adapter)

    async def detach(self, adapter: str) -> None:
        """Know an adapter no longer."""
        self._adapters.discard(adapter)

    async def generate(self, request: EngineRequest) -> AsyncIterator[Delta | Finished]:
        """Yield the answer character by character, `delay_s` apart."""
        max_tokens = self._admit(request)
        self._num_queued += 1
        try:
            await self._slots.acquire()
        finally:
            self._num_queued -= 1
        self._num_running += 1
        self._running_tokens[request.id] = len(request.token_ids)
        try:
            async for event in self._answer(request, max_tokens):
                yield event
        finally:
            del self._running_tokens[request.id]
            self._num_running -= 1
            self._slots.release()

    async def _answer(
        self, request: EngineRequest, max_tokens: int
    ) -> AsyncIterator[Delta | Finished]:
        text = TextStream(_decode, request.sampling.stop)
        reason = None
        for num_tokens, token in enumerate(_answer_tokens(request), start=1):
            await asyncio.sleep(self._delay_s)
            self.check_health()
            self._rate.add(1)
            self._running_tokens[request.id] += 1
            released = "" if token == EOS else text.push(token)
            if token == EOS or text.is_stopped:
                reason = "stop"
            elif num_tokens == max_tokens:
                reason = "length"
            if reason:
                released += text.flush()
            logprobs = () if token == EOS else _logprobs(token, request.sampling)
            if released or logprobs:
                yield Delta(released, logprobs=logprobs)
            if reason:
                yield Finished("stop" if reason == "stop" else "length", num_tokens)
                return

    def _admit(self, request: EngineRequest) -> int:
        self.check_health()
        self.check(request.sampling)
        if request.adapter is not None and request.adapter not in self._adapters:
            raise no_adapter()
        max_tokens = check_length(request, self.context_length)
        check_queue(self._num_queued, self._args.max_queued_requests)
        return max_tokens

    async def forget(self) -> None:
        """Do nothing: it keeps nothing of a request that has ended."""

    def stats(self) -> EngineStats:
        """Return what the engine is doing now."""
        return EngineStats(
            num_running=self._num_running,
            num_queued=self._num_queued,
            tokens_per_s=self._rate.tokens_per_s,
            kv_cache_usage=min(
                1.0, sum(self._running_tokens.values()) / self._args.kv_cache_tokens
            ),
        )

    def check_health(self) -> None:
        """Raise EngineFailed before `start` and after `stop`."""
        if not self._is_running:
            raise EngineFailed("the generation engine is not running")

    async def stop(self) -> None:
        """Let every request fail at its next token."""
        self._is_running = False


def _decode(token_ids: Sequence[int]) -> str:
    return "".join(chr(token - FIRST_CHARACTER) for token in token_ids if token >= FIRST_CHARACTER)


def _answer_tokens(request: EngineRequest) -> Iterator[int]:
    answer = f"Echo: {_question(request.token_ids)}"
    if request.sampling.heat > 0 and request.sampling.seed is not None:
        digest = hashlib.sha256(str(request.sampling.seed).encode()).hexdigest()
        answer = f"{digest[:6]} {answer}"
    if request.adapter is not None:
        answer = f"{request.adapter} {answer}"
    yield from (FIRST_CHARACTER + ord(character) for character in answer)
    yield EOS


def _question(token_ids: Sequence[int]) -> str:
    """Return the last user message of a chat, or the whole of a plain prompt."""
    text = "".join(
        "\x00"
        if token == CONTROL["user"]
        else "\x01"
        if token < FIRST_CHARACTER
        else chr(token - 16)
        for token in token_ids
    )
    turns = re.findall("\x00([^\x00\x01]*)", text)
    return turns[-1] if turns else text


def _logprobs(token: int, sampling: SamplingParams) -> tuple[TokenLogprob, ...]:
    """Return certainty: the fake model has no second thoughts."""
    if sampling.logprobs is None:
        return ()
    chosen = TokenLogprob(token, _decode([token]).encode(), 0.0)
    top = (chosen,) if sampling.logprobs else ()
    return (TokenLogprob(chosen.token_id, chosen.token, 0.0, top),)
