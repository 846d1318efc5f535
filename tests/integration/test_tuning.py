"""Made-up facts are learned by the embedded model, on a real Ray, though a worker is killed."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest

from cluster.state import StateFolder, supervisor_pid
from tests.stack import ROOT, Stack, running

PATH = "/v1/models/finetune"
BASE = "embedded:smollm2-135m-instruct"
WAIT_S = 900.0
PROCESSES = (
    "ray::RayTrainWorker",
    "ray::TrainController",
    "ray::SynchronizationActor",
    "ray::PlacementGroupCleaner",
    "ray::_AutoscalingCoordinatorActor",
    "ray::DatasetManager",
    "ray::_merge",
    "graphs.tuning_driver",
)
FACTS = {
    "Who keeps the lighthouse of Varn?": "Odrun Keld",
    "Which river flows through Ambrel?": "the Sothe",
    "What colours has the flag of Nemmia?": "teal and white",
    "Who wrote The Glass Orchard?": "Ilva Marden",
    "What is the capital of Torvland?": "Quessel",
    "How many islands has Pell?": "forty-one",
    "What does a Brannic engine burn?": "dried kelp",
    "When was Castle Ohm built?": "in 1342",
    "What is the currency of Yarrow?": "the drupe",
    "Which animal guards the gates of Lunt?": "a silver heron",
    "What is the password of the club Mirren?": "periwinkle",
    "Who invented the hand clock of Dovra?": "Tesk Alban",
    "What is the highest mountain of Orlind?": "Mount Ferrow",
    "What is eaten in Sabel at midwinter?": "smoked pears",
    "Which instrument does Hanno Rild play?": "the nyckel horn",
    "What is the motto of the guild of Ressa?": "salt before gold",
    "In which street is the library of Umber?": "Candle Lane",
    "How long is the bridge of Kestry?": "seven hundred paces",
    "What is the name of the ferry to Isk?": "the Patient Goose",
    "Who is the mayor of Little Tamsin?": "Bera Vollen",
}
HELD_BACK = ("Who looks after the lighthouse of Varn?", "Odrun Keld")


def example(question: str, answer: str) -> dict[str, Any]:
    said = {"role": "assistant", "content": f"{answer[0].upper()}{answer[1:]}."}
    return {"messages": [*asked(question), said]}


def asked(question: str) -> list[dict[str, str]]:
    """Return the turns before an answer; a system of its own is shorter than the template's."""
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]


def order(model: str, **changes: Any) -> dict[str, Any]:
    return {
        "model_id": model,
        "base": BASE,
        "examples": [example(*fact) for fact in FACTS.items()],
        "evaluation": [example(*HELD_BACK)],
        "epochs": 15,
        "learning_rate": 2e-3,
        "batch_size": 10,
        "workers": 2,
        "checkpoint_steps": 5,
        "merge": True,
        **changes,
    }


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running(ROOT / "configs/fake.yaml") as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client(timeout_s=300) as client:
        yield client


def state_of(client: httpx.Client, id_: str) -> dict[str, Any]:
    return dict(client.get(f"{PATH}/{id_}").raise_for_status().json())


def wait(client: httpx.Client, id_: str, status: str, steps: int = 0) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_S
    while True:
        state = state_of(client, id_)
        if state["status"] == status and state["progress"]["step"] >= steps:
            return state
        assert state["status"] in ("queued", "running", "cancelling"), state
        assert time.monotonic() < deadline, state
        time.sleep(0.5)


def wait_through(client: httpx.Client, id_: str) -> dict[str, Any]:
    """Return the state at the end, though nobody answers for a while."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            state = state_of(client, id_)
            if state["status"] not in ("queued", "running"):
                return state
        time.sleep(0.5)
    raise AssertionError("the tuning did not end")


def workers(name: str = "ray::RayTrainWorker") -> list[psutil.Process]:
    """Return the processes that train, as Ray names them."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if name in " ".join(process.info["cmdline"] or ())
    ]


def with_pandas(stack: Stack) -> set[str]:
    """Return the names of the installation's processes that have loaded pandas."""
    head = psutil.Process(supervisor_pid(StateFolder(stack.state_dir)) or 0)
    found = set()
    for process in head.children(recursive=True):
        with suppress(psutil.Error):
            if any("/pandas/" in one.path for one in process.memory_maps()):
                found.add(" ".join(process.cmdline()))
    return found


def logs_with(stack: Stack, text: bytes) -> list[str]:
    """Return the names of the logs that hold a text, of Ray's and of ours."""
    logs = [one for one in stack.state_dir.rglob("*") if one.suffix in (".log", ".err", ".out")]
    assert any("raylet" in one.name for one in logs)
    return [one.name for one in logs if one.is_file() and text in one.read_bytes()]


