import errno
import hashlib
from pathlib import Path
from typing import Any

import pytest

from deployments.config import ModelsArgs
from deployments.engines.inspection import source as source_module
from deployments.engines.inspection.files import inspect
from deployments.engines.inspection.source import find_source, is_trusted
from deployments.errors import InvalidRequest, UnreadableModel
from tests.unit.engines.inspection.hub_server import Hub
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
        "{tmp}/models/linked",
        "{tmp}/models/deep",
        "{tmp}/models/looping",
        "{tmp}/models/" + "x" * 300,
        "{tmp}/models/" + "x" * 300 + ".gguf",
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
def test_a4_everything_else_is_refused(tmp_path: Path, args: ModelsArgs, source: str) -> None:
    folder(tmp_path / "models/m", LLAMA)
    for name in ("secret", "models-secret"):
        folder(tmp_path / name, LLAMA)
    (tmp_path / "models/link").symlink_to(tmp_path / "secret")
    (tmp_path / "models/loop").symlink_to(tmp_path / "models/loop")
    linked, deep, looping = (
        folder(tmp_path / "models" / name, LLAMA) for name in ("linked", "deep", "looping")
    )
    (linked / "tokenizer.json").unlink()
    (linked / "tokenizer.json").symlink_to(tmp_path / "secret/tokenizer.json")
    (deep / "inner").mkdir()
    (deep / "inner/more").symlink_to(tmp_path / "secret")
    (looping / "loop").symlink_to(looping / "loop")
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


def test_links_that_stay_below_the_roots_are_followed(tmp_path: Path, args: ModelsArgs) -> None:
    """As a hub's cache has them: names of a revision link to files by their hashes."""
    path, blobs = folder(tmp_path / "models/m", LLAMA), tmp_path / "models/blobs"
    blobs.mkdir()
    (path / "model.safetensors").rename(blobs / "abc")
    (path / "model.safetensors").symlink_to("../blobs/abc")
    assert inspect(find_source(str(path), args), is_trusted=False).num_parameters == 8


def test_file_that_may_not_be_read_is_told(
    tmp_path: Path, args: ModelsArgs, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(tmp_path / "models/m", LLAMA)
    weights = gguf(tmp_path / "models/m.gguf")
    opened = Path.open

    def denied(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.suffix in (".gguf", ".safetensors"):
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", denied)
    for source in (path, weights):
        for digest in ("", "0" * 64):
            with pytest.raises(UnreadableModel, match="cannot be read: Permission denied") as told:
                inspect(find_source(str(source), args, digest=digest), is_trusted=False)
            assert str(tmp_path) not in told.value.message


def test_hub_gives_what_is_small_at_once_and_then_needs_not_be_asked(hub: Hub) -> None:
    args = ModelsArgs(allow_hub=True)
    path = find_source("hub:org/name", args).folder
    assert (path / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    hub.status = 503
    assert find_source("hub:org/name", args).folder == path
    with pytest.raises(InvalidRequest, match="the hub cannot be reached") as refused:
        find_source("hub:org/name@other", args)
    assert refused.value.param == "source"


def test_what_is_large_is_not_downloaded_while_the_caller_waits(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "MAX_AT_ONCE_BYTES", 1000)
    with pytest.raises(InvalidRequest, match="load it as a model first"):
        find_source("hub:org/name", ModelsArgs(allow_hub=True))
    assert [name for name, _ in hub.asked] == ["config.json"]
