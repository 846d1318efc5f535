"""The vLLM engine beside the plain model: the same tokens, whatever is asked. Needs the extra."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import pytest_asyncio

pytest.importorskip("vllm", reason="vLLM, an extra, is not installed")

from deployments.config import GeneratorArgs
from deployments.engines.generation.base import EngineRequest
from deployments.engines.generation.transformers.loading import load
from deployments.engines.generation.vllm.engine import VllmEngine
from deployments.errors import InvalidRequest
from deployments.types import Delta, Finished, Grammar, Message, SamplingParams
from tests.unit.engines.generation.transformers.tiny import save_llama

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]
ARGS: dict[str, Any] = {"engine": "vllm", "precision": "fp32", "kv_cache_tokens": 4096}
QUESTION = "What is the capital of France?"

REPLICA = """
import asyncio, sys
from deployments.config import GeneratorArgs
from deployments.engines.generation.vllm.engine import VllmEngine

async def serve():
    args = {"engine": "vllm", "context_length": 128, "kv_cache_tokens": 256}
    engine = VllmEngine(GeneratorArgs(source=sys.argv[1], **args))
    await engine.start()
    print("ready", flush=True)
    await asyncio.sleep(600)

if __name__ == "__main__":
    asyncio.run(serve())
"""


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
    assert text_of(await events(engine)) == await plain_text(engine)


async def test_ranks_together_give_the_plain_models_tokens() -> None:
    """SmolLM2 has 9 heads of attention and 3 of keys and values: 3 ranks share them evenly."""
    engine = VllmEngine(GeneratorArgs(tensor_parallel=3, **ARGS))
    await engine.start()
    try:
        workers = [one.name() for one in psutil.Process().children(recursive=True)]
        assert sum("Worker" in name for name in workers) == 3, workers
        assert text_of(await events(engine)) == await plain_text(engine)
    finally:
        await engine.stop()


async def plain_text(engine: VllmEngine) -> str:
    """Return what the plain model answers to the prompt of `engine`."""
    loaded = await asyncio.to_thread(load, GeneratorArgs(**ARGS))
    prompt = loaded.tokenizer([""], return_tensors="pt")
    ids = engine.encode_chat([Message("user", QUESTION)])
    prompt["input_ids"] = prompt["input_ids"].new_tensor([ids])
    prompt["attention_mask"] = prompt["input_ids"].new_ones((1, len(ids)))
    [tokens] = loaded.model.generate(**prompt, max_new_tokens=24, do_sample=False)
    return str(loaded.tokenizer.decode(tokens[len(ids) :], skip_special_tokens=True))


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


async def test_killed_replica_leaves_none_of_its_processes(tmp_path: Path) -> None:
    script = tmp_path / "replica.py"
    script.write_text(REPLICA)
    model = save_llama(tmp_path / "model", head_dim=32)
    replica = await asyncio.create_subprocess_exec(
        sys.executable, script, model, stdout=asyncio.subprocess.PIPE, env=environment()
    )
    assert replica.stdout is not None
    while (line := await replica.stdout.readline()) != b"ready\n":
        assert line, "it ended"
    below = psutil.Process(replica.pid).children(recursive=True)
    try:
        assert len(below) >= 2, "vLLM computes in processes of its own"
        replica.send_signal(signal.SIGKILL)
        await replica.wait()
        _, alive = await asyncio.to_thread(psutil.wait_procs, below, timeout=30)
        assert alive == []
    finally:
        for process in below:
            if process.is_running():
                process.kill()


def environment() -> dict[str, str]:
    """Return an environment in which our package is found, wherever it lies."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
