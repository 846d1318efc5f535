"""The secret of an installation that its keyed hashes are made with; without it no key works."""

import hashlib
import secrets
from pathlib import Path

from deployments.errors import RagError
from deployments.stores.secretfile import create_secret

NUM_BYTES = 32


def edge_secret(state_path: Path) -> str:
    """Return what the edge proves itself with, so that its word on addresses counts.

    Raises:
        RagError: the pepper's file is damaged.
    """
    key = pepper(state_path)
    return hashlib.blake2b(b"edge", key=key, digest_size=16, person=b"ragserve").hexdigest()


def installation_of(state_path: Path) -> str:
    """Return a name of this installation, safe to show, for what it keeps in places it shares.

    Raises:
        RagError: the pepper's file is damaged.
    """
    key = pepper(state_path)
    return hashlib.blake2b(b"installation", key=key, digest_size=8, person=b"ragserve").hexdigest()


def pepper(state_path: Path) -> bytes:
    """Return the 32 bytes, created at the first call: processes that start at once get the same.

    Raises:
        RagError: the file is damaged.
    """
    path = state_path / "pepper"
    if not path.exists():
        create_secret(path, secrets.token_bytes(NUM_BYTES))
    found = path.read_bytes()
    if len(found) != NUM_BYTES:
        raise RagError(f"{path.name} in the state folder is damaged: no key can be checked")
    return found
