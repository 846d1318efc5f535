"""The events of a generation: from the replica that answers to the one who asked.

It does not know collections; what stands in the prompt was put there before.
"""

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.delivery.inbox import Inbox
from deployments.types import GenerationEvent, GenerationRequest
from graphs.fallbacks import with_fallbacks
from graphs.handles import Deadline, call, delivered, node_address
from graphs.models import Models


class Generations:
    """Has the model that a request names answer: the configuration's, or a loaded one."""

    def __init__(self, generator: DeploymentHandle[Any] | None, model: str, models: Models) -> None:
        """Take the configuration's model, if it runs, with its id, and the loaded ones."""
        self._deliver = generator and generator.options(method_name="deliver", stream=True)
        self._complete = generator and generator.options(method_name="complete", stream=True)
        self._inbox = Inbox(node_address())
        self._model = model
        self._own_ids = frozenset(("", model) if generator else ())
        self._models = models

    async def check(self, request: GenerationRequest) -> None:
        """Raise ModelNotFound or ModelUnavailable before any work is done for a request."""
        if request.model not in self._own_ids and not request.fallbacks:
            await self._models.find(request.model, "generation")

    async def pinned(self, model: str) -> tuple[str, str]:
        """Return the id of one model behind an id, and what runs there: another one in every load.

        Raises:
            ModelNotFound: no generation model has this id.
            ModelUnavailable: it is being loaded, or is not loaded any more.
        """
        loaded = None
        if model not in self._own_ids:
            loaded = await self._models.find(model, "generation")
        if loaded is None:
            return self._model, ""
        adapter = loaded.adapter.id if loaded.adapter is not None else ""
        return loaded.id, f"{loaded.handle.app_name} {adapter}"

    async def events(
        self, request: GenerationRequest, deadline: Deadline
    ) -> AsyncGenerator[GenerationEvent]:
        """Yield a generation's events: as they come, or at its end where nobody reads along."""
        if request.fallbacks:
            events = with_fallbacks(request, lambda one: self.events(one, deadline))
            async with aclosing(events):
                async for event in events:
                    yield event
            return
        deliver, complete = self._deliver, self._complete
        if request.model not in self._own_ids:
            loaded = await self._models.find(request.model, "generation")
            if loaded is not None:
                deliver, complete = loaded.deliver, loaded.complete
                request = dataclasses.replace(request, adapter=loaded.adapter)
        assert deliver is not None, "without a configured model, `find` raises"
        assert complete is not None
        if not request.is_streamed:
            for event in await call(complete.remote(request), deadline):
                yield event
            return
        subscription = await self._inbox.open()
        try:
            response = deliver.remote(request, subscription.reply_to)
            async with aclosing(delivered(response, subscription, request.n, deadline)) as events:
                async for event in events:
                    yield event
        finally:
            self._inbox.close(subscription)
