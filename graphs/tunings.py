"""What is asked of tunings: begin one, how far it is, cancel it, remove it.

Everything is checked here, before anything is written down: the base, every line, and that there is
room. The rest is the tuner's (``tuning.py``).
"""

import asyncio
import dataclasses
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from deployments.config import ModelsArgs, Settings
from deployments.engines.inspection.files import ModelFiles, inspect
from deployments.engines.inspection.source import TUNED, find_source, is_trusted, tuned_root
from deployments.engines.weights import EMBEDDED
from deployments.errors import Conflict, InvalidRequest
from deployments.stores.database import Database
from deployments.stores.leases import Lease
from deployments.stores.tunings import TuningStore, new_tuning_id
from deployments.tuning.examples import read_order
from deployments.types import LOADED, UNDER_WAY, Registry, TuningOrder, TuningSpec, TuningState
from graphs.fit import machine_free_bytes, rooms
from graphs.handles import has_peers
from graphs.ray_resources import num_gpus, resources
from graphs.tuning import LEASE_S, Folders, Tuner
from graphs.tuning_fit import check_tuning_fit, worker_bytes
from graphs.tuning_gang import RayGang
from graphs.tuning_material import prepare_apart
from graphs.tuning_run import discard

PACKAGES = ("deepspeed", "peft", "pandas")


