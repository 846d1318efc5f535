"""The part of a graph that has models come and go. Contract: ``ingress/graph.py``."""

import asyncio
from collections.abc import Sequence

from deployments.config import GeneratorArgs, ModelsArgs, Settings
from deployments.stores.database import Database
from deployments.stores.models import ModelStore
from deployments.types import (
    Alias,
    ClusterStatus,
    LoadOrder,
    ModelKind,
    ModelState,
    SwitchOrder,
    TuningOrder,
    TuningState,
)
from graphs.bases import Bases
from graphs.handles import Deadline
from graphs.model_status import OwnModel, StatusBoard
from graphs.models import Models
from graphs.registrar import Registrar
from graphs.reranking import LATE_FUSION
from graphs.serve_apps import ServeApps
from graphs.tunings import Tunings

STATUS_TIMEOUT_S = 5.0
NUM_CONNECTIONS = 4


class ModelOperations:
    """Models beside those of the configuration, found by their ids."""

    def __init__(self, own: Sequence[OwnModel], args: ModelsArgs) -> None:
        database = Database(Settings().database, pool_size=NUM_CONNECTIONS)
        self._store = ModelStore(database)
        kinds: dict[str, ModelKind] = {one.args.model: one.kind for one in own}
        bases = Bases(
            {
                one.args.model: (one.args, one.handle)
                for one in own
                if isinstance(one.args, GeneratorArgs)
            }
        )
        self.models = Models(self._store, {**kinds, LATE_FUSION: "reranking"}, bases)
        apps = ServeApps(args)
        self._registrar = Registrar(self.models, self._store, database, apps, args)
        self._board = StatusBoard(own, self.models, apps)
        sources = {one.args.model: one.args.source for one in own if one.kind == "generation"}
        self._tunings = Tunings(database, args, sources)

    async def resolve(self, model: str, kind: ModelKind) -> str:
        """Return the id of the very model behind an id or alias; of several, the main one.

        Raises:
            ModelNotFound: no model of this kind has this id.
            ModelUnavailable: it does not run now.
        """
        return await self.models.resolve(model, kind)

    async def load_model(self, order: LoadOrder) -> ModelState:
        """Have a model loaded; what is loaded stays as it is."""
        return await self._registrar.load(order)

    async def reload_model(self, model: str) -> ModelState:
        """Have a version loaded again as it was before."""
        return await self._registrar.reload(model)

    async def unload_model(self, model: str, *, force: bool) -> ModelState:
        """Have a model go once its requests have ended."""
        return await self._registrar.unload(model, force=force)

    async def switch_model(self, order: SwitchOrder) -> Alias:
        """Point an alias at a ready model."""
        return await self._registrar.switch(order)

    async def model_state(self, model: str) -> ModelState:
        """Return what the registry says of a version now; raises ModelNotFound."""
        return await self._registrar.state(model)

    async def model_status(self, *, timeout_s: float) -> ClusterStatus:
        """Return every model, replica and machine as it is now."""
        deadline = Deadline(min(timeout_s, STATUS_TIMEOUT_S))
        registry = await asyncio.to_thread(self._store.read)
        return await self._board.status(registry, deadline)

    async def begin_tuning(self, order: TuningOrder) -> TuningState:
        """Check an order for a fine-tuning, and queue it."""
        return await self._tunings.begin(order, await asyncio.to_thread(self._store.read))

    async def tuning(self, tuning_id: str) -> TuningState:
        """Return how a fine-tuning is now; raises NotFound."""
        return await self._tunings.get(tuning_id)

    async def tunings(self, *, limit: int, after: str) -> list[TuningState]:
        """Return fine-tunings, the newest first; of those, the ones older than `after`."""
        return await self._tunings.find(limit, after)

    async def cancel_tuning(self, tuning_id: str) -> TuningState:
        """Have a fine-tuning end; raises NotFound."""
        return await self._tunings.cancel(tuning_id)

    async def delete_tuning(self, tuning_id: str) -> None:
        """Remove a fine-tuning that has ended, and what it made."""
        await self._tunings.delete(tuning_id, await asyncio.to_thread(self._store.read))

    async def forget_loaded(self, late_s: float, deadline: Deadline) -> None:
        """Have every loaded model keep nothing of the texts that it has read."""
        await self._registrar.forget(late_s, deadline)

    async def keep(self) -> None:
        """Follow the registry and take part in making it true, for ever."""
        await asyncio.gather(self._registrar.maintain(), self._tunings.maintain())
