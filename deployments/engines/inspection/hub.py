"""What a hub offers of a model: its files and their sizes, asked for within a bound.

Only safetensors and settings are ever taken. It does not download (``fetching.py``).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

import httpx

from deployments.config import ModelsArgs, Settings
from deployments.engines.inspection.files import kind_of
from deployments.errors import InvalidRequest
from deployments.types import ModelKind

HUB = "hub:"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w.-]{1,64})?")
PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
COMMIT = re.compile(r"[0-9a-f]{40}")
ANSWER_S = 10.0
"""How long the hub may take to answer what it has."""

MAX_CONFIG_BYTES = 4 << 20


class Unreachable(InvalidRequest):
    """The hub does not answer now."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file; `sha256` is that of its content, where the hub says it."""

    path: str
    num_bytes: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """The files of a model at one commit, which never changes."""

    name: str
    revision: str
    commit: str
    files: tuple[HubFile, ...]
    kind: ModelKind

    @property
    def num_bytes(self) -> int:
        """Return the size of all files."""
        return sum(file.num_bytes for file in self.files)

    @property
    def weights_bytes(self) -> int:
        """Return the size of the weights' files."""
        return sum(one.num_bytes for one in self.files if one.path.endswith(".safetensors"))


def check_hub(model: str, args: ModelsArgs) -> None:
    """Raise InvalidRequest unless a hub's models are allowed, and this can be the id of one."""
    if not args.allow_hub:
        raise refused("models of a hub are not loaded here: the operator has not allowed it")
    if not HUB_ID.fullmatch(model):
        raise refused(f"a model of a hub is `{HUB}<org>/<name>`, with `@<revision>` if wanted")


def ask(model: str, args: ModelsArgs) -> Offer:
    """Return what the hub has of `<org>/<name>[@<revision>]`. Blocks for a few `ANSWER_S`.

    Raises:
        Unreachable: the hub does not answer.
        InvalidRequest: it has no such model, does not give it, or has nothing that is loaded.
    """
    check_hub(model, args)
    name, _, revision = model.partition("@")
    revision = revision or "main"
    with client(ANSWER_S) as http:
        said = _said(http, f"/api/models/{name}/revision/{revision}?blobs=true")
        commit = str(said.get("sha", ""))
        if not COMMIT.fullmatch(commit):
            raise refused("the hub says no commit of this model")
        files = tuple(_files(said))
        if not any(file.path.endswith(".safetensors") for file in files):
            raise refused("the hub has no safetensors of this model: nothing else is loaded")
        config = _said(http, f"/{name}/resolve/{commit}/config.json", MAX_CONFIG_BYTES)
    has_modules = any(file.path == "modules.json" for file in files)
    return Offer(name, revision, commit, files, kind_of(config, has_modules=has_modules))


def place(name: str, commit: str) -> Path:
    """Return the folder of a model's commit, which is there once it is whole."""
    return hub_root() / name.replace("/", "--") / commit


def found(model: str) -> Path | None:
    """Return the folder of what was downloaded last for `<org>/<name>[@<revision>]`, if any."""
    name, _, revision = model.partition("@")
    try:
        commit = reference(name, revision or "main").read_text(encoding="ascii")
    except FileNotFoundError:
        commit = revision
    folder = place(name, commit) if COMMIT.fullmatch(commit) else None
    return folder if folder is not None and folder.is_dir() else None


def reference(name: str, revision: str) -> Path:
    """Return the file that says which commit a revision was when it was downloaded."""
    return hub_root() / name.replace("/", "--") / f"{revision}.ref"


def hub_root() -> Path:
    """Return the folder of all that hubs gave."""
    return Settings().state_path / "hub"


def client(timeout_s: float) -> httpx.Client:
    """Return a client of the hub that this host is set up for; `timeout_s` is of each read."""
    from huggingface_hub import constants, get_token  # only where it is needed

    token = get_token()
    return httpx.Client(
        base_url=constants.ENDPOINT,
        headers={"authorization": f"Bearer {token}"} if token else {},
        timeout=httpx.Timeout(timeout_s, connect=ANSWER_S),
        follow_redirects=True,
    )


def check_status(response: httpx.Response) -> None:
    """Raise InvalidRequest unless a hub has given what it was asked for."""
    code = response.headers.get("x-error-code", "")
    if code == "GatedRepo" or response.status_code == httpx.codes.FORBIDDEN:
        raise refused("the hub gives this model to those only who have accepted its terms")
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.NOT_FOUND):
        raise refused("the hub has no such model, or no such revision of it")
    if response.is_server_error or response.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise unreachable(f"it answered {response.status_code}")
    if not response.is_success:
        raise refused(f"the hub does not give this model: it answered {response.status_code}")


def _said(http: httpx.Client, path: str, limit: int = 64 << 20) -> dict[str, Any]:
    try:
        with http.stream("GET", path) as response:
            check_status(response)
            body = b""
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > limit:
                    raise refused("what the hub says of this model is too long")
        value = json.loads(body)
    except httpx.HTTPError as error:
        raise unreachable(type(error).__name__) from None
    except (ValueError, RecursionError):
        raise refused("what the hub says of this model is not JSON") from None
    if not isinstance(value, dict):
        raise refused("what the hub says of this model is no object")
    return value


def _files(said: Mapping[str, Any]) -> list[HubFile]:
    siblings = said.get("siblings")
    files = []
    for one in siblings if isinstance(siblings, list) else []:
        path, size = one.get("rfilename"), one.get("size")
        if not isinstance(path, str) or not any(fnmatch(path, known) for known in PATTERNS):
            continue
        parts = PurePosixPath(path).parts
        if path.startswith("/") or ".." in parts or "\\" in path or "\x00" in path:
            raise refused("the hub names a file outside of the model's folder")
        if not isinstance(size, int) or size < 0:
            raise refused("the hub does not say how large a file is")
        lfs = one.get("lfs")
        files.append(HubFile(path, size, str(lfs.get("sha256", "")) if lfs else ""))
    return files


def refused(message: str) -> InvalidRequest:
    """Return the error for a model that a hub does not give."""
    error = InvalidRequest(message)
    error.param = "source"
    return error


def unreachable(reason: str) -> Unreachable:
    """Return the error for a hub that does not answer."""
    error = Unreachable(f"the hub cannot be reached: {reason}")
    error.param = "source"
    return error
