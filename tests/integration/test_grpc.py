"""gRPC on a real stack with two Ingress replicas: plain and TLS, from Python and from Node."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import yaml

from deployments.ingress.proto import dify_pb2
from deployments.ingress.proto.dify_pb2_grpc import DifyServiceStub
from tests.stack import ROOT, Stack, free_port, running

NODE = ROOT / "tests" / "clients" / "node"
PROTO = ROOT / "deployments" / "ingress" / "proto" / "dify.proto"
ASK = {"prompt": "hello you", "max_tokens": 5, "temperature": 0}
LONG = dify_pb2.TextRequest(prompt="x " * 1000, max_tokens=2000)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    config = yaml.safe_load((ROOT / "configs/fake.yaml").read_text())
    [application] = config["applications"]
    application["args"]["generator"]["fake_token_delay_s"] = 0.01
    application["args"]["ingress"]["rpc"] = {"reflection": True}
    [ingress] = [one for one in application["deployments"] if one["name"] == "Ingress"]
    ingress["num_replicas"] = 2
    path = tmp_path_factory.mktemp("config") / "two.yaml"
    path.write_text(yaml.safe_dump(config))
    ports = {"RAGSERVE_HTTPS_PORT": free_port(), "RAGSERVE_GRPC_TLS_PORT": free_port()}
    with running(path, RAGSERVE_TLS="1", **{name: str(port) for name, port in ports.items()}) as up:
        document = {"id": "a", "text": "Ray Serve is nice", "metadata": {"year": 2020}}
        with up.client() as client:
            body = {"collection": "docs", "documents": [document]}
            client.post("/v1/data/index", json=body).raise_for_status()
        yield up


def plain(stack: Stack) -> str:
    return f"127.0.0.1:{stack.env['RAGSERVE_GRPC_PORT']}"


def over_tls(stack: Stack) -> str:
    return f"localhost:{stack.env['RAGSERVE_GRPC_TLS_PORT']}"


def certificate(stack: Stack) -> Path:
    return stack.state_dir / "tls" / "trial.crt"


@pytest.fixture
def channel(stack: Stack) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(plain(stack)) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return DifyServiceStub(channel)


@pytest.fixture
def metadata(stack: Stack) -> Any:
    return (("authorization", f"Bearer {stack.key}"),)


def until(holds: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def in_flight(stack: Stack) -> float:
    with stack.client() as client:
        page = client.get("/v1/metrics").text
    lines = [one for one in page.splitlines() if one.startswith("ragserve_requests_in_flight")]
    assert lines
    return sum(float(one.rpartition(" ")[2]) for one in lines)


def audited(stack: Stack, request_id: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        with stack.client() as client:
            page = client.get("/v1/audit/logs", params={"limit": 100}).json()["data"]
        found[:] = [one for one in page if one["request_id"] == request_id]
        return bool(found)

    until(is_there)
    return found[0]


def test_calls_are_answered_and_written_down(stack: Stack, stub: Any, metadata: Any) -> None:
    answer, call = stub.GenerateText.with_call(dify_pb2.TextRequest(**ASK), metadata=metadata)
    assert (answer.model, answer.usage.completion_tokens) == ("fake", 5)
    record = audited(stack, dict(call.trailing_metadata())["x-request-id"])
    assert (record["operation"], record["status"], record["address"]) == (
        "infer",
        200,
        "127.0.0.1",
    )
    with stack.client() as client:
        same = client.post("/v1/inference", json=ASK).json()
    assert answer.output == same["output"]


def test_search_finds_what_json_finds(stack: Stack, stub: Any, metadata: Any) -> None:
    ask = {"collection": "docs", "query": "ray"}
    [found] = stub.VectorSearch(dify_pb2.SearchRequest(**ask), metadata=metadata).results
    with stack.client() as client:
        [same] = client.post("/v1/data/search", json=ask).json()["results"]
    assert (found.chunk_id, found.text, found.score) == (
        same["chunk_id"],
        same["text"],
        same["score"],
    )
    assert dict(found.metadata) == {"year": 2020}


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_work_ends_with_the_call(stack: Stack, stub: Any, metadata: Any, how: str) -> None:
    deadline = {"timeout": 2.0} if how == "deadline" else {}
    call = stub.StreamText(LONG, metadata=metadata, **deadline)
    assert next(call).delta.text
    if how == "cancel":
        call.cancel()
    with pytest.raises(grpc.RpcError):
        list(call)
    until(lambda: in_flight(stack) <= 1)  # the page's own request


def test_calls_over_tls_are_answered(stack: Stack, metadata: Any) -> None:
    trusted = grpc.ssl_channel_credentials(certificate(stack).read_bytes())
    with grpc.secure_channel(over_tls(stack), trusted) as channel:
        answer = DifyServiceStub(channel).GenerateText(
            dify_pb2.TextRequest(**ASK), metadata=metadata
        )
    assert answer.usage.completion_tokens == 5


@pytest.mark.parametrize("is_tls", [False, True])
def test_a_client_in_node_is_told_the_same(stack: Stack, is_tls: bool) -> None:
    address = over_tls(stack) if is_tls else plain(stack)
    command = ["node", "client.js", stack.url, address, stack.key, str(PROTO)]
    command += [str(certificate(stack))] if is_tls else []
    done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    text, of_json = told["text"]["answer"], told["json"]["text"]
    assert (text["output"], text["usage"]) == (of_json["output"], of_json["usage"])
    [found] = told["search"]["answer"]["results"]
    [same] = told["json"]["search"]["results"]
    assert (found["chunk_id"], found["score"]) == (same["chunk_id"], same["score"])
    assert "".join(one["delta"]["text"] for one in told["events"][:-1]) == text["output"]
    assert told["events"][-1]["done"]["finish_reason"] == "length"
    assert (told["anonymous"]["code"], told["anonymous"]["error"]) == (
        "UNAUTHENTICATED",
        "invalid_api_key",
    )
    assert told["wrong"]["code"] == "INVALID_ARGUMENT"
    assert told["late"]["code"] == "DEADLINE_EXCEEDED"


def test_replicas_speak_grpc_on_loopback_only(stack: Stack) -> None:
    ports = [int(one.read_text()) for one in (stack.state_dir / "edge" / "rpc").iterdir()]
    assert len(ports) == 2
    listening = {
        one.laddr.ip
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port in ports
    }
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert listening


def test_calls_go_on_when_a_replica_is_killed(stack: Stack, stub: Any, metadata: Any) -> None:
    ports = {int(one.read_text()) for one in (stack.state_dir / "edge" / "rpc").iterdir()}
    victim = next(
        one.pid
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port in ports
    )
    psutil.Process(victim).kill()
    ask = dify_pb2.TextRequest(**ASK)
    num_answered = 0
    for _ in range(20):  # those that were on their way may fail, and say that they may be repeated
        try:
            num_answered += bool(stub.GenerateText(ask, metadata=metadata).output)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        time.sleep(0.1)
    assert num_answered >= 15
