"""A registry in a file, and Serve's applications as a table, for tests of what makes them agree."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployments.errors import RagError, StoreUnavailable
from deployments.stores.database import Database
from deployments.stores.migrations import migrate
from deployments.stores.models import ModelStore
from deployments.types import ModelSpec, ModelState
from graphs.loaded import Loaded
from graphs.model_app import app_name
from graphs.serve_apps import AppReport

RUNNING = AppReport("RUNNING", num_wanted=1, num_running=1)
STARTING = AppReport("DEPLOYING", num_wanted=1)


def opened(folder: Path) -> tuple[Database, ModelStore]:
    url = f"sqlite:///{folder / 'registry.db'}"
    migrate(url)
    database = Database(url)
    return database, ModelStore(database)


def spec(name: str = "m", version: str = "1", **changes: object) -> ModelSpec:
    given = {"kind": "generation", "engine": "fake"} | changes
    return ModelSpec(name=name, version=version, **given)  # type: ignore[arg-type]


def ready(store: ModelStore, *args: str, **changes: object) -> ModelState:
    state = store.load(spec(*args, **changes))
    assert store.advance(state, "ready", is_ready=True)
    return store.read().models[state.id]


def load(store: ModelStore, **changes: object) -> str:
    """Write a load down; return the name of its application."""
    return app_name(store.load(spec(**changes)))


class FakeApps:
    """Applications that start, run, fail and go when a test says so."""

    def __init__(self) -> None:
        self.apps: dict[str, AppReport] = {}
        self.num_deployed = 0
        self.deleted: list[str] = []
        self.is_down = False
        self.error: RagError | None = None

    async def reports(self) -> Mapping[str, AppReport]:
        self._answer()
        return dict(self.apps)

    async def targets(self) -> Mapping[tuple[str, str], int]:
        self._answer()
        return {}

    async def deploy(self, state: ModelState) -> None:
        self._answer()
        if self.error is not None:
            raise self.error
        self.num_deployed += 1
        self.apps[app_name(state)] = STARTING

    async def delete(self, name: str) -> None:
        self._answer()
        self.deleted.append(name)
        self.apps[name] = AppReport("DELETING")

    def _answer(self) -> None:
        if self.is_down:
            raise StoreUnavailable("Serve's controller does not answer")


class FakeHandle:
    """A handle that knows only what it stands for."""

    def __init__(self, state: ModelState) -> None:
        self.state = state
        self.is_closed = False

    async def shutdown_async(self) -> None:
        self.is_closed = True


def fake_loaded(state: ModelState) -> Loaded:
    """Stand in for `Loaded.of`."""
    handle: Any = FakeHandle(state)
    return Loaded(state.id, handle, handle, handle, handle, handle)
