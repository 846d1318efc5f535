"""A hub that stands in for the real one, and a state folder of one's own."""

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from deployments.engines.inspection import fetching
from tests.unit.engines.inspection.hub_server import Hub, serving


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(Hub()) as hub:
        hub.files = {
            "config.json": json.dumps({"architectures": ["LlamaForCausalLM"]}).encode(),
            "model.safetensors": bytes(range(256)) * 4096,
            "1_Pooling/config.json": b"{}",
            "pytorch_model.bin": b"pickle",
            "modeling.py": b"import os",
        }
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setenv("RAGSERVE_STATE_DIR", str(tmp_path / "state"))
        monkeypatch.setattr(fetching, "RETRY_S", 0.0)
        yield hub
