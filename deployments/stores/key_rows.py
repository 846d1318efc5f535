"""A key's row in the database, and the key it stands for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from deployments.errors import NotFound
from deployments.stores import schema
from deployments.stores.checksums import KEY
from deployments.stores.content import invalid
from deployments.stores.damage import check_key
from deployments.stores.ids import utc_now, utc_text
from deployments.stores.paths import DEFAULT_TENANT
from deployments.types.access import Grants, Scope, grants_of

DEFAULT_GRANTS = Grants()


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret; it covers the collections of its tenant and of no other.

    Times are those of `utc_now`; from `expires_at` on the key is refused.
    """

    id: str
    name: str
    is_admin: bool
    created_at: str
    revoked_at: str | None = None
    tenant: str = DEFAULT_TENANT
    grants: Grants = DEFAULT_GRANTS
    expires_at: str | None = None

    def has(self, scope: Scope) -> bool:
        """Return whether the key covers a scope; an admin key covers all."""
        return self.is_admin or scope in self.grants.scopes


def key_of(row: Mapping[Any, Any]) -> Key:
    """Return a key of its row; raises DatabaseDamaged when that is not what was written."""
    check_key(row)
    return Key(
        **{name: row[name] for name in KEY if name not in {"secret_hash", "is_admin", "grants"}},
        is_admin=bool(row["is_admin"]),
        grants=grants_of(row["grants"]),
    )


def is_live(key: Key) -> bool:
    """Return whether a key works now."""
    return key.revoked_at is None and (key.expires_at is None or utc_now() < key.expires_at)


def require(connection: Connection, key_id: str, *, is_locked: bool = True) -> Mapping[Any, Any]:
    """Return a key's row, which nobody else changes now; raises NotFound, DatabaseDamaged."""
    statement = select(schema.keys).where(schema.keys.c.id == key_id)
    statement = statement.with_for_update() if is_locked else statement
    found = connection.execute(statement).mappings().one_or_none()
    if found is None:
        raise NotFound("there is no key with this id")
    check_key(found)
    return found


def expiry_of(time_: str | None) -> str | None:
    """Return an ISO 8601 time as `utc_now` writes it, so that they compare as text."""
    if time_ is None:
        return None
    try:
        return utc_text(datetime.fromisoformat(time_))
    except ValueError:
        message = "an expiry is a time with its offset, such as 2027-01-01T00:00:00Z"
        raise invalid(message, "expires_at") from None


def object_of(stored: Any) -> Any:
    """Return a JSON column's object, which SQLite's driver hands out as its text."""
    try:
        return json.loads(stored) if isinstance(stored, str) else stored
    except ValueError:
        return stored  # the row's checksum tells that it is damaged
