"""What `ray start` has no option for. Loaded inside that command through `RAY_START_HOOK`."""

from typing import Any

from ray._private import services
from ray._private.ray_constants import PROCESS_TYPE_DASHBOARD

# Each of the dashboard's modules is a process of about 90 MiB. Left out: jobs (they run code for
# their callers), events, Ray Data, Ray Train, metrics (for a Prometheus server beside it).
DASHBOARD_MODULES = ("NodeHead", "ReportHead", "ServeHead", "StateHead", "UsageStatsHead")


def harden(params: Any, head: bool) -> None:
    """Leave out what nothing here uses: the Ray client server, and half of the dashboard.

    Args:
        params: Ray's own `RayParams`, about to be used.
        head: whether the head node starts; ours always is.
    """
    if head:
        params.ray_client_server_port = None
        _limit_dashboard()


def _limit_dashboard() -> None:
    """Start the dashboard with `DASHBOARD_MODULES` only; it refuses to start with unknown ones."""
    start: Any = services.start_ray_process

    def start_with_modules(
        command: list[str], process_type: str, *args: Any, **options: Any
    ) -> Any:
        if process_type == PROCESS_TYPE_DASHBOARD:
            command = [*command, "--modules-to-load=" + ",".join(DASHBOARD_MODULES)]
        return start(command, process_type, *args, **options)

    services.start_ray_process = start_with_modules
