"""The batcher: budgets, turns, cancellation, failure, overload."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy as np
import pytest

from deployments.engines.texts.batching import TokenBatcher
from deployments.errors import EngineFailed, Overloaded
from deployments.types import Vectors


class Model:
    """Answers with each sequence's first token and length; waits while `gate` is closed."""

    def __init__(self) -> None:
        self.batches: list[list[Sequence[int]]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, sequences: Sequence[Sequence[int]]) -> Vectors:
        self.batches.append(list(sequences))
        assert self.gate.wait(10)
        if any(666 in sequence for sequence in sequences):
            raise RuntimeError("a private detail")
        return np.array([[row[0], len(row)] for row in sequences], np.float32)


Start = Callable[..., "asyncio._AsyncGeneratorContextManager[TokenBatcher]"]


@asynccontextmanager
async def running(
    model: Model, workers: int = 1, waiting: int = 10**6
) -> AsyncIterator[TokenBatcher]:
    with ThreadPoolExecutor(workers) as pool:
        batcher = TokenBatcher(
            model, pool, num_workers=workers, max_batch_tokens=512, max_waiting_tokens=waiting
        )
        yield batcher
        model.gate.set()
        await batcher.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_batcher_answers_each_caller_in_its_order() -> None:
    async with running(Model(), workers=3) as batcher:
        jobs = [[[caller, *range(n)] for n in range(caller, 90)] for caller in range(20)]
        answers = await asyncio.gather(*map(batcher.submit, jobs))
        for job, vectors in zip(jobs, answers, strict=True):
            assert vectors.tolist() == [[row[0], len(row)] for row in job]
        assert batcher.num_tokens_waiting() == 0


async def test_batcher_shares_batches_within_the_budget() -> None:
    model = Model()
    async with running(model) as batcher:
        model.gate.clear()
        first = asyncio.create_task(batcher.submit([[1]]))
        await until(lambda: len(model.batches) == 1)
        others = [asyncio.create_task(batcher.submit([[n] * (n + 1)] * 3)) for n in range(60)]
        await until(lambda: batcher.num_tokens_waiting() == 3 * sum(range(61)))
        model.gate.set()
        await asyncio.gather(first, *others)
    for batch in model.batches:
        lengths = [len(row) for row in batch]
        assert lengths == sorted(lengths)
        assert max(lengths) * len(lengths) <= 512
    assert len(model.batches) < 25


async def test_batcher_runs_a_sequence_over_the_budget_alone() -> None:
    model = Model()
    async with running(model) as batcher:
        await batcher.submit([[1] * 2000, [2], [3]])
    assert [len(batch) for batch in model.batches] == [1, 2]


async def test_batcher_lets_callers_take_turns() -> None:
    model = Model()
    async with running(model) as batcher:
        model.gate.clear()
        bulk = asyncio.create_task(batcher.submit([[1] * 100] * 200))
        await until(lambda: len(model.batches) == 1)
        query = asyncio.create_task(batcher.submit([[2] * 5]))
        await until(lambda: batcher.num_tokens_waiting() > 19_000)
        model.gate.set()
        await query
        assert len(model.batches) <= 3
        assert not bulk.done()
        await bulk


async def test_batcher_drops_what_a_cancelled_caller_left() -> None:
    model = Model()
    async with running(model) as batcher:
        model.gate.clear()
        leaving = asyncio.create_task(batcher.submit([[1] * 100] * 50))
        staying = asyncio.create_task(batcher.submit([[2] * 100] * 10))
        await until(lambda: len(model.batches) == 1)
        leaving.cancel()
        await asyncio.wait([leaving])
        model.gate.set()
        assert (await staying)[:, 0].tolist() == [2.0] * 10
    assert sum(row[0] == 1 for batch in model.batches for row in batch) <= 5
    assert batcher.num_tokens_waiting() == 0


async def test_batcher_fails_only_the_callers_of_a_bad_batch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Model()
    async with running(model) as batcher:
        with pytest.raises(EngineFailed) as caught:
            await batcher.submit([[666], *([[1] * 500] * 5)])
        assert "private" not in caught.value.message + caplog.text
        assert batcher.num_tokens_waiting() == 0
        assert (await batcher.submit([[3, 3]])).tolist() == [[3, 2]]


async def test_batcher_refuses_what_its_queue_cannot_hold() -> None:
    model = Model()
    async with running(model, waiting=1000) as batcher:
        model.gate.clear()
        accepted = asyncio.create_task(batcher.submit([[1] * 400] * 4))
        await until(lambda: len(model.batches) == 1)
        with pytest.raises(Overloaded) as caught:
            await batcher.submit([[2]])
        assert caught.value.retry_after_s == 1
        model.gate.set()
        assert len(await accepted) == 4
        assert len(await batcher.submit([[2]])) == 1


async def test_batcher_uses_every_worker_for_one_caller() -> None:
    model = Model()
    async with running(model, workers=2) as batcher:
        model.gate.clear()
        task = asyncio.create_task(batcher.submit([[1] * 64] * 16))
        await until(lambda: len(model.batches) == 2)
        assert [len(batch) for batch in model.batches] == [8, 8]
        model.gate.set()
        await task


async def test_batcher_that_stops_fails_everybody_who_waits() -> None:
    model = Model()
    async with running(model) as batcher:
        model.gate.clear()
        tasks = [asyncio.create_task(batcher.submit([[n] * 400] * 3)) for n in range(3)]
        await until(lambda: len(model.batches) == 1)
        stopping = asyncio.create_task(batcher.stop())
        await asyncio.sleep(0.01)
        model.gate.set()
        await stopping
        for task in tasks:
            with pytest.raises(EngineFailed):
                await task
        with pytest.raises(EngineFailed):
            await batcher.submit([[1]])
