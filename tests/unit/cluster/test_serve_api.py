"""What is read of Serve's answer."""

from typing import Any

import httpx
import pytest

from cluster.serve_api import ServeApi


def replica(name: str, state: str) -> dict[str, str]:
    return {"replica_id": name, "state": state}


def application(prefix: str | None, **deployments: list[dict[str, str]]) -> dict[str, Any]:
    made = {name: {"replicas": replicas} for name, replicas in deployments.items()}
    return {"route_prefix": prefix, "deployments": made}


def test_replicas_are_those_that_run_behind_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "applications": {
            "ragserve": application(
                "/",
                Ingress=[replica("a", "RUNNING"), replica("b", "STOPPING")],
                Generator=[replica("c", "RUNNING"), replica("d", "STARTING")],
            ),
            "other": application("/other", Ingress=[replica("e", "RUNNING")]),
            "model": application(None, Generator=[replica("f", "RUNNING")]),
        }
    }
    answer = httpx.Response(200, json=found)
    monkeypatch.setattr(httpx, "request", lambda *_, **__: answer)
    assert ServeApi("http://x", "token").replicas_of("/") == ["a", "c"]
