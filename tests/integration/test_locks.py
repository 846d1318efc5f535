"""Who gets in: keys on every route, Ray's token on every port, and no steering by headers."""

import json
import socket
import time

import httpx
import psutil
import pytest

from tests.stack import Stack

PUBLIC = {"/v1/health", "/v1/health/ready", "/docs", "/openapi.json"}
BODIES = [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 64]


def test_every_documented_route_needs_a_key(stack: Stack) -> None:
    with httpx.Client(base_url=stack.url) as client:
        document = client.get("/openapi.json").json()
        assert len(document["paths"]) >= 12
        for path, methods in document["paths"].items():
            for method in methods:
                url = path.replace("{name}", "x").replace("{id}", "x").replace("{model_id}", "x")
                answer = client.request(method, url, content=b"{}")
                if path in PUBLIC:
                    assert answer.status_code == 200, path
                elif path.startswith("/dify/"):  # its own form, and no 401 (wire format of Dify)
                    assert answer.status_code == 403, path
                    assert answer.json()["error_code"] == 1001
                else:
                    assert answer.status_code == 401, path
                    assert answer.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("key", ["x", "rs_x_y", "x" * 5000, "rs_" + "0" * 32 + "_" + "A" * 43])
def test_a14_wrong_keys_are_refused_alike(stack: Stack, key: str) -> None:
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx.get(f"{stack.url}/v1/models", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


def test_serve_paths_are_not_reachable_through_the_edge(stack: Stack) -> None:
    for path in ("/-/routes", "/-/healthz"):
        assert httpx.get(stack.url + path, headers=stack.headers).status_code in (401, 403, 404)


def test_a2_steering_headers_do_not_reach_serve(stack: Stack, client: httpx.Client) -> None:
    headers = {"x-request-disconnect-disabled": "?1", "x-request-id": "chosen-by-the-client"}
    answer = client.get("/v1/models", headers=headers)
    assert answer.headers["x-request-id"] != "chosen-by-the-client"


def listening(stack: Stack) -> list[int]:
    """Return the TCP ports that this installation's processes listen on."""
    ports = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("RAGSERVE_STATE_DIR") != str(stack.state_dir):
                continue
            connections = process.net_connections("tcp")
        except psutil.Error:
            continue
        ports |= {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN}
    return sorted(ports)


def test_a1_ray_dashboard_refuses_anonymous_calls(stack: Stack) -> None:
    dashboard = json.loads((stack.state_dir / "run.json").read_text())["dashboard_url"]
    for path in ("/api/serve/applications/", "/api/jobs/", "/nodes?view=summary"):
        assert httpx.get(dashboard + path).status_code in (401, 403)


def test_a1_replica_ports_refuse_anonymous_grpc(stack: Stack, client: httpx.Client) -> None:
    import grpc

    model = client.get("/v1/models").json()["data"][0]["id"]
    chat = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    client.post("/v1/chat/completions", json=chat).raise_for_status()  # opens an inbox too
    methods = ("HandleRequest", "HandleRequestWithRejection", "HandleRequestStreaming")
    refused = 0
    for port in listening(stack):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            for method in methods:
                call = channel.unary_unary(f"/ray.serve.ASGIService/{method}")
                with pytest.raises(grpc.RpcError) as caught:
                    call(b"", timeout=2)
                assert caught.value.code() not in (None, grpc.StatusCode.OK)
                assert "Ran out of input" not in str(caught.value.details())
                refused += caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert refused >= len(methods)


def test_a22_garbage_on_the_edge_is_answered_or_closed(stack: Stack) -> None:
    port = int(stack.url.rsplit(":", 1)[1])
    for body in BODIES[1:]:
        with socket.create_connection(("127.0.0.1", port), timeout=15) as sock:
            sock.sendall(body)
            sock.shutdown(socket.SHUT_WR)
            began = time.monotonic()
            sock.recv(4096)
            assert time.monotonic() - began < 12
