"""What every registered embedding engine promises (``base.py``)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from deployments.config import EmbedderArgs
from deployments.engines.embedding.base import EmbeddingEngine
from deployments.engines.embedding.registry import ENGINES, create
from deployments.errors import EngineFailed, Overloaded

LONG = "Cats sleep on warm roofs. Dogs guard the old house! 猫は屋根の上で眠る。 " * 60


def args(name: str, **options: Any) -> EmbedderArgs:
    return EmbedderArgs.model_validate({"engine": name, **options})


@pytest.fixture(params=sorted(ENGINES))
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[EmbeddingEngine]:
    engine = create(args(request.param, max_batch_tokens=1024, max_waiting_tokens=100_000))
    await engine.start()
    yield engine
    await engine.stop()


async def test_engine_gives_normalised_float32_vectors_in_order(engine: EmbeddingEngine) -> None:
    texts = ["a cat", "the dog barks", "a cat", "你好，世界", "💜", LONG, ""]
    vectors, num_tokens = await engine.embed(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(texts), engine.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert float(vectors[0] @ vectors[2]) > 0.999
    assert float(vectors[0] @ vectors[1]) < 0.9
    assert num_tokens[5] > engine.max_tokens > num_tokens[0] >= 2


async def test_engine_gives_the_same_vector_alone_and_in_company(engine: EmbeddingEngine) -> None:
    texts = [LONG[:n] for n in range(1, 800, 17)]
    together, _ = await engine.embed(texts)
    alone = [(await engine.embed([text]))[0][0] for text in texts[::9]]
    np.testing.assert_allclose((together[::9] * alone).sum(axis=1), 1, atol=1e-3)


async def test_engine_puts_like_to_like(engine: EmbeddingEngine) -> None:
    vectors, _ = await engine.embed(
        ["a cat sat on the mat", "the cat sits on a mat", "quarterly inflation figures"]
    )
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1


async def test_engine_embeds_no_texts(engine: EmbeddingEngine) -> None:
    vectors, num_tokens = await engine.embed([])
    assert vectors.shape == (0, engine.dim)
    assert num_tokens == []
    assert await engine.embed_documents([]) == []


async def test_engine_segments_documents_and_embeds_each_segment(engine: EmbeddingEngine) -> None:
    long, blank, short = await engine.embed_documents([LONG, " \n", "short"])
    assert list(long.segments) == await engine.segment(LONG)
    assert len(long.segments) > 2
    assert long.vectors.shape == (len(long.segments), engine.dim)
    assert blank.segments == ()
    assert blank.vectors.shape == (0, engine.dim)
    assert [(part.start, part.end) for part in short.segments] == [(0, 5)]
    for part, vector in zip(long.segments, long.vectors, strict=True):
        (own,), (num_tokens,) = await engine.embed([LONG[part.start : part.end]])
        assert own @ vector > 0.999
        assert num_tokens == part.num_tokens <= engine.max_tokens <= 512


async def test_engine_overlaps_as_the_call_asks(engine: EmbeddingEngine) -> None:
    [none], [some] = [await engine.embed_documents([LONG], overlap) for overlap in (0, 60)]
    assert all(a.end <= b.start for a, b in zip(none.segments, none.segments[1:], strict=False))
    assert any(a.end > b.start for a, b in zip(some.segments, some.segments[1:], strict=False))
    assert max(part.num_tokens for part in some.segments) <= engine.max_tokens


async def test_engine_does_not_cut_long_texts(engine: EmbeddingEngine) -> None:
    vectors, _ = await engine.embed([LONG, LONG + "Inflation rose by nine percent. " * 200])
    assert vectors[0] @ vectors[1] < 0.95


async def test_engine_takes_control_tokens_for_text(engine: EmbeddingEngine) -> None:
    vectors, num_tokens = await engine.embed(["a [SEP] b [CLS] [PAD]", "a b"])
    assert len(vectors) == 2
    assert num_tokens[0] > num_tokens[1]
    assert vectors[0] @ vectors[1] < 0.99


async def test_engine_survives_odd_characters(engine: EmbeddingEngine) -> None:
    odd = ["\x00", "\u200b" * 400, "\ufffd\uffff", "a" * 100_000, "́" * 1000, "half \ud83d pair"]
    vectors, _ = await engine.embed(odd)
    assert np.isfinite(vectors).all()
    assert len(await engine.embed_documents(odd)) == len(odd)


async def test_engine_leaves_the_event_loop_free(engine: EmbeddingEngine) -> None:
    async def num_beats() -> int:
        beats = 0
        while not work.done():
            await asyncio.sleep(0.001)
            beats += 1
        return beats

    work = asyncio.create_task(engine.embed_documents([LONG] * 10))
    assert await num_beats() > 10
    await work


@pytest.mark.parametrize("name", sorted(ENGINES))
async def test_engine_refuses_more_than_may_wait(name: str) -> None:
    engine = create(args(name, max_waiting_tokens=16))
    await engine.start()
    texts = ["some words to wait for"] * 50
    answers = await asyncio.gather(
        *[engine.embed(texts) for _ in range(20)], return_exceptions=True
    )
    assert any(isinstance(answer, Overloaded) for answer in answers)
    assert any(isinstance(answer, tuple) for answer in answers)
    assert engine.num_tokens_waiting() == 0
    await engine.stop()


@pytest.mark.parametrize("name", sorted(ENGINES))
async def test_engine_segments_as_configured(name: str) -> None:
    engine = create(args(name, segment_tokens=40, overlap_tokens=0))
    await engine.start()
    assert engine.max_tokens == 40
    parts = await engine.segment(LONG)
    assert max(part.num_tokens for part in parts) <= 40
    assert all(a.end <= b.start for a, b in zip(parts, parts[1:], strict=False))
    await engine.stop()


@pytest.mark.parametrize("name", sorted(ENGINES))
async def test_engine_refuses_segments_too_small_to_cut(name: str) -> None:
    with pytest.raises(EngineFailed, match="segment_tokens"):
        await create(args(name, segment_tokens=8)).start()


@pytest.mark.parametrize("name", sorted(ENGINES))
async def test_engine_says_when_it_is_not_running(name: str) -> None:
    engine = create(args(name))
    with pytest.raises(EngineFailed):
        await engine.embed(["a"])
    await engine.start()
    await engine.start()
    await engine.stop()
    with pytest.raises(EngineFailed):
        await engine.embed(["a"])
