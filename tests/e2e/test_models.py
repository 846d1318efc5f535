"""A real model that is loaded beside the default one, at run time, and goes again."""

import json
import subprocess
from typing import Any

import httpx
import psutil
import pytest

from tests.stack import Stack

pytestmark = pytest.mark.model

LOAD = {
    "model_id": "second@1",
    "source": "embedded:smollm2-135m-instruct",
    "precision": "bf16",
    "options": {"kv_cache_tokens": 4096, "context_length": 1024},
}


def ask(client: httpx.Client, model: str) -> str:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 32,
        "temperature": 0,
    }
    answer = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    return str(answer["choices"][0]["message"]["content"])


def test_model_is_read_answers_like_the_default_one_and_frees_its_memory(
    client: httpx.Client,
) -> None:
    events: list[dict[str, Any]] = []
    with client.stream("POST", "/v1/models/load", json=LOAD | {"stream": True}) as response:
        for line in response.iter_lines():
            if line.startswith("data:"):
                events.append(json.loads(line[5:]))
    assert events[-1]["type"] == "done", events[-1]
    done = events[-1]["model"]
    read = [one["model"]["progress"] for one in events]
    assert done["state"] == "ready"
    assert read[-1]["bytes_read"] == read[-1]["bytes_total"] > 90_000_000
    assert any(one and one["bytes_read"] for one in read[:-2])
    assert ask(client, "second@1") == ask(client, "smollm2-135m-instruct")

    status = client.get("/v1/models/status").raise_for_status().json()
    one = next(model for model in status["models"] if model["id"] == "second@1")
    [replica] = one["running"]
    assert done["memory_bytes"] * 0.5 < replica["memory_bytes"] < done["memory_bytes"] * 1.2

    client.post("/v1/models/unload", json={"model_id": "second@1", "wait": True}).raise_for_status()
    assert not psutil.pid_exists(replica["pid"])


def test_commands_load_switch_show_and_unload(stack: Stack) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = stack.command("models", *arguments)
        assert done.returncode == 0, done.stderr
        return done

    run("load", "told@1", "--engine", "fake")
    assert run("switch", "spoken", "told@1").stdout.strip() == "spoken: 100 % told@1"
    assert "spoken: 100 % told@1" in run("status").stdout
    assert "told@1" in run().stdout
    refused = stack.command("models", "unload", "told@1")
    assert (refused.returncode, "alias" in refused.stderr) == (1, True)
    assert "told@1: unloaded" in run("unload", "told@1", "--force").stdout
