"""Free TCP ports on loopback, and whether a given one can be bound."""

import errno
import random
import socket

from cluster.errors import OperatorError

LOOPBACK = "127.0.0.1"
# Above Ray's worker ports (10002 to 19999), below Serve's direct ingress (30000) and the ports
# that the kernel hands to outgoing connections, which could take one before it is listened on.
FIRST_PORT, LAST_PORT = 20_000, 29_999

_given: set[int] = set()
"""Ports that this process has chosen, and may not listen on yet."""


def free_ports(count: int) -> list[int]:
    """Return `count` ports that nothing listens on right now, and no earlier call has returned.

    Raises:
        OperatorError: there are not that many.
    """
    # Random, so that two installations that start at once hardly ever choose the same.
    candidates = random.sample(range(FIRST_PORT, LAST_PORT + 1), 1000)
    ports: list[int] = []
    for port in candidates:
        if len(ports) == count:
            return ports
        if port not in _given and _is_free(port):
            _given.add(port)
            ports.append(port)
    raise OperatorError(f"no free ports between {FIRST_PORT} and {LAST_PORT}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


def check_free(host: str, port: int, setting: str = "RAGSERVE_HTTP_PORT") -> None:
    """Refuse an address that cannot be listened on; `setting` is what chooses another port.

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
                    f"port {port} is taken: stop what listens there, or set {setting}"
                ) from error
            raise OperatorError(f"cannot listen on {host}:{port}: {error.strerror}") from error
