"""How a large call is cut into handle calls."""

from collections.abc import Sequence

from deployments.types import Document

BATCH_CHARS = 1_000_000


def batches(documents: Sequence[Document]) -> list[list[Document]]:
    """Split documents so that one handle call carries about `BATCH_CHARS` at most."""
    split: list[list[Document]] = []
    room = 0
    for document in documents:
        if not split or len(document.text) > room:
            split.append([])
            room = BATCH_CHARS
        split[-1].append(document)
        room -= len(document.text)
    return split
