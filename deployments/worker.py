"""The Worker replica: does tasks, by the routes of the very application that the Ingress serves.

Serve starts and stops its consumer (`@task_consumer`), which carries the news that there are tasks;
the crew knows which ones, from the table. It may be killed at any instant. It does not know what a
task is about.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ray import serve
from ray.serve.task_consumer import task_consumer, task_handler

from deployments.brokers.base import NEWS, Broker, NotHere
from deployments.brokers.opening import CONSUMING
from deployments.config import IngressArgs, Settings
from deployments.discretion import be_discreet
from deployments.errors import RagError
from deployments.garbage import collect_seldom
from deployments.ingress.assembly import Assembly
from deployments.ingress.batches.job import BatchJob
from deployments.ingress.tasks.crew import Crew
from deployments.ingress.tasks.index_job import IndexJob
from deployments.ingress.tasks.ordering import INDEX
from deployments.ingress.tasks.route_job import RouteJob
from deployments.stores.batches.store import PATH as BATCHES
from deployments.types.tasks import Backlog

MAX_HELD_S: Final = 900.0
"""For how long a message is kept; brokers take one that is kept for 30 minutes for lost."""

ROOM_S: Final = 0.05
HEALTH_TIMEOUT_S: Final = 5.0
LEAVE_S: Final = 10.0
"""Of the time that Serve leaves a replica to go, what is not for tasks to end."""


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """What a Worker replica does."""

    num_running: int


@task_consumer(task_processor_config=CONSUMING)
class _Consumer:
    """What Serve starts and stops with its replica."""

    _adapter: Broker

    def __init__(
        self,
        args: IngressArgs,
        graph_factory: Callable[..., Any],
        *graph_args: Any,
        **handles: Any,
    ) -> None:
        be_discreet()
        settings = Settings()
        self._parts = Assembly(args, settings)
        graph = graph_factory(*graph_args, **handles)
        calls = self._parts.surface(graph).calls
        self._queue = self._parts.queue()
        self._max_running = args.tasks.max_running
        batches, depth = self._parts.batches, args.max_json_depth
        idle_s = partial(graph.idle_s, timeout_s=HEALTH_TIMEOUT_S)
        batch_job = BatchJob(batches, calls, idle_s, args.batches, depth)
        self._crew = Crew(
            self._queue,
            {INDEX: IndexJob(calls), BATCHES: batch_job},
            RouteJob(calls, self._queue),
            max_running=self._max_running,
            is_told=bool(settings.broker_url),
            tidy=batches.sweep,
        )
        self._is_leaving = False
        self._loop = asyncio.get_running_loop()
        self._work = self._loop.create_task(self._crew.run())
        self._following = self._loop.create_task(graph.follow())
        self._deliverer = self._parts.deliverer()
        self._delivering = self._loop.create_task(self._deliverer.run())
        collect_seldom()

    @task_handler(name=NEWS)
    def take(self) -> None:
        """Do tasks while there are any, on a thread of the broker's.

        Raises:
            NotHere: the worker goes.
        """
        until = time.monotonic() + MAX_HELD_S
        while not self._is_leaving and time.monotonic() < until:
            if self._crew.num_running >= self._max_running:
                time.sleep(ROOM_S)
                continue
            taking: Future[bool] = asyncio.run_coroutine_threadsafe(self._crew.take(), self._loop)
            try:
                if not taking.result(until - time.monotonic()):
                    break
            except TimeoutError:  # the task goes on
                break
        if self._is_leaving:
            raise NotHere


class Worker(_Consumer):
    """A replica that does tasks; every one does any of them."""

    def initialize_callable(self, consumer_concurrency: int) -> None:
        """Start the consumer, which takes no more news at once than there is room for tasks.

        Serve calls this, after the constructor, with the deployment's `max_ongoing_requests`.
        """
        least = min(consumer_concurrency, self._max_running)
        super().initialize_callable(least)  # type: ignore[misc]  # of the decorator

    def nudge(self) -> None:
        """Look for tasks now; a call of it also wakes workers that were scaled to zero."""
        self._crew.nudge()

    def stats(self) -> WorkerStats:
        """Return what this replica does."""
        return WorkerStats(self._crew.num_running)

    def metrics(self) -> bytes:
        """Return this replica's own counters, which are those of an Ingress."""
        return self._parts.metrics.text()

    async def forget(self) -> None:
        """Remove every answer that is kept; see `Ingress.forget`."""
        if self._parts.answers is not None:
            await self._parts.answers.forget()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what there is to do in the whole table, whoever does it."""
        backlog: Backlog = await asyncio.to_thread(self._queue.backlog)
        return {"tasks_queued": backlog.ready, "tasks_running": backlog.running}

    async def check_health(self) -> None:
        """Raise RagError unless tasks are being looked for and the database answers."""
        if self._work.done():
            raise RagError("the crew has ended")
        if self._delivering.done():
            raise RagError("nothing delivers webhooks any more")
        self._crew.check()
        self._adapter.check()
        async with asyncio.timeout(HEALTH_TIMEOUT_S):
            await asyncio.to_thread(self._parts.database.check)

    async def __del__(self) -> None:
        """Let tasks end in the time that Serve leaves, and give back the others.

        Serve awaits this; the destructor of `@task_consumer` itself would wait for no task.
        """
        self._is_leaving = True
        given_s = serve.get_replica_context()._deployment_config.graceful_shutdown_timeout_s
        drain_s = max(given_s - LEAVE_S, given_s / 2)
        stopping = asyncio.to_thread(self._adapter.stop_consumer, given_s)
        await asyncio.gather(self._crew.drain(drain_s), stopping)
        loops = (self._work, self._following, self._delivering)
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await self._deliverer.close()
        await self._parts.close()
