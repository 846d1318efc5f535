import hashlib
from pathlib import Path

import pytest

from deployments.config import ModelsArgs
from deployments.engines.inspection.source import find_source, is_trusted
from deployments.errors import InvalidRequest, UnreadableModel
from tests.unit.engines.inspection.material import LLAMA, folder, gguf


@pytest.fixture
def args(tmp_path: Path) -> ModelsArgs:
    return ModelsArgs(roots=(str(tmp_path / "models"),))


def test_folder_and_file_below_a_root_are_found(tmp_path: Path, args: ModelsArgs) -> None:
    path = folder(tmp_path / "models/m", LLAMA)
    assert find_source(str(path), args).folder == path
    gguf(path / "m.gguf")
    found = find_source(str(path / "m.gguf"), args)
    assert (found.folder, found.gguf_file) == (path, "m.gguf")


@pytest.mark.parametrize(
    "source",
    [
        "models/m",
        "../models/m",
        "~/models/m",
        "{tmp}/models/../secret",
        "{tmp}/models/m/../../secret",
        "{tmp}/secret",
        "{tmp}/models-secret",
        "{tmp}/models/link",
        "{tmp}/models/loop",
        "{tmp}/models/none",
        "{tmp}/models/m/config.json",
        "{tmp}/models/m\x00",
        "/",
        "/etc/passwd",
        "file:///etc/passwd",
        "https://example.org/m",
        "embedded:",
        "embedded:../m",
        "embedded:no-such",
        "tuned:",
        "tuned:facts",
        "tuned:facts@1",
        "tuned:../secret@1",
        "tuned:facts@1/../../secret",
        "hub:org/name",
        "org/name",
    ],
)
def test_everything_else_is_refused(tmp_path: Path, args: ModelsArgs, source: str) -> None:
    folder(tmp_path / "models/m", LLAMA)
    for name in ("secret", "models-secret"):
        folder(tmp_path / name, LLAMA)
    (tmp_path / "models/link").symlink_to(tmp_path / "secret")
    (tmp_path / "models/loop").symlink_to(tmp_path / "models/loop")
    with pytest.raises(InvalidRequest) as refused:
        find_source(source.format(tmp=tmp_path), args)
    assert refused.value.param == "source"
    assert str(tmp_path) not in refused.value.message


def test_nothing_is_said_of_what_lies_outside(tmp_path: Path, args: ModelsArgs) -> None:
    folder(tmp_path / "secret", LLAMA)
    messages = []
    for name in ("secret", "not-there"):
        with pytest.raises(InvalidRequest) as refused:
            find_source(str(tmp_path / name), args)
        messages.append(refused.value.message)
    assert messages[0] == messages[1]


def test_without_roots_no_path_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="outside"):
        find_source(str(folder(tmp_path / "m", LLAMA)), ModelsArgs())


def test_trusted_folder_is_allowed_and_only_itself_is_trusted(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", LLAMA)
    inner = folder(path / "inner", LLAMA)
    args = ModelsArgs(trusted_paths=(str(path),))
    assert is_trusted(find_source(str(path), args), args)
    assert not is_trusted(find_source(str(inner), args), args)


def test_digest_must_be_the_files(tmp_path: Path, args: ModelsArgs) -> None:
    path = folder(tmp_path / "models/m", LLAMA)
    weights = gguf(path / "m.gguf")
    for source, file in ((path, path / "model.safetensors"), (weights, weights)):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert find_source(str(source), args, digest=digest).folder == path
        with pytest.raises(UnreadableModel, match="another SHA-256"):
            find_source(str(source), args, digest="0" * 64)


@pytest.mark.parametrize("model", ["../x", "a/b/c", "a", "/a/b", "a/..", "a/b@", "a/b@x/y", ""])
def test_hub_ids_that_are_none_are_refused_before_anything_is_asked(model: str) -> None:
    with pytest.raises(InvalidRequest, match="a model of a hub is"):
        find_source(f"hub:{model}", ModelsArgs(allow_hub=True))


def test_version_that_a_tuning_made_is_found(
    tmp_path: Path, args: ModelsArgs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGSERVE_STATE_DIR", str(tmp_path / "state"))
    adapter = tmp_path / "state/tuned/facts@1/adapter"
    adapter.mkdir(parents=True)
    assert find_source("tuned:facts@1/adapter", args).folder == adapter
    with pytest.raises(InvalidRequest, match="no tuning has made"):
        find_source("tuned:facts@1/merged", args)
    with pytest.raises(InvalidRequest, match="its adapter is `tuned:facts@1/adapter`"):
        find_source("tuned:facts@1", args)
    path = folder(tmp_path / "state/tuned/facts@1/merged", LLAMA)
    assert find_source("tuned:facts@1", args).folder == path
    with pytest.raises(InvalidRequest, match="no tuning has made"):
        find_source("tuned:facts@2", args)
