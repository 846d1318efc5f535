"""A task that is followed: what it says, from any place on, until it has ended."""

import asyncio
from collections.abc import AsyncIterator

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from deployments.errors import RagError
from deployments.ingress.entry import fail
from deployments.ingress.errors import error_object
from deployments.ingress.sse import EVENT_STREAM, Heartbeat, block
from deployments.ingress.tasks.threaded import Tasks
from deployments.types.tasks import ENDED, TaskProgress, TaskState

POLL_S, SLOW_POLL_S = 0.05, 0.5
PAGE = 500


class TaskStream(Response):
    """A response that tells of one task, with pings while there is nothing to tell.

    Each event has its `number`, from which another request may go on; `progress` has none, for it
    stands for itself. The last one is `end`, or `error` where it cannot be told on.
    """

    def __init__(
        self, tasks: Tasks, state: TaskState, after: int, *, heartbeat_s: float, request_id: str
    ) -> None:
        """Tell of a task what it said after its event of a number."""
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(media_type=EVENT_STREAM, headers=headers)
        del self.headers["content-length"]
        self._tasks = tasks
        self._state = state
        self._after = after
        self._heartbeat_s = heartbeat_s
        self._request_id = request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the whole stream; whoever called cancels when the client leaves."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        heart = Heartbeat(send, self._heartbeat_s)
        try:
            async for body in self._blocks():
                await heart.send(body)
            last = self._end()
        except RagError as error:
            fail(error)
            last = block({"type": "error", "error": error_object(error, self._request_id)})
        finally:
            await heart.stop()
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _blocks(self) -> AsyncIterator[bytes]:
        known, pause_s = TaskProgress(), POLL_S
        while True:
            # Asked first: what was said before the end is there when the end is seen.
            self._state = await self._tasks.get(self._state.tenant, self._state.id)
            if self._state.progress != known:
                known = self._state.progress
                yield _progress(known)
            is_silent = True
            while events := await self._said():
                is_silent = False
                yield b"".join(events)
            if self._state.status in ENDED:
                return
            pause_s = min(SLOW_POLL_S, pause_s * 1.2) if is_silent else POLL_S
            await asyncio.sleep(pause_s)

    async def _said(self) -> list[bytes]:
        if not self._state.is_streamed:
            return []
        events = await self._tasks.events(self._state.id, self._after, PAGE)
        if events:
            self._after = events[-1].number
        return [block({"number": one.number, **orjson.loads(one.data)}) for one in events]

    def _end(self) -> bytes:
        state = self._state
        end = {"type": "end", "task_id": state.id, "status": state.status}
        return block({**end, "error": state.error, "usage": state.usage})


def _progress(progress: TaskProgress) -> bytes:
    told = {"done": progress.done, "total": progress.total, "failed": progress.failed}
    return block({"type": "progress", **told})


async def ended(tasks: Tasks, state: TaskState, wait_s: float) -> TaskState:
    """Return a task once it has ended, or after a time as it is then."""
    loop = asyncio.get_running_loop()
    until, pause_s = loop.time() + wait_s, 0.005
    while state.status not in ENDED and loop.time() < until:
        await asyncio.sleep(min(pause_s, max(0.0, until - loop.time())))
        pause_s = min(0.25, pause_s * 1.3)
        if await tasks.status(state.tenant, state.id) != state.status:
            state = await tasks.get(state.tenant, state.id)
    return state
