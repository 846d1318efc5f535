"""`ragserve backup` and `ragserve restore`: the whole installation, straight on its database."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from cluster.errors import OperatorError
from cluster.state import StateFolder, exclusive
from deployments.config import Settings
from deployments.errors import RagError

if TYPE_CHECKING:
    from deployments.stores.database import Database

Place = Annotated[str, typer.Argument(help="A folder, or `scheme://bucket/prefix`.")]


def backup(place: Place) -> None:
    """Write all collections, documents, vectors, keys and tuned models to a new folder.

    The database is as of one instant; the cluster may serve meanwhile. The folder holds secrets:
    keep it as safe as the database.

    Examples:
      ragserve backup /mnt/backups/2026-11-22
      ragserve backup s3://company-backups/ragserve/2026-11-22
    """
    with _connected() as (database, state), _bars() as show:
        from deployments.stores.backup import back_up
        from deployments.stores.folders import backup_folder
        from deployments.stores.made_versions import parts_of

        pepper = state.path / "pepper"
        folder = backup_folder(place, is_new=True)
        try:
            secret = pepper.read_bytes() if pepper.exists() else None
            manifest = back_up(database, folder, secret, show, parts_of(state.path / "tuned"))
            folder.publish()
        finally:
            folder.discard()
    num_bytes = sum(file.num_bytes for file in manifest.files)
    _say(f"backed up {num_bytes / 1e6:.1f} MB of revision {manifest.revision} to {place}")


def restore(
    place: Place,
    replace: Annotated[
        bool, typer.Option("--replace", help="Give up what the database holds now.")
    ] = False,
) -> None:
    """Restore a backup, after every file of it has been checked; all of it, or nothing.

    No cluster may be up on the state folder. Keys work again as they did at the time of the backup.
    What this installation has erased since then stays erased.

    Examples:
      ragserve restore /mnt/backups/2026-11-22
      RAGSERVE_DATABASE_URL=postgresql+psycopg://… ragserve restore /mnt/backups/2026-11-22
      ragserve restore /mnt/backups/2026-11-22 --replace
    """
    with _connected() as (database, state), exclusive(state) as is_alone, _bars() as show:
        from deployments.stores.folders import backup_folder
        from deployments.stores.made_versions import Returned
        from deployments.stores.restore import read_manifest, read_pepper
        from deployments.stores.restore import restore as put_back
        from deployments.stores.secretfile import write_secret
        from deployments.stores.suppressions import Suppressions

        if not is_alone:
            raise OperatorError("a cluster is up on this state folder: `ragserve down` first")
        folder = backup_folder(place)
        manifest = read_manifest(folder)
        pepper = read_pepper(folder, manifest)
        _check_pepper(state, pepper, replace)
        own = state.path / "pepper"
        erased = [Suppressions(own.read_bytes()).carry] if own.exists() else []
        versions = Returned(state.path / "tuned")
        try:
            versions.unpack(folder, manifest)
            put_back(database, folder, manifest, is_replaced=replace, progress=show, carried=erased)
            versions.publish()
        finally:
            versions.discard()
        if pepper is not None:
            write_secret(state.path / "pepper", pepper)
    _say(f"restored the state of {manifest.created_at} from {place}")


def _check_pepper(state: StateFolder, pepper: bytes | None, replace: bool) -> None:
    path = state.path / "pepper"
    if replace or not path.exists() or path.read_bytes() == pepper:
        return
    raise OperatorError(
        "the state folder has keys of another installation: --replace gives them up"
    )


@contextmanager
def _connected() -> "Iterator[tuple[Database, StateFolder]]":
    # SQLAlchemy and Arrow take a second that other commands need not wait.
    from deployments.stores.database import Database

    settings = Settings()
    state = StateFolder(settings.state_path)
    state.prepare()
    try:
        database = Database(settings.database, pool_size=1)
        try:
            yield database, state
        finally:
            database.close()
    except RagError as error:
        raise OperatorError(error.message) from error
    except OSError as error:
        raise OperatorError(f"the backup failed: {error.strerror or error}") from error


class _Bars:
    """A progress bar per table."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, table: str, num_done: int, total: int) -> None:
        """Show how many rows of a table are done."""
        if table not in self._tasks:
            self._tasks[table] = self._progress.add_task(table, total=total)
        self._progress.update(self._tasks[table], completed=num_done)


@contextmanager
def _bars() -> Iterator[_Bars]:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        yield _Bars(progress)


def _say(text: str) -> None:
    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)
