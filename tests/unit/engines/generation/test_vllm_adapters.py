"""Adapters in vLLM against the transformers engine, request by request; needs the extra."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from transformers import LlamaForCausalLM

pytest.importorskip("vllm", reason="vLLM, an extra, is not installed")
pytest.importorskip("peft", reason="adapters are made with PEFT")

from deployments.config import GeneratorArgs
from deployments.engines.generation.base import EngineRequest, GenerationEngine
from deployments.engines.generation.transformers.engine import TransformersEngine
from deployments.engines.generation.vllm.engine import VllmEngine
from deployments.errors import InvalidRequest, ModelNotFound, UnreadableModel
from deployments.types import Delta, Finished, SamplingParams
from tests.unit.engines.generation.transformers.tiny import save_adapter, save_llama
from tests.unit.engines.inspection.material import adapter

pytestmark = [
    pytest.mark.model,
    pytest.mark.asyncio(loop_scope="module"),
    # PEFT asks the library for something under its old name.
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
]

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "some": {"target_modules": ["v_proj", "o_proj"], "use_rslora": True},
    "all": {
        "r": 6,
        "lora_alpha": 5,
        "target_modules": ALL,
        "rank_pattern": {"k_proj": 3},
        "alpha_pattern": {"layers.1.mlp.down_proj": 9},
    },
    "third": {"target_modules": ["gate_proj", "q_proj"]},
}
NAMES = (None, *ADAPTERS)
PROMPT = tuple(2 + number * 7 % 60 for number in range(9))
LONG = tuple(2 + number * 11 % 60 for number in range(600))
MAX_TOKENS = 24
ARGS: dict[str, Any] = {"precision": "fp32", "kv_cache_tokens": 8192, "num_threads": 1}

Answers = dict[tuple[tuple[int, ...], str | None], list[int]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("adapters")
    save_llama(root / "base", head_dim=32)  # vLLM attends in no smaller heads on a processor
    model = LlamaForCausalLM.from_pretrained(root / "base", dtype=torch.float32)
    for seed, (name, settings) in enumerate(ADAPTERS.items()):
        save_adapter(root / name, model, seed, **settings)
    return root


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def expected(folder: Path) -> Answers:
    """Return what the transformers engine says to each prompt, with each adapter and without."""
    engine = TransformersEngine(GeneratorArgs(source=str(folder / "base"), **ARGS))
    await start(engine, folder)
    asked = [(prompt, name) for prompt in (PROMPT, LONG) for name in NAMES]
    found = {one: await answer(engine, one[1], one[0]) for one in asked}
    await engine.stop()
    assert len({tuple(tokens) for tokens in found.values()}) == len(asked), "this shows nothing"
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[(2, 0), (1, 3)], ids=str)
async def engine(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[VllmEngine]:
    """Return an engine with fewer places than there are adapters, and one that speculates."""
    places, guessed = request.param
    bounds = {"max_adapters": places, "max_adapter_rank": 8, "speculative_tokens": guessed}
    args = GeneratorArgs(engine="vllm", source=str(folder / "base"), **(ARGS | bounds))
    engine = VllmEngine(args)
    await start(engine, folder)
    yield engine
    await engine.stop()


async def start(engine: GenerationEngine, folder: Path) -> None:
    await engine.start()
    for name in ADAPTERS:
        await engine.attach(name, str(folder / name))


async def answer(
    engine: GenerationEngine, adapter: str | None, prompt: tuple[int, ...] = PROMPT, **params: Any
) -> list[int]:
    """Return the tokens of a greedy answer."""
    return tokens_of([event async for event in engine.generate(asked(adapter, prompt, **params))])


def asked(adapter: str | None, prompt: tuple[int, ...] = PROMPT, **params: Any) -> EngineRequest:
    given = {"max_tokens": MAX_TOKENS, "temperature": 0.0, "logprobs": 0} | params
    return EngineRequest("r", prompt, SamplingParams(**given), adapter=adapter)


def tokens_of(events: list[Delta | Finished]) -> list[int]:
    deltas = [event for event in events if isinstance(event, Delta)]
    return [one.token_id for delta in deltas for one in delta.logprobs]


async def test_each_adapter_alone_says_what_the_transformers_engine_says(
    engine: VllmEngine, expected: Answers
) -> None:
    for (prompt, name), tokens in expected.items():
        assert await answer(engine, name, prompt) == tokens


async def test_adapters_and_none_in_one_batch_say_what_the_transformers_engine_says(
    engine: VllmEngine, expected: Answers
) -> None:
    rows = [(prompt, name) for prompt in (PROMPT, LONG) for name in (*NAMES, *reversed(NAMES))]
    found = await asyncio.gather(*(answer(engine, name, prompt) for prompt, name in rows))
    for row, tokens in zip(rows, found, strict=True):
        assert tokens == expected[row]


async def test_pages_are_shared_by_requests_of_one_adapter_only(
    engine: VllmEngine, expected: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.forget()
    matched = watched(engine, monkeypatch)
    for name in (None, "some", "all", "some", None, "all"):
        assert await answer(engine, name, LONG) == expected[LONG, name]
    assert matched == [0, 0, 0, 512, 512, 512]


async def test_adapter_that_comes_again_under_its_id_shares_nothing_with_what_it_was(
    engine: VllmEngine, folder: Path, expected: Answers
) -> None:
    await engine.attach("changing", str(folder / "some"))
    assert await answer(engine, "changing", LONG) == expected[LONG, "some"]
    await engine.detach("changing")
    await engine.attach("changing", str(folder / "all"))
    assert await answer(engine, "changing", LONG) == expected[LONG, "all"]
    await engine.detach("changing")


async def test_detached_adapter_ends_its_requests_and_is_freed(
    engine: VllmEngine, folder: Path, expected: Answers
) -> None:
    before = await held(engine)
    await engine.attach("going", str(folder / "all"))
    assert len(await held(engine)) == len(before) + 1
    events = engine.generate(asked("going"))
    found = [await anext(events)]
    await engine.detach("going")
    with pytest.raises(ModelNotFound):
        await answer(engine, "going")
    assert len(await held(engine)) == len(before) + 1
    found += [event async for event in events]
    assert tokens_of(found) == expected[PROMPT, "all"]
    assert await held(engine) == before


async def test_dropped_request_of_a_detached_adapter_leaves_the_engine_well(
    engine: VllmEngine, folder: Path, expected: Answers
) -> None:
    before = await held(engine)
    shutil.copytree(folder / "all", folder / "dropped")
    await engine.attach("dropped", str(folder / "dropped"))
    events: Any = engine.generate(asked("dropped", max_tokens=1000))
    await anext(events)
    await engine.detach("dropped")
    shutil.rmtree(folder / "dropped")
    await events.aclose()
    assert await held(engine) == before
    assert await answer(engine, None) == expected[PROMPT, None]


async def test_adapter_whose_files_are_gone_is_served_on(
    engine: VllmEngine, folder: Path, expected: Answers
) -> None:
    """The others take its place meanwhile, so it has to come back from memory."""
    shutil.copytree(folder / "all", folder / "gone")
    await engine.attach("gone", str(folder / "gone"))
    shutil.rmtree(folder / "gone")
    for name in ("third", "some", "gone"):
        assert await answer(engine, name) == expected[PROMPT, "all" if name == "gone" else name]
    await engine.detach("gone")


async def test_attach_again_and_at_once_reads_once(engine: VllmEngine, folder: Path) -> None:
    before = await held(engine)
    await asyncio.gather(*(engine.attach("once", str(folder / "all")) for _ in range(4)))
    await engine.attach("once", str(folder / "nowhere"))
    assert len(await held(engine)) == len(before) + 1
    await engine.detach("once")
    await engine.detach("once")
    assert await held(engine) == before


async def test_adapter_of_another_model_is_refused_with_what_fits(
    engine: VllmEngine, tmp_path: Path
) -> None:
    before = await held(engine)

    async def attach(module: str, inputs: int, outputs: int, rank: int = 2) -> None:
        name = f"base_model.model.{module}.lora_"
        shapes = {f"{name}A.weight": [rank, inputs], f"{name}B.weight": [outputs, rank]}
        await engine.attach("other", str(adapter(tmp_path / module, {"r": rank}, shapes)))

    with pytest.raises(InvalidRequest, match=r"another model.*\[128, 64\]") as shapes:
        await attach("model.layers.0.self_attn.q_proj", 32, 32)
    assert shapes.value.param == "adapter"
    with pytest.raises(InvalidRequest, match=r"no layer model.layers.3.*q_proj"):
        await attach("model.layers.3.self_attn.o_proj", 128, 64)
    with pytest.raises(InvalidRequest, match="no layer lm_head"):
        await attach("lm_head", 64, 258)
    with pytest.raises(InvalidRequest, match="rank is 9, .* up to 8 .*max_adapter_rank"):
        await attach("model.layers.2.mlp.down_proj", 96, 64, rank=9)
    with pytest.raises(UnreadableModel, match=r"no adapter_config.json"):
        await engine.attach("base", str(tmp_path))
    with pytest.raises(ModelNotFound):
        await answer(engine, "other")
    assert await held(engine) == before


async def test_adapter_that_vllm_refuses_leaves_the_engine_well(
    engine: VllmEngine, tmp_path: Path, expected: Answers
) -> None:
    module = "model.layers.2.mlp.down_proj"
    name = f"base_model.model.{module}.lora_"
    shapes = {f"{name}A.weight": [2, 96], f"{name}B.weight": [64, 2]}
    damaged = adapter(tmp_path / "damaged", {"rank_pattern": {"nothing": 200}}, shapes)
    with pytest.raises(InvalidRequest, match="vLLM cannot put this adapter") as refused:
        await engine.attach("damaged", str(damaged))
    assert refused.value.param == "adapter"
    assert await answer(engine, "all") == expected[PROMPT, "all"]


async def held(engine: VllmEngine) -> set[int]:
    """Return the numbers of the adapters that vLLM's process has."""
    await asyncio.gather(*engine._adapters._removals)
    found: set[int] = await engine._llm.list_loras()
    return found


def watched(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that tells how many tokens each request finds in the cache."""
    found: list[int] = []
    generate = engine._llm.generate

    async def watching(*args: Any, **options: Any) -> AsyncIterator[Any]:
        is_first = True
        async for step in generate(*args, **options):
            if is_first:
                found.append(step.num_cached_tokens)
            is_first = False
            yield step

    monkeypatch.setattr(engine._llm, "generate", watching)
    return found
