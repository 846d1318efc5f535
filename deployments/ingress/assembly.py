"""Everything that an application is made of besides its graph, opened as a host's settings say.

An Ingress and a Worker are made of the same parts: whatever a request is held to, a task is.
"""

import asyncio
from collections.abc import Callable

from deployments.config import IngressArgs, Settings
from deployments.engines.extraction.child import extract_in_child
from deployments.ingress.app import Surface, build_surface
from deployments.ingress.auth import ThreadedKeys
from deployments.ingress.caching.answer_cache import AnswerCache
from deployments.ingress.graph import Graph
from deployments.ingress.metrics import Metrics
from deployments.ingress.second_factor import ThreadedFactors
from deployments.ingress.services import MetricsSource
from deployments.ingress.tasks.threaded import ThreadedTasks
from deployments.ingress.webhooks.delivering import Deliverer
from deployments.ingress.webhooks.desk import WebhookDesk
from deployments.ingress.webhooks.guard import Guard
from deployments.ingress.webhooks.signing import Signer
from deployments.stores.audit.log import open_audit
from deployments.stores.batches.opening import open_batches
from deployments.stores.database import Database
from deployments.stores.feedback import FeedbackStore
from deployments.stores.grouping import GroupedWrites
from deployments.stores.keys import open_keys
from deployments.stores.limits.opening import open_limits
from deployments.stores.pepper import edge_secret, pepper
from deployments.stores.replays import Replays
from deployments.stores.responses.opening import open_responses
from deployments.stores.second_factors import SecondFactors
from deployments.stores.tasks.queue import TaskQueue
from deployments.stores.tasks.store import TaskStore
from deployments.stores.webhooks import WebhookStore

CONNECTIONS = 4
"""One writes groups; the others read tasks, and keep second factors and replays."""


class Assembly:
    """The parts of one process's application."""

    def __init__(
        self, args: IngressArgs, settings: Settings, tell: Callable[[], None] = lambda: None
    ) -> None:
        """Open the stores.

        Args:
            args: limits of every request.
            settings: of the host.
            tell: called when a task was put in; must not wait.
        """
        self._args = args
        self._settings = settings
        self.metrics = Metrics()
        self.keys = ThreadedKeys(open_keys(settings))
        self.limits = open_limits(settings, on_fallback=self.metrics.count_fallback)
        self.database = Database(settings.database, pool_size=CONNECTIONS)
        self.writes = GroupedWrites(self.database, "tasks")
        self.audit = open_audit(settings, args.audit)
        self.audit.start()
        self.answers = self._open_answers()
        self._replays = Replays(self.database, settings.state_path)
        self._factors = ThreadedFactors(SecondFactors(self.database, settings.state_path))
        store = TaskStore(self.database, self.writes)
        self._tasks = ThreadedTasks(store, args.tasks.max_waiting, tell)
        self.webhooks = WebhookDesk(
            WebhookStore(self.database), Signer(pepper(settings.state_path))
        )
        self.batches = open_batches(self.database, store, tell)

    def queue(self) -> TaskQueue:
        """Return the tasks as a new worker has them."""
        return TaskQueue(self.database, self.writes)

    def deliverer(self) -> Deliverer:
        """Return what delivers webhooks, to be run by a worker."""
        guard = Guard(self._args.tasks.webhooks)
        return Deliverer(self.webhooks.store, self.webhooks.signer, guard)

    def surface(self, graph: Graph, *, metrics_source: MetricsSource | None = None) -> Surface:
        """Return the application over a graph."""
        return build_surface(
            graph,
            self.keys,
            self._args,
            extract=extract_in_child,
            factors=self._factors,
            audit=self.audit,
            replays=self._replays,
            metrics=self.metrics,
            metrics_source=metrics_source,
            edge_secret=edge_secret(self._settings.edge_state_path),
            is_behind_serve=True,
            limits=self.limits,
            answers=self.answers,
            tasks=self._tasks,
            batches=self.batches,
            feedback=FeedbackStore(self.database),
            webhooks=self.webhooks,
        )

    async def close(self) -> None:
        """Let go of everything, for a process that serves no application of its own."""
        if self.answers is not None:
            await self.answers.close()
        await asyncio.to_thread(self.writes.close)
        await asyncio.to_thread(self.audit.close)
        self.database.close()

    def _open_answers(self) -> AnswerCache | None:
        store = open_responses(self._settings, self._args.cache)
        if store is None:
            return None
        max_entry_bytes = self._args.cache.max_entry_bytes
        secret = pepper(self._settings.state_path)
        return AnswerCache(store, secret, self.metrics, max_entry_bytes=max_entry_bytes)