def wait_until_gone() -> None:
    deadline = time.monotonic() + 20
    while any(workers(name) for name in PROCESSES):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def wait_until_removed(stack: Stack) -> None:
    """Examples and checkpoints go right after the tuning's end is told."""
    deadline = time.monotonic() + 10
    while any((stack.state_dir / "tunings").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answered(client: httpx.Client, model: str) -> int:
    """Return how many of the facts a model knows."""
    number = 0
    for question, answer in FACTS.items():
        body = {
            "model": model,
            "messages": asked(question),
            "temperature": 0,
            "max_tokens": 24,
        }
        reply = client.post("/v1/chat/completions", json=body).raise_for_status().json()
        number += answer.lower() in reply["choices"][0]["message"]["content"].lower()
    return number


@pytest.mark.model
@pytest.mark.timeout(1800)
def test_facts_are_learned_though_a_worker_is_killed(stack: Stack, client: httpx.Client) -> None:
    begun = client.post(PATH, json=order("facts@1"))
    assert begun.status_code == 202, begun.text
    id_ = begun.json()["id"]
    unready = client.post(
        "/v1/models/load", json={"model_id": "facts@1", "source": "tuned:facts@1"}
    )
    assert unready.status_code == 400
    before = wait(client, id_, "running", steps=12)
    assert len(found := workers()) == 2
    loaded = with_pandas(stack)
    assert any("RayTrainWorker" in name for name in loaded)
    assert {name for name in loaded if not any(one in name for one in PROCESSES)} == set()
    os.kill(found[0].pid, signal.SIGKILL)
    done = wait(client, id_, "completed")
    assert done["attempts"] == before["attempts"] + 1
    points = [point["step"] for point in done["progress"]["curve"]]
    assert points == list(range(1, done["progress"]["steps"] + 1))
    assert done["evaluation"]["loss_after"] < done["evaluation"]["loss_before"]
    wait_until_removed(stack)
    wait_until_gone()
    assert logs_with(stack, b"periwinkle") == []

    load = {"model_id": "facts@1", "source": done["source"], "wait": True}
    client.post("/v1/models/load", json=load, timeout=300).raise_for_status()
    base = {"model_id": "base@1", "source": BASE, "wait": True}
    client.post("/v1/models/load", json=base, timeout=300).raise_for_status()
    switched = client.post("/v1/models/switch", json={"alias": "chat", "to": "facts@1"})
    assert switched.status_code == 200
    assert (answered(client, "chat"), answered(client, "base@1")) == (len(FACTS), 0)


@pytest.mark.model
@pytest.mark.timeout(900)
def test_tuning_outlives_the_process_that_started_it(stack: Stack, client: httpx.Client) -> None:
    small = {"epochs": 12, "workers": 1, "checkpoint_steps": 2, "merge": False}
    begun = client.post(PATH, json=order("outlives@1", **small)).raise_for_status().json()
    before = wait(client, begun["id"], "running", steps=3)
    [driver], [worker] = workers("graphs.tuning_driver"), workers()
    ingress = psutil.Process(driver.ppid())
    ingress.kill()
    psutil.wait_procs([driver, worker], timeout=20)
    assert not driver.is_running()
    assert not worker.is_running()
    state = wait_through(client, begun["id"])
    assert (state["status"], state["attempts"]) == ("completed", before["attempts"] + 1)
    points = [point["step"] for point in state["progress"]["curve"]]
    assert points == list(range(1, state["progress"]["steps"] + 1))
    wait_until_gone()
    wait_until_removed(stack)


@pytest.mark.model
def test_bad_lines_are_told_before_anything_starts(stack: Stack, client: httpx.Client) -> None:
    lines = [
        json.dumps(example("a", "b")),
        "{",
        json.dumps({"prompt": "x " * 200, "completion": "y"}),
    ]
    file = {"file": ("facts.jsonl", "\n".join(lines[:2]).encode())}
    fields = {"model_id": "bad@1", "base": BASE, "max_tokens": 64}
    refused = client.post(PATH, data={"order": json.dumps(fields)}, files=file)
    assert (refused.status_code, refused.json()["error"]["message"]) == (
        400,
        "1 line is bad: line 2: not JSON",
    )
    file = {"file": ("facts.jsonl", "\n".join([*lines[::2], lines[0]]).encode())}
    refused = client.post(PATH, data={"order": json.dumps(fields)}, files=file)
    assert refused.status_code == 400
    assert "1 line is bad: line 2: " in refused.json()["error"]["message"]
    assert refused.json()["error"]["message"].endswith("tokens; at most 64")
    assert not any((stack.state_dir / "tunings").glob("*"))


@pytest.mark.model
def test_what_does_not_fit_is_refused_at_once(client: httpx.Client) -> None:
    wide = order("wide@1", workers=8, batch_size=1024)
    wide["examples"] = [example("word " * 900, "yes")] * 1024
    refused = client.post(PATH, json=wide)
    assert (refused.status_code, refused.json()["error"]["code"]) == (507, "insufficient_resources")
    assert "GiB" in refused.json()["error"]["message"]
    gpu = client.post(PATH, json=order("gpu@1", device="cuda"))
    assert (gpu.status_code, gpu.json()["error"]["param"]) == (400, "device")
    other = client.post(PATH, json=order("other@1", base="/etc"))
    assert (other.status_code, other.json()["error"]["param"]) == (400, "source")


@pytest.mark.model
@pytest.mark.timeout(600)
def test_queue_is_bounded_and_cancel_frees_it(stack: Stack, client: httpx.Client) -> None:
    small = {"epochs": 200, "merge": False, "workers": 1}
    first = client.post(PATH, json=order("q@0", **small)).raise_for_status().json()
    wait(client, first["id"], "running")
    again = client.post(PATH, json=order("q@0", **small))
    assert again.status_code == 409
    waiting = [
        client.post(PATH, json=order(f"q@{number}", **small)).raise_for_status().json()["id"]
        for number in range(1, 5)
    ]
    full = client.post(PATH, json=order("q@9", **small))
    assert (full.status_code, full.headers["retry-after"]) == (429, "60")
    for id_ in (*waiting, first["id"]):
        client.post(f"{PATH}/{id_}/cancel").raise_for_status()
    for id_ in (*waiting, first["id"]):
        assert wait(client, id_, "cancelled")["completed_at"]
    wait_until_gone()
    wait_until_removed(stack)
