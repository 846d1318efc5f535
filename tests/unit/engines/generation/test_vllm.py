"""The vLLM engine beside the plain model: the same tokens, whatever is asked. Needs the extra."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

pytest.importorskip("vllm", reason="vLLM, an extra, is not installed")

from deployments.config import GeneratorArgs
from deployments.engines.generation.base import EngineRequest
from deployments.engines.generation.transformers.loading import load
from deployments.engines.generation.vllm.engine import VllmEngine
from deployments.errors import InvalidRequest
from deployments.types import Delta, Finished, Grammar, Message, SamplingParams

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]
ARGS: dict[str, Any] = {"engine": "vllm", "precision": "fp32", "kv_cache_tokens": 4096}
QUESTION = "What is the capital of France?"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[0, 3], ids=["plain", "ngram"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[VllmEngine]:
    engine = VllmEngine(GeneratorArgs(speculative_tokens=request.param, **ARGS))
    await engine.start()
    yield engine
    await engine.stop()


async def events(engine: VllmEngine, **sampling: Any) -> list[Delta | Finished]:
    ids = tuple(engine.encode_chat([Message("user", QUESTION)]))
    options = {"max_tokens": 24, "temperature": 0.0, **sampling}
    request = EngineRequest("r", ids, SamplingParams(**options))
    return [event async for event in engine.generate(request)]


def text_of(found: list[Delta | Finished]) -> str:
    return "".join(event.text for event in found if isinstance(event, Delta))


async def test_greedy_tokens_are_the_plain_models(engine: VllmEngine) -> None:
    loaded = await asyncio.to_thread(load, GeneratorArgs(**ARGS))
    prompt = loaded.tokenizer([""], return_tensors="pt")
    ids = engine.encode_chat([Message("user", QUESTION)])
    prompt["input_ids"] = prompt["input_ids"].new_tensor([ids])
    prompt["attention_mask"] = prompt["input_ids"].new_ones((1, len(ids)))
    [tokens] = loaded.model.generate(**prompt, max_new_tokens=24, do_sample=False)
    expected = loaded.tokenizer.decode(tokens[len(ids) :], skip_special_tokens=True)
    assert text_of(await events(engine)) == expected


async def test_seed_repeats_and_logprobs_are_those_of_the_tokens(engine: VllmEngine) -> None:
    sampled = [text_of(await events(engine, temperature=1.5, seed=7)) for _ in range(2)]
    assert sampled[0] == sampled[1]
    found = await events(engine, logprobs=2, max_tokens=4)
    tokens = [one for event in found if isinstance(event, Delta) for one in event.logprobs]
    assert b"".join(one.token for one in tokens).decode() == text_of(found)
    for one in tokens:
        assert len(one.top) == 2
        assert one.top[0].token_id == one.token_id
        assert one.top[0].logprob == pytest.approx(one.logprob)
        assert one.logprob <= 0


async def test_grammar_holds_and_a_broken_one_is_refused(engine: VllmEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 20}},
        "required": ["capital"],
        "additionalProperties": False,
    }
    found = await events(engine, grammar=Grammar("json_schema", json.dumps(schema)), max_tokens=64)
    assert set(json.loads(text_of(found))) == {"capital"}
    with pytest.raises(InvalidRequest):
        await events(engine, grammar=Grammar("regex", "(unclosed"))


async def test_forgotten_prompts_are_not_reused(engine: VllmEngine) -> None:
    await events(engine)
    await engine.forget()
    assert engine._epoch == 1
    assert text_of(await events(engine))
