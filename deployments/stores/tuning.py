"""Building an accelerator, finding how much it must look at, and measuring what it then finds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.stores.accelerators import Accelerator, AcceleratorKind, GoOn, proceed
from deployments.stores.exact import best_of
from deployments.stores.faiss_views import RowView, faiss
from deployments.stores.graph_index import GraphIndex
from deployments.stores.ids import utc_now
from deployments.stores.lists_index import ListsIndex
from deployments.stores.plans import Plan
from deployments.stores.recall import NUM_NEIGHBORS, NUM_SAMPLED, TARGET, Sample

KINDS: dict[AcceleratorKind, type[GraphIndex] | type[ListsIndex]] = {
    "hnsw": GraphIndex,
    "ivfpq": ListsIndex,
}

FIRST_EFFORT: dict[AcceleratorKind, int] = {"hnsw": 16, "ivfpq": 1}

STEP = 1.5
"""How much more each try looks at than the one before."""


@dataclass(frozen=True, slots=True)
class Built:
    """An accelerator, and what is known of it."""

    accelerator: Accelerator
    recall_at_10: float
    built_at: str


def build(
    plan: Plan,
    present: Accelerator | None,
    view: RowView,
    alive: NDArray[np.bool_],
    go_on: GoOn,
    num_threads: int,
) -> Built:
    """Return a new accelerator over a view's rows, less those that fill no group of 8.

    Raises:
        Abandoned: `go_on` said so.
    """
    faiss.omp_set_num_threads(num_threads)
    view = view.part(0, len(view) - len(view) % 8)
    if plan.extends:
        assert present is not None
        accelerator: Accelerator = present.extended(view, go_on)
    else:
        accelerator = KINDS[plan.kind].build(view, go_on)
    accelerator.attach(view)
    recall = tune(accelerator, view, alive[: len(view)], go_on)
    accelerator.attach(None)
    return Built(accelerator, recall, utc_now())


def tune(accelerator: Accelerator, view: RowView, alive: NDArray[np.bool_], go_on: GoOn) -> float:
    """Set the least effort that reaches `TARGET` on a sample; return another sample's recall."""
    random = np.random.default_rng(len(view))
    living = np.flatnonzero(alive)
    picked = random.permutation(living)[: 2 * NUM_SAMPLED]
    bits = np.packbits(alive, bitorder="little")
    selector = None if len(living) == len(view) else faiss.IDSelectorBitmap(bits)

    def search(query: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = accelerator.propose(query, NUM_NEIGHBORS, accelerator.effort, selector)
        return best_of(rows, view.scores(query, rows), NUM_NEIGHBORS)[1]

    faiss.omp_set_num_threads(1)
    sample = Sample(view, alive, picked[::2], go_on)
    effort = float(FIRST_EFFORT[accelerator.kind])
    while True:
        accelerator.effort = min(int(np.ceil(effort)), accelerator.max_effort)
        proceed(go_on)
        recall = sample.recall(search)
        if recall >= TARGET or accelerator.effort == accelerator.max_effort:
            break
        effort *= STEP
    other = Sample(view, alive, picked[1::2], go_on)
    return other.recall(search) if len(other.queries) else recall
