"""What the processes that serve do without, though it is installed: pandas.

Ray Train needs it. Ray Serve and pyarrow import it wherever they find it, 54 MiB in every process.
So `PYTHONPATH` leads all of Ray's processes here first (``cluster/ray_head.py``), but for those of
a tuning (``graphs/tuning_gang.py``).
"""

import os
from pathlib import Path

FOLDER = str(Path(__file__).parent)


def path_with(path: str) -> str:
    """Return a `PYTHONPATH` that leads here first."""
    return os.pathsep.join([FOLDER, *_others(path)])


def path_without(path: str) -> str:
    """Return a `PYTHONPATH` that does not lead here."""
    return os.pathsep.join(_others(path))


def _others(path: str) -> list[str]:
    return [one for one in path.split(os.pathsep) if one not in ("", FOLDER)]
