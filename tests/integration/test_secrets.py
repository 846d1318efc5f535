"""Canaries: what callers say, and what they say it with, is in no log, metric or command line."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.stack import Stack

CANARY = "zanzibarwombat"
NUM_REQUESTS = 50


@pytest.fixture
def key(stack: Stack) -> str:
    made = stack.command("keys", "create", "canary", "--requests-per-minute", str(NUM_REQUESTS))
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def bodies(number: int) -> Iterator[tuple[str, object]]:
    said = f"{CANARY} {number}"
    yield "/v1/inference", {"prompt": said, "max_tokens": 2}
    yield "/v1/inference", {"prompt": said, "max_tokens": 0}
    yield "/v1/inference", {"prompt": said, "stream": True, "max_tokens": 3}
    yield "/v1/inference", {"prompt": said, CANARY: said}
    yield "/v1/embeddings", {"model": said, "input": said}
    yield "/v1/data/search", {"collection": CANARY, "query": said}
    yield f"/v1/{CANARY}", {"x": said}


def files_with(folder: Path, needle: bytes) -> list[str]:
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and needle in path.read_bytes().lower()
    ]


def test_a16_what_is_said_and_with_which_key_is_nowhere(
    stack: Stack, client: httpx.Client, key: str
) -> None:
    secret = key.split("_", 2)[2]  # it may have more of them
    assert len(secret) > 20
    statuses = set()
    with httpx.Client(base_url=stack.url, timeout=60) as stranger:
        for number in range(NUM_REQUESTS // 4):
            for path, body in bodies(number):
                for bearer in (key, f"{key[:-2]}xx", CANARY):
                    headers = {"authorization": f"Bearer {bearer}", "x-trace": CANARY}
                    statuses.add(stranger.post(path, json=body, headers=headers).status_code)
    assert {200, 400, 401, 404} <= statuses
    page = client.get("/v1/metrics").text
    commands = "\n".join(_command(process) for process in psutil.process_iter())
    for needle in (CANARY, secret):
        assert needle not in page
        assert needle not in commands
        assert not files_with(stack.state_dir, needle.lower().encode())


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
