"""The Generator replica with the fake engine: prompts that fit, choices, and cancellation."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from deployments.config import GeneratorArgs
from deployments.delivery.inbox import Inbox
from deployments.engines.generation.base import EngineRequest
from deployments.engines.generation.fake import MAX_RUNNING
from deployments.errors import ContextTooLong, InvalidRequest, UnreadableModel
from deployments.generator import Generator
from deployments.types import (
    Adapter,
    Delta,
    Finished,
    GenerationEvent,
    GenerationRequest,
    Grammar,
    Grounding,
    Message,
    PromptAccepted,
    SamplingParams,
)
from tests.unit.engines.inspection.material import adapter

TEMPLATE = "Use:\n{passages}\nQ: {question}"


@pytest.fixture
async def generator() -> AsyncIterator[Generator]:
    generator = Generator(GeneratorArgs(engine="fake", context_length=256, default_max_tokens=64))
    await generator.start()
    yield generator
    await generator.stop()


def request(text: str = "hello", **changes: Any) -> GenerationRequest:
    sampling = SamplingParams(**{"temperature": 0.0, **changes.pop("sampling", {})})
    options = {"messages": (Message("user", text),), "sampling": sampling, **changes}
    return GenerationRequest(request_id="r", **options)


async def events(generator: Generator, asked: GenerationRequest) -> list[GenerationEvent]:
    return [event async for event in generator.generate(asked)]


def text_of(found: list[GenerationEvent], index: int = 0) -> str:
    return "".join(e.text for e in found if isinstance(e, Delta) and e.index == index)


async def test_generate_accepts_then_streams_then_finishes(generator: Generator) -> None:
    first, *deltas, last = await events(generator, request())
    assert first == PromptAccepted(7)
    assert text_of(deltas) == "Echo: hello"
    assert last == Finished("stop", 12)


async def test_generate_takes_prompts_and_tokens(generator: Generator) -> None:
    asked = request(messages=(), prompt="hi")
    assert text_of(await events(generator, asked)) == "Echo: hi"
    ids = (16 + ord("y"),)
    assert text_of(await events(generator, request(messages=(), prompt_token_ids=ids))) == "Echo: y"


async def test_generate_interleaves_choices_with_their_own_seeds(generator: Generator) -> None:
    seeds = {"temperature": 1.0, "seed": 5}
    found = await events(generator, request("x", n=3, sampling=seeds))
    alone = await events(generator, request("x", sampling={"temperature": 1.0, "seed": 7}))
    assert sorted(e.index for e in found if isinstance(e, Finished)) == [0, 1, 2]
    assert len({text_of(found, i) for i in range(3)}) == 3
    assert text_of(found, 2) == text_of(alone)


async def test_generate_lowers_the_default_to_what_the_context_leaves(generator: Generator) -> None:
    found = await events(generator, request("x" * 230))
    assert found[-1] == Finished("length", 256 - 232)


async def test_generate_refuses_too_many_tokens_with_the_numbers(generator: Generator) -> None:
    with pytest.raises(ContextTooLong, match=r"7 tokens.*max_tokens is 250.*257.*256"):
        await events(generator, request(sampling={"max_tokens": 250}))
    with pytest.raises(ContextTooLong, match="300"):
        await events(generator, request("x" * 298))


async def test_generate_refuses_an_empty_prompt(generator: Generator) -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        await events(generator, request(messages=(), prompt=""))


async def test_generate_refuses_what_the_engine_cannot_do(generator: Generator) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await events(generator, request(sampling={"grammar": Grammar("json_object")}))
    assert refused.value.param == "response_format"


async def test_grounding_puts_the_best_passage_last_and_keeps_braces(generator: Generator) -> None:
    grounding = Grounding(TEMPLATE, ("{question} is {x}", "two"))
    found = await events(generator, request("why {passages}?", grounding=grounding))
    assert found[0] == PromptAccepted(56, 2)
    assert (
        text_of(found) == ("Echo: Use:\n[2] two\n\n[1] {question} is {x}\nQ: why {passages}?"[:64])
    )


async def test_grounding_drops_the_last_passages_until_the_answer_fits(
    generator: Generator,
) -> None:
    grounding = Grounding(TEMPLATE, tuple(letter * 60 for letter in "abcd"))
    few = (await events(generator, request(grounding=grounding)))[0]
    more = (await events(generator, request(grounding=grounding, sampling={"max_tokens": 1})))[0]
    assert cast(PromptAccepted, few).num_passages == 2
    assert cast(PromptAccepted, more).num_passages == 3


async def test_grounding_needs_a_user_message(generator: Generator) -> None:
    asked = request(messages=(Message("system", "s"),), grounding=Grounding(TEMPLATE, ("a",)))
    with pytest.raises(InvalidRequest) as refused:
        await events(generator, asked)
    assert refused.value.param == "messages"


@pytest.mark.parametrize("n", [1, 3])
async def test_closing_generate_cancels_all_choices(generator: Generator, n: int) -> None:
    async with aclosing(cast(Any, generator.generate(request("x" * 99, n=n)))) as stream:
        await anext(stream)
        await anext(stream)
        assert (await generator.stats()).num_running == n
    assert (await generator.stats()).num_running == 0


async def test_cancelling_the_reader_cancels_all_choices(generator: Generator) -> None:
    task = asyncio.create_task(events(generator, request("x" * 99, n=3)))
    await asyncio.sleep(0.02)
    assert (await generator.stats()).num_running == 3
    task.cancel()
    await asyncio.wait([task])
    assert (await generator.stats()).num_running == 0


async def test_check_health_is_silent_while_running(generator: Generator) -> None:
    await generator.check_health()


async def test_deliver_sends_the_events_to_an_inbox(generator: Generator) -> None:
    inbox = Inbox("127.0.0.1")
    subscription = await inbox.open()
    (num_events,) = [num async for num in generator.deliver(request(n=2), subscription.reply_to)]
    async with asyncio.timeout(5):
        while subscription.num_received < num_events:
            await asyncio.sleep(0.01)
    found = subscription.take()
    assert found == await events(generator, request(n=2))
    await inbox.stop()


async def test_generator_counts_tokens_until_the_first_one_comes() -> None:
    args = GeneratorArgs(
        engine="fake", kv_cache_tokens=400, default_max_tokens=20, fake_token_delay_s=0.02
    )
    generator = Generator(args)
    assert await generator.record_autoscaling_stats() == {"tokens_waiting": 0, "kv_cache_usage": 0}
    await generator.start()
    asked = [
        asyncio.create_task(
            events(
                generator,
                replace(request("hello", sampling={"max_tokens": 100}), request_id=f"r{number}"),
            )
        )
        for number in range(MAX_RUNNING + 4)
    ]
    await asyncio.sleep(0.01)  # nobody has a token yet; each counts with its prompt and 20
    stats = await generator.record_autoscaling_stats()
    assert stats["tokens_waiting"] == (MAX_RUNNING + 4) * (7 + 20)
    while (await generator.record_autoscaling_stats())["tokens_waiting"] > 4 * 27:
        await asyncio.sleep(0.005)
    assert (await generator.record_autoscaling_stats())["kv_cache_usage"] > 0.2
    asked[-1].cancel()  # it still waits
    await asyncio.gather(asked[-1], return_exceptions=True)
    assert (await generator.record_autoscaling_stats())["tokens_waiting"] == 3 * 27
    await asyncio.gather(*asked[:-1])
    assert await generator.record_autoscaling_stats() == {"tokens_waiting": 0, "kv_cache_usage": 0}
    await generator.stop()


async def test_grounded_prompts_are_not_kept_for_a_while_after_forgetting(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[EngineRequest] = []
    generate = generator._engine.generate

    def spy(engine_request: EngineRequest) -> AsyncIterator[Delta | Finished]:
        asked.append(engine_request)
        return generate(engine_request)

    monkeypatch.setattr(generator._engine, "generate", spy)
    grounding = Grounding(TEMPLATE, ("one",))
    await events(generator, request(grounding=grounding))
    await generator.forget(late_s=60)
    await events(generator, request(grounding=grounding))
    await events(generator, request(grounding=grounding, n=2))
    await events(generator, request())
    await generator.forget(late_s=0)
    await events(generator, request(grounding=grounding))
    assert [one.is_kept for one in asked] == [True, False, False, False, True, False]


async def test_forget_reaches_the_engine(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    async def forget() -> None:
        calls.append("forget")

    monkeypatch.setattr(generator._engine, "forget", forget)
    await generator.forget(late_s=0)
    assert calls == ["forget"]
    await events(generator, request(grounding=Grounding(TEMPLATE, ("one",))))


async def test_request_brings_its_adapter_along(generator: Generator, tmp_path: Path) -> None:
    one = Adapter("one#1", str(adapter(tmp_path / "one")))
    assert text_of(await events(generator, request(adapter=one))) == "one#1 Echo: hello"
    assert text_of(await events(generator, request())) == "Echo: hello"
    shutil.rmtree(tmp_path / "one")
    found = await events(generator, request(adapter=one, n=2))
    assert [text_of(found, index) for index in (0, 1)] == ["one#1 Echo: hello"] * 2
    await generator.detach("one#1")
    with pytest.raises(UnreadableModel):
        await events(generator, request(adapter=one))


async def test_checked_adapter_is_not_kept(generator: Generator, tmp_path: Path) -> None:
    await generator.check_adapter(str(adapter(tmp_path / "one")))
    assert not generator._engine._adapters  # type: ignore[attr-defined]
    with pytest.raises(UnreadableModel):
        await generator.check_adapter(str(tmp_path))
