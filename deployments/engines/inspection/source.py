"""Where a model may come from: embedded, tuned here, below an allowed folder, or an allowed hub."""

import hmac
import re
from pathlib import Path

from deployments.config import ModelsArgs, Settings
from deployments.engines.inspection.fetching import Fetch
from deployments.engines.inspection.files import readable
from deployments.engines.inspection.hub import HUB, ask, check_hub, found, refused
from deployments.engines.weights import EMBEDDED, Weights, locate, pinned_models, sha256
from deployments.errors import EngineFailed, UnreadableModel

TUNED = "tuned:"
MERGED, ADAPTER = "merged", "adapter"
TUNED_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,63}@[A-Za-z0-9][\w.-]{0,31}", re.ASCII)
MAX_AT_ONCE_BYTES = 64 << 20
"""What is downloaded while the caller waits, such as an adapter; models are not."""


def find_source(source: str, args: ModelsArgs, *, digest: str = "") -> Weights:
    """Return the files behind a source that is allowed.

    Args:
        source: `embedded:<name>`, `tuned:<name>@<version>[/adapter]`,
            `hub:<org>/<name>[@<revision>]`, or a path on this host.
        args: what is allowed.
        digest: the SHA-256 that the weights' one file has to have; empty: any.

    Raises:
        InvalidRequest: the source is none, or not allowed; nothing is said of what lies there.
        UnreadableModel: the file is another one than the digest's.
    """
    if source.startswith(EMBEDDED):
        weights = _embedded(source)
    elif source.startswith(TUNED):
        weights = Weights(tuned_folder(source))
    elif source.startswith(HUB):
        weights = _downloaded(source.removeprefix(HUB), args)
    else:
        weights = _local(source, args)
    if digest:
        path = weights.folder / (weights.gguf_file or "model.safetensors")
        with readable():
            actual = sha256(path)
        if not hmac.compare_digest(actual, digest):
            raise UnreadableModel("the weights have another SHA-256 than `sha256` says")
    return weights


def tuned_folder(source: str) -> Path:
    """Return a folder that a tuning has made: only those that were evaluated are there.

    Args:
        source: `tuned:<name>@<version>` for merged weights, with `/adapter` for the adapter alone.

    Raises:
        InvalidRequest: no tuning has made this.
    """
    model, _, part = source.removeprefix(TUNED).partition("/")
    folder = tuned_root(Settings()) / model
    if not TUNED_ID.fullmatch(model) or part not in ("", ADAPTER) or not folder.is_dir():
        raise refused(f"no tuning has made this: `{TUNED}<name>@<version>`, or that and `/adapter`")
    if not (folder / (part or MERGED)).is_dir():
        raise refused(f"the tuning wrote no merged weights; its adapter is `{source}/{ADAPTER}`")
    return folder / (part or MERGED)


def tuned_root(settings: Settings) -> Path:
    """Return the folder of all versions that tunings have made."""
    return settings.state_path / "tuned"


def is_trusted(weights: Weights, args: ModelsArgs) -> bool:
    """Return whether the operator named the folder itself as one that may hold code."""
    return weights.folder in {_resolved(path) for path in args.trusted_paths}


def _embedded(source: str) -> Weights:
    if source.removeprefix(EMBEDDED) not in pinned_models():
        names = ", ".join(f"{EMBEDDED}{name}" for name in pinned_models())
        raise refused(f"no model with this name is embedded; there are: {names}")
    try:
        return locate(source)
    except EngineFailed as error:
        raise UnreadableModel(error.message) from None


def _local(source: str, args: ModelsArgs) -> Weights:
    path = Path(source)
    if not path.is_absolute() or "\x00" in source:
        raise refused(f"`source` is `{EMBEDDED}<name>`, `{HUB}<org>/<name>` or an absolute path")
    path = _resolved(source)
    allowed = [*map(_resolved, args.roots), *map(_resolved, args.trusted_paths)]
    if not any(path.is_relative_to(root) for root in allowed):
        raise refused("the source lies outside of the folders that models may be loaded from")
    try:
        if path.suffix == ".gguf" and path.is_file():
            return Weights(path.parent, path.name)
        if not path.is_dir():
            raise refused("the source is neither a folder nor a GGUF file")
    except OSError:  # of names that are too long, and folders that may not be read
        raise refused("the source cannot be read") from None
    for link in filter(Path.is_symlink, path.rglob("*")):
        if not any(_resolved(str(link)).is_relative_to(root) for root in allowed):
            raise refused("a link of the folder leads out of those that models may be loaded from")
    return Weights(path)


def _resolved(path: str) -> Path:
    try:
        return Path(path).expanduser().resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle, names that cannot be
        raise refused("the source is no path") from None


def _downloaded(model: str, args: ModelsArgs) -> Weights:
    """Return what was downloaded before; what is small is downloaded now."""
    check_hub(model, args)
    folder = found(model)
    if folder is None:
        offer = ask(model, args)
        if offer.num_bytes > MAX_AT_ONCE_BYTES:
            raise refused("this is of a hub and not here yet: load it as a model first")
        folder = Fetch(offer).run()
    return Weights(folder)
