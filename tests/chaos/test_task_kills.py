"""Tasks are put in and done while workers, ingresses, the broker and the database are killed.

Every task that was accepted ends once, with the one result that it has; its webhook is heard.
`make test-faults` takes 10,000 tasks and 100 kills.
"""

import contextlib
import http.server
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.chaos.test_store_kills import processes, wait_for
from tests.faults import IS_COMPLETE
from tests.servers.postgres import running_postgres
from tests.servers.rabbit_server import running_rabbit
from tests.servers.redis_server import running_redis
from tests.stack import ROOT, Stack, running

NUM_TASKS, NUM_KILLS = (5000, 50) if IS_COMPLETE else (150, 4)
HOUSES = ("sqlite and rabbit", "postgres and redis")
"""Each takes that many; every day the first one only."""

BACK_S = 90.0
END_S = 300.0
MIN_COMPLETED = 0.99
"""Of the tasks; one whose workers died three times is put aside, and has ended, too."""

pytestmark = pytest.mark.timeout(7200)
Break = Callable[[], None]


@dataclass
class Ear:
    """A server that hears webhooks."""

    heard: Counter[str] = field(default_factory=Counter)
    url: str = ""


@dataclass
class House:
    """An installation, and how each of its parts breaks."""

    stack: Stack
    ear: Ear
    breaks: dict[str, Break]


@contextlib.contextmanager
def listening() -> Iterator[Ear]:
    """Hear webhooks on loopback."""
    ear = Ear()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["content-length"])))
            ear.heard[told["data"]["task_id"]] += 1
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ear.url = f"http://127.0.0.1:{server.server_address[1]}/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield ear
    finally:
        server.shutdown()
        server.server_close()


def config(folder: Path) -> Path:
    """Write a configuration with two workers, whose webhooks may go to loopback."""
    found = yaml.safe_load((ROOT / "tests/chaos/two_replicas.yaml").read_text("utf-8"))
    (application,) = found["applications"]
    webhooks = {"allow_http": True, "networks": ["127.0.0.0/8"]}
    application["args"]["ingress"]["tasks"] = {"webhooks": webhooks}
    for deployment in application["deployments"]:
        if deployment["name"] == "Worker":
            deployment |= {"num_replicas": 2, "health_check_period_s": 1}
    path = folder / "tasks.yaml"
    path.write_text(yaml.safe_dump(found), encoding="utf-8")
    return path


def killer(stack: Stack, part: str) -> Break:
    """Return what kills a replica once there are two again."""

    def kill() -> None:
        name = f"ServeReplica:ragserve:{part}"
        wait_for(f"{part} replica", lambda: len(processes(stack, name)) >= 2, BACK_S)
        random.choice(processes(stack, name)).kill()

    return kill


