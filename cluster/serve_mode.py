"""How Serve moves a request from its proxy to a replica. Ray reads these settings at import time.

Source of the names: ray/serve/_private/constants.py of 2.60.
"""

from enum import StrEnum
from pathlib import Path

from cluster.ports import free_ports

# Vectors and documents of one call have to fit a handle message; gRPC's own limit is 4 MiB.
MAX_HANDLE_MESSAGE_BYTES = 64 * 1024 * 1024


class ServeMode(StrEnum):
    """`direct`: as `grpc`, and the edge reaches the Ingress replicas without Serve's proxy.

    `grpc`: handles over gRPC on the main loop. `haproxy`: Serve's own C data plane.
    """

    DIRECT = "direct"
    GRPC = "grpc"
    HAPROXY = "haproxy"
    DEFAULT = "default"


_ALWAYS = {
    # Only one proxy runs here: at Ray's defaults its death is an outage of 30 s, so it is 7.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "2",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(MAX_HANDLE_MESSAGE_BYTES),
    "RAY_SERVE_LOG_TO_STDERR": "0",
}

_GRPC = {
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
}

_DIRECT = {
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
    # How long a replica that ends still answers: the edge asks for changes more often than that.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "10",
}


def serve_environment(mode: ServeMode, folder: Path) -> dict[str, str]:
    """Return the environment of a mode; `folder` takes the sockets of Serve's own HAProxy."""
    if mode is ServeMode.DIRECT:
        return _ALWAYS | _GRPC | _DIRECT
    if mode is ServeMode.GRPC:
        return _ALWAYS | _GRPC
    if mode is ServeMode.HAPROXY:
        return _ALWAYS | _haproxy(folder)
    return dict(_ALWAYS)


def _haproxy(folder: Path) -> dict[str, str]:
    stats, metrics, fallback_http, fallback_grpc = (str(port) for port in free_ports(4))
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        "RAY_SERVE_HAPROXY_NBTHREAD": "2",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": stats,
        "RAY_SERVE_HAPROXY_METRICS_PORT": metrics,
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": fallback_http,
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": fallback_grpc,
    }
