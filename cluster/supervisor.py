"""Brings one installation up, keeps it up, and ends everything it started.

It owns the order of the steps and the processes. What a step does is in the module of its noun.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import uuid4

import httpx

from cluster.detach import python_path
from cluster.edge import Edge, EdgeOptions, EdgeTls
from cluster.errors import OperatorError
from cluster.ports import LOOPBACK, free_ports
from cluster.processes import end_survivors
from cluster.ray_head import HeadPorts, RayHead, choose_ports, ray_environment
from cluster.rollout import wait_until_running
from cluster.run_record import RunRecord, write_record
from cluster.serve_api import ServeApi
from cluster.serve_config import on_port
from cluster.serve_mode import ServeMode, serve_environment
from cluster.state import StateFolder
from cluster.view import View
from deployments.stores.listeners import announced, forget_all
from deployments.stores.pepper import edge_secret

WATCH_PERIOD_S = 1.0
SYNC_PERIOD_S = 5.0  # a new replica gets requests from the edge after this at the latest
PROBE_TIMEOUT_S = 60.0
MAX_RESTARTS = 5  # of Ray, within RESTART_WINDOW_S; more often means it cannot live here
RESTART_WINDOW_S = 600.0


class Stopped(BaseException):
    """A signal asked the supervisor to end; not an error."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before the first process starts."""

    state: StateFolder
    config_path: Path
    config: dict[str, Any]
    host: str
    port: int
    mode: ServeMode
    tls: EdgeTls | None = None
    grpc_port: int = 0

    @property
    def url(self) -> str:
        """Return the address a client on this host uses."""
        host = LOOPBACK if self.host in ("", "0.0.0.0", "::") else self.host  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


