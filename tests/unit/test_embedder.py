"""The Embedder replica class, on the fake engine."""

import asyncio
from collections.abc import Sequence

import pytest

from deployments import batched_replica as module
from deployments.config import EmbedderArgs
from deployments.embedder import Embedder
from deployments.engines.embedding.fake import FakeEmbedder
from deployments.errors import EngineFailed, Overloaded
from deployments.types import Vectors

FAKE = EmbedderArgs(engine="fake")


async def test_embedder_starts_on_first_use_for_all_callers() -> None:
    replica = Embedder(FAKE)
    assert (await replica.stats()).num_tokens_waiting == 0
    answers = await asyncio.gather(*[replica.embed([f"text {n}"]) for n in range(8)])
    assert [(vectors.shape, tokens) for vectors, tokens in answers] == [((1, 64), [4])] * 8


async def test_embedder_embeds_documents_in_segments() -> None:
    (document,) = await Embedder(FAKE).embed_documents(["many words here " * 400])
    assert len(document.segments) == len(document.vectors) > 4


async def test_embedder_that_cannot_load_says_so_each_time() -> None:
    replica = Embedder(EmbedderArgs(source="/nonexistent"))
    for _ in range(2):
        with pytest.raises(EngineFailed, match="source"):
            await replica.embed(["a"])
    with pytest.raises(EngineFailed):
        await replica.check_health()


async def test_embedder_outlives_a_caller_that_leaves_while_it_starts() -> None:
    replica = Embedder(FAKE)
    leaving = asyncio.create_task(replica.embed(["a"]))
    await asyncio.sleep(0)
    leaving.cancel()
    assert len((await replica.embed(["b"]))[0]) == 1


async def test_embedder_is_healthy_when_it_answers() -> None:
    replica = Embedder(FAKE)
    await replica.start()
    await replica.check_health()


async def test_embedder_is_healthy_when_its_queue_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(self: FakeEmbedder, texts: Sequence[str]) -> tuple[Vectors, list[int]]:
        raise Overloaded("full")

    monkeypatch.setattr(FakeEmbedder, "embed", refuse)
    await Embedder(FAKE).check_health()


async def test_embedder_is_ill_when_it_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(self: FakeEmbedder, texts: Sequence[str]) -> tuple[Vectors, list[int]]:
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr(FakeEmbedder, "embed", hang)
    monkeypatch.setattr(module, "PROBE_TIMEOUT_S", 0.01)
    with pytest.raises(EngineFailed, match="does not answer"):
        await Embedder(FAKE).check_health()


async def test_embedder_is_ill_when_its_engine_has_stopped() -> None:
    replica = Embedder(FAKE)
    await replica.start()
    await replica.stop()
    with pytest.raises(EngineFailed):
        await replica.check_health()


async def test_embedder_says_how_many_tokens_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = Embedder(FAKE)
    assert await replica.record_autoscaling_stats() == {"tokens_waiting": 0}
    await replica.start()
    monkeypatch.setattr(FakeEmbedder, "num_tokens_waiting", lambda _: 123)
    assert await replica.record_autoscaling_stats() == {"tokens_waiting": 123}
    assert (await replica.stats()).num_tokens_waiting == 123
