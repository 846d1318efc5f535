"""How often a process that has started looks for cycles among what it has made.

Source: CPython counts containers, not bytes, and a full collection walks over all that was ever
imported (with torch, half a million objects): a fifth of what a small request costs, and a pause of
0.1 s now and then.
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
