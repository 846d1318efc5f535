"""A request's prompt as tokens that fit the model's context. It knows an engine by its protocol."""

import asyncio

from deployments.config import GeneratorArgs
from deployments.engines.generation.base import GenerationEngine
from deployments.engines.generation.grounding import ground
from deployments.errors import ContextTooLong, InvalidRequest
from deployments.types import GenerationRequest, Message

LONG_TEXT = 8192
"""Characters from which on encoding leaves the event loop: about 2 ms of work."""


class Prompts:
    """Encodes prompts with an engine's tokenizer, and says what room they leave."""

    def __init__(self, engine: GenerationEngine, args: GeneratorArgs) -> None:
        self._engine = engine
        self._args = args

    async def tokens(self, request: GenerationRequest) -> tuple[tuple[int, ...], int]:
        """Return the prompt's tokens and how many passages it holds."""
        if request.prompt_token_ids is not None:
            return request.prompt_token_ids, 0
        if request.prompt is not None:
            return tuple(await self._encode(request.prompt)), 0
        if request.grounding is None:
            return tuple(await self._encode_chat(request.messages)), 0
        return await self._grounded(request)

    def max_tokens(self, num_prompt: int, asked: int | None) -> int:
        """Return how many tokens a choice may have."""
        context = self._engine.context_length
        if num_prompt == 0:
            raise InvalidRequest("the prompt is empty")
        if num_prompt >= context:
            raise ContextTooLong(
                f"the prompt has {num_prompt} tokens, but the model's context holds {context} "
                "for prompt and output together"
            )
        if asked is None:
            return min(self._args.default_max_tokens, context - num_prompt)
        if num_prompt + asked > context:
            raise ContextTooLong(
                f"the prompt has {num_prompt} tokens and max_tokens is {asked}, together "
                f"{num_prompt + asked}, but the model's context holds {context}"
            )
        return asked

    async def _grounded(self, request: GenerationRequest) -> tuple[tuple[int, ...], int]:
        """Return the grounded prompt with as many passages, from the best on, as fit.

        All passages fit as a rule; where they do not, their number is found by bisection.
        """
        grounding = request.grounding
        assert grounding is not None
        context = self._engine.context_length
        reserve = request.sampling.max_tokens
        if reserve is None:
            reserve = min(self._args.default_max_tokens, context // 4)

        async def encode(num_passages: int) -> tuple[int, ...]:
            messages = ground(request.messages, grounding, num_passages)
            return tuple(await self._encode_chat(messages))

        token_ids = await encode(len(grounding.passages))
        if len(token_ids) + reserve <= context:
            return token_ids, len(grounding.passages)
        fits, too_many = 0, len(grounding.passages)
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            if len(await encode(middle)) + reserve <= context:
                fits = middle
            else:
                too_many = middle
        return await encode(fits), fits

    async def _encode(self, text: str) -> list[int]:
        if len(text) < LONG_TEXT:
            return self._engine.encode(text)
        return await asyncio.to_thread(self._engine.encode, text)

    async def _encode_chat(self, messages: tuple[Message, ...]) -> list[int]:
        if sum(len(message.content) for message in messages) < LONG_TEXT:
            return self._engine.encode_chat(messages)
        return await asyncio.to_thread(self._engine.encode_chat, messages)
