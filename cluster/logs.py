"""`ragserve logs`: where the logs are, and their last lines."""

from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from cluster.errors import OperatorError
from cluster.state import StateFolder
from deployments.config import Settings


def logs(
    name: Annotated[str, typer.Argument(help="Part of a log's name; empty lists them.")] = "",
    lines: Annotated[int, typer.Option(min=1, help="Lines from the end.")] = 50,
) -> None:
    """List the logs of the last run, or print the end of those whose name matches.

    Examples:
      ragserve logs
      ragserve logs edge
      ragserve logs replica_ --lines 200
    """
    state = StateFolder(Settings().state_path)
    found = find_logs(state)
    if not name:
        for path in found:
            print(path)
        return
    matching = [path for path in found if name in path.name]
    if not matching:
        raise OperatorError(f"no log's name contains {name!r}; `ragserve logs` lists them")
    for path in matching:
        print(f"==> {path} <==")
        with path.open(encoding="utf-8", errors="replace") as file:
            print("".join(deque(file, maxlen=lines)), end="")


def find_logs(state: StateFolder) -> list[Path]:
    """Return the supervisor's logs and Serve's, those that hold anything."""
    serve = state.ray / "session_latest" / "logs" / "serve"
    candidates = [*sorted(state.logs.glob("*.log")), *sorted(serve.glob("*.log"))]
    return [path for path in candidates if path.stat().st_size]