@pytest.fixture(scope="module", params=HOUSES if IS_COMPLETE else HOUSES[:1])
def house(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[House]:
    path = config(tmp_path_factory.mktemp("tasks"))
    with contextlib.ExitStack() as open_:
        env, breaks = {}, {}
        if request.param == HOUSES[0]:
            rabbit = open_.enter_context(running_rabbit())
            env["RAGSERVE_BROKER_URL"] = rabbit.url

            def restart_rabbit() -> None:
                rabbit.stop()
                time.sleep(random.uniform(0, 3))
                rabbit.start()

            breaks["broker"] = restart_rabbit
        else:
            redis = open_.enter_context(running_redis())
            postgres = open_.enter_context(running_postgres())
            env["RAGSERVE_BROKER_URL"] = redis.url
            env["RAGSERVE_DATABASE_URL"] = postgres.create("ragserve")

            def restart_redis() -> None:
                redis.kill()
                time.sleep(random.uniform(0, 3))
                redis.start()

            def cut_connections() -> None:
                postgres.run(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = 'ragserve'"
                )

            breaks |= {"broker": restart_redis, "connections": cut_connections}
        ear = open_.enter_context(listening())
        stack = open_.enter_context(running(path, **env))
        breaks |= {part: killer(stack, part) for part in ("Worker", "Ingress")}
        yield House(stack, ear, breaks)


def accepted(house: House, number: int) -> tuple[str, str]:
    """Put a task in until it is accepted; return its id and its prompt.

    One whose answer was lost is there as well, and is done: nobody here knows its id.
    """
    prompt = f"task {number} " + "x" * (number % 40)
    body = {"prompt": prompt, "max_tokens": 100, "webhook": house.ear.url}
    until = time.monotonic() + BACK_S
    while True:
        with contextlib.suppress(httpx.HTTPError):
            url = f"{house.stack.url}/v1/inference/async"
            answer = httpx.post(url, json=body, headers=house.stack.headers, timeout=20)
            if answer.status_code == 202:
                return answer.json()["task_id"], prompt
            assert answer.status_code in (429, 500, 502, 503, 504), answer.text
        assert time.monotonic() < until, "no task is accepted any more"
        time.sleep(0.2)


def state_of(house: House, task_id: str) -> dict[str, Any]:
    """Return a task; whoever should answer may be the one that is killed."""
    until = time.monotonic() + BACK_S
    while True:
        with contextlib.suppress(httpx.HTTPError):
            url = f"{house.stack.url}/v1/tasks/{task_id}"
            answer = httpx.get(url, headers=house.stack.headers, timeout=20)
            if answer.status_code == 200:
                return dict(answer.json())
            assert answer.status_code in (500, 502, 503, 504), answer.text
        assert time.monotonic() < until
        time.sleep(0.2)


def test_every_accepted_task_ends_once_whatever_dies(house: House) -> None:
    rng = random.Random("tasks")
    tasks: dict[str, str] = {}
    may_submit = threading.Semaphore(0)

    def submit() -> None:
        for number in range(NUM_TASKS):
            may_submit.acquire()
            task_id, prompt = accepted(house, number)
            tasks[task_id] = prompt

    submitting = threading.Thread(target=submit)
    submitting.start()
    parts = sorted(house.breaks)
    drawn = [parts[number % len(parts)] for number in range(NUM_KILLS)]
    rng.shuffle(drawn)
    for number, what in enumerate(drawn):  # there is something to do at each of them
        may_submit.release(NUM_TASKS * (number + 1) // NUM_KILLS - NUM_TASKS * number // NUM_KILLS)
        time.sleep(rng.uniform(0.2, 2.0))
        house.breaks[what]()
    submitting.join()
    assert len(tasks) == NUM_TASKS
    ends = {one: _end(house, one) for one in tasks}
    statuses = Counter(end["status"] for end in ends.values())
    codes = Counter(end["error"]["code"] for end in ends.values() if end["error"])
    print(f"\nbroken: {dict(Counter(drawn))}; ended: {dict(statuses)} {dict(codes)}")
    assert set(codes) <= {"task_quarantined"}
    assert statuses["COMPLETED"] >= MIN_COMPLETED * NUM_TASKS
    _check_results(house, tasks, ends)
    wait_for("webhooks", lambda: house.ear.heard.keys() >= tasks.keys(), END_S)


def _end(house: House, task_id: str) -> dict[str, Any]:
    until = time.monotonic() + END_S
    while (state := state_of(house, task_id))["status"] in ("PENDING", "RUNNING"):
        assert time.monotonic() < until, state
        time.sleep(0.1)
    return state


def _check_results(house: House, tasks: dict[str, str], ends: dict[str, dict[str, Any]]) -> None:
    """See that each result is the task's own, and that it stays."""
    for task_id, prompt in tasks.items():
        end = ends[task_id]
        if end["status"] == "COMPLETED":
            assert end["output"]["output"] == f"Echo: {prompt}"[:100]
        assert state_of(house, task_id) == end
