"""Three tensor-parallel ranks as Ray actors: what they answer, and what their death does."""

import asyncio
import dataclasses
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio
import ray
import torch
from ray.util.placement_group import placement_group_table
from transformers import DynamicCache

from deployments import gangs
from deployments.config import GeneratorArgs
from deployments.engines.generation.base import EngineRequest
from deployments.engines.generation.deepspeed.engine import DeepSpeedEngine
from deployments.engines.generation.transformers.loading import read
from deployments.errors import EngineFailed
from deployments.gangs import RayRanks
from deployments.generator import Generator
from deployments.types import Delta, Finished, Grammar, Message, SamplingParams

ARGS = GeneratorArgs(
    engine="deepspeed", tensor_parallel=3, precision="fp32", kv_cache_tokens=4096, num_threads=1
)
PROMPTS = ["What is the capital of France?", "Name three colours.", "Write a line about the sea."]
NUM_TOKENS = 16

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[DeepSpeedEngine]:
    folder = tempfile.mkdtemp(prefix="rs-gang-", dir="/tmp")
    options = {"num_cpus": 4, "include_dashboard": False, "_temp_dir": folder}
    # As `ragserve up` does: else whatever else runs here starves ranks that wait for each other.
    ray.init(address="local", _system_config={"worker_niceness": 0}, **options)
    engine = DeepSpeedEngine(ARGS, RayRanks)
    await engine.start()
    yield engine
    await engine.stop()
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def ask(engine: DeepSpeedEngine, text: str, **params: Any) -> EngineRequest:
    ids = tuple(engine.encode_chat([Message("user", text)]))
    sampling = {"max_tokens": NUM_TOKENS, "temperature": 0.0, "logprobs": 0, **params}
    return EngineRequest(text, ids, SamplingParams(**sampling))


async def answer(engine: DeepSpeedEngine, request: EngineRequest) -> list[int]:
    """Return the answer's tokens, without the end of text."""
    events = [event async for event in engine.generate(request)]
    assert isinstance(events[-1], Finished)
    deltas = [event for event in events if isinstance(event, Delta)]
    return [one.token_id for delta in deltas for one in delta.logprobs]


def plain_loop(prompts: list[tuple[int, ...]], eos: frozenset[int]) -> list[list[int]]:
    """Return what the whole model answers in one process, greedily, without our engine."""
    model, _ = read(ARGS.model_copy(update={"device": "cpu"}))
    model.eval()
    answers = []
    for prompt in prompts:
        ids, cache, tokens = torch.tensor([prompt]), DynamicCache(), list[int]()
        with torch.inference_mode():
            while len(tokens) < NUM_TOKENS and not eos.intersection(tokens):
                ids = model(ids, past_key_values=cache).logits[:, -1:].argmax(-1)
                tokens.append(int(ids))
        answers.append([token for token in tokens if token not in eos])
    return answers


async def test_ranks_together_answer_token_for_token_like_the_whole_model(
    engine: DeepSpeedEngine,
) -> None:
    asked = [ask(engine, prompt) for prompt in PROMPTS]
    found = await asyncio.gather(*(answer(engine, one) for one in asked))
    eos = engine._facts.eos_token_ids
    expected = plain_loop([one.token_ids for one in asked], eos)
    assert found == expected
    assert all(len(tokens) > 5 for tokens in found)


async def test_a_replica_places_its_ranks_as_actors(engine: DeepSpeedEngine) -> None:
    own = Generator(ARGS)._engine
    assert isinstance(own, DeepSpeedEngine)
    assert isinstance(own._driver._ranks, RayRanks)


async def test_ranks_share_one_placement_group(engine: DeepSpeedEngine) -> None:
    groups = [one for one in placement_group_table().values() if one["state"] == "CREATED"]
    assert [list(group["bundles"].values()) for group in groups] == [[{"CPU": 1.0}] * 3]
    assert ray.available_resources()["CPU"] == 1.0


async def test_sampling_and_grammar_are_chosen_once_for_all_ranks(engine: DeepSpeedEngine) -> None:
    grammar = Grammar("regex", "[0-9]{4}-[0-9]{2}")
    dated = ask(engine, "A date?", grammar=grammar, temperature=1.5, seed=3)
    hot = ask(engine, PROMPTS[2], temperature=1.0, seed=7, top_p=0.9)
    first, date, again = await asyncio.gather(*(answer(engine, one) for one in (hot, dated, hot)))
    assert first == again
    assert len(engine._codec.decode(date)) == len("2024-05")


async def test_closing_the_iterator_frees_the_slot_on_every_rank(engine: DeepSpeedEngine) -> None:
    long = ask(engine, "Tell a story.", max_tokens=1000)
    async with aclosing(engine.generate(long)) as events:  # type: ignore[type-var]
        await anext(events)  # type: ignore[call-overload]
    async with asyncio.timeout(10):
        while engine.stats().kv_cache_usage > 0 or engine.stats().num_running:
            await asyncio.sleep(0.01)
    assert await answer(engine, ask(engine, PROMPTS[0], max_tokens=3))


async def test_forget_empties_the_cache_of_every_rank_and_they_go_on_together(
    engine: DeepSpeedEngine,
) -> None:
    expected = await answer(engine, ask(engine, PROMPTS[1], max_tokens=4))
    running = asyncio.create_task(answer(engine, ask(engine, PROMPTS[1], max_tokens=4)))
    await engine.forget()
    assert await running == expected
    unkept = dataclasses.replace(ask(engine, PROMPTS[1], max_tokens=4), is_kept=False)
    assert await answer(engine, unkept) == expected
    assert engine.stats().kv_cache_usage == 0


async def test_a_dead_rank_fails_what_runs_and_the_next_request_gets_a_new_gang(
    engine: DeepSpeedEngine,
) -> None:
    before = await answer(engine, ask(engine, PROMPTS[0]))
    running = asyncio.create_task(answer(engine, ask(engine, "Tell a story.", max_tokens=1000)))
    async with asyncio.timeout(10):
        while engine.stats().num_running == 0:
            await asyncio.sleep(0.01)
    ranks = engine._driver._ranks
    assert isinstance(ranks, RayRanks)
    ray.kill(ranks.actors[1])
    with pytest.raises(EngineFailed):
        await asyncio.wait_for(running, 10)
    engine.check_health()
    assert await answer(engine, ask(engine, PROMPTS[0])) == before


async def test_start_refuses_what_the_cluster_has_no_room_for(
    engine: DeepSpeedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gangs, "PLACEMENT_TIMEOUT_S", 0.5)
    crowded = DeepSpeedEngine(ARGS, RayRanks)
    with pytest.raises(EngineFailed, match="no room for 3 ranks"):
        await crowded.start()
    async with asyncio.timeout(10):
        while any(one["state"] == "PENDING" for one in placement_group_table().values()):
            await asyncio.sleep(0.05)
