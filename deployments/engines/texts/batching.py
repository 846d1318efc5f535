"""Token-aware batching: concurrent callers share batches that are bounded by tokens, not by count.

Callers take turns, sequence by sequence, so that a query never waits for all of somebody else's
documents and nobody starves. It knows neither texts nor models: it carries tokens to `compute`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

import numpy as np

from deployments.errors import EngineFailed, Overloaded
from deployments.types import Vectors

log = logging.getLogger(__name__)

Item = TypeVar("Item", bound=Sequence[int])
"""What becomes one row: its length is its number of tokens."""


class _Job(Generic[Item]):
    """What one caller waits for: its sequences, and the vectors that are ready so far."""

    def __init__(self, sequences: Sequence[Item], result: asyncio.Future[Vectors]) -> None:
        self.sequences = sequences
        self.result = result
        self.num_taken = 0
        self.vectors: list[Vectors | None] = [None] * len(sequences)
        self.num_missing = len(sequences)

    @property
    def next_tokens(self) -> int:
        return len(self.sequences[self.num_taken])

    def waiting_tokens(self) -> int:
        return sum(len(sequence) for sequence in self.sequences[self.num_taken :])

    def fill(self, index: int, vector: Vectors) -> None:
        self.vectors[index] = vector
        self.num_missing -= 1
        if self.num_missing == 0 and not self.result.done():
            self.result.set_result(np.stack([row for row in self.vectors if row is not None]))

    def fail(self) -> None:
        if not self.result.done():
            self.result.set_exception(EngineFailed("the model failed on this batch"))


_Batch = list[tuple[_Job[Item], int]]

_MIN_BATCH_TOKENS = 512
"""Smaller batches are not made to keep every worker busy: each costs a fixed time."""


class TokenBatcher(Generic[Item]):
    """Runs `compute` on batches of at most `max_batch_tokens` padded tokens, one on each worker."""

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Vectors],
        executor: Executor,
        *,
        num_workers: int,
        max_batch_tokens: int,
        max_waiting_tokens: int,
    ) -> None:
        self._run_batch = compute
        self._executor = executor
        self._num_workers = num_workers
        self._idle = asyncio.Semaphore(num_workers)
        self._batches: set[asyncio.Task[None]] = set()
        self._max_batch_tokens = max_batch_tokens
        self._max_waiting_tokens = max_waiting_tokens
        self._jobs: deque[_Job[Item]] = deque()
        self._unfinished: set[_Job[Item]] = set()
        self._num_waiting = 0
        self._wake = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def num_tokens_waiting(self) -> int:
        """Return how many tokens are queued and not yet in a batch."""
        return self._num_waiting

    def admit(self, num_tokens: int) -> None:
        """Refuse work that the queue has no room for; a lone caller always fits.

        Raises:
            Overloaded: try again after a second.
        """
        if self._num_waiting and self._num_waiting + num_tokens > self._max_waiting_tokens:
            error = Overloaded("too many texts are waiting for the model")
            error.retry_after_s = 1
            raise error

    async def submit(self, sequences: Sequence[Item]) -> Vectors:
        """Return one vector per sequence, float32[n, dim], n ≥ 1.

        A cancelled caller's sequences leave the queue at once.

        Raises:
            Overloaded: the queue is full.
            EngineFailed: the model failed on a batch with these sequences, or was stopped.
        """
        if self._task.done():
            raise EngineFailed("the engine has stopped")
        self.admit(num_tokens := sum(map(len, sequences)))
        job = _Job(sequences, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._unfinished.add(job)
        self._num_waiting += num_tokens
        self._wake.set()
        try:
            return await job.result
        finally:
            self._unfinished.discard(job)
            self._drop(job)

    async def stop(self) -> None:
        """End after the running batches; whoever still waits gets EngineFailed."""
        self._task.cancel()
        await asyncio.wait([self._task, *self._batches])
        for job in self._unfinished:
            job.fail()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await self._idle.acquire()
            if batch := self._take():
                task = asyncio.create_task(self._compute(batch))
                self._batches.add(task)
                task.add_done_callback(self._batches.discard)
            else:
                self._idle.release()
                self._wake.clear()

    async def _compute(self, batch: _Batch[Item]) -> None:
        sequences = [job.sequences[index] for job, index in batch]
        loop = asyncio.get_running_loop()
        try:
            vectors = await loop.run_in_executor(self._executor, self._run_batch, sequences)
        except Exception as error:
            # Whatever the model raises concerns this batch only; the batcher has to go on.
            log.error("a batch of %d texts failed: %s", len(batch), type(error).__name__)
            for job, _ in batch:
                job.fail()
                self._drop(job)
            return
        finally:
            self._idle.release()
        for (job, index), vector in zip(batch, vectors, strict=True):
            job.fill(index, vector)

    def _take(self) -> _Batch[Item]:
        """Return the next batch, sorted by length; empty when nobody waits.

        It takes no more than a worker's share of what waits, so that all workers end together.
        """
        batch: _Batch[Item] = []
        longest = 0
        share = max(self._num_waiting // self._num_workers, _MIN_BATCH_TOKENS)
        max_tokens = min(share, self._max_batch_tokens)
        while self._jobs:
            job = self._jobs[0]
            longest = max(longest, job.next_tokens)
            if batch and longest * (len(batch) + 1) > max_tokens:
                break
            batch.append((job, job.num_taken))
            self._num_waiting -= job.next_tokens
            job.num_taken += 1
            self._jobs.popleft()
            if job.num_taken < len(job.sequences):
                self._jobs.append(job)
        batch.sort(key=lambda item: len(item[0].sequences[item[1]]))
        return batch

    def _drop(self, job: _Job[Item]) -> None:
        """Forget what of a job is still queued."""
        if job.num_taken < len(job.sequences):
            self._num_waiting -= job.waiting_tokens()
            job.num_taken = len(job.sequences)
            self._jobs.remove(job)
