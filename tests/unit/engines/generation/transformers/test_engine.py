"""The engine against the plain loop, itself in company, and its own bounds, on the real model."""

import asyncio
import dataclasses
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import torch
from transformers import DynamicCache

from deployments.config import GeneratorArgs
from deployments.engines.generation.base import EngineRequest
from deployments.engines.generation.transformers.engine import TransformersEngine
from deployments.errors import EngineFailed, InvalidRequest
from deployments.types import Delta, Finished, Grammar, Message, SamplingParams

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

PROMPTS = ["What is the capital of France?", "Name three colours.", "Write a line about the sea."]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["bf16"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[TransformersEngine]:
    engine = TransformersEngine(
        GeneratorArgs(precision=request.param, kv_cache_tokens=4096, max_batch_tokens=256)
    )
    await engine.start()
    yield engine
    await engine.stop()


def ask(engine: TransformersEngine, text: str, **params: Any) -> EngineRequest:
    ids = tuple(engine.encode_chat([Message("user", text)]))
    sampling = SamplingParams(**{"max_tokens": 24, "temperature": 0.0, **params})
    return EngineRequest(text, ids, sampling)


async def answer(engine: TransformersEngine, request: EngineRequest) -> list[Delta | Finished]:
    return [event async for event in engine.generate(request)]


def text_of(events: list[Delta | Finished]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def tokens_of(events: list[Delta | Finished]) -> list[tuple[int, float]]:
    deltas = [event for event in events if isinstance(event, Delta)]
    return [(one.token_id, one.logprob) for delta in deltas for one in delta.logprobs]


async def test_seed_gives_the_same_bits_alone_and_in_company(engine: TransformersEngine) -> None:
    asked = ask(engine, "Tell me about the sea.", temperature=1.0, seed=7, top_p=0.9, logprobs=0)
    others = [ask(engine, f"Tell a tale {i}. " * (3 * i + 1), temperature=0.9) for i in range(8)]
    alone = await answer(engine, asked)
    company, *_ = await asyncio.gather(
        answer(engine, asked), *(answer(engine, other) for other in others)
    )
    assert tokens_of(company) == tokens_of(alone)
    assert text_of(company) == text_of(alone)


async def test_more_requests_than_the_cache_holds_wait_and_finish(
    engine: TransformersEngine,
) -> None:
    asked = [ask(engine, f"{i}: " + "word " * 500, max_tokens=8) for i in range(12)]
    found = await asyncio.gather(*(answer(engine, one) for one in asked))
    assert all(isinstance(events[-1], Finished) for events in found)


async def test_a_shared_prefix_does_not_change_the_answer(engine: TransformersEngine) -> None:
    text = "The sea is wide. " * 90 + "What is wide?"
    first, second = [await answer(engine, ask(engine, text, logprobs=0)) for _ in range(2)]
    assert text_of(first) == text_of(second)


async def test_json_schema_output_validates(engine: TransformersEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    grammar = Grammar("json_schema", json.dumps(schema))
    events = await answer(engine, ask(engine, "Describe Ann.", grammar=grammar, max_tokens=60))
    found = json.loads(text_of(events))
    assert set(found) == {"name", "age"}
    assert isinstance(found["age"], int)


async def test_regex_output_matches(engine: TransformersEngine) -> None:
    grammar = Grammar("regex", "[0-9]{4}-[0-9]{2}-[0-9]{2}")
    events = await answer(engine, ask(engine, "A date?", grammar=grammar, temperature=1.5, seed=3))
    assert re.fullmatch(grammar.source, text_of(events))
    assert isinstance(events[-1], Finished)
    assert events[-1].finish_reason == "stop"


@pytest.mark.parametrize(
    "grammar",
    [Grammar("regex", "(("), Grammar("json_schema", "{"), Grammar("json_schema", '{"type": "x"}')],
)
async def test_check_refuses_a_bad_grammar(engine: TransformersEngine, grammar: Grammar) -> None:
    with pytest.raises(InvalidRequest) as refused:
        engine.check(SamplingParams(grammar=grammar))
    assert refused.value.param == "response_format"


async def test_check_refuses_a_bias_of_no_token(engine: TransformersEngine) -> None:
    with pytest.raises(InvalidRequest) as refused:
        engine.check(SamplingParams(logit_bias=((10**6, 1.0),)))
    assert refused.value.param == "logit_bias"


async def test_encode_chat_equals_the_template_for_harmless_text(
    engine: TransformersEngine,
) -> None:
    tokenizer = engine._loaded.tokenizer
    for content in ("Hello", "  two spaces", "line\n\nline ", "😀 中文 שלום"):
        expected = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )["input_ids"]
        assert engine.encode_chat([Message("user", content)]) == list(expected)


async def test_logprobs_report_bytes_and_alternatives(engine: TransformersEngine) -> None:
    events = await answer(engine, ask(engine, PROMPTS[0], logprobs=3))
    chosen = [one for event in events if isinstance(event, Delta) for one in event.logprobs]
    assert b"".join(one.token for one in chosen).decode() == text_of(events)
    assert all(len(one.top) == 3 and one.top[0].logprob >= one.logprob for one in chosen)


async def test_batched_greedy_equals_the_plain_loop_in_fp32() -> None:
    engine = TransformersEngine(GeneratorArgs(precision="fp32", kv_cache_tokens=4096))
    await engine.start()
    asked = [ask(engine, prompt, logprobs=0) for prompt in PROMPTS]
    found = await asyncio.gather(*(answer(engine, one) for one in asked))
    model, eos = engine._loaded.model, engine._loaded.eos_token_ids
    await engine.stop()
    model.set_attn_implementation("sdpa")
    for one, events in zip(asked, found, strict=True):
        ids, cache, expected = torch.tensor([one.token_ids]), DynamicCache(), []
        with torch.inference_mode():
            while len(expected) < 24 and not eos.intersection(expected):
                ids = model(ids, past_key_values=cache).logits[:, -1:].argmax(-1)
                expected.append(int(ids))
        assert [token for token, _ in tokens_of(events)] == [t for t in expected if t not in eos]


async def test_death_of_the_engine_fails_every_request_at_once() -> None:
    engine = TransformersEngine(GeneratorArgs(kv_cache_tokens=2048))
    await engine.start()
    asked = [ask(engine, f"Tell a long tale {i}.", max_tokens=1000) for i in range(3)]
    tasks = [asyncio.create_task(answer(engine, one)) for one in asked]
    async with asyncio.timeout(20):
        while engine.stats().num_running < 3:
            await asyncio.sleep(0.01)
    engine._loaded.model.forward = None
    done, _ = await asyncio.wait(tasks, timeout=30.0)
    assert len(done) == 3
    assert all(isinstance(task.exception(), EngineFailed) for task in done)
    assert engine._thread is not None
    await asyncio.to_thread(engine._thread.join, 10.0)  # it tells the requests first, then ends
    with pytest.raises(EngineFailed):
        engine.check_health()
    await engine.stop()


def kept(engine: TransformersEngine) -> int:
    """Return how many pages could serve a request that comes now."""
    assert engine._batcher is not None
    assert engine._batcher.batch_processor is not None
    allocators = engine._batcher.batch_processor.cache.cache_allocators.values()
    return sum(len(allocator.ledger.hash_to_block) for allocator in allocators)


async def ended(engine: TransformersEngine) -> None:
    """Wait until no request holds a page."""
    assert engine._batcher is not None
    assert engine._batcher.batch_processor is not None
    allocators = engine._batcher.batch_processor.cache.cache_allocators.values()
    async with asyncio.timeout(10):
        while any(allocator.block_table for allocator in allocators):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)  # the step that frees is over


async def test_forget_keeps_no_page_and_no_answer_changes(engine: TransformersEngine) -> None:
    asked = ask(engine, "The moor is wide and dark. " * 90, logprobs=0)
    first = await answer(engine, asked)
    assert kept(engine)
    await engine.forget()
    assert not kept(engine)
    assert text_of(await answer(engine, asked)) == text_of(first)


async def test_forget_keeps_nothing_of_what_runs_either(engine: TransformersEngine) -> None:
    await engine.forget()
    asked = ask(engine, "The heath is wide and dark. " * 90, max_tokens=64)
    events = engine.generate(asked)
    await anext(events)
    await engine.forget()
    async for _ in events:
        pass
    await ended(engine)
    assert not kept(engine)
    await answer(engine, asked)
    await ended(engine)
    assert kept(engine), "later requests are kept as ever"


async def test_request_that_is_not_kept_leaves_no_page(engine: TransformersEngine) -> None:
    await engine.forget()
    asked = dataclasses.replace(ask(engine, "The fen is wide and dark. " * 90), is_kept=False)
    await answer(engine, asked)
    await ended(engine)
    assert not kept(engine)
