"""Does the tasks of the table, a number at a time, and says that it lives while it does.

Whatever dies or hangs here costs nothing but time: what is claimed is written down, and whoever
sees that this crew lives no more gives its tasks back. It does not know how a task is done.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from itertools import chain, repeat
from typing import Any

from deployments.errors import RagError, StoreUnavailable
from deployments.ingress.ended import ended
from deployments.ingress.faults import log_fault
from deployments.ingress.tasks.jobs import AttemptFailed, Job, error_of
from deployments.stores.tasks.queue import BEAT_S, DEAD_S, LATE, TaskQueue
from deployments.types.tasks import Claim, TaskEnd, TaskProgress

POLL_S = 0.02
"""How often an idle crew looks for tasks; half of it is what a task waits. Each look costs 0.1 ms
(SQLite) where nobody else is told of tasks."""

TOLD_POLL_S = 1.0
UNTOLD_S = 10.0
"""A task that nobody was told of for so long is found by looking."""

WATCH_S = 0.25
EXPIRE_S = 30.0
RETRY_S = 0.5
LEAVE_S = 5.0
"""How long what was stopped may take to be written down, when the worker goes."""

SILENT_S = 30.0
"""A crew whose loops have not turned for so long is not well."""

log = logging.getLogger("ray.serve")


class Crew:
    """Of one event loop."""

    def __init__(
        self,
        queue: TaskQueue,
        jobs: Mapping[str, Job],
        default: Job,
        *,
        max_running: int,
        is_told: bool,
        tidy: Callable[[], int] = lambda: 0,
    ) -> None:
        """Take the table and what does its tasks.

        Args:
            queue: the tasks, as a worker of its own.
            jobs: by path.
            default: for the other paths.
            max_running: how many tasks are done at once.
            is_told: whether a broker says when there are tasks (`take`); by looking only those are
                then found that nobody told of.
            tidy: removes what is old beside tasks, on a thread; returns how much there was.
        """
        self._queue = queue
        self._jobs = jobs
        self._default = default
        self._max_running = max_running
        self._is_told = is_told
        self._tidy = tidy
        self._running: dict[str, tuple[Claim, asyncio.Task[None]]] = {}
        self._ending: set[str] = set()
        self._claiming = 0
        self._loop = asyncio.get_running_loop()
        self._turns: list[asyncio.Future[asyncio.Task[None] | None]] = []
        self._servant: asyncio.Task[None] | None = None
        self._something = asyncio.Event()
        self._is_finding = not is_told
        """Whether looking finds tasks; else it would only keep those waiting who were told."""
        self._is_draining = False
        self._is_enlisted = asyncio.Event()
        self._turned_at = time.monotonic()

    @property
    def num_running(self) -> int:
        """Return how many tasks are being done."""
        return len(self._running)

    def nudge(self) -> None:
        """Look for tasks now."""
        self._something.set()

    def check(self) -> None:
        """Raise RagError when the crew has not looked around for long."""
        if time.monotonic() - self._turned_at > SILENT_S:
            raise RagError("the worker does not look for tasks any more")

    async def run(self) -> None:
        """Do tasks until cancelled."""
        await self._patiently(lambda: asyncio.to_thread(self._queue.enlist))
        self._is_enlisted.set()
        loops = (self._beat(), self._bury(), self._look(), self._watch(), self._expire())
        async with asyncio.TaskGroup() as group:
            for loop in loops:
                group.create_task(loop)

    async def take(self) -> bool:
        """Do the most urgent task to its end; False: there is none, or no room for one.

        Those who take at the same time claim together: one claim costs as much as one for all.
        """
        await self._is_enlisted.wait()
        turn: asyncio.Future[asyncio.Task[None] | None] = self._loop.create_future()
        self._turns.append(turn)
        if self._servant is None or self._servant.done():
            self._servant = self._loop.create_task(self._serve())
        task = await turn
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)
        return task is not None

    async def _serve(self) -> None:
        """Claim for those who take, as many at once as have come during the last claim.

        A claim that was unsure may bring more than they have room for; that is done beside.
        """
        while self._turns:
            turns, self._turns = self._turns, []
            waiting = (turn for turn in turns if not turn.done())  # who left has no part in it
            try:
                begun = await self._claim(len(turns))
            except Exception as error:  # each of them is told
                for turn in waiting:
                    turn.set_exception(error)
                continue
            works = chain((work for _, work in begun), repeat(None))
            for turn, work in zip(waiting, works, strict=False):
                turn.set_result(work)

    async def drain(self, timeout_s: float) -> None:
        """Claim nothing more, let what runs end, and give back what does not."""
        self._is_draining = True
        if self._running:
            await asyncio.wait([task for _, task in self._running.values()], timeout=timeout_s)
        left = [task for _, task in self._running.values()]
        self._stop([claim for claim, _ in self._running.values()])
        if left:
            await asyncio.wait(left, timeout=LEAVE_S)
        if self._is_enlisted.is_set():
            await asyncio.to_thread(self._queue.leave)

    async def _look(self) -> None:
        """Claim what there is, whenever there is room."""
        while True:
            self._turned_at = time.monotonic()
            poll_s = TOLD_POLL_S if self._is_told else POLL_S
            try:
                async with asyncio.timeout(poll_s):
                    await self._something.wait()
            except TimeoutError:
                pass
            self._something.clear()
            room = self._max_running - len(self._running) - self._claiming
            if room <= 0 or self._is_draining:
                continue
            try:
                begun = []
                if await asyncio.to_thread(self._queue.has_ready):
                    begun = await self._claim(room, UNTOLD_S if self._is_told else 0.0)
                self._is_finding = bool(begun) or not self._is_told
            except StoreUnavailable:
                await asyncio.sleep(RETRY_S)

    async def _claim(
        self, max_tasks: int, min_age_s: float = 0.0
    ) -> list[tuple[Claim, "asyncio.Task[None]"]]:
        room = self._max_running - len(self._running) - self._claiming
        wanted = min(max_tasks, room)
        if wanted <= 0 or self._is_draining:
            return []
        self._claiming += wanted
        try:
            claims = await ended(self._queue.claim(wanted, min_age_s=min_age_s))
        finally:
            self._claiming -= wanted
        begun = [(claim, asyncio.create_task(self._attempt(claim))) for claim in claims]
        self._running.update({claim.task_id: (claim, task) for claim, task in begun})
        return begun

    async def _attempt(self, claim: Claim) -> None:
        """Make one attempt, and write down what came of it, however long that takes."""
        try:
            write = await self._outcome(claim)
            self._ending.add(claim.task_id)  # from here on nothing stops it
            await self._patiently(lambda: ended(write()))
        finally:
            self._ending.discard(claim.task_id)
            self._running.pop(claim.task_id, None)
            if self._is_finding:
                self.nudge()

    async def _outcome(self, claim: Claim) -> Callable[[], "Future[bool]"]:
        """Return what writes down how an attempt ended."""
        job = self._jobs.get(claim.path, self._default)

        async def report(progress: TaskProgress) -> bool:
            return await ended(self._queue.progress(claim, progress))

        try:
            end = await job(claim, report)
        except asyncio.CancelledError:
            return self._stopped(claim)
        except AttemptFailed as failed:
            error, after_s = failed.error, failed.after_s
            if failed.is_blamed:
                return lambda: self._queue.fail(claim, error, after_s)
            return lambda: self._queue.give_back(claim, after_s or RETRY_S)
        except RagError as error:
            shown, after = error_of(error), error.retry_after_s
            if error.retryable:
                return lambda: self._queue.fail(claim, shown, after)
            end = TaskEnd(status="FAILED", error=shown)
        except Exception as error:  # whatever it is, the task ends, and the crew goes on
            log_fault(error, claim.task_id)
            end = TaskEnd(status="FAILED", error=error_of(RagError()))
        final = end
        return lambda: self._queue.finish(claim, final)

    def _stopped(self, claim: Claim) -> Callable[[], "Future[bool]"]:
        """Return what writes down an attempt that was stopped from outside."""
        if self._is_draining:
            return lambda: self._queue.give_back(claim)
        is_late = 0 < claim.deadline <= time.time()
        end = TaskEnd(status="FAILED", error=LATE) if is_late else TaskEnd(status="CANCELLED")
        return lambda: self._queue.finish(claim, end)

    async def _watch(self) -> None:
        """Stop what is cancelled, late, or done by another by now."""
        while True:
            await asyncio.sleep(WATCH_S)
            claims = [claim for claim, _ in self._running.values()]
            if not claims:
                continue
            try:
                stopping = await asyncio.to_thread(self._queue.to_stop, claims)
            except StoreUnavailable:
                continue
            self._stop(stopping)

    def _stop(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            running = self._running.get(claim.task_id)
            is_ending = claim.task_id in self._ending
            if running is not None and running[0].attempt == claim.attempt and not is_ending:
                running[1].cancel()

    async def _beat(self) -> None:
        """Say that the crew lives; one that was taken for dead begins anew, with nothing."""
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                if await asyncio.to_thread(self._queue.beat) or self._is_draining:
                    continue
                log.warning("this worker was taken for dead; it begins anew")
                self._stop([claim for claim, _ in self._running.values()])
                await asyncio.to_thread(self._queue.enlist)
            except StoreUnavailable:
                continue

    async def _bury(self) -> None:
        """Give back what workers hold whose beat has not grown for long."""
        seen: dict[str, tuple[int, float]] = {}
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                beats = await asyncio.to_thread(self._queue.beats)
                now = time.monotonic()
                kept = {w: seen[w] for w, beat in beats.items() if seen.get(w, (-1, 0))[0] == beat}
                seen = {worker: kept.get(worker, (beat, now)) for worker, beat in beats.items()}
                for worker, (beat, since) in seen.items():
                    if now - since > DEAD_S:
                        num = await asyncio.to_thread(self._queue.bury, worker, beat)
                        log.warning("a worker has died; %d tasks go back", num)
                        self.nudge()
                await asyncio.to_thread(self._queue.give_back_orphans)
            except StoreUnavailable:
                continue

    async def _expire(self) -> None:
        """Remove what was kept long enough."""
        while True:
            await asyncio.sleep(EXPIRE_S)
            try:
                while await asyncio.to_thread(lambda: self._queue.expire() + self._tidy()):
                    pass
            except StoreUnavailable:
                continue

    async def _patiently(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Do something that has to be done, also when the database comes back only later."""
        while True:
            try:
                await work()
            except StoreUnavailable:
                await asyncio.sleep(RETRY_S)
            else:
                return