class Tunings:
    """Begins and cancels tunings for one ingress, and takes part in training them."""

    def __init__(self, database: Database, args: ModelsArgs, own: Mapping[str, str]) -> None:
        """Take the configuration, and the sources of its generation models by their ids."""
        settings = Settings()
        self._own = own
        self._args = args
        self._store = TuningStore(database)
        self._folders = Folders(settings.state_path, tuned_root(settings))
        lease = Lease(database, "tunings", LEASE_S)
        self._tuner = Tuner(self._store, lease, self._folders, self._gang, args.tuning)

    def _gang(self) -> RayGang:
        return RayGang(self._args.tuning)

    async def maintain(self) -> None:
        """Work off the queue while the lease is ours, for ever."""
        await self._tuner.run()

    async def begin(self, order: TuningOrder, registry: Registry) -> TuningState:
        """Check all of an order, and queue it.

        Args:
            order: what is asked for.
            registry: of the models that are loaded, whose ids a base may be, and a result not.

        Raises:
            InvalidRequest: the base cannot be tuned, or lines are bad: it names each one.
            UnreadableModel: the base's files are damaged.
            InsufficientResources: it does not fit now.
            RateLimited: the queue is full.
            Conflict: there is a version of this id.
        """
        _require_cluster()
        if f"{order.name}@{order.version}" in registry.models:
            raise Conflict("a model with this id was loaded before: choose another version")
        total, free = await asyncio.to_thread(resources)
        spec, files = await asyncio.to_thread(self._spec, order, registry, num_gpus(total))
        id_ = new_tuning_id()
        folder = self._folders.own(id_)
        try:
            spec = await self._prepared(spec, files, order, folder)
            check_tuning_fit(spec, self._args.tuning, rooms(total, free), machine_free_bytes())
            limit = self._args.tuning.max_queued + 1
            state = await asyncio.to_thread(self._store.add, spec, id_, limit)
        except BaseException:
            discard(folder)
            raise
        self._tuner.wake()
        return state

    async def get(self, id_: str) -> TuningState:
        """Return how a tuning is now; raises NotFound."""
        return await asyncio.to_thread(self._store.get, id_)

    async def find(self, limit: int, before: str) -> list[TuningState]:
        """Return tunings, the newest first."""
        return await asyncio.to_thread(self._store.find, limit, before)

    async def cancel(self, id_: str) -> TuningState:
        """Have a tuning end; one that has ended stays as it is. Raises NotFound."""
        state = await asyncio.to_thread(self._store.cancel, id_)
        if state.phase == "cancelled":
            await asyncio.to_thread(discard, self._folders.own(id_))
        self._tuner.wake()
        return state

    async def delete(self, id_: str, registry: Registry) -> None:
        """Remove what a tuning made from the disk, and then what is known of the tuning.

        Raises:
            NotFound: there is none with this id.
            Conflict: it has not ended, or a model or another tuning uses what it made.
        """
        state = await asyncio.to_thread(self._store.get, id_)
        if state.phase in UNDER_WAY:
            raise Conflict("the tuning has not ended: cancel it first")
        if state.phase == "completed":  # no other may have made the same version
            users = await asyncio.to_thread(self._users, f"{TUNED}{state.spec.id}", registry)
            if users:
                raise Conflict(f"{state.spec.id} is used by {', '.join(sorted(users))}")
            await asyncio.to_thread(discard, self._folders.result(state))
        await asyncio.to_thread(discard, self._folders.own(id_))
        await asyncio.to_thread(self._store.delete, id_)

    def _users(self, made: str, registry: Registry) -> set[str]:
        """Return the ids of what reads the files of a version, or is about to."""

        def is_made(source: str) -> bool:
            return source.partition("/")[0] == made

        models = {
            model.id
            for model in registry.models.values()
            if model.phase in LOADED
            and (is_made(model.spec.source) or is_made(model.spec.adapter or ""))
        }
        return models | {one.id for one in self._store.under_way() if is_made(one.spec.base)}

    def _spec(
        self, order: TuningOrder, registry: Registry, gpus: int
    ) -> tuple[TuningSpec, ModelFiles]:
        """Return what will be trained, as far as it is known without the tokens. Blocks."""
        for package in PACKAGES:
            if not _is_installed(package):
                raise InvalidRequest(
                    f"tuning needs the package {package}: install ragserve[tuning]"
                )
        device = _device(order, gpus)
        training = order.training
        if training.workers > self._args.tuning.max_workers:
            raise _refused(f"at most {self._args.tuning.max_workers} workers here", "workers")
        source = self._source(order.base, registry)
        weights = find_source(source, self._args)
        files = inspect(weights, is_trusted=is_trusted(weights, self._args))
        if files.kind != "generation":
            raise _refused("only a model for generation can be tuned", "base")
        location = str(files.paths[0] if weights.gguf_file else weights.folder)
        spec = TuningSpec(
            name=order.name,
            version=order.version,
            base=source,
            location=source if source.startswith(EMBEDDED) else location,
            training=training,
            device=device,
            precision="bf16" if device == "cuda" else "fp32",
            is_merged=order.is_merged,
        )
        return spec, files

    def _source(self, base: str, registry: Registry) -> str:
        """Return the source that a base says, or the one that a model of this id has."""
        if base in self._own:
            return self._own[base]
        known = registry.models.get(base)
        if known is None:
            return base
        if known.spec.adapter or not known.spec.source:
            raise _refused("this model has no weights of its own that could be tuned", "base")
        return known.spec.source

    async def _prepared(
        self, spec: TuningSpec, files: ModelFiles, order: TuningOrder, folder: Path
    ) -> TuningSpec:
        """Return the spec with what its examples say, which are written down."""
        await asyncio.to_thread(read_order, order)  # what is wrong there is told at once
        prepared = await prepare_apart(order, spec.location, folder / "material.json")
        training, number = spec.training, prepared.num_examples
        steps = training.epochs * -(-number // training.batch_size)
        needs = worker_bytes(files.num_parameters, spec.precision, prepared.longest, training)
        return dataclasses.replace(
            spec,
            num_examples=number,
            num_evaluated=prepared.num_evaluated,
            num_tokens=prepared.num_tokens,
            num_steps=steps,
            memory_bytes=needs,
        )


def _is_installed(package: str) -> bool:
    """Return whether there is a package, which this process may do without."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _device(order: TuningOrder, gpus: int) -> str:
    if order.device == "auto":
        return "cuda" if gpus else "cpu"
    if order.device == "cuda" and not gpus:
        raise _refused("this installation has no GPU", "device")
    return order.device


def _refused(message: str, param: str) -> InvalidRequest:
    error = InvalidRequest(message)
    error.param = param
    return error


def _require_cluster() -> None:
    if not has_peers():
        raise Conflict("models are tuned in a cluster only")
