"""The Reranker replica class, on the fake engine."""

import asyncio
from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from deployments import batched_replica as module
from deployments.config import RerankerArgs
from deployments.engines.reranking.fake import FakeReranker
from deployments.errors import EngineFailed, Overloaded
from deployments.reranker import Reranker
from deployments.types import Relevance

FAKE = RerankerArgs(model="fake", engine="fake")


async def test_reranker_starts_on_first_use_for_all_callers() -> None:
    replica = Reranker(FAKE)
    assert (await replica.stats()).num_tokens_waiting == 0
    found = await asyncio.gather(*[replica.rerank("a b", ["b a", "c"]) for _ in range(8)])
    assert all(one.scores[0] > 0.9 > 0.1 > one.scores[1] for one in found)


async def test_reranker_that_cannot_load_says_so_each_time() -> None:
    replica = Reranker(RerankerArgs(model="m", source="/nonexistent"))
    for _ in range(2):
        with pytest.raises(EngineFailed, match="source"):
            await replica.rerank("a", ["a"])
    with pytest.raises(EngineFailed):
        await replica.check_health()


async def test_reranker_is_healthy_when_it_answers_or_its_queue_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await Reranker(FAKE).check_health()

    async def refuse(self: FakeReranker, query: str, texts: Sequence[str]) -> Relevance:
        raise Overloaded("full")

    monkeypatch.setattr(FakeReranker, "rerank", refuse)
    await Reranker(FAKE).check_health()


async def test_reranker_is_ill_when_it_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(self: FakeReranker, query: str, texts: Sequence[str]) -> Relevance:
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr(FakeReranker, "rerank", hang)
    monkeypatch.setattr(module, "PROBE_TIMEOUT_S", 0.01)
    with pytest.raises(EngineFailed, match="does not answer"):
        await Reranker(FAKE).check_health()


async def test_reranker_is_ill_when_its_engine_has_stopped() -> None:
    replica = Reranker(FAKE)
    await replica.start()
    await replica.stop()
    with pytest.raises(EngineFailed):
        await replica.check_health()


@pytest.mark.parametrize("fields", [{"model": ""}, {"max_pair_tokens": 31}, {"unknown": 1}])
def test_reranker_args_are_checked(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RerankerArgs.model_validate({"model": "m", **fields})
