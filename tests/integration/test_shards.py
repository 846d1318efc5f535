"""Two shards of two replicas each: one collection, wherever its parts and its callers are."""

import copy
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.stack import ROOT, running

DOCUMENTS = [
    {"id": f"d{i}", "text": f"Part {i} of the long story of Skarro.", "metadata": {"n": i}}
    for i in range(40)
]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    config = yaml.safe_load((ROOT / "configs/fake.yaml").read_text())
    application = config["applications"][0]
    application["args"]["retriever"] = {"shards": 2, "replicas_per_collection": 1}
    deployments = application["deployments"]
    retriever = next(one for one in deployments if one["name"] == "Retriever")
    deployments.remove(retriever)
    for shard in range(2):
        deployments.append(copy.deepcopy(retriever) | {"name": f"Retriever-{shard}"})
    path: Path = tmp_path_factory.mktemp("shards") / "shards.yaml"
    path.write_text(yaml.safe_dump(config))
    with running(path) as stack, stack.client() as client:
        body = {"collection": "story", "documents": DOCUMENTS}
        client.post("/v1/data/index", json=body).raise_for_status()
        yield client


def ids(client: httpx.Client, **options: object) -> list[str]:
    body = {"collection": "story", "query": "Part 7 of the story", **options}
    results = client.post("/v1/data/search", json=body).raise_for_status().json()["results"]
    return [result["document_id"] for result in results]


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_search_finds_the_documents_of_every_shard(sharded: httpx.Client, mode: str) -> None:
    found = ids(sharded, mode=mode, top_k=50)
    assert sorted(found) == sorted(str(one["id"]) for one in DOCUMENTS)
    deep = {"candidates": 50} if mode == "hybrid" else {}
    pages = [ids(sharded, mode=mode, top_k=10, offset=i, **deep) for i in (0, 10, 20, 30)]
    assert [one for page in pages for one in page] == found[:40]


def test_best_hit_comes_first_whichever_shard_has_it(sharded: httpx.Client) -> None:
    for n in range(0, 40, 5):
        query = {"query": DOCUMENTS[n]["text"], "mode": "dense", "top_k": 1}
        assert ids(sharded, **query) == [f"d{n}"]
        where = {"filter": {"field": "n", "op": "=", "value": n}}
        assert ids(sharded, **query | {"query": "story"} | where) == [f"d{n}"]


def test_writes_are_visible_at_once_in_every_shard(sharded: httpx.Client) -> None:
    for n in range(20):
        document = {"id": f"new{n}", "text": f"zebra number {n}"}
        body = {"collection": "story", "documents": [document]}
        sharded.post("/v1/data/index", json=body).raise_for_status()
        found = ids(sharded, query="zebra", mode="lexical", top_k=50)
        assert sorted(found) == sorted(f"new{i}" for i in range(n + 1))
    for n in range(20):
        path = f"/v1/data/documents/new{n}"
        sharded.delete(path, params={"collection": "story"}).raise_for_status()
        assert len(ids(sharded, query="zebra", mode="lexical", top_k=50)) == 19 - n


def test_answer_is_grounded_in_all_shards(sharded: httpx.Client) -> None:
    body = {"prompt": "Part 7 of the story", "retrieval": {"collection": "story", "top_k": 20}}
    answer = sharded.post("/v1/inference", json=body).raise_for_status().json()
    assert len({source["document_id"] for source in answer["sources"]}) > 10


def test_one_replica_of_each_shard_holds_a_collection(sharded: httpx.Client) -> None:
    for _ in range(10):
        ids(sharded)
    stats = sharded.get("/v1/data/collections/story").raise_for_status().json()["index_stats"]
    assert len(stats) == 2
    assert sum(one["num_rows"] for one in stats) >= len(DOCUMENTS)
    assert all(one["num_rows"] < len(DOCUMENTS) for one in stats)


def test_every_shard_must_be_ready(sharded: httpx.Client) -> None:
    assert sharded.get("/v1/health/ready").json()["parts"]["retriever"] is True
    assert "ragserve_retriever_replicas 4.0" in sharded.get("/v1/metrics").text
