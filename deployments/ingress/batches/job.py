"""The job of a batch: one attempt at all of its lines that are not done yet.

It may be stopped at any instant: what is in the table counts, the next attempt does the rest, and a
batch whose task has ended is brought to its own end by whoever sees that (``settling.py``).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Final

import orjson

from deployments.config import BatchesArgs
from deployments.errors import NotFound, RagError
from deployments.ingress.batches.asking import Asker, Calls
from deployments.ingress.batches.lines import LineBounds, Numbered, checked, numbered
from deployments.ingress.batches.pace import Pace
from deployments.ingress.batches.record import Record, Report, patiently, superseded
from deployments.stores.batches.opening import BatchStores
from deployments.types.batches import BatchState
from deployments.types.tasks import Claim, TaskEnd, TaskProgress, TaskStatus

AHEAD = 64
"""Lines read from the file together."""

WATCH_S = 0.25
"""How long others wait at most until a batch makes way; each look costs every ingress a call."""

LAST_FLUSH_S = 2.0
"""How long a job that is stopped may take to write down what is done."""

ENDS: Final[dict[str, TaskStatus]] = {"completed": "COMPLETED", "cancelled": "CANCELLED"}
"""How the task of a batch ends; it has failed otherwise."""


class BatchJob:
    """Does tasks of the path `/v1/batches`."""

    def __init__(
        self,
        stores: BatchStores,
        calls: Calls,
        idle_s: Callable[[], Awaitable[float]],
        args: BatchesArgs,
        max_depth: int,
    ) -> None:
        """Take the parts of a batch's job.

        Args:
            stores: where batches are kept.
            calls: asks routes.
            idle_s: says for how long nobody has waited for an answer; raises RagError where that
                cannot be told.
            args: the bounds of an input.
            max_depth: of a request's body.
        """
        self._stores = stores
        self._calls = calls
        self._idle_s = idle_s
        self._max_at_once = args.concurrency
        # A body is one level deeper in its line than in a request of its own.
        self._bounds = LineBounds(args.max_lines, args.max_line_bytes, max_depth + 1)

    async def __call__(self, claim: Claim, report: Report) -> TaskEnd:
        """Do a batch to its end.

        Raises:
            NotFound: there is no such batch any more.
            Conflict: another attempt does it.
            Unauthenticated: the key that asked for it does not work any more.
        """
        attempts, attempt = self._stores.attempts, claim.attempt
        batch_id: str = orjson.loads(claim.body)["batch_id"]
        batch = await patiently(lambda: attempts.begin(batch_id, attempt))
        if batch is None:
            raise NotFound("the batch is gone, or another attempt does it")
        if batch.status == "validating":
            await self._validate(batch, attempt)
        if batch.status in ("validating", "in_progress"):  # one that was refused has no lines
            while await patiently(lambda: attempts.has_open_lines(batch_id)):
                await self._pass(batch, claim, report)
        final = await patiently(lambda: attempts.finish(batch_id, attempt))
        if final is None:
            raise superseded()
        counts = final.counts
        await report(TaskProgress(counts.completed + counts.failed, counts.total, counts.failed))
        return _end(final)

    async def _validate(self, batch: BatchState, attempt: int) -> None:
        """Check the whole input, and write down its lines, or what is wrong with them."""

        def validate() -> bool:
            lines, faults = checked(batch, self._lines(batch), self._bounds)
            if faults:
                return self._stores.attempts.refuse(batch.id, attempt, faults)
            return self._stores.attempts.accept(batch.id, attempt, lines)

        if not await patiently(validate):
            raise superseded()

    async def _pass(self, batch: BatchState, claim: Claim, report: Report) -> None:
        """Do every line that is not done; one that an erasure made void is left for another."""
        pace = Pace(self._max_at_once)
        asker = Asker(self._calls, claim.key_id, batch.endpoint, pace)
        record = Record(self._stores.attempts, batch.id, claim.attempt, report)

        async def do(number: int, epoch: int, raw: bytes) -> None:
            try:
                line = orjson.loads(raw)
                body = orjson.dumps(line["body"])
                await record.add(await asker.ask(number, epoch, line["custom_id"], body))
            finally:
                pace.leave()

        try:
            async with asyncio.TaskGroup() as group:
                flushing = group.create_task(record.flush_for_ever())
                watching = group.create_task(self._make_way(pace))
                async with asyncio.TaskGroup() as running:
                    async for number, epoch, raw in self._open(batch):
                        await pace.enter()
                        running.create_task(do(number, epoch, raw))
                flushing.cancel()
                watching.cancel()
            await record.flush()
        except BaseExceptionGroup as failed:
            raise _first(failed) from None
        except asyncio.CancelledError:
            with suppress(Exception):  # what is not written is done again, where that is wanted
                async with asyncio.timeout(LAST_FLUSH_S):
                    await record.flush()
            raise

    async def _make_way(self, pace: Pace) -> None:
        """Tell a batch's pace of others, until cancelled."""
        while True:
            with suppress(RagError):  # it goes on as it was
                pace.make_way(await self._idle_s())
            await asyncio.sleep(WATCH_S)

    async def _open(self, batch: BatchState) -> AsyncIterator[tuple[int, int, bytes]]:
        """Yield number, epoch and text of the lines that are not done, in order."""
        lines = self._lines(batch)
        while some := await patiently(lambda: list(islice(lines, AHEAD))):
            texts = {number: raw for number, raw in some if raw is not None}
            first, last = some[0][0], some[-1][0]
            open_lines = partial(self._stores.attempts.open_lines, batch.id, first, last)
            for line in await patiently(open_lines):
                yield line.number, line.epoch, texts[line.number]

    def _lines(self, batch: BatchState) -> Iterator[Numbered]:
        file = self._stores.files.input_of(batch)
        return numbered(self._stores.files.pieces(file), self._bounds.max_line_bytes)


def _end(batch: BatchState) -> TaskEnd:
    """Return how the task of a batch ended."""
    counts = batch.counts
    output = {
        "batch_id": batch.id,
        "status": batch.status,
        "request_counts": {
            "total": counts.total,
            "completed": counts.completed,
            "failed": counts.failed,
        },
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
    }
    status = ENDS.get(batch.status, "FAILED")
    error = None
    if status == "FAILED":
        error = {
            "message": f"the batch has {batch.status}: GET /v1/batches/{batch.id} says why",
            "type": "invalid_request_error",
            "code": f"batch_{batch.status}",
            "param": None,
        }
    return TaskEnd(status=status, output=orjson.dumps(output), error=error)


def _first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what failed first, out of all that was stopped by it."""
    first: BaseException = failed
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
