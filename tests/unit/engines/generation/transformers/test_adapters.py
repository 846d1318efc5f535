"""Adapters in one batch against PEFT, request by request, and what must never be shared."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from transformers import LlamaForCausalLM

from deployments.config import GeneratorArgs
from deployments.engines.generation.base import EngineRequest
from deployments.engines.generation.transformers.engine import TransformersEngine
from deployments.errors import InvalidRequest, ModelNotFound, UnreadableModel
from deployments.types import Delta, Finished, SamplingParams
from tests.unit.engines.generation.transformers.tiny import save_adapter, save_llama
from tests.unit.engines.inspection.material import adapter

peft = pytest.importorskip("peft", reason="adapters are made and compared with PEFT")

pytestmark = [
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
}
PROMPT = tuple(2 + number * 7 % 60 for number in range(9))
LONG = tuple(2 + number * 11 % 60 for number in range(600))
MAX_TOKENS = 24

Answers = dict[str | None, list[int]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("adapters")
    save_llama(root / "base")
    model = LlamaForCausalLM.from_pretrained(root / "base", dtype=torch.float32)
    for seed, (name, settings) in enumerate(ADAPTERS.items()):
        save_adapter(root / name, model, seed, **settings)
    return root


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[tuple[int, ...], Answers]:
    """Return what PEFT says to each prompt, with each adapter and without."""
    found: dict[tuple[int, ...], Answers] = {PROMPT: {}, LONG: {}}
    for name in (None, *ADAPTERS):
        model: Any = LlamaForCausalLM.from_pretrained(folder / "base", dtype=torch.float32).eval()
        if name is not None:
            model = peft.PeftModel.from_pretrained(model, folder / name)
        for prompt, answers in found.items():
            answers[name] = by_peft(model, prompt)
    return found


def by_peft(model: Any, prompt: tuple[int, ...]) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=MAX_TOKENS,
        pad_token_id=0,
    )
    return [token for token in out[0, len(prompt) :].tolist() if token != 1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(folder: Path) -> AsyncIterator[TransformersEngine]:
    engine = await started(folder)
    yield engine
    await engine.stop()


async def started(folder: Path, **args: Any) -> TransformersEngine:
    given = {"precision": "fp32", "kv_cache_tokens": 8192, "num_threads": 1} | args
    engine = TransformersEngine(GeneratorArgs(source=str(folder / "base"), **given))
    await engine.start()
    for name in ADAPTERS:
        await engine.attach(name, str(folder / name))
    return engine


async def answer(
    engine: TransformersEngine, adapter: str | None, prompt: tuple[int, ...] = PROMPT, **params: Any
) -> list[int]:
    """Return the tokens of a greedy answer."""
    sampling = SamplingParams(
        **({"max_tokens": MAX_TOKENS, "temperature": 0.0, "logprobs": 0} | params)
    )
    request = EngineRequest("r", prompt, sampling, adapter=adapter)
    return tokens_of([event async for event in engine.generate(request)])


def tokens_of(events: list[Delta | Finished]) -> list[int]:
    deltas = [event for event in events if isinstance(event, Delta)]
    return [one.token_id for delta in deltas for one in delta.logprobs]


async def test_each_adapter_alone_says_what_peft_says(
    engine: TransformersEngine, expected: dict[tuple[int, ...], Answers]
) -> None:
    wanted = expected[PROMPT]
    assert len({tuple(tokens) for tokens in wanted.values()}) == 3, "this test shows nothing"
    assert {name: await answer(engine, name) for name in wanted} == wanted


async def test_adapters_and_none_in_one_batch_say_what_peft_says(
    engine: TransformersEngine, expected: dict[tuple[int, ...], Answers]
) -> None:
    asked = [
        (prompt, name) for prompt in (PROMPT, LONG) for name in ("some", None, "all", "some", None)
    ]
    found = await asyncio.gather(*(answer(engine, name, prompt) for prompt, name in asked))
    for (prompt, name), tokens in zip(asked, found, strict=True):
        assert tokens == expected[prompt][name]


async def test_pages_are_shared_by_requests_of_one_adapter_only(
    engine: TransformersEngine, expected: dict[tuple[int, ...], Answers]
) -> None:
    """The prompt fills two pages; each of the three has to compute and keep its own."""
    await engine.forget()
    counts = []
    for name in (None, "some", "all", "some", None, "all"):
        assert await answer(engine, name, LONG) == expected[LONG][name]
        counts.append(kept(engine))
    assert counts == [2, 4, 6, 6, 6, 6]


async def test_pages_of_an_adapter_serve_its_next_request(engine: TransformersEngine) -> None:
    await engine.forget()
    matched = watched(engine)
    for name in ("some", None, "some", "all", None):
        await answer(engine, name, LONG, max_tokens=1)
    assert matched == [0, 0, 512, 0, 512]


async def test_adapter_that_comes_again_under_its_id_shares_nothing_with_what_it_was(
    engine: TransformersEngine, folder: Path, expected: dict[tuple[int, ...], Answers]
) -> None:
    await engine.attach("changing", str(folder / "some"))
    assert await answer(engine, "changing", LONG) == expected[LONG]["some"]
    await engine.detach("changing")
    await engine.attach("changing", str(folder / "all"))
    assert await answer(engine, "changing", LONG) == expected[LONG]["all"]
    await engine.detach("changing")


async def test_detached_adapter_ends_its_requests_and_is_freed(
    engine: TransformersEngine, folder: Path, expected: dict[tuple[int, ...], Answers]
) -> None:
    assert engine._batcher is not None
    before = set(engine._batcher.adapters)
    await engine.attach("going", str(folder / "all"))
    sampling = SamplingParams(max_tokens=MAX_TOKENS, temperature=0.0, logprobs=0)
    events = engine.generate(EngineRequest("r", PROMPT, sampling, adapter="going"))
    found = [await anext(events)]
    await engine.detach("going")
    with pytest.raises(ModelNotFound):
        await answer(engine, "going")
    assert set(engine._batcher.adapters) > before
    found += [event async for event in events]
    assert set(engine._batcher.adapters) == before
    assert tokens_of(found) == expected[PROMPT]["all"]


async def test_attach_again_and_at_once_reads_once(
    engine: TransformersEngine, folder: Path
) -> None:
    assert engine._batcher is not None
    before = len(engine._batcher.adapters)
    await asyncio.gather(*(engine.attach("once", str(folder / "all")) for _ in range(4)))
    await engine.attach("once", str(folder / "nowhere"))
    assert len(engine._batcher.adapters) == before + 1
    await engine.detach("once")
    await engine.detach("once")
    assert len(engine._batcher.adapters) == before


async def test_adapter_of_another_model_is_refused_with_what_fits(
    engine: TransformersEngine, tmp_path: Path
) -> None:
    def attach(module: str, inputs: int, outputs: int) -> Coroutine[Any, Any, None]:
        name = f"base_model.model.{module}.lora_"
        shapes = {f"{name}A.weight": [2, inputs], f"{name}B.weight": [outputs, 2]}
        return engine.attach("other", str(adapter(tmp_path / module, shapes=shapes)))

    await attach("model.layers.2.mlp.down_proj", 96, 64)
    await engine.detach("other")
    with pytest.raises(InvalidRequest, match=r"another model.*\[64, 64\]") as shapes:
        await attach("model.layers.0.self_attn.q_proj", 32, 32)
    assert shapes.value.param == "adapter"
    with pytest.raises(InvalidRequest, match=r"no layer model.layers.3.*q_proj"):
        await attach("model.layers.3.self_attn.o_proj", 64, 64)
    with pytest.raises(InvalidRequest, match="no layer lm_head"):
        await attach("lm_head", 64, 258)
    with pytest.raises(UnreadableModel, match=r"no adapter_config.json"):
        await engine.attach("base", str(tmp_path))
    with pytest.raises(ModelNotFound):
        await answer(engine, "other")


async def test_row_has_the_same_bits_alone_and_in_company_in_bf16(folder: Path) -> None:
    engine = await started(folder, precision="bf16")
    seeded = {"temperature": 1.0, "seed": 5}
    alone = await answer(engine, "all", **seeded)
    names = ["all", "some", None, "all", "some"]
    company = await asyncio.gather(*(answer(engine, name, **seeded) for name in names))
    await engine.stop()
    assert company[0] == company[3] == alone


def kept(engine: TransformersEngine) -> int:
    """Return how many pages could serve a request that comes now."""
    return sum(len(allocator.ledger.hash_to_block) for allocator in cache(engine).values())


def cache(engine: TransformersEngine) -> dict[str, Any]:
    assert engine._batcher is not None
    assert engine._batcher.batch_processor is not None
    return engine._batcher.batch_processor.cache.cache_allocators


def watched(engine: TransformersEngine) -> list[int]:
    """Return a list that tells how many tokens each request finds in the cache."""
    assert engine._batcher is not None
    found: list[int] = []
    cache: Any = engine._batcher.batch_processor.cache  # type: ignore[union-attr]
    search = cache.search_prefix_match

    def watching(request_id: str, prompt_ids: list[int]) -> int:
        found.append(search(request_id, prompt_ids))
        return found[-1]

    cache.search_prefix_match = watching
    return found
