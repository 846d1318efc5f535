"""Free TCP ports on loopback, and whether a given one can be bound."""

import errno
import socket
from contextlib import ExitStack

from cluster.errors import OperatorError

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Return `count` different ports that nothing listens on right now."""
    with ExitStack() as stack:
        ports = []
        for _ in range(count):
            probe = stack.enter_context(socket.socket())
            probe.bind((LOOPBACK, 0))
            ports.append(int(probe.getsockname()[1]))
        return ports


def check_free(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on.

    Raises:
        OperatorError: the port is taken, or the host is not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise OperatorError(
                    f"port {port} is taken: stop what listens there, or set RAGSERVE_HTTP_PORT"
                ) from error
            raise OperatorError(f"cannot listen on {host}:{port}: {error.strerror}") from error
