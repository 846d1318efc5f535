"""Models of every kind are read from folders with the real engines; their weights are random."""

import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from transformers import BertConfig, BertModel

from tests.chaos.test_store_kills import processes
from tests.integration.test_models import unload
from tests.stack import ROOT, Stack, running
from tests.unit.engines.generation.transformers.tiny import save_llama
from tests.unit.engines.reranking.tiny import SIZES, save_bert, save_tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kinds")
    save_llama(path / "llama")
    save_bert(path / "judge")
    config = BertConfig(vocab_size=save_tokenizer(path / "bert"), **SIZES)
    BertModel(config).save_pretrained(path / "bert")
    return path


@pytest.fixture(scope="module")
def stack(folders: Path) -> Iterator[Stack]:
    config = yaml.safe_load((ROOT / "configs/fake.yaml").read_text())
    config["applications"][0]["args"]["models"] = {"roots": [str(folders)]}
    path = folders / "models.yaml"
    path.write_text(yaml.safe_dump(config))
    with running(path) as stack:
        yield stack


def load(client: httpx.Client, model: str, folder: Path, **body: Any) -> dict[str, Any]:
    sent = {"model_id": model, "source": str(folder), "wait": True, **body}
    loaded = client.post("/v1/models/load", json=sent, timeout=240)
    assert loaded.status_code == 200, loaded.text
    state: dict[str, Any] = loaded.json()
    assert state["state"] == "ready"
    return state


def complete(client: httpx.Client, model: str) -> str:
    """Return the text after a prompt: these models have no template for chats."""
    body = {"model": model, "prompt": "hello", "max_tokens": 8, "temperature": 0}
    answer = client.post("/v1/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


@pytest.mark.timeout(600)
def test_folders_say_their_kind_and_answer(client: httpx.Client, folders: Path) -> None:
    options = {"context_length": 256, "kv_cache_tokens": 1024}
    assert load(client, "words@1", folders / "llama", options=options)["kind"] == "generation"
    assert complete(client, "words")
    assert load(client, "vectors@1", folders / "bert")["kind"] == "embedding"
    embedded = client.post("/v1/embeddings", json={"model": "vectors", "input": ["a cat"]})
    assert len(embedded.raise_for_status().json()["data"][0]["embedding"]) == 32
    assert load(client, "judge@1", folders / "judge")["kind"] == "reranking"
    body = {"model": "judge", "query": "a cat", "documents": ["a cat", "dogs"]}
    ranked = client.post("/v1/rerank", json=body).raise_for_status().json()
    assert {one["index"] for one in ranked["results"]} == {0, 1}
    for model in ("words@1", "vectors@1", "judge@1"):
        unload(client, model).raise_for_status()


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
@pytest.mark.timeout(600)
def test_ranks_that_a_load_asks_for_share_the_model(
    client: httpx.Client, stack: Stack, folders: Path
) -> None:
    options = {"context_length": 256, "kv_cache_tokens": 1024, "num_threads": 1}
    body = {"precision": "fp32", "options": options}
    load(client, "one@1", folders / "llama", **body)
    expected = complete(client, "one")
    unload(client, "one@1").raise_for_status()
    state = load(client, "two@1", folders / "llama", engine="deepspeed", tensor_parallel=2, **body)
    assert (state["engine"], state["tensor_parallel"]) == ("deepspeed", 2)
    assert len(processes(stack, "RankActor")) == 2
    assert complete(client, "two") == expected
    unload(client, "two@1").raise_for_status()
    deadline = time.monotonic() + 60
    while processes(stack, "RankActor"):
        assert time.monotonic() < deadline
        time.sleep(0.5)
