"""The workers of one tuning as Ray actors: placed together, asked together, and ended together.

They belong to the process that started them and die with it. Plain actors rather than Ray's own
trainer, which needs pandas; that would load into every process that has pyarrow.
"""

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from deployments.config import TuningArgs
from deployments.errors import EngineFailed, RagError
from deployments.types import TuningSpec
from deployments.types.seats import Seat, meeting_address, seats_of


class Gang(Protocol):
    """The workers of one attempt. Every method raises EngineFailed when one has died."""

    async def start(self) -> int:
        """Start all workers and return the steps that were done before."""
        ...

    async def step(self) -> float:
        """Train one step; return its loss."""
        ...

    async def save(self) -> None:
        """Write a checkpoint."""
        ...

    async def evaluate(self, *, is_base: bool) -> float:
        """Return the loss of the held-back examples."""
        ...

    async def write(self, folder: Path) -> None:
        """Write the adapter."""
        ...

    async def merge(self, adapter: Path, folder: Path) -> None:
        """End all workers, then write the base with the adapter in its weights."""
        ...

    async def stop(self) -> None:
        """End all workers at once; harmless when there are none."""
        ...


class WorkerActor:
    """One worker in a process of Ray's; the libraries are loaded there and nowhere else."""

    def host(self) -> tuple[str, str]:
        """Return the id and the address of the node."""
        node = ray.get_runtime_context().get_node_id()
        return node, ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]

    def free_port(self, address: str) -> int:
        """Return a port of this node that is free now."""
        with socket.create_server((address, 0)) as listener:
            return int(listener.getsockname()[1])

    def load(self, spec: TuningSpec, seat: Seat, folder: Path) -> int:
        """Load, and return the steps that were done before."""
        from deployments.tuning.material import read_material
        from deployments.tuning.worker import Worker

        material = read_material(folder / "material.json")
        self._worker = Worker(spec, seat, material, folder / "checkpoints")
        return self._worker.step_number

    def step(self) -> float:
        """Train one step; return its loss."""
        return self._worker.step()

    def save(self) -> None:
        """Take part in writing a checkpoint."""
        self._worker.save()

    def evaluate(self, is_base: bool) -> float:
        """Return the loss of the held-back examples."""
        return self._worker.evaluate(is_base=is_base)

    def write(self, folder: Path) -> None:
        """Take part in writing the adapter."""
        self._worker.write(folder)

    def merge(self, spec: TuningSpec, adapter: Path, folder: Path) -> None:
        """Write merged weights; for an actor that has loaded nothing."""
        from deployments.tuning.adapter import merge

        merge(spec, adapter, folder)


class RayGang:
    """`Gang` of actors in one placement group."""

    def __init__(self, spec: TuningSpec, folder: Path, args: TuningArgs) -> None:
        """Take what to train, and the tuning's own folder; nothing is placed before `start`."""
        self._spec, self._folder, self._args = spec, folder, args
        self._group: PlacementGroup | None = None
        self._actors: list[Any] = []

    async def start(self) -> int:
        """Place and load all workers, which must agree on where they go on."""
        await self._place(self._spec.training.workers)
        seats = await self._seats()
        done = await _answers(
            [
                actor.load.remote(self._spec, seat, self._folder)
                for actor, seat in zip(self._actors, seats, strict=True)
            ],
            self._args.start_timeout_s,
        )
        if len(set(done)) > 1:
            raise EngineFailed("the workers have found different checkpoints")
        return int(done[0])

    async def step(self) -> float:
        """Train one step; return its loss."""
        return float((await self._all("step"))[0])

    async def save(self) -> None:
        """Write a checkpoint."""
        await self._all("save")

    async def evaluate(self, *, is_base: bool) -> float:
        """Return the loss of the held-back examples."""
        return float((await self._all("evaluate", is_base))[0])

    async def write(self, folder: Path) -> None:
        """Write the adapter."""
        await self._all("write", folder)

    async def merge(self, adapter: Path, folder: Path) -> None:
        """End all workers, then have one that has loaded nothing merge."""
        await self.stop()
        await self._place(1)
        await self._all("merge", self._spec, adapter, folder)

    async def stop(self) -> None:
        """Kill every worker, and give back what they held."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []
        if self._group is not None:
            remove_placement_group(self._group)
            self._group = None

    async def _place(self, number: int) -> None:
        bundle: dict[str, float] = {"CPU": self._args.worker_cpus}
        if self._spec.memory_bytes:
            bundle["memory"] = float(self._spec.memory_bytes)
        if self._spec.device == "cuda":
            bundle["GPU"] = 1.0
        self._group = placement_group([bundle] * number, strategy="PACK")
        if not await asyncio.to_thread(self._group.wait, self._args.start_timeout_s):
            raise EngineFailed(f"the cluster has no room for {number} workers")
        self._actors = [
            ray.remote(WorkerActor)
            .options(
                num_cpus=bundle["CPU"],
                num_gpus=bundle.get("GPU", 0),
                memory=self._spec.memory_bytes or None,
                max_restarts=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, index),
            )
            .remote()
            for index in range(number)
        ]

    async def _seats(self) -> list[Seat]:
        hosts = await self._all("host")
        address = meeting_address(hosts)
        [port] = await _answers(
            [self._actors[0].free_port.remote(address)], self._args.start_timeout_s
        )
        return seats_of(hosts, address, port, is_on_gpu=self._spec.device == "cuda")

    async def _all(self, method: str, *args: Any) -> list[Any]:
        calls = [getattr(actor, method).remote(*args) for actor in self._actors]
        return await _answers(calls, self._args.step_timeout_s)


async def _answers(references: Sequence[Any], timeout_s: float) -> list[Any]:
    """Return one answer of each worker; raises EngineFailed at once when one fails or has died."""
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.gather(*references)
    except TimeoutError:
        raise EngineFailed(f"a worker did not answer within {timeout_s:g} s") from None
    except RagError as error:
        raise EngineFailed(error.message) from error
    except RayTaskError as error:
        raise EngineFailed(f"{type(error.cause).__name__} in a worker") from error
    except RayError as error:
        raise EngineFailed("a worker has died") from error
