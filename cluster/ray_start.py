"""What `ray start` has no option for. Loaded inside that command through `RAY_START_HOOK`."""

from typing import Any


def harden(params: Any, head: bool) -> None:
    """Leave the Ray client server out: nothing here uses it, and it runs code for its callers.

    Args:
        params: Ray's own `RayParams`, about to be used.
        head: whether the head node starts; ours always is.
    """
    if head:
        params.ray_client_server_port = None
