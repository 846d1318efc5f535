"""The first admin key: how whoever owns the state folder gets in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import select

from deployments.errors import Unauthenticated
from deployments.stores import schema
from deployments.stores.database import Database
from deployments.stores.ids import new_id, utc_now
from deployments.stores.key_rows import Key
from deployments.stores.keys import KeyStore
from deployments.stores.secretfile import write_secret


@dataclass(frozen=True, slots=True)
class AdminKey:
    """Where the admin key is, and what became of it.

    `created` just now; `present` and works; `removed`: there are keys but no such file, whoever
    took it has it; `unusable`: the file's key was revoked, or belongs to another database.
    """

    path: Path
    status: Literal["created", "present", "removed", "unusable"]


def first_admin_key(state_path: Path, database: Database) -> AdminKey:
    """Write an admin key to `<state>/admin.key` if there is no key at all.

    The file is on the disk before the row is committed, and both happen while no other process can
    write. A crash in between leaves a file without a row; the next call then finds no key and
    writes another. A row without its file can only mean that someone removed the file, so no new
    key is made: `KeyStore.create` does that on request.

    Args:
        state_path: the state folder, whose pepper the keys' hashes use.
        database: at the newest revision.
    """
    path = state_path / "admin.key"
    store = KeyStore(database, state_path)
    with database.migration() as connection:
        if connection.execute(select(schema.keys.c.id).limit(1)).first() is None:
            key = Key(new_id("key"), "admin", is_admin=True, created_at=utc_now())
            bearer = store.insert(connection, key)
            write_secret(path, f"{bearer}\n".encode("ascii"))
            return AdminKey(path, "created")
    if not path.exists():
        return AdminKey(path, "removed")
    try:
        store.verify(path.read_text(encoding="ascii").strip())
    except (Unauthenticated, UnicodeDecodeError):
        return AdminKey(path, "unusable")
    return AdminKey(path, "present")
