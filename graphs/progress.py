"""How far a load is: the bytes of the weights' files that the loading process has looked at.

Engines map the files into memory, so the kernel knows; for a process of another machine nobody says
bytes. It does not know what is loaded.
"""

import time

import psutil  # type: ignore[import-untyped]

from deployments.types import LoadProgress, ModelState
from graphs.handles import node_address
from graphs.model_app import app_name
from graphs.serve_apps import AppReport

MAX_LOADS = 64
"""Loads that are remembered; the oldest have ended."""

SUFFIXES = (".safetensors", ".gguf")


class Observer:
    """Remembers the most that was seen of each file: a mapping ends when its file is read."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, int]] = {}

    def look(self, state: ModelState, report: AppReport) -> LoadProgress:
        """Return how far a load is."""
        spec = state.spec
        seconds = round(time.time() - state.changed_at, 2)
        here = [pid for address, pid in report.pids if address == node_address()]
        if not here:
            return LoadProgress(None, spec.num_bytes, seconds)
        seen = self._seen.setdefault(app_name(state), {})
        if len(self._seen) > MAX_LOADS:
            del self._seen[next(iter(self._seen))]
        for pid in here:
            for path, resident in mapped(pid).items():
                seen[path] = max(seen.get(path, 0), resident)
        return LoadProgress(min(sum(seen.values()), spec.num_bytes), spec.num_bytes, seconds)


def mapped(pid: int) -> dict[str, int]:
    """Return the resident bytes of each weights file that a process maps; none where it is gone."""
    try:
        maps = psutil.Process(pid).memory_maps(grouped=True)
    except (psutil.Error, OSError):
        return {}
    return {one.path: int(one.rss) for one in maps if one.path.endswith(SUFFIXES)}
