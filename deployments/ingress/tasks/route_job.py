"""The plain job: one call of the task's route; what a stream says is written down as it comes."""

import asyncio
from typing import Any

import orjson

from deployments.ingress.ended import ended
from deployments.ingress.tasks.inner import InnerAnswer, InnerCalls
from deployments.ingress.tasks.jobs import AttemptFailed, Report, end_of
from deployments.stores.tasks.queue import TaskQueue
from deployments.types.tasks import Claim, TaskEnd

PREFIX, SUFFIX = b"data: ", b"\n\n"
FLUSH_S = 0.05
"""How long events wait for others, so that a fast model does not cost a write for each token."""


class RouteJob:
    """Asks the route that a task names."""

    def __init__(self, calls: InnerCalls, queue: TaskQueue) -> None:
        self._calls = calls
        self._queue = queue

    async def __call__(self, claim: Claim, report: Report) -> TaskEnd:
        """Do a task; raises as `Job`."""
        if claim.is_streamed:
            return await self._streamed(claim)
        return end_of(await self._calls.call(claim.key_id, claim.path, claim.body))

    async def _streamed(self, claim: Claim) -> TaskEnd:
        record = _Record(self._queue, claim)
        if claim.attempt > 1:
            await record.note({"type": "restarted", "attempt": claim.attempt})
        flushing = asyncio.create_task(record.flush_for_ever())
        try:
            answer = await self._calls.call(
                claim.key_id, claim.path, claim.body, on_block=record.take
            )
        finally:
            flushing.cancel()
            await asyncio.gather(flushing, return_exceptions=True)
        await record.flush()
        return record.end(answer)


class _Record:
    """What a streamed task says, on its way into the table."""

    def __init__(self, queue: TaskQueue, claim: Claim) -> None:
        self._queue = queue
        self._claim = claim
        self._rest = b""
        self._waiting: list[bytes] = []
        self._texts: dict[int, list[str]] = {}
        self._sources: list[Any] | None = None
        self._last: dict[str, Any] = {}

    async def take(self, piece: bytes) -> None:
        """Take a piece of the stream, which may end anywhere."""
        *blocks, self._rest = (self._rest + piece).split(SUFFIX)
        for block in blocks:
            if block.startswith(PREFIX):
                self._add(block.removeprefix(PREFIX))

    async def note(self, event: dict[str, Any]) -> None:
        """Add an event that is not the model's."""
        self._waiting.append(orjson.dumps(event))
        await self.flush()

    async def flush(self) -> None:
        """Write down what waits."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            await ended(self._queue.say(self._claim, waiting))

    async def flush_for_ever(self) -> None:
        """Write down what comes, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    def end(self, answer: InnerAnswer) -> TaskEnd:
        """Return the end of the task; raises AttemptFailed."""
        if answer.status >= 300:
            return end_of(answer)
        if self._last.get("type") == "error":
            error = self._last["error"]
            raise AttemptFailed({**error, "request_id": None}, None, is_blamed=True)
        return TaskEnd(
            status="COMPLETED",
            output=orjson.dumps(self._output()),
            usage=self._last.get("usage"),
        )

    def _add(self, data: bytes) -> None:
        event = orjson.loads(data)
        kind = event["type"]
        if kind == "delta":
            self._texts.setdefault(event["index"], []).append(event["text"])
        elif kind == "sources":
            self._sources = event["sources"]
        self._last = event
        self._waiting.append(data)

    def _output(self) -> dict[str, Any]:
        """Return what the route would have answered without a stream."""
        last = {name: value for name, value in self._last.items() if name != "type"}
        reasons = last.pop("finish_reasons", [last.get("finish_reason")])
        texts = ["".join(self._texts.get(index, ())) for index in range(len(reasons))]
        output = {**last, "output": texts[0], "sources": self._sources or []}
        if len(texts) > 1:
            output["outputs"] = [
                {"index": index, "output": text, "finish_reason": reason}
                for index, (text, reason) in enumerate(zip(texts, reasons, strict=True))
            ]
        return output
