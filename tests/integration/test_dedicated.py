"""A tenant with a graph of its own: nothing of either is found from the other."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.stack import ROOT, Stack, running

FAKE = {
    "ingress": {"second_factor": "enrolled"},
    "generator": {"model": "fake", "engine": "fake"},
    "embedder": {"model": "fake-embedding", "engine": "fake"},
    "answer": {"min_score": -1},
}


@dataclass(frozen=True)
class Both:
    """The main graph, and that of one tenant."""

    main: Stack
    acme: Stack


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("dedicated")
    config = yaml.safe_load((ROOT / "configs/dedicated.yaml").read_text("utf-8"))
    for application in config["applications"]:
        application["args"] = FAKE
    config["applications"][1]["runtime_env"]["env_vars"]["RAGSERVE_STATE_DIR"] = str(
        folder / "acme"
    )
    path = folder / "dedicated.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    with running(path) as main:
        own = folder / "acme"
        acme = replace(
            main,
            url=f"{main.url}/acme",
            key=(own / "admin.key").read_text("utf-8").strip(),
            state_dir=own,
            env={**main.env, "RAGSERVE_STATE_DIR": str(own)},
        )
        yield Both(main, acme)


def post(stack: Stack, path: str, body: dict[str, Any]) -> dict[str, Any]:
    with stack.client() as client:
        answer: dict[str, Any] = client.post(path, json=body).raise_for_status().json()
        return answer


def get(stack: Stack, path: str) -> dict[str, Any]:
    with stack.client() as client:
        answer: dict[str, Any] = client.get(path).raise_for_status().json()
        return answer


def models_of(stack: Stack) -> set[str]:
    return {one["id"] for one in get(stack, "/v1/models")["data"]}


def test_keys_of_one_do_not_work_in_the_other(both: Both) -> None:
    made = both.acme.command("keys", "create", "worker")
    assert made.returncode == 0, made.stderr
    keys = {both.acme.url: made.stdout.strip(), both.main.url: both.main.key}
    for url in keys:
        for owner, key in keys.items():
            answer = httpx.get(f"{url}/v1/models", headers={"authorization": f"Bearer {key}"})
            assert answer.status_code == (200 if owner == url else 401), (url, owner)


def test_collections_are_in_databases_of_their_own(both: Both) -> None:
    for stack, text in ((both.main, "a note of everybody's"), (both.acme, "a note of acme's")):
        documents = [{"id": "note", "text": text}]
        post(stack, "/v1/data/index", {"collection": "notes", "documents": documents})
    for stack, text in ((both.main, "everybody's"), (both.acme, "acme's")):
        found = post(stack, "/v1/data/search", {"collection": "notes", "query": "note"})
        assert [text in one["text"] for one in found["results"]] == [True], found
        answer = post(
            stack, "/v1/inference", {"prompt": "note", "retrieval": {"collection": "notes"}}
        )
        assert text in answer["sources"][0]["text"]
        with sqlite3.connect(stack.state_dir / "ragserve.db") as database:
            (dumped,) = [" ".join(database.iterdump())]
        assert "a note of" in dumped
        assert dumped.count("everybody") == 0 or text == "everybody's"


def test_models_of_one_are_none_of_the_others(both: Both) -> None:
    loaded = {"engine": "fake", "wait": True, "options": {"fake_token_delay_s": 0.0}}
    for stack in (both.acme, both.main):
        post(stack, "/v1/models/load", {"model_id": "helper@1", **loaded})
    post(both.acme, "/v1/models/load", {"model_id": "own@1", **loaded})
    assert models_of(both.acme) - models_of(both.main) == {"own@1"}
    asked = {"model": "own@1", "messages": [{"role": "user", "content": "hello"}]}
    with both.main.client() as client:
        assert client.post("/v1/chat/completions", json=asked).status_code == 404
    post(both.main, "/v1/models/unload", {"model_id": "helper@1", "wait": True})
    assert {"helper@1", "own@1"} <= models_of(both.acme)
    for model in ("helper@1", "own@1"):
        assert post(both.acme, "/v1/chat/completions", {**asked, "model": model})["choices"]
    assert "helper@1" not in models_of(both.main)


def test_edge_is_believed_by_both(both: Both) -> None:
    for stack in (both.main, both.acme):
        made = stack.command("keys", "create", "elsewhere", "--address", "127.0.0.2").stdout.strip()
        headers = {"authorization": f"Bearer {made}", "x-forwarded-for": "127.0.0.9"}
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as client:
            assert client.get(f"{stack.url}/v1/models", headers=headers).status_code == 200
        headers["x-forwarded-for"] = "127.0.0.2"
        assert httpx.get(f"{stack.url}/v1/models", headers=headers).status_code == 403


def test_state_folders_share_no_secret(both: Both) -> None:
    peppers = {(stack.state_dir / "pepper").read_bytes() for stack in (both.main, both.acme)}
    assert len(peppers) == 2
    assert (Path(both.acme.state_dir).stat().st_mode & 0o777) == 0o700
