"""The Ray head node: its token, its command line, its environment, and proof that it is locked.

Everything listens on loopback and on ports chosen here, so several installations share a host.
Serve's replicas alone open a port on every interface; the token guards it (Ray has no option).
"""

import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from cluster.errors import OperatorError
from cluster.ports import LOOPBACK, free_ports
from cluster.processes import RUN_ID, spawn, stop
from cluster.state import StateFolder, write_private
from deployments import absent

LOGICAL_CPUS = 16  # replicas ask for fractions; the host's real cores are shared by threads
OBJECT_STORE_BYTES = 200_000_000  # vectors and texts in flight; weights never go through it
START_TIMEOUT_S = 120.0
# `ray start` gives its raylet a fixed 30 s (ray/_private/node.py), too few on a crowded host.
START_ATTEMPTS = 3
STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class HeadPorts:
    """One port for each of Ray's listeners."""

    gcs: int
    node_manager: int
    object_manager: int
    dashboard: int
    agent_http: int
    agent_grpc: int
    runtime_env: int
    node_metrics: int
    dashboard_metrics: int


def choose_ports() -> HeadPorts:
    """Return ports that are free now."""
    return HeadPorts(*free_ports(len(HeadPorts.__dataclass_fields__)))


def ensure_token(state: StateFolder) -> str:
    """Return this installation's Ray token: 256 random bits, made on the first start."""
    if not state.ray_token.exists():
        write_private(state.ray_token, secrets.token_hex(32))
    state.ray_token.chmod(0o600)
    return state.ray_token.read_text(encoding="utf-8").strip()


def ray_environment(
    state: StateFolder, ports: HeadPorts, run_id: str, base: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of every process of the cluster.

    Raises:
        OperatorError: the caller's environment turns Ray's authentication off.
    """
    if base.get("RAY_AUTH_MODE", "token") != "token":
        raise OperatorError(
            "RAY_AUTH_MODE is set to something else than `token`; without a token anybody who "
            "reaches a Ray port runs code here. Unset it"
        )
    kept = {k: v for k, v in base.items() if k not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN")}
    return kept | {
        RUN_ID: run_id,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(state.ray_token),
        "RAY_START_HOOK": "cluster.ray_start.harden",
        # Ray's switch for single-host mode on any platform: every listener binds loopback.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray runs workers at 15: whatever else the host does would starve the engines.
        "RAY_worker_niceness": "0",
        "RAY_TMPDIR": str(state.ray.parent),
        "PYTHONPATH": absent.path_with(base.get("PYTHONPATH", "")),
        "DASHBOARD_METRIC_PORT": str(ports.dashboard_metrics),
        "RAGSERVE_STATE_DIR": str(state.path),
    }


def head_command(state: StateFolder, ports: HeadPorts) -> list[str]:
    """Return the command line that runs the head node in the foreground."""
    options = {
        "--port": ports.gcs,
        "--node-manager-port": ports.node_manager,
        "--object-manager-port": ports.object_manager,
        "--dashboard-host": LOOPBACK,
        "--dashboard-port": ports.dashboard,
        "--dashboard-agent-listen-port": ports.agent_http,
        "--dashboard-agent-grpc-port": ports.agent_grpc,
        "--runtime-env-agent-port": ports.runtime_env,
        "--metrics-export-port": ports.node_metrics,
        "--num-cpus": LOGICAL_CPUS,
        "--object-store-memory": OBJECT_STORE_BYTES,
        "--temp-dir": state.ray,
        "--include-log-monitor": "false",
    }
    flags = ["--head", "--block", "--no-monitor", "--disable-usage-stats"]
    start = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
    pairs = [str(word) for pair in options.items() for word in pair]
    return [sys.executable, "-c", start, "start", *flags, *pairs]


@dataclass(slots=True)
class RayHead:
    """A running head node."""

    child: subprocess.Popen[bytes]
    dashboard_url: str
    token: str

    @classmethod
    def start(cls, state: StateFolder, ports: HeadPorts, env: Mapping[str, str]) -> "RayHead":
        """Start the head and return once its dashboard answers to the token and to nobody else.

        Raises:
            OperatorError: it ended, did not answer in time, or let an anonymous caller in.
        """
        token = ensure_token(state)
        for _ in range(START_ATTEMPTS):
            child = spawn(head_command(state, ports), env, state.logs / "ray.log")
            head = cls(child, f"http://{LOOPBACK}:{ports.dashboard}", token)
            try:
                if head._answers():
                    head.verify_locked()
                    return head
            except BaseException:
                head.stop()
                raise
        raise OperatorError(f"Ray did not start; see {state.logs / 'ray.log'}")

    def _answers(self) -> bool:
        """Wait for the dashboard; returns False when the head ended or did not answer in time."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.child.poll() is None:
            if self._status({"authorization": f"Bearer {self.token}"}) == httpx.codes.OK:
                return True
            time.sleep(0.2)
        self.stop()
        return False

    def verify_locked(self) -> None:
        """Prove that a caller without the token is refused.

        Raises:
            OperatorError: it was not.
        """
        status = self._status({})
        if status not in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise OperatorError(
                f"Ray's dashboard answered a caller without a token with {status}; refusing to run"
            )

    def _status(self, headers: Mapping[str, str]) -> int:
        try:
            url = f"{self.dashboard_url}/api/serve/applications/"
            return httpx.get(url, headers=headers, timeout=10, trust_env=False).status_code
        except httpx.TransportError:
            return 0

    def stop(self) -> None:
        """End the head node and everything it started."""
        stop(self.child, STOP_TIMEOUT_S)
