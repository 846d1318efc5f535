"""Answers that take longer than a request may wait for a replica: one has taken them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.stack import ROOT, Stack, running

MAX_WAIT_S = 1
NUM_TOKENS, TOKEN_S = 60, 0.05
PROMPT = "x" * NUM_TOKENS


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    config = yaml.safe_load((ROOT / "configs/fake.yaml").read_text())
    arguments = config["applications"][0]["args"]
    arguments["ingress"]["max_wait_s"] = MAX_WAIT_S
    arguments["generator"]["fake_token_delay_s"] = TOKEN_S
    path: Path = tmp_path_factory.mktemp("slow") / "slow.yaml"
    path.write_text(yaml.safe_dump(config))
    with running(path) as stack:
        yield stack


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_answer_may_take_longer_than_the_wait_for_a_replica(slow: Stack, is_stream: bool) -> None:
    body = {"prompt": PROMPT, "max_tokens": NUM_TOKENS, "stream": is_stream}
    with slow.client() as client:
        answer = client.post("/v1/inference", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.elapsed.total_seconds() > MAX_WAIT_S
    assert '"error": {' not in answer.text
