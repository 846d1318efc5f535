"""Which Ingress replicas the edge sends requests to, told over HAProxy's admin socket.

In `direct` mode each Ingress replica serves HTTP itself, and Serve lists where ("target groups").
Until a replica is known here, and whenever none answers, the edge goes through Serve's proxy.
gRPC each replica serves itself in every mode, and nothing stands in for it.
"""

import socket
import time
from collections.abc import Sequence
from pathlib import Path

from cluster.errors import OperatorError
from cluster.serve_api import TargetGroup

NUM_SLOTS = 16
"""Servers that `configs/edge/haproxy.cfg` has room for; more replicas wait behind Serve's proxy."""

SOCKET_TIMEOUT_S = 5.0
START_TIMEOUT_S = 2.0

Address = tuple[str, int]


class ServerSlots:
    """The servers of one backend."""

    def __init__(self, backend: str) -> None:
        """Begin with none; the configuration file names them `replica1` and so on."""
        self._backend = backend
        self._slots: list[Address | None] = [None] * NUM_SLOTS

    def forget_commands(self) -> list[str]:
        """Return what takes every server out."""
        self._slots = [None] * NUM_SLOTS
        return [f"set server {self._server(slot)} state maint" for slot in range(NUM_SLOTS)]

    def commands(self, wanted: Sequence[Address]) -> list[str]:
        """Return what makes the servers those that are wanted; the others stay as they are."""
        commands = []
        for slot, address in enumerate(self._slots):
            if address is not None and address not in wanted:
                commands.append(f"set server {self._server(slot)} state maint")
                self._slots[slot] = None
        for address in wanted:
            if address not in self._slots and None in self._slots:
                slot = self._slots.index(None)
                self._slots[slot] = address
                to = f"addr {address[0]} port {address[1]}"
                commands += [f"set server {self._server(slot)} {at}" for at in (to, "state ready")]
        return commands

    def _server(self, slot: int) -> str:
        return f"{self._backend}/replica{slot + 1}"


class EdgeTargets:
    """Keeps HAProxy's servers and routes equal to what runs."""

    def __init__(self, admin_socket: Path, routes: Path, *, has_rpc: bool = False) -> None:
        """Change nothing yet; `routes` is the map file that the configuration names."""
        self._admin_socket = admin_socket
        self._routes = routes
        self._has_rpc = has_rpc
        self.reset()

    def reset(self) -> None:
        """Take note that HAProxy has been started anew, with no replica and no other route."""
        self._http = ServerSlots("ingress")
        self._rpc = ServerSlots("rpc")
        self._prefixes: frozenset[str] = frozenset()
        self._is_unsure = False

    def sync(self, groups: list[TargetGroup] | None, rpc: Sequence[Address] = ()) -> None:
        """Send requests to replicas.

        Args:
            groups: where applications take HTTP: requests for the one at `/` go there, others to
                Serve's proxy; None: all go to the proxy.
            rpc: where gRPC is spoken.

        Raises:
            OperatorError: HAProxy did not do as it was told.
        """
        commands = self._forget_commands() if self._is_unsure else []
        if groups is not None:
            wanted = [at for group in groups if group.route_prefix == "/" for at in group.addresses]
            prefixes = frozenset(group.route_prefix for group in groups) - {"/"}
            commands += [*self._route_commands(prefixes), *self._http.commands(wanted)]
        if self._has_rpc:
            commands += self._rpc.commands(rpc)
        self._is_unsure = True  # until all of it has been done
        for command in commands:
            self._tell(command)
        self._is_unsure = False

    def show_certificate(self, path: Path, pem: bytes) -> None:
        """Replace the certificate of that file in memory, for new connections.

        Raises:
            OperatorError: HAProxy did not take it.
        """
        text = "\n".join(line for line in pem.decode().splitlines() if line.strip())
        self._asked(f"set ssl cert {path} <<\n{text}\n")
        reply = self._asked(f"commit ssl cert {path}")
        if "Success!" not in reply:
            raise OperatorError(f"the edge refused the new certificate: {reply}")

    def _forget_commands(self) -> list[str]:
        """Return what brings HAProxy into the state of `reset`."""
        self.reset()
        servers = self._http.forget_commands()
        if self._has_rpc:
            servers += self._rpc.forget_commands()
        return [f"clear map {self._routes}", *servers]

    def _route_commands(self, prefixes: frozenset[str]) -> list[str]:
        new, gone = prefixes - self._prefixes, self._prefixes - prefixes
        self._prefixes = prefixes
        added = [f"add map {self._routes} {prefix} serve" for prefix in sorted(new)]
        return added + [f"del map {self._routes} {prefix}" for prefix in sorted(gone)]

    def _tell(self, command: str) -> None:
        reply = self._asked(command)
        if reply and "change" not in reply:  # how it confirms a new address
            raise OperatorError(f"the edge refused `{command}`: {reply}")

    def _asked(self, command: str) -> str:
        try:
            with socket.socket(socket.AF_UNIX) as admin:
                admin.settimeout(SOCKET_TIMEOUT_S)
                self._connect(admin)
                admin.sendall(command.encode() + b"\n")
                return admin.makefile().read().strip()
        except OSError as error:
            raise OperatorError(f"the edge cannot be told what changed: {error}") from error

    def _connect(self, admin: socket.socket) -> None:
        """Connect, even to a HAProxy that is only starting."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                return admin.connect(str(self._admin_socket))
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
