import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from deployments.errors import (
    EngineFailed,
    InvalidRequest,
    ModelNotFound,
    ModelUnavailable,
    Overloaded,
    RagError,
    StoreUnavailable,
)
from deployments.types import (
    Delta,
    Finished,
    GenerationEvent,
    GenerationRequest,
    PromptAccepted,
    SamplingParams,
)
from graphs import fallbacks
from graphs.fallbacks import with_fallbacks

REQUEST = GenerationRequest(
    request_id="r", sampling=SamplingParams(), model="a", fallbacks=("b", "c"), is_streamed=False
)
WHOLE: list[Any] = [PromptAccepted(3), Delta("x"), Finished("stop", 1)]


class Asked:
    """Plays what each model does: yields events, raises errors, or never answers."""

    def __init__(self, **plays: list[Any]) -> None:
        self.plays = plays
        self.models: list[str] = []
        self.num_closed = 0

    async def __call__(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        assert request.is_streamed
        assert not request.fallbacks
        self.models.append(request.model)
        try:
            for one in self.plays[request.model]:
                if isinstance(one, RagError):
                    raise one
                if one is None:
                    await asyncio.Event().wait()
                yield one
        finally:
            self.num_closed += 1


async def texts(asked: Asked) -> list[GenerationEvent]:
    return [event async for event in with_fallbacks(REQUEST, asked)]


async def test_first_model_answers_where_it_can() -> None:
    asked = Asked(a=WHOLE)
    events = await texts(asked)
    assert events == [PromptAccepted(3, model="a"), *WHOLE[1:]]
    assert asked.models == ["a"]


@pytest.mark.parametrize(
    "play",
    [
        [Overloaded("full")],
        [EngineFailed("lost")],
        [ModelUnavailable("loading")],
        [ModelNotFound("unloaded")],
        [StoreUnavailable("the registry cannot be read")],
        [PromptAccepted(3), Overloaded("full")],
        [PromptAccepted(3), EngineFailed("lost")],
        [],
    ],
)
async def test_next_model_answers_before_the_first_token(play: list[Any]) -> None:
    asked = Asked(a=play, b=WHOLE)
    assert await texts(asked) == [PromptAccepted(3, model="b"), *WHOLE[1:]]
    assert (asked.models, asked.num_closed) == (["a", "b"], 2)


async def test_model_without_replicas_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallbacks, "ACCEPT_S", 0.05)
    asked = Asked(a=[None], b=[None], c=WHOLE)
    assert (await texts(asked))[0] == PromptAccepted(3, model="c")
    assert asked.num_closed == 3


async def test_no_model_takes_over_after_the_first_token() -> None:
    asked = Asked(a=[*WHOLE[:2], EngineFailed("lost")], b=WHOLE)
    with pytest.raises(EngineFailed):
        await texts(asked)
    assert asked.models == ["a"]


async def test_mistake_of_the_caller_is_no_reason_to_ask_another() -> None:
    asked = Asked(a=[InvalidRequest("no such parameter")], b=WHOLE)
    with pytest.raises(InvalidRequest):
        await texts(asked)
    assert asked.models == ["a"]


async def test_last_models_error_is_told() -> None:
    asked = Asked(a=[Overloaded("1")], b=[Overloaded("2")], c=[ModelUnavailable("3")])
    with pytest.raises(ModelUnavailable, match="3"):
        await texts(asked)
