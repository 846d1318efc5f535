"""Ranks as Ray actors in one placement group, for an engine that a replica runs.

It knows Ray and what the engine asks of its ranks, and nothing of what they compute.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import ray
from ray.exceptions import RayError
from ray.util import get_current_placement_group
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from deployments.config import GeneratorArgs
from deployments.engines.generation.base import GenerationEngine
from deployments.engines.generation.deepspeed.engine import DeepSpeedEngine
from deployments.engines.generation.deepspeed.local import free_port
from deployments.engines.generation.deepspeed.ranks import ModelFacts, Orders, Outcome
from deployments.errors import EngineFailed
from deployments.types.seats import Seat, meeting_address, seats_of

PLACEMENT_TIMEOUT_S = 120.0
"""How long a gang waits for its CPUs or GPUs; a cluster that grows needs some of it."""


class RankActor:
    """One rank in a worker of Ray's; all its calls run in one thread, in order."""

    def host(self) -> tuple[str, str]:
        """Return the id and the address of the node."""
        node = ray.get_runtime_context().get_node_id()
        return node, ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]

    def free_port(self, address: str) -> int:
        """Return a port of this node that is free now."""
        return free_port(address)

    def load(self, args: GeneratorArgs, seat: Seat) -> ModelFacts:
        """Load this rank's part of the model; the libraries are loaded here and nowhere else."""
        from deployments.engines.generation.deepspeed.rank import Rank

        self._rank = Rank(args, seat)
        return self._rank.facts

    def step(self, orders: Orders) -> Outcome | None:
        """Compute one step."""
        return self._rank.step(orders)


class RayRanks:
    """A gang of actors; see `Ranks` for the contract. They die with the replica that owns them.

    A replica whose deployment has `placement_group_bundles` keeps the first for itself and gives
    its ranks one each of the others; without, the gang makes a placement group of its own.
    """

    def __init__(self, args: GeneratorArgs) -> None:
        self._args = args
        self._own: PlacementGroup | None = None
        self._actors: list[Any] = []

    @property
    def actors(self) -> Sequence[Any]:
        """Return the handles, the first rank's first."""
        return self._actors

    @property
    def _bundle(self) -> dict[str, float]:
        """Return what one rank asks of Ray."""
        return {"CPU": 1.0} if self._args.device == "cpu" else {"CPU": 1.0, "GPU": 1.0}

    async def start(self) -> ModelFacts:
        """Seat the actors and wait until all have loaded; raises EngineFailed."""
        size = self._args.tensor_parallel
        group, first = await self._group()
        self._actors = [self._actor(group, first + rank) for rank in range(size)]
        seats = await self._seats()
        facts = await _answers(
            [
                actor.load.remote(self._args, seat)
                for actor, seat in zip(self._actors, seats, strict=True)
            ]
        )
        if len(set(facts)) > 1:
            raise EngineFailed("the ranks have loaded different models")
        return cast(ModelFacts, facts[0])

    async def _group(self) -> tuple[PlacementGroup, int]:
        """Return a placement group that is ready, and the first rank's bundle in it."""
        size = self._args.tensor_parallel
        given = get_current_placement_group()
        if given is not None and given.bundle_count > size:
            return given, 1
        self._own = placement_group([self._bundle] * size, strategy="PACK")
        if not await asyncio.to_thread(self._own.wait, PLACEMENT_TIMEOUT_S):
            raise EngineFailed(f"the cluster has no room for {size} ranks of {self._bundle}")
        return self._own, 0

    def _actor(self, group: PlacementGroup, bundle: int) -> Any:
        asked = self._bundle
        return (
            ray.remote(RankActor)
            .options(
                num_cpus=asked["CPU"],
                num_gpus=asked.get("GPU", 0),
                max_restarts=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, bundle),
            )
            .remote()
        )

    async def _seats(self) -> list[Seat]:
        hosts = await _answers([actor.host.remote() for actor in self._actors])
        address = meeting_address(hosts)
        [port] = await _answers([self._actors[0].free_port.remote(address)])
        return seats_of(hosts, address, port, is_on_gpu=self._args.device != "cpu")

    async def step(self, orders: Orders) -> Outcome:
        """Let every rank compute one step; raises EngineFailed."""
        outcome, *_ = await _answers([actor.step.remote(orders) for actor in self._actors])
        return cast(Outcome, outcome)

    async def stop(self) -> None:
        """Kill every rank, and give back what they held."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []
        if self._own is not None:
            remove_placement_group(self._own)
            self._own = None


async def _answers(references: Sequence[Any]) -> list[Any]:
    """Return one answer of each rank.

    Raises:
        EngineFailed: at once when a rank raises or has died, whatever the others do.
    """
    try:
        return await asyncio.gather(*references)
    except EngineFailed as error:  # across a handle its text would be the remote traceback
        raise EngineFailed(error.message) from error
    except RayError as error:
        raise EngineFailed("a rank has died") from error


def create_gang_engine(args: GeneratorArgs) -> GenerationEngine:
    """Build the engine whose ranks are actors; it places nothing before `start`."""
    return DeepSpeedEngine(args, RayRanks)
