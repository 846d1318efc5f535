"""Kept answers over two ingress replicas: computed once, gone with what they rest on."""

import concurrent.futures
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.servers.redis_server import RedisServer, running_redis
from tests.stack import ROOT, Stack, running

NUM_CLIENTS = 100


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture(scope="module")
def replicated(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    config = yaml.safe_load((ROOT / "configs/fake.yaml").read_text())
    application = config["applications"][0]
    ingress = next(one for one in application["deployments"] if one["name"] == "Ingress")
    ingress["num_replicas"] = 2
    application["args"]["generator"]["fake_token_delay_s"] = 0.05
    path: Path = tmp_path_factory.mktemp("cache") / "replicated.yaml"
    path.write_text(yaml.safe_dump(config))
    redis = {"RAGSERVE_REDIS_URL": redis_server.url, "RAGSERVE_REDIS_TIMEOUT_S": "10"}
    with running(path, **redis) as stack:
        yield stack


@pytest.fixture
def client(replicated: Stack) -> Iterator[httpx.Client]:
    with replicated.client() as client:
        yield client


def ask(client: httpx.Client, prompt: str, **fields: Any) -> httpx.Response:
    body = {"prompt": prompt, "max_tokens": 8, "temperature": 0, **fields}
    return client.post("/v1/inference", json=body).raise_for_status()


def test_stampede_is_computed_once_by_each_ingress(replicated: Stack) -> None:
    def one(number: int) -> str:
        with replicated.client() as client:
            return str(ask(client, "everybody asks this").headers["x-cache"])

    with concurrent.futures.ThreadPoolExecutor(NUM_CLIENTS) as pool:
        outcomes = Counter(pool.map(one, range(NUM_CLIENTS)))
    assert 1 <= outcomes["miss"] <= 2
    assert outcomes["miss"] + outcomes["shared"] + outcomes["hit"] == NUM_CLIENTS


def test_kept_answer_is_what_was_answered_and_every_ingress_has_it(client: httpx.Client) -> None:
    for is_stream in (False, True):
        first = ask(client, "what is kept", stream=is_stream)
        assert first.headers["x-cache"] == "miss"
        for _ in range(8):
            again = ask(client, "what is kept", stream=is_stream)
            assert again.headers["x-cache"] == "hit"
            mark = first.headers["x-request-id"].partition("_")[2]
            own = again.headers["x-request-id"].partition("_")[2]
            assert again.text.replace(own, mark) == first.text


def test_erased_document_is_in_no_kept_answer(
    client: httpx.Client, redis_server: RedisServer
) -> None:
    documents = [{"id": "secret", "text": "The quixotrabbit lives in Skarro."}]
    body = {"collection": "kept", "documents": documents}
    client.post("/v1/data/index", json=body).raise_for_status()
    asked = {"retrieval": {"collection": "kept"}}
    question = "Where does the quixotrabbit live?"
    assert ask(client, question, **asked).headers["x-cache"] == "miss"
    assert ask(client, question, **asked).headers["x-cache"] == "hit"
    with redis_server.client() as redis:
        assert redis.keys("ragserve:answers:*")
        body = {"collection": "kept", "ids": ["secret"], "wait_s": 60}
        receipt = client.post("/v1/data/delete", json=body).raise_for_status().json()
        assert receipt["status"] == "completed"
        assert not redis.keys("ragserve:answers:*")
    after = ask(client, question, **asked)
    assert after.headers["x-cache"] == "miss"
    assert "quixotrabbit" not in str(after.json()["sources"])
    client.delete("/v1/data/collections/kept").raise_for_status()
