"""Where Ingress replicas listen for gRPC, as files that the edge's supervisor reads.

Serve tells where replicas take HTTP, and nothing of other servers. Each replica chooses a free
port of its host's loopback and writes it down below its own name.
"""

import os
from pathlib import Path

FOLDER = Path("edge", "rpc")


def announce(state: Path, replica: str, port: int) -> None:
    """Write down on which port a replica listens."""
    folder = state / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = folder / f".{replica}.{os.getpid()}"
    draft.write_text(str(port))
    draft.replace(folder / replica)


def withdraw(state: Path, replica: str) -> None:
    """Remove what a replica wrote down."""
    (state / FOLDER / replica).unlink(missing_ok=True)


def announced(state: Path) -> dict[str, int]:
    """Return the ports of replicas by their names; some may not live any more."""
    folder = state / FOLDER
    if not folder.is_dir():
        return {}
    return dict(_read(path) for path in folder.iterdir() if not path.name.startswith("."))


def forget_all(state: Path) -> None:
    """Remove what replicas that were killed have left; none may run."""
    for replica in announced(state):
        withdraw(state, replica)


def _read(path: Path) -> tuple[str, int]:
    try:
        return path.name, int(path.read_text())
    except FileNotFoundError:
        return path.name, 0
