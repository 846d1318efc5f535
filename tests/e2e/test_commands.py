"""The `ragserve` command against the default application, as an operator uses it."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack import Stack, run_command
from tests.unit.engines.extraction.documents import pdf, word

COLLECTION = "commands"
NUM_READABLE = 5
TEXTS = {
    "text": "The harbour master of Velm is called Odile Marrow.",
    "markdown": "The bell of Quarrow weighs nine tonnes.",
    "html": "The orchard of Pell grows blue apples.",
    "pdf": "The tunnel of Ostry is closed on Mondays.",
    "docx": "The observatory of Kirrin owns four telescopes.",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("handbook")
    (folder / "a.txt").write_text(TEXTS["text"])
    (folder / "b.md").write_text(f"# Bells\n\n{TEXTS['markdown']}\n")
    page = f"<html><body><article><h1>Fruit</h1><p>{TEXTS['html']}</p></article></body></html>"
    (folder / "c.html").write_text(page)
    (folder / "d.pdf").write_bytes(pdf(TEXTS["pdf"]))
    (folder / "e.docx").write_bytes(word(TEXTS["docx"]))
    (folder / "f.pdf").write_bytes(pdf("This page is cut off.")[:200])
    return folder


@pytest.fixture(scope="module")
def ingested(stack: Stack, folder: Path) -> Iterator[subprocess.CompletedProcess[str]]:
    yield stack.command("ingest", str(folder), "--collection", COLLECTION)
    with stack.client() as client:
        client.delete(f"/v1/data/collections/{COLLECTION}").raise_for_status()


def assert_one_line_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode != 0
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("ragserve: ")
    assert all(word in lines[0] for word in words)


def test_ingest_reports_the_broken_file_and_stores_the_rest(
    ingested: subprocess.CompletedProcess[str],
) -> None:
    assert ingested.returncode == 0
    assert f"created {NUM_READABLE}" in re.sub(r"\W+", " ", ingested.stdout)
    failures = [line for line in ingested.stderr.splitlines() if line.startswith("failed: ")]
    assert len(failures) == 1
    assert "f.pdf" in failures[0]
    assert "Traceback" not in ingested.stderr


def test_ingest_again_changes_nothing_and_strict_fails(
    stack: Stack, folder: Path, ingested: subprocess.CompletedProcess[str]
) -> None:
    command = ("ingest", str(folder), "--collection", COLLECTION, "--strict", "--json")
    again = stack.command(*command)
    assert again.returncode == 1
    report = json.loads(again.stdout)
    assert report["stored"] == {"unchanged": NUM_READABLE}
    assert [Path(name).name for name in report["failures"]] == ["f.pdf"]


@pytest.mark.parametrize("kind", TEXTS)
def test_search_finds_every_kind_of_file(
    kind: str, stack: Stack, ingested: subprocess.CompletedProcess[str]
) -> None:
    query = TEXTS[kind].split(" of ")[1]
    done = stack.command("search", query, "--collection", COLLECTION, "--json", "--top-k", "1")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["results"]
    assert TEXTS[kind] in " ".join(found["text"].split())


def test_search_prints_a_table(stack: Stack, ingested: subprocess.CompletedProcess[str]) -> None:
    done = stack.command("search", "blue apples", "--collection", COLLECTION)
    assert done.returncode == 0, done.stderr
    assert "c.html" in done.stdout


def test_ask_prints_the_answer_then_its_sources(
    stack: Stack, ingested: subprocess.CompletedProcess[str]
) -> None:
    question = ("ask", "How much does the bell of Quarrow weigh?", "--collection", COLLECTION)
    done = stack.command(*question, "--max-tokens", "48")
    assert done.returncode == 0, done.stderr
    assert 0 <= done.stdout.find("nine") < done.stdout.find("b.md")
    answer = json.loads(stack.command(*question, "--max-tokens", "48", "--json").stdout)
    assert "nine" in answer["output"]
    assert answer["sources"][0]["document_id"].endswith("b.md")


def test_status_shows_healthy_deployments(stack: Stack) -> None:
    done = stack.command("status", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["is_answering"] is True
    assert {d["name"]: d["status"] for d in report["deployments"]} == dict.fromkeys(
        ("Ingress", "Generator", "Embedder", "Retriever", "Worker"), "HEALTHY"
    )


def test_models_lists_the_collection(
    stack: Stack, ingested: subprocess.CompletedProcess[str]
) -> None:
    done = stack.command("models", "--json")
    assert done.returncode == 0, done.stderr
    ids = {model["id"] for model in json.loads(done.stdout)["data"]}
    assert {"smollm2-135m-instruct", f"rag/{COLLECTION}"} <= ids


@pytest.mark.parametrize("command", ["ask", "search"])
def test_unknown_collection_is_one_line(command: str, stack: Stack) -> None:
    done = stack.command(command, "Is anybody there?", "--collection", "no-such-one")
    assert_one_line_error(done, "no-such-one", "404")


def test_wrong_key_is_one_line(stack: Stack) -> None:
    env = {**stack.env, "RAGSERVE_API_KEY": "rs_wrong"}
    for command in (("models",), ("ask", "Hello?"), ("search", "Hello?")):
        assert_one_line_error(run_command(env, *command), "401")


def test_no_server_is_one_line(stack: Stack) -> None:
    env = {**stack.env, "RAGSERVE_URL": "http://127.0.0.1:9"}
    assert_one_line_error(run_command(env, "models"), "http://127.0.0.1:9")
