"""The interface filter: what is not named is not loaded, not routed and not described."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from ray import serve

from deployments.config import GENERATING, RETRIEVING, IngressArgs, Interface
from deployments.errors import CollectionNotFound, ModelNotFound
from deployments.ingress.interfaces import ROUTERS, router_factories
from deployments.types import (
    Document,
    GenerationRequest,
    Retrieval,
    SamplingParams,
    SearchRequest,
)
from graphs.args import RagArgs
from graphs.rag import build
from tests.unit.ingress.conftest import AUTH, Build, in_process

ROOT = Path(__file__).parents[3]
CHAT = {"model": "fake-model", "messages": [{"role": "user", "content": "hi"}]}
LOADED = """
import sys
from deployments.ingress.interfaces import router_factories
import deployments.ingress.app
router_factories(["chat"])
print(*(name for name in sys.modules if name.startswith("deployments.ingress.")))
"""


def test_every_interface_has_a_router() -> None:
    assert set(ROUTERS) == set(get_args(Interface))
    assert set(ROUTERS) >= GENERATING | RETRIEVING
    assert len(router_factories(None)) == len(ROUTERS) + 2


async def test_what_is_not_named_is_not_there(build: Build) -> None:
    async with in_process(build(interfaces=("chat",))) as client:
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
        missing = await client.post("/v1/inference", json={"prompt": "hi"})
        never = await client.post("/v1/nothing", json={})
        assert missing.status_code == never.status_code == 404
        known, unknown = (one.json()["error"] for one in (missing, never))
        assert {**known, "request_id": ""} == {**unknown, "request_id": ""}
        described = (await client.get("/openapi.json")).json()["paths"]
        assert set(described) == {
            "/v1/chat/completions",
            "/v1/models",
            "/v1/models/{model}",
            "/v1/health",
            "/v1/health/ready",
            "/v1/metrics",
        }
        assert (await client.get("/v1/models", headers=AUTH)).status_code == 200


def test_what_is_not_named_is_not_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "deployments.ingress.openai.chat" in loaded
    for place in ROUTERS.values():
        module = f"deployments.ingress.{place.partition(':')[0]}"
        assert (module in loaded) == (module == "deployments.ingress.openai.chat"), module


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAGSERVE_STATE_DIR", str(tmp_path))
    return tmp_path


def parts_of(*interfaces: Interface) -> RagArgs:
    return RagArgs(
        generator={"model": "fake", "engine": "fake"},
        embedder={"model": "fake-embedding", "engine": "fake"},
        ingress=IngressArgs(interfaces=interfaces),
    )


@pytest.mark.usefixtures("state")
def test_generation_alone_has_no_collections() -> None:
    handle = serve.run(build(parts_of("inference", "chat")), _local_testing_mode=True)
    search = SearchRequest(collection="t/docs", query="hi", top_k=1)
    with pytest.raises(CollectionNotFound, match="without collections"):
        handle.search.remote(search).result(timeout_s=30)


@pytest.mark.usefixtures("state")
def test_retrieval_alone_has_no_generation() -> None:
    handle = serve.run(build(parts_of("data", "collections")), _local_testing_mode=True)
    request = GenerationRequest(request_id="r", sampling=SamplingParams(), prompt="hi")
    documents = [Document(id="a", text="The ferry goes to Skarro.")]
    handle.index.remote("t/docs", documents).result(timeout_s=30)
    search = SearchRequest(collection="t/docs", query="ferry", top_k=1)
    assert len(handle.search.remote(search).result(timeout_s=30)) == 1
    answer = handle.options(stream=True).answer.remote(request, Retrieval("t/docs"))
    with pytest.raises(ModelNotFound):
        list(answer)
