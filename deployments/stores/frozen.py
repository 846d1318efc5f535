"""One state of a dense index: read, built from and saved without a lock while the index goes on."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.stores.accelerators import Accelerator, GoOn
from deployments.stores.faiss_views import Codec, RowView
from deployments.stores.graph_index import GraphIndex
from deployments.stores.lists_index import ListsIndex
from deployments.stores.plans import Plan
from deployments.stores.rows import Rows
from deployments.stores.selection import Bits
from deployments.stores.tuning import Built, build
from deployments.types import IndexSettings

META = "dense.json"
ROWS = "rows.bin"
NUMBERS = "numbers.npy"
ALIVE = "alive.npy"
RANGES = "ranges.npy"
ACCELERATOR = "accelerator.faiss"


@dataclass(frozen=True, slots=True)
class FrozenDense:
    """Rows, chunk numbers and which of them count. While it is held, so is its memory."""

    view: RowView
    numbers: NDArray[np.int64]
    alive: Bits
    built: Built | None
    settings: IndexSettings
    source: Rows | None = None
    """What the rows are the beginning of, until a compaction."""

    def build(self, plan: Plan, go_on: GoOn, num_threads: int) -> Built:
        """Do a piece of work; raises Abandoned."""
        present = None if self.built is None else self.built.accelerator
        alive = np.unpackbits(self.alive, count=len(self.view), bitorder="little").astype(np.bool_)
        return build(plan, present, self.view, alive, go_on, num_threads)

    def save(self, folder: Path) -> None:
        """Write everything into an empty folder."""
        codec = self.view.codec
        meta = {
            "dim": codec.dim,
            "metric": codec.metric,
            "settings": asdict(self.settings),
            "held_as": codec.storage,
            "num_rows": len(self.view),
            "accelerator": None,
        }
        if self.built is not None:
            accelerator = self.built.accelerator
            accelerator.save(folder / ACCELERATOR)
            meta["accelerator"] = {
                "kind": accelerator.kind,
                "effort": accelerator.effort,
                "num_trained": accelerator.num_trained,
                "num_rows": len(accelerator),
                "recall_at_10": self.built.recall_at_10,
                "built_at": self.built.built_at,
            }
        self.view.codes.tofile(folder / ROWS)
        np.save(folder / NUMBERS, self.numbers)
        np.save(folder / ALIVE, self.alive)
        np.save(folder / RANGES, codec.ranges)
        (folder / META).write_text(json.dumps(meta))

    @classmethod
    def load(cls, folder: Path) -> "FrozenDense":
        """Read what `save` wrote, straight into the memory that searches use.

        Raises:
            ValueError: the files do not belong together.
            OSError: one could not be read.
        """
        meta = json.loads((folder / META).read_text())
        codec = Codec(meta["dim"], meta["metric"], meta["held_as"])
        if codec.storage == "int8":
            codec.take_ranges(np.load(folder / RANGES))
        view = RowView(codec, np.fromfile(folder / ROWS, dtype=np.uint8))
        numbers = np.load(folder / NUMBERS)
        alive = np.load(folder / ALIVE)
        if not len(view) == len(numbers) == meta["num_rows"] or len(alive) * 8 < len(view):
            raise ValueError("the files of a dense index do not belong together")
        settings = IndexSettings(**meta["settings"])
        built = _built(folder, meta["accelerator"], codec.dim, len(view))
        return cls(view, numbers, alive, built, settings)


def _built(folder: Path, meta: dict[str, object] | None, dim: int, num_rows: int) -> Built | None:
    if meta is None:
        return None
    path = folder / ACCELERATOR
    num_trained, effort = int(str(meta["num_trained"])), int(str(meta["effort"]))
    accelerator: Accelerator = (
        GraphIndex.load(path, num_trained, effort)
        if meta["kind"] == "hnsw"
        else ListsIndex.load(path, dim, num_trained, effort)
    )
    if len(accelerator) != meta["num_rows"] or len(accelerator) > num_rows:
        raise ValueError("the accelerator of a dense index is not of its rows")
    return Built(accelerator, float(str(meta["recall_at_10"])), str(meta["built_at"]))
