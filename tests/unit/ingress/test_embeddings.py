"""`/v1/embeddings` and `/v1/models`."""

import base64

import httpx
import numpy as np
import pytest

from tests.unit.ingress.fake_graph import FakeGraph
from tests.unit.ingress.fake_models import DIM

ASK = {"model": "fake-embedder", "input": ["a b", "c"]}


async def test_embeddings_as_floats_and_base64_are_the_same(client: httpx.AsyncClient) -> None:
    floats = (await client.post("/v1/embeddings", json=ASK)).json()
    encoded = await client.post("/v1/embeddings", json={**ASK, "encoding_format": "base64"})
    for one, other in zip(floats["data"], encoded.json()["data"], strict=True):
        vector = np.frombuffer(base64.b64decode(other["embedding"]), dtype="<f4")
        np.testing.assert_allclose(vector, one["embedding"], rtol=1e-6)
        assert one["object"] == "embedding"
    assert [one["index"] for one in floats["data"]] == [0, 1]
    assert floats["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert (floats["object"], floats["model"]) == ("list", "fake-embedder")


async def test_embeddings_of_one_text(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/embeddings", json={**ASK, "input": "a", "dimensions": DIM})
    assert len(response.json()["data"]) == 1


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"input": [1, 2]}, 400, "input"),
        ({"input": [[1], [2]]}, 400, "input"),
        ({"input": []}, 400, "input"),
        ({"input": ""}, 400, "input"),
        ({"input": ["a", " "]}, 400, "input[1]"),
        ({"input": ["a"] * 2049}, 400, "input"),
        ({"input": ["a", 1]}, 400, "input[1]"),
        ({"dimensions": DIM - 1}, 400, "dimensions"),
        ({"encoding_format": "int8"}, 400, "encoding_format"),
        ({"model": "fake-model"}, 404, "model"),
        ({"model": "rag/docs"}, 404, "model"),
    ],
)
async def test_embeddings_refuse_by_name(
    client: httpx.AsyncClient, fields: dict[str, object], status: int, param: str
) -> None:
    response = await client.post("/v1/embeddings", json={**ASK, **fields})
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)


async def test_models_list_everything_that_can_be_asked(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    graph.stored["docs"] = {}
    body = (await client.get("/v1/models")).json()
    ids = ["fake-model", "second-model", "fake-embedder", "small-embedder", "fake-reranker"]
    ids += ["late-fusion", "rag/docs"]
    assert [model["id"] for model in body["data"]] == ids
    assert (body["object"], body["has_more"]) == ("list", False)
    for model in body["data"]:
        assert set(model) == {"id", "object", "created", "owned_by"}
        assert (await client.get(f"/v1/models/{model['id']}")).json() == model
    assert body["data"][-1]["created"] == 1767323045


@pytest.mark.parametrize("model", ["nope", "rag/nope", "rag/A", "a/b/c"])
async def test_models_unknown_is_404(client: httpx.AsyncClient, model: str) -> None:
    response = await client.get(f"/v1/models/{model}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
