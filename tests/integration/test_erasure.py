"""Erased over HTTP: no byte is left in the state folder, wherever it had been."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.stack import Stack

SECRET = "quixotrabbit"
PEOPLE = ("ann", "bob")
NUM_AT_ONCE = 3
NUM_IN_TURN = 20


def plant(client: httpx.Client, collection: str, num_documents: int = 40) -> None:
    """Store documents of two people that all hold the secret, and search them."""
    documents = [
        {
            "id": f"{person}-{i}",
            "title": f"{SECRET} of {person}",
            "text": f"{SECRET}{person} number {i} lives in Skarro. " * 20,
            "metadata": {"note": f"{SECRET}{person}", "n": i},
            "subject": person,
        }
        for person in PEOPLE
        for i in range(num_documents)
    ]
    body = {"collection": collection, "documents": documents}
    client.post("/v1/data/index", json=body).raise_for_status()
    for mode in ("dense", "lexical", "hybrid"):  # every replica has made its indexes
        for _ in range(4):
            search(client, collection, mode)


def search(client: httpx.Client, collection: str, mode: str = "hybrid") -> set[str]:
    body = {"collection": collection, "query": f"{SECRET} Skarro", "mode": mode, "top_k": 100}
    r = client.post("/v1/data/search", json=body)
    assert r.status_code == 200, r.text
    found = r.json()["results"]
    return {result["document_id"] for result in found}


def files_with(folder: Path, needle: str) -> list[str]:
    """Return the files of a state folder that hold a text, in any case."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and needle.encode() in path.read_bytes().lower()
    ]


@pytest.mark.parametrize("how", ["ids", "filter", "subject", "all"])
def test_a20_erased_text_is_in_no_file(stack: Stack, client: httpx.Client, how: str) -> None:
    collection = f"erased-{how}"
    plant(client, collection)
    assert files_with(stack.state_dir, f"{SECRET}ann")
    scope = {
        "ids": {"ids": [f"ann-{i}" for i in range(40)]},
        "filter": {"filter": {"field": "note", "op": "=", "value": f"{SECRET}ann"}},
        "subject": {"subject": "ann"},
        "all": {"all": True},
    }[how]
    body = {"collection": collection, "wait_s": 60, **scope}
    response = client.post("/v1/data/delete", json=body).raise_for_status()
    receipt = response.json()
    assert (response.status_code, receipt["status"]) == (200, "completed")
    assert receipt["num_documents"] == (80 if how == "all" else 40)
    assert [one["place"] for one in receipt["places"]] == [
        "database",
        "indexes",
        "snapshots",
        "caches",
        "tasks",
    ]
    assert not files_with(stack.state_dir, f"{SECRET}ann")
    if how == "all":
        assert not files_with(stack.state_dir, f"{SECRET}bob")
    else:
        assert {one.partition("-")[0] for one in search(client, collection, "lexical")} == {"bob"}
        client.delete(f"/v1/data/collections/{collection}").raise_for_status()


def test_erasure_that_nobody_waits_for_completes(stack: Stack, client: httpx.Client) -> None:
    plant(client, "later")
    body = {"collection": "later", "subject": "ann", "wait_s": 0}
    receipt = client.post("/v1/data/delete", json=body).raise_for_status().json()
    assert {one.partition("-")[0] for one in search(client, "later")} == {"bob"}, "hidden at once"
    deadline = time.monotonic() + 60
    while receipt["status"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.2)
        receipt = client.get(f"/v1/data/erasures/{receipt['id']}").json()
    assert not files_with(stack.state_dir, f"{SECRET}ann")


def test_erase_command_prints_the_receipt(stack: Stack, client: httpx.Client) -> None:
    plant(client, "by-command", num_documents=2)
    done = stack.command("erase", "by-command", "--id", "ann-0", "--yes")
    assert done.returncode == 0, done.stderr
    assert "1 documents" in done.stdout
    assert "database" in done.stdout
    refused = stack.command("erase", "by-command", "--yes")
    assert refused.returncode != 0
    assert "exactly one of" in refused.stderr


def test_erasures_at_once_all_complete(stack: Stack, client: httpx.Client) -> None:
    def erase(number: int) -> list[str]:
        collection, statuses = f"at-once-{number}", []
        document = {"id": "one", "text": f"{SECRET} number {number}"}
        for _ in range(NUM_IN_TURN):
            body = {"collection": collection, "documents": [document]}
            client.post("/v1/data/index", json=body).raise_for_status()
            body = {"collection": collection, "ids": ["one"], "wait_s": 20}
            statuses.append(client.post("/v1/data/delete", json=body).json()["status"])
        return statuses

    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        statuses = list(pool.map(erase, range(NUM_AT_ONCE)))
    assert statuses == [["completed"] * NUM_IN_TURN] * NUM_AT_ONCE
