"""What Ray's nodes have, and what of it is free. Blocks: call it on a thread."""

from typing import Any, cast

import ray
from ray._private.state import available_resources_per_node

Table = dict[str, dict[str, float]]


def resources() -> tuple[Table, Table]:
    """Return each living node's resources, all of them and those that are free."""
    nodes: list[dict[str, Any]] = cast("Any", ray).nodes()
    total = {node["NodeID"]: dict(node["Resources"]) for node in nodes if node["Alive"]}
    free = cast("Table", cast("Any", available_resources_per_node)())
    return total, {node: dict(free.get(node, {})) for node in total}


def num_gpus(total: Table) -> int:
    """Return the GPUs of the node that has most of them."""
    return int(max((node.get("GPU", 0.0) for node in total.values()), default=0.0))
