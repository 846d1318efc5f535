"""The fake's models: ids that are known, orders that are noted, states that a test sets."""

import dataclasses

from deployments.errors import ModelNotFound, NotFound
from deployments.types import (
    Alias,
    AliasTarget,
    ClusterStatus,
    GpuVitals,
    LoadOrder,
    ModelKind,
    ModelState,
    ModelStatus,
    NodeVitals,
    ReplicaVitals,
    SwitchOrder,
    TuningOrder,
    TuningState,
)
from tests.unit.ingress.fake_work import FakeWork

DIM = 8
DIMS = {"fake-embedder": DIM, "small-embedder": 3}


class FakeModels(FakeWork):
    """Notes the orders it gets, and says of models and tunings what it was told."""

    generation_models = ("fake-model", "second-model")
    embedding_models = ("fake-embedder", "small-embedder")
    reranking_models = ("fake-reranker", "late-fusion")

    def __init__(self) -> None:
        super().__init__()
        self.orders: list[LoadOrder | SwitchOrder | tuple[str, bool]] = []
        self.tuning_orders: list[TuningOrder] = []
        self.tuning_states: list[TuningState] = []
        self.states: dict[str, list[ModelState]] = {}
        """What the registry says of each model, one state a time it is asked, the last for ever."""

    async def resolve(self, model: str, kind: ModelKind) -> str:
        known = {
            "generation": self.generation_models,
            "embedding": self.embedding_models,
            "reranking": self.reranking_models,
        }
        if model not in known[kind]:
            error = ModelNotFound("no loaded model or collection has this id; see GET /v1/models")
            error.param = "model"
            raise error
        return model

    async def load_model(self, order: LoadOrder) -> ModelState:
        self._fail()
        self.orders.append(order)
        return await self.model_state(f"{order.name}@{order.version or '1'}")

    async def reload_model(self, model: str) -> ModelState:
        self._fail()
        self.orders.append((model, True))
        return await self.model_state(model)

    async def unload_model(self, model: str, *, force: bool) -> ModelState:
        self._fail()
        self.orders.append((model, force))
        return await self.model_state(model)

    async def switch_model(self, order: SwitchOrder) -> Alias:
        self._fail()
        self.orders.append(order)
        return Alias(order.alias, (AliasTarget(order.to, order.canary_percent),))

    async def model_state(self, model: str) -> ModelState:
        if model not in self.states:
            raise ModelNotFound("no model with this id was ever loaded")
        states = self.states[model]
        return states.pop(0) if len(states) > 1 else states[0]

    async def model_status(self, *, timeout_s: float) -> ClusterStatus:
        self._fail()
        node = NodeVitals("here", 2, 0.5, 10, 20, (GpuVitals(0, "fast", 0.9, 1, 2),))
        replica = ReplicaVitals(7, 100, node, 1, 2, 3.5, 0.25)
        [state] = self.states["m@1"]
        own = ModelStatus(
            id="fake-model",
            kind="generation",
            device="cpu",
            precision="auto",
            engine="fake",
            min_replicas=None,
            max_replicas=None,
            replicas=(replica, replica),
            num_wanted=2,
        )
        loaded = dataclasses.replace(own, id="m@1", replicas=(), num_wanted=1, state=state)
        alias = Alias("chat", (AliasTarget("m@1", 90), AliasTarget("fake-model", 10)))
        return ClusterStatus((own, loaded), (alias,), (node,))

    async def begin_tuning(self, order: TuningOrder) -> TuningState:
        self._fail()
        self.tuning_orders.append(order)
        return self.tuning_states[0]

    async def tuning(self, tuning_id: str) -> TuningState:
        self._fail()
        found = [one for one in self.tuning_states if one.id == tuning_id]
        if not found:
            raise NotFound("there is no tuning with this id")
        return found[0]

    async def tunings(self, *, limit: int, after: str) -> list[TuningState]:
        self._fail()
        return [one for one in self.tuning_states if not after or one.id < after][:limit]

    async def cancel_tuning(self, tuning_id: str) -> TuningState:
        return dataclasses.replace(await self.tuning(tuning_id), phase="cancelling")

    async def delete_tuning(self, tuning_id: str) -> None:
        self.tuning_states.remove(await self.tuning(tuning_id))