class Supervisor:
    """One run of one plan."""

    def __init__(self, plan: Plan, view: View) -> None:
        self._plan = plan
        self._view = view
        self._run_id = f"{plan.state.installation}-{uuid4().hex[:12]}"
        self._ports: HeadPorts = choose_ports()
        self._serve_port = free_ports(1)[0]
        self._env = self._environment()
        self._head: RayHead | None = None
        self._api: ServeApi | None = None
        self._synced_at = 0.0
        self._edge = Edge(
            EdgeOptions(
                host=plan.host,
                port=plan.port,
                serve_address=f"{LOOPBACK}:{self._serve_port}",
                folder=plan.state.edge,
                log=plan.state.logs / "edge.log",
                tls=plan.tls,
                grpc_port=plan.grpc_port,
                secret=edge_secret(plan.state.path),
            ),
            self._env,
        )
        self._record = RunRecord(
            run_id=self._run_id,
            pid=os.getpid(),
            phase="starting",
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            config=str(plan.config_path),
            serve_mode=plan.mode.value,
            url=plan.url,
            dashboard_url=f"http://{LOOPBACK}:{self._ports.dashboard}",
            serve_url=f"http://{LOOPBACK}:{self._serve_port}",
        )

    def _environment(self) -> dict[str, str]:
        state = self._plan.state
        env = ray_environment(state, self._ports, self._run_id, os.environ)
        env["PYTHONPATH"] = python_path(env.get("PYTHONPATH", ""))
        # Ray's workers find `python` and console scripts of this virtual environment first.
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
        return env | serve_environment(self._plan.mode, state.edge)

    def run(self, prepare: Callable[[], None], on_ready: Callable[[], None]) -> None:
        """Prepare, start, call `on_ready`, and watch until a signal comes; then end everything.

        Raises:
            OperatorError: something could not be started, or died too often.
        """
        with signals_as_exceptions():
            try:
                with self._view.progress():
                    self._start(prepare)
                self._publish("ready")
                on_ready()
                self._watch()
            except Stopped:
                self._view.step("stopping")
            finally:
                ignore_signals()
                self._stop()

    def _start(self, prepare: Callable[[], None]) -> None:
        left = end_survivors(self._plan.state.installation)
        if left:
            self._view.warn(f"ended {left} processes that an earlier run had left")
        self._publish("starting")
        prepare()
        self._start_ray()
        self._start_edge()

    def _publish(self, phase: str) -> None:
        self._record = replace(self._record, phase=phase)
        write_record(self._plan.state, self._record)

    def _start_ray(self) -> None:
        self._view.step("starting Ray")
        forget_all(self._plan.state.path)
        self._head = RayHead.start(self._plan.state, self._ports, self._env)
        self._view.step("deploying " + self._plan.config_path.name)
        self._api = ServeApi(self._head.dashboard_url, self._head.token)
        self._api.deploy(on_port(self._plan.config, self._serve_port))
        wait_until_running(self._api, self._plan.config, self._view, self._check_head)

    def _check_head(self) -> None:
        if self._head is not None and self._head.child.poll() is not None:
            raise OperatorError(f"Ray ended; see {self._plan.state.logs / 'ray.log'}")

    def _start_edge(self) -> None:
        self._view.step(f"opening {self._plan.url}")
        self._edge.start()
        deadline = time.monotonic() + PROBE_TIMEOUT_S
        while not answers(self._plan.url):
            if time.monotonic() > deadline:
                raise OperatorError(f"the edge does not answer on {self._plan.url}")
            time.sleep(0.2)
        self._sync_targets()

    def _sync_targets(self) -> None:
        """Tell the edge which replicas there are; it works without, through Serve's proxy."""
        self._synced_at = time.monotonic()
        if self._api is None:
            return
        try:
            groups = self._api.target_groups() if self._plan.mode is ServeMode.DIRECT else None
            self._edge.targets.sync(groups, self._rpc_addresses(self._api))
        except OperatorError as error:
            self._view.warn(str(error))

    def _rpc_addresses(self, api: ServeApi) -> list[tuple[str, int]]:
        if not self._plan.grpc_port:
            return []
        ports = announced(self._plan.state.path)
        return [(LOOPBACK, ports[one]) for one in api.replicas_of("/") if ports.get(one)]

    def _renew_certificate(self) -> None:
        try:
            if self._edge.renew():
                self._view.step("the edge shows a new certificate")
        except OperatorError as error:
            self._view.warn(f"{error}; the edge goes on with the old certificate")

    def _watch(self) -> None:
        restarts: list[float] = []
        while True:
            time.sleep(WATCH_PERIOD_S)
            if self._edge.ensure():
                self._view.warn("the edge had died and was started again")
                self._sync_targets()
            if time.monotonic() - self._synced_at > SYNC_PERIOD_S:
                self._sync_targets()
                self._renew_certificate()
            if self._head is None or self._head.child.poll() is None:
                continue
            now = time.monotonic()
            restarts = [at for at in restarts if now - at < RESTART_WINDOW_S] + [now]
            if len(restarts) > MAX_RESTARTS:
                raise OperatorError(f"Ray died {len(restarts)} times; see {self._plan.state.logs}")
            self._restart_ray()

    def _restart_ray(self) -> None:
        self._view.warn("Ray died and is started again; the edge answers 503 until then")
        self._publish("starting")
        end_survivors(self._run_id, keep={self._edge.pid})
        self._start_ray()
        self._sync_targets()
        self._publish("ready")
        self._view.step("ready again")

    def _stop(self) -> None:
        self._publish("stopping")
        self._edge.stop()
        if self._head is not None:
            self._head.stop()
        end_survivors(self._run_id)
        self._plan.state.run_file.unlink(missing_ok=True)


def answers(url: str) -> bool:
    """Return whether the application behind the edge answers at all (the edge's 50x does not)."""
    try:
        status = httpx.get(f"{url}/v1/health", timeout=10, trust_env=False).status_code
    except httpx.TransportError:
        return False
    return status < httpx.codes.INTERNAL_SERVER_ERROR


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into `Stopped` for the duration."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Stopped

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """Let the clean-up finish: a second Ctrl-C must not leave processes behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
