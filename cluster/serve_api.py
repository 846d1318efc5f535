"""Serve's REST interface on Ray's dashboard: deploy a configuration, read what runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from cluster.errors import OperatorError

PATH = "/api/serve/applications/"
# Starting Serve's controller and proxy inside the first PUT takes up to a minute on a busy host.
DEPLOY_TIMEOUT_S = 180.0
READ_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """One deployment of one application, as Serve reports it."""

    application: str
    name: str
    status: str
    wanted: int
    running: int
    message: str
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ApplicationState:
    """One application and its deployments."""

    name: str
    status: str
    route_prefix: str | None
    message: str
    deployments: tuple[DeploymentState, ...]


@dataclass(frozen=True, slots=True)
class TargetGroup:
    """Where a load balancer reaches one application over HTTP."""

    route_prefix: str
    addresses: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class ServeApi:
    """A client of one cluster's dashboard."""

    dashboard_url: str
    token: str

    def deploy(self, config: dict[str, Any]) -> None:
        """Make Serve run exactly this configuration; returns before it does.

        Raises:
            OperatorError: Serve refused it or did not answer.
        """
        self._call("PUT", DEPLOY_TIMEOUT_S, json=config)

    def applications(self) -> list[ApplicationState]:
        """Return every application, by name."""
        found = self._call("GET").json().get("applications", {})
        return [_application(found[name]) for name in sorted(found)]

    def target_groups(self) -> list[TargetGroup]:
        """Return where each application takes HTTP: its replicas, or Serve's proxy before those."""
        groups = self._call("GET").json().get("target_groups", [])
        return [
            TargetGroup(
                group["route_prefix"],
                tuple((target["ip"], target["port"]) for target in group["targets"]),
            )
            for group in groups
            if group["protocol"] == "HTTP"
        ]

    def replicas_of(self, route_prefix: str) -> list[str]:
        """Return the names of the running replicas behind a prefix."""
        found = self._call("GET").json().get("applications", {}).values()
        return [
            replica["replica_id"]
            for application in found
            if application.get("route_prefix") == route_prefix
            for deployment in application.get("deployments", {}).values()
            for replica in deployment.get("replicas", [])
            if replica["state"] == "RUNNING"
        ]

    def _call(
        self, method: str, timeout_s: float = READ_TIMEOUT_S, json: dict[str, Any] | None = None
    ) -> httpx.Response:
        try:
            response = httpx.request(
                method,
                self.dashboard_url + PATH,
                json=json,
                headers={"authorization": f"Bearer {self.token}"},
                timeout=timeout_s,
                trust_env=False,
            )
        except httpx.TransportError as error:
            raise OperatorError(f"Ray's dashboard did not answer: {error}") from error
        if not response.is_success:
            reason = last_line(response.text) or response.reason_phrase
            raise OperatorError(f"Serve refused the call ({response.status_code}): {reason}")
        return response


def _application(found: dict[str, Any]) -> ApplicationState:
    return ApplicationState(
        name=found["name"],
        status=found["status"],
        route_prefix=found.get("route_prefix"),
        message=found.get("message") or "",
        deployments=tuple(_deployments(found)),
    )


def _deployments(found: dict[str, Any]) -> Iterator[DeploymentState]:
    for name, deployment in sorted(found.get("deployments", {}).items()):
        running = [r for r in deployment.get("replicas", []) if r["state"] == "RUNNING"]
        yield DeploymentState(
            application=found["name"],
            name=name,
            status=deployment["status"],
            wanted=deployment.get("target_num_replicas", 0),
            running=len(running),
            message=deployment.get("message") or "",
            pids=tuple(r["pid"] for r in running if r.get("pid")),
        )


def last_line(text: str) -> str:
    """Return the last line with text: of a Python traceback, the exception."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
