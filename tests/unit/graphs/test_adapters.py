"""What an adapter over a model becomes, and which model is meant by its base."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from deployments.config import GeneratorArgs, ModelsArgs
from deployments.errors import (
    InsufficientResources,
    InvalidRequest,
    ModelNotFound,
    ModelUnavailable,
    UnreadableModel,
)
from deployments.types import Alias, AliasTarget, LoadOrder, ModelSpec, ModelState, Registry
from graphs.adapters import adapter_spec, own_spec
from graphs.bases import Bases
from graphs.versions import spare, version_of
from tests.unit.engines.inspection.material import LLAMA, adapter, folder, gguf
from tests.unit.graphs.registry import spec

BASE = spec(engine="transformers", precision="bf16", options={"context_length": 64})
GIB = 1 << 30


def order(path: Path, **changes: Any) -> LoadOrder:
    return LoadOrder(
        **({"name": "m:a", "version": "", "base": "m", "adapter": str(path)} | changes)
    )


def made(path: Path, free: int = GIB, base: ModelSpec = BASE, **changes: Any) -> ModelSpec:
    return adapter_spec(order(path, **changes), base, ModelsArgs(roots=(str(path.parent),)), free)


def state(one: ModelSpec, phase: Any = "ready", **changes: Any) -> ModelState:
    return ModelState(spec=one, phase=phase, attempt=1, changed_at=0, **changes)


def registry(*states: ModelState, **aliases: str) -> Registry:
    named = {name: Alias(name, (AliasTarget(to, 100),)) for name, to in aliases.items()}
    return Registry(1, {one.id: one for one in states}, named)


def test_adapter_has_its_bases_engine_and_no_memory_of_its_own(tmp_path: Path) -> None:
    found = made(adapter(tmp_path / "a"))
    assert (found.id, found.base, found.location) == ("m:a@1", "m@1", str(tmp_path / "a"))
    assert (found.engine, found.precision, found.options) == ("transformers", "bf16", {})
    assert found.memory_bytes == 0
    assert found.num_bytes > 0


def test_adapter_is_checked_as_every_source_is(tmp_path: Path) -> None:
    path = adapter(tmp_path / "in/a")
    outside = adapter(tmp_path / "out")
    (tmp_path / "in/link").symlink_to(outside)
    gguf(tmp_path / "in/m.gguf")
    for other in (outside, tmp_path / "in/link", tmp_path / "in/../out", Path("in/a")):
        with pytest.raises(InvalidRequest) as refused:
            adapter_spec(order(other), BASE, ModelsArgs(roots=(str(tmp_path / "in"),)), GIB)
        assert refused.value.param == "adapter"
    with pytest.raises(InvalidRequest, match="folder"):
        made(tmp_path / "in/m.gguf")
    with pytest.raises(UnreadableModel, match="adapter_config"):
        made(folder(tmp_path / "in/model", LLAMA))
    digest = hashlib.sha256((path / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert made(path, sha256=digest).sha256 == digest
    with pytest.raises(UnreadableModel, match="SHA-256"):
        made(path, sha256="0" * 64)
    with pytest.raises(InsufficientResources):
        made(path, free=10)


def test_base_must_have_an_engine_for_adapters(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="those that do: fake, transformers, vllm") as refused:
        made(adapter(tmp_path / "a"), base=spec(engine="deepspeed"))
    assert refused.value.param == "adapter"


def test_base_is_a_model_that_is_ready(tmp_path: Path) -> None:
    known = registry(
        state(spec(version="2"), ready_at=5.0),
        state(spec(version="1"), ready_at=7.0),
        state(spec(version="3"), "loading"),
        state(spec("e", kind="embedding")),
        state(spec("m:a", base="m@1")),
        chat="m@1",
    )
    bases = Bases()

    def base(name: str) -> str:
        return bases.spec(order(tmp_path, base=name), known).id

    assert (base("m"), base("m@1")) == ("m@2", "m@1")
    with pytest.raises(ModelUnavailable) as loading:
        base("m@3")
    assert loading.value.param == "model_id"
    for unknown in ("n", "m@4", "e"):
        with pytest.raises(ModelNotFound):
            base(unknown)
    with pytest.raises(InvalidRequest, match="alias"):
        base("chat")


def test_configurations_model_is_a_base_without_a_version(tmp_path: Path) -> None:
    own = own_spec(GeneratorArgs(model="own", engine="fake"))
    found = made(adapter(tmp_path / "a"), base=own, name="own:a")
    assert (found.id, found.base, found.engine) == ("own:a@1", "own", "fake")


def test_adapters_and_their_bases_are_not_evicted_for_room() -> None:
    known = registry(
        state(spec(), ready_at=1.0),
        state(spec("m:a", base="m@1"), ready_at=2.0),
        state(spec("n"), ready_at=3.0),
    )
    assert [one.id for one in spare(known)] == ["n@1"]


def test_adapter_is_meant_by_its_name_after_its_bases_id() -> None:
    known = registry(state(spec()), state(spec("m:a", base="m@1")))
    assert {version_of(known, name) for name in ("m:a", "m:a@1", "m@1:a")} == {"m:a@1"}
    assert version_of(known, "m") == "m@1"
