"""What makes a search read fewer rows: a structure over the first rows of a collection.

An accelerator is never changed once searches use it; a longer one is built beside it and takes its
place. It proposes rows; their scores are the row store's matter.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from deployments.stores.faiss_views import RowView

AcceleratorKind = Literal["hnsw", "ivfpq"]

GoOn = Callable[[], bool]
"""Returns whether work should go on; asked between steps of at most some seconds."""


class Abandoned(Exception):
    """Whoever wanted this work no longer does."""


class Accelerator(Protocol):
    """Proposes rows near a query."""

    kind: AcceleratorKind
    effort: int
    """How much a search looks at unless told otherwise: ef_search or nprobe."""

    def __len__(self) -> int:
        """Return how many rows, from the first on, it covers; a multiple of 8."""

    @property
    def num_bytes(self) -> int:
        """Return the bytes held beside the rows."""

    @property
    def num_trained(self) -> int:
        """Return how many rows it was laid out for."""

    @property
    def max_effort(self) -> int:
        """Return the effort beyond which there is nothing to gain."""

    def attach(self, view: RowView | None) -> None:
        """Take the row store as it is now; None lets go of its memory."""

    def propose(
        self, query: NDArray[np.float32], size: int, effort: int, selector: Any
    ) -> NDArray[np.int64]:
        """Return about `size` rows near the query among those that a FAISS selector lets pass."""

    def cost(self, effort: int) -> float:
        """Return how many rows could be read exactly in the time of a search."""

    def extended(self, view: RowView, go_on: GoOn) -> "Accelerator":
        """Return a longer one that covers all rows of a view; raises Abandoned."""

    def save(self, path: Path) -> None:
        """Write everything but the rows."""


def proceed(go_on: GoOn) -> None:
    """Raise Abandoned unless work should go on."""
    if not go_on():
        raise Abandoned("nobody waits for this index any more")
