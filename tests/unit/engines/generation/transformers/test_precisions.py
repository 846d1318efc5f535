"""A precision that a load may ask for is one that this device computes in."""

from pathlib import Path
from typing import Any, get_args

import pytest

from deployments.config import GeneratorArgs
from deployments.engines.generation.base import EngineRequest
from deployments.engines.generation.transformers.engine import TransformersEngine
from deployments.types import Delta, Finished, SamplingParams
from tests.unit.engines.generation.transformers.tiny import save_llama

PRECISIONS = get_args(GeneratorArgs.model_fields["precision"].annotation)
PROMPT = tuple(2 + number * 7 % 60 for number in range(9))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("precisions") / "llama")


@pytest.mark.parametrize("precision", PRECISIONS)
async def test_model_answers_on_the_processor(folder: Path, precision: Any) -> None:
    settings = {"kv_cache_tokens": 1024, "context_length": 256, "num_threads": 1}
    engine = TransformersEngine(
        GeneratorArgs.model_validate({"source": str(folder), "precision": precision, **settings})
    )
    await engine.start()
    try:
        sampling = SamplingParams(max_tokens=6, temperature=0)
        request = EngineRequest("r", PROMPT, sampling)
        events = [event async for event in engine.generate(request)]
    finally:
        await engine.stop()
    assert isinstance(events[-1], Finished)
    assert 1 <= events[-1].completion_tokens <= 6
    assert "".join(event.text for event in events if isinstance(event, Delta))
