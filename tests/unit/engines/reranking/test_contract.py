"""What every registered reranking engine promises (``base.py``)."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deployments.config import RerankerArgs
from deployments.engines.reranking.base import RerankingEngine
from deployments.engines.reranking.engine import BatchedReranker
from deployments.engines.reranking.registry import ENGINES, create
from deployments.errors import ContextTooLong, EngineFailed, Overloaded
from tests.unit.engines.reranking.tiny import save_bert

QUERY = "grey cat"
TEXTS = ["a grey cat", "the dog", "cat", "你好", "[SEP] [CLS]", "x" * 90, "a grey cat"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("tiny"))


def build(name: str, folder: Path, **options: Any) -> RerankingEngine:
    args = {"model": "tiny", "engine": name, "source": str(folder), "num_threads": 2, **options}
    return create(RerankerArgs.model_validate(args))


@pytest.fixture(params=sorted(ENGINES))
async def engine(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[RerankingEngine]:
    engine = build(request.param, folder, max_batch_tokens=256, max_waiting_tokens=100_000)
    await engine.start()
    yield engine
    await engine.stop()


async def test_engine_scores_each_text_in_order(engine: RerankingEngine) -> None:
    found = await engine.rerank(QUERY, TEXTS)
    assert len(found.scores) == len(TEXTS)
    assert all(0 < score < 1 for score in found.scores)
    assert found.scores[0] == pytest.approx(found.scores[6], abs=1e-6)
    assert len({round(score, 6) for score in found.scores}) > 2
    assert found.num_tokens > 3 * len(TEXTS)


async def test_engine_gives_the_same_score_alone_and_in_company(engine: RerankingEngine) -> None:
    together = await engine.rerank(QUERY, TEXTS)
    for text, score in zip(TEXTS, together.scores, strict=True):
        alone = await engine.rerank(QUERY, [text])
        assert alone.scores[0] == pytest.approx(score, abs=1e-5)


async def test_engine_reads_a_long_text_to_its_end(engine: RerankingEngine) -> None:
    sentences = [f"sentence {n} is of no use." for n in range(60)]
    long, half = " ".join(sentences), " ".join(sentences[:30])
    both, first = await engine.rerank(QUERY, [long]), await engine.rerank(QUERY, [half])
    assert both.num_tokens > 1.9 * first.num_tokens
    assert both.num_tokens > 60 * 6


@pytest.mark.parametrize("at", [0, 400, 800])
async def test_engine_finds_the_best_segment_wherever_it_is(at: int, folder: Path) -> None:
    engine = build("fake", folder)
    await engine.start()
    words = ["filler"] * 800
    words[at:at] = ["grey", "cat"]
    found = await engine.rerank(QUERY, [" ".join(words), "grey cat", "filler"])
    assert found.scores[0] == found.scores[1] > 0.9 > 0.1 > found.scores[2]
    await engine.stop()


async def test_engine_scores_blank_texts_zero_and_no_texts_not_at_all(
    engine: RerankingEngine,
) -> None:
    found = await engine.rerank(QUERY, ["", " \n", "cat"])
    assert found.scores[:2] == (0.0, 0.0)
    assert found.scores[2] > 0
    assert (await engine.rerank(QUERY, [])).scores == ()
    assert len((await engine.rerank(" ", ["cat"])).scores) == 1


async def test_engine_refuses_a_query_that_leaves_no_room(engine: RerankingEngine) -> None:
    with pytest.raises(ContextTooLong, match="tokens") as caught:
        await engine.rerank("word " * engine.max_tokens, ["text"])
    assert caught.value.param == "query"


@pytest.mark.parametrize("name", sorted(ENGINES))
async def test_engine_reads_pairs_of_at_most_the_configured_tokens(name: str, folder: Path) -> None:
    engine = build(name, folder, max_pair_tokens=40, overlap_tokens=4)
    await engine.start()
    assert engine.max_tokens == 40
    short = await engine.rerank("cat", ["a b c " * 60])
    assert short.num_tokens > 60 * 3
    await engine.stop()


@pytest.mark.parametrize("name", sorted(ENGINES))
async def test_engine_refuses_work_beyond_its_queue(name: str, folder: Path) -> None:
    engine = build(name, folder, max_waiting_tokens=16, max_batch_tokens=16)
    await engine.start()
    calls = [engine.rerank(QUERY, ["one two three"] * 8) for _ in range(8)]
    found = await asyncio.gather(*calls, return_exceptions=True)
    refused = [one for one in found if isinstance(one, Overloaded)]
    assert 1 <= len(refused) < 8
    assert all(error.retry_after_s == 1 for error in refused)
    assert engine.num_tokens_waiting() == 0
    await engine.stop()


@pytest.mark.parametrize("name", sorted(ENGINES))
async def test_engine_that_is_not_running_says_so(name: str, folder: Path) -> None:
    engine = build(name, folder)
    assert engine.num_tokens_waiting() == 0
    with pytest.raises(EngineFailed, match="not running"):
        await engine.rerank(QUERY, TEXTS)
    await engine.start()
    await engine.start()
    await engine.stop()
    with pytest.raises(EngineFailed):
        await engine.rerank(QUERY, TEXTS)


@pytest.mark.parametrize("name", sorted(ENGINES))
async def test_engine_loads_away_from_the_event_loop(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = build(name, folder)
    assert isinstance(engine, BatchedReranker)
    load, threads = engine.load, []

    def noted(args: RerankerArgs) -> Any:
        threads.append(threading.current_thread())
        return load(args)

    monkeypatch.setattr(engine, "load", noted)
    await engine.start()
    assert threads != [threading.main_thread()]
    await engine.stop()
