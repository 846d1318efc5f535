"""How often a process that has started looks for cycles among what it has made.

Source: CPython counts containers, not bytes, and a full collection walks over all that was ever
imported, of an ingress 150,000 objects in 0.08 s. Without these it answers the smallest request
with a third less of a core, and puts a task in with a fifth less.
"""

import gc

THRESHOLD = 5_000
"""Containers that are made before the youngest are looked through; 700 by default. Few cycles hold
anything large: what requests make goes with its last reference."""


def collect_seldom() -> None:
    """Leave out of every collection what there is by now, and collect less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD)
