"""Pinned weights are the ones that were pinned, or are not loaded."""

import dataclasses
import hashlib
from pathlib import Path

import pytest

from deployments.config import ModelsArgs
from deployments.engines import weights
from deployments.engines.inspection import source
from deployments.engines.inspection.source import find_source
from deployments.engines.weights import PinnedModel, locate
from deployments.errors import EngineFailed, UnreadableModel
from tests.unit.engines.inspection.material import gguf


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, PinnedModel]:
    """Return pins of one model, which a package in a folder of its own brings."""
    package = tmp_path / "brings_a_model"
    package.mkdir()
    (package / "__init__.py").touch()
    file = gguf(package / "m.gguf")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    pin = PinnedModel("brings_a_model", "brings-a-model==1", ".", "m.gguf", digest, "MIT")
    absent = dataclasses.replace(pin, package="brings_no_model_at_all")
    found = {"m": pin, "absent": absent}
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in (weights, source):
        monkeypatch.setattr(module, "pinned_models", lambda: found)
    return found


@pytest.mark.usefixtures("pins")
def test_pinned_model_is_found_in_its_package(tmp_path: Path) -> None:
    found = locate("embedded:m")
    assert (found.folder, found.gguf_file) == (tmp_path / "brings_a_model", "m.gguf")
    assert find_source("embedded:m", ModelsArgs()) == found


@pytest.mark.parametrize(
    ("name", "words"), [("m", "pinned hash"), ("absent", "not installed"), ("other", "no embedded")]
)
def test_anything_else_is_refused(
    tmp_path: Path, pins: dict[str, PinnedModel], name: str, words: str
) -> None:
    file = tmp_path / "brings_a_model/m.gguf"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(EngineFailed, match=words):
        locate(f"embedded:{name}")
    if name in pins:
        with pytest.raises(UnreadableModel, match=words):
            find_source(f"embedded:{name}", ModelsArgs())


@pytest.mark.usefixtures("pins")
def test_pinned_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "brings_a_model/m.gguf").unlink()
    with pytest.raises(EngineFailed, match="pinned hash"):
        locate("embedded:m")
