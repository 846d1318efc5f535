"""What a key does not cover of its own tenant is what does not exist."""

import copy
from typing import Any

import httpx
import pytest

from deployments.ingress.app import build_app
from deployments.types.access import Grants
from tests.unit.ingress.conftest import (
    ARGS,
    UNTOUCHED,
    FakeFactors,
    FakeKey,
    FakeKeys,
    extract,
    in_process,
)
from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.test_tenants import (
    ASKS,
    MESSAGES,
    REFUSED_FOR_ALL,
    Ask,
    graph_with,
    post,
    seen,
)


class Keys(FakeKeys):
    """Knows one key, whatever the bearer."""

    def __init__(self, grants: Grants) -> None:
        super().__init__()
        self._key = FakeKey("key_5", "acme", grants=grants)

    async def verify(self, bearer: str) -> FakeKey:
        return self._key


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_767_323_045.0)


async def asked(graph: FakeGraph, ask: Ask, **grants: Any) -> httpx.Response:
    app = build_app(
        graph,
        Keys(Grants(**grants)),
        ARGS,
        extract=extract,
        factors=FakeFactors(),
        replays=UNTOUCHED,
    )
    method, path, options = ask
    async with in_process(app) as client:
        return await client.request(method, path, **options)


@pytest.mark.parametrize("operation", sorted(ASKS.keys() - {"createCollection"}))
async def test_collection_that_is_not_covered_is_one_that_is_missing(operation: str) -> None:
    ask = ASKS[operation]("secret")
    crowded, alone = graph_with("acme/own", "acme/secret"), graph_with("acme/own")
    before = copy.deepcopy(crowded.stored["acme/secret"])
    answers = [seen(await asked(graph, ask, collections=("own",))) for graph in (crowded, alone)]
    assert answers[0] == answers[1]
    assert crowded.stored["acme/secret"] == before
    assert "acme/secret" not in alone.stored


@pytest.mark.parametrize("operation", ASKS)
async def test_covered_collection_answers(operation: str) -> None:
    response = await asked(graph_with("acme/own"), ASKS[operation]("own"), collections=("own",))
    assert response.status_code == REFUSED_FOR_ALL.get(operation, 200), response.text


async def test_collection_that_would_not_be_covered_is_not_created() -> None:
    graph = graph_with("acme/own")
    for name in ("own2", "secret"):
        ask = ASKS["createCollection"](name)
        assert (await asked(graph, ask, collections=("own",))).status_code == 403
    assert list(graph.stored) == ["acme/own"]


async def test_lists_hold_what_is_covered() -> None:
    graph = graph_with("acme/own", "acme/secret")
    told = (await asked(graph, ASKS["listCollections"](""), collections=("own",))).json()
    assert [one["name"] for one in told["data"]] == ["own"]
    told = (await asked(graph, ASKS["listModels"](""), collections=("own",), models=("m",))).json()
    assert [one["id"] for one in told["data"]] == ["rag/own"]


async def test_erasure_over_all_collections_needs_a_key_for_all() -> None:
    erase = post("/v1/data/delete", subject="jo@example.org")
    graph = graph_with("acme/own", "acme/secret")
    assert (await asked(graph, erase, collections=("own",))).status_code == 403
    assert (await asked(graph, erase, models=("m",))).status_code in (200, 202)


ASK_MODEL = {
    "infer": lambda model: post("/v1/inference", prompt="x", model=model),
    "chat": lambda model: post("/v1/chat/completions", messages=MESSAGES, model=model),
    "stream": lambda model: post(
        "/v1/chat/completions", messages=MESSAGES, model=model, stream=True
    ),
    "completion": lambda model: post("/v1/completions", prompt="x", model=model),
    "embed": lambda model: post("/v1/embeddings", input="x", model=model),
    "vectorize": lambda model: post("/v1/data/vectorize", texts=["x"], model=model),
    "rerank": lambda model: post("/v1/rerank", query="x", documents=["y"], model=model),
}
MODELS = {
    "embed": "embedding_models",
    "vectorize": "embedding_models",
    "rerank": "reranking_models",
}


@pytest.mark.parametrize("operation", ASK_MODEL)
async def test_model_that_is_not_covered_is_unknown(operation: str) -> None:
    graph = FakeGraph()
    model = getattr(graph, MODELS.get(operation, "generation_models"))[0]
    ask = ASK_MODEL[operation]
    covered = await asked(graph, ask(model), models=(model,))
    assert covered.status_code == 200, covered.text
    not_covered = await asked(graph, ask(model), models=("other",))
    missing = await asked(graph, ask("nowhere"), models=(model,))
    assert seen(not_covered) == seen(missing)
    assert not_covered.json()["error"]["code"] == "model_not_found"


async def test_fallback_must_be_covered() -> None:
    graph = FakeGraph()
    model = graph.generation_models[0]
    ask = post("/v1/inference", prompt="x", model=model, fallbacks=["other@1"])
    assert (await asked(graph, ask, models=(model,))).status_code == 404
    assert graph.requests == []


async def test_model_that_answers_from_a_collection_must_be_covered() -> None:
    graph = graph_with("acme/own")
    ask = post("/v1/chat/completions", model="rag/own", messages=MESSAGES)
    assert (await asked(graph, ask, models=("other",))).status_code == 404
    assert (await asked(graph, ask, models=(graph.generation_models[0],))).status_code == 200
