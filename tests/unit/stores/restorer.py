"""The process that a test kills in the middle of a restore."""

import multiprocessing.connection
from pathlib import Path

from deployments.stores.database import Database
from deployments.stores.folders import LocalFolder
from deployments.stores.restore import read_manifest, restore


def put_back(url: str, place: str, steps: multiprocessing.connection.Connection) -> None:
    """Restore, and wait for an answer after each step."""

    def progress(table: str, num_done: int, total: int) -> None:
        steps.send((table, num_done))
        steps.recv()

    folder = LocalFolder(Path(place))
    manifest = read_manifest(folder)
    restore(Database(url), folder, manifest, is_replaced=True, progress=progress)
    steps.send(("end", 0))
