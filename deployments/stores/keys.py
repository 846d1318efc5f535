"""API keys: who may call. The database holds hashes only, keyed with the state folder's pepper.

A bearer is `rs_<public id>_<secret>`: the public id finds the row, the secret is 256 random bits,
so a fast keyed hash is enough (a slow one is for passwords, and a way to stop the service).
"""

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from deployments.config import Settings
from deployments.errors import Conflict, Unauthenticated
from deployments.stores import schema
from deployments.stores.checksums import KEY, row_checksum
from deployments.stores.content import check_text, invalid
from deployments.stores.database import Database
from deployments.stores.grants import check_grants
from deployments.stores.ids import new_id, utc_after, utc_now
from deployments.stores.key_rows import (
    DEFAULT_GRANTS,
    Key,
    expiry_of,
    is_live,
    key_of,
    object_of,
    require,
)
from deployments.stores.migrations import migrate
from deployments.stores.paths import DEFAULT_TENANT, check_tenant
from deployments.stores.pepper import pepper
from deployments.types.access import Grants

BEARER = re.compile(r"rs_([0-9a-f]{32})_([A-Za-z0-9_-]{43})")
CACHE_AGE_S = 0.5
"""How long a row is believed: a revocation takes effect within this time on every replica."""

MAX_CACHED = 4096
MAX_NAME_LENGTH = 200
_NO_HASH = bytes(32)
DEFAULT_OVERLAP_S, MAX_OVERLAP_S = 3600.0, 30 * 86_400.0

KEY_ROW = select(*schema.keys.c[KEY], schema.keys.c.checksum).where(
    schema.keys.c.id == bindparam("id")
)


@dataclass(frozen=True, slots=True)
class _Cached:
    """What the database said about an id: `key` is None when there is no live one."""

    key: Key | None
    secret_hash: bytes
    read_at_s: float


class KeyStore:
    """Creates, checks and revokes keys; safe to use from many threads and processes."""

    def __init__(self, database: Database, state_path: Path) -> None:
        """Read the pepper, or create it: of processes that start at once, all get the same."""
        self._database = database
        self._pepper = pepper(state_path)
        self._cache: dict[str, _Cached] = {}
        self._lock = threading.Lock()

    def create(
        self,
        name: str,
        *,
        is_admin: bool = False,
        tenant: str = DEFAULT_TENANT,
        grants: Grants = DEFAULT_GRANTS,
        expires_at: str | None = None,
    ) -> tuple[Key, str]:
        """Return a new key and its bearer, which nobody can ever read again.

        Raises:
            InvalidRequest: the name is empty, too long, or cannot be stored; no tenant may be
                called so; the key cannot be given this; or it would have expired already.
        """
        key = Key(
            id=new_id("key"),
            name=name,
            is_admin=is_admin,
            created_at=utc_now(),
            tenant=tenant,
            grants=grants,
            expires_at=expiry_of(expires_at),
        )
        with self._database.write() as connection:
            return key, self.insert(connection, key)

    def insert(self, connection: Connection, key: Key) -> str:
        """Store a key as `create` does, in a transaction of the caller's; return its bearer."""
        check_text(key.name, "name")
        check_tenant(key.tenant)
        check_grants(key.grants)
        if not 0 < len(key.name) <= MAX_NAME_LENGTH:
            raise invalid(f"a key's name must be 1 to {MAX_NAME_LENGTH} characters", "name")
        if key.expires_at is not None and key.expires_at <= key.created_at:
            raise invalid("the key would have expired already", "expires_at")
        secret = secrets.token_urlsafe(32)
        row = {field.name: getattr(key, field.name) for field in fields(key)}
        row |= {"grants": key.grants.to_json(), "secret_hash": self._hash(key.id, secret)}
        row["checksum"] = row_checksum(KEY, row)
        connection.execute(insert(schema.keys).values(row))
        return f"rs_{key.id.removeprefix('key_')}_{secret}"

    def rotate(self, key_id: str, *, overlap_s: float) -> tuple[Key, str]:
        """Return a new key that covers the same, and its bearer; the old one works for a while.

        Args:
            key_id: of the key that is replaced.
            overlap_s: for how long the old one works, unless it expires before.

        Raises:
            NotFound: there is no such key.
            Conflict: it is revoked, or has expired.
            InvalidRequest: the overlap is negative, or more than 30 days.
            DatabaseDamaged: its row is not what was written.
        """
        if not 0 <= overlap_s <= MAX_OVERLAP_S:
            raise invalid(f"an overlap is 0 to {MAX_OVERLAP_S} seconds", "overlap_s")
        with self._database.write() as connection:
            row = require(connection, key_id)
            old = key_of(row)
            if not is_live(old):
                raise Conflict("the key is revoked, or has expired")
            new = replace(old, id=new_id("key"), created_at=utc_now())
            bearer = self.insert(connection, new)
            until = utc_after(overlap_s)
            self._change(connection, row, expires_at=min(until, old.expires_at or until))
        self._forget(key_id)
        return new, bearer

    def verify(self, bearer: str) -> Key:
        """Return the key that a bearer belongs to; blocks while the database is asked.

        Raises:
            Unauthenticated: malformed, unknown, wrong or revoked; which of these does not show.
            DatabaseDamaged: the key's row is not what was written.
            StoreUnavailable: the database did not answer; safe to retry.
        """
        key_id, secret = _parsed(bearer)
        cached = self._cached(key_id)
        return self._checked(self._read(key_id) if cached is None else cached, key_id, secret)

    def recall(self, bearer: str) -> Key | None:
        """Return what `verify` would, from memory and in microseconds; None: ask `verify`."""
        key_id, secret = _parsed(bearer)
        cached = self._cached(key_id)
        return None if cached is None else self._checked(cached, key_id, secret)

    def list(self) -> list[Key]:
        """Return every key, revoked ones too, the oldest first."""
        return [*self.page(None)]

    def page(
        self, tenant: str | None, *, limit: int | None = None, after: str = ""
    ) -> Sequence[Key]:
        """Return keys as `list` does: a tenant's or all, those with an id greater than `after`."""
        table = schema.keys
        statement = select(table).where(table.c.id > after).order_by(table.c.id).limit(limit)
        if tenant is not None:
            statement = statement.where(table.c.tenant == tenant)
        with self._database.read() as connection:
            return [key_of(row._mapping) for row in connection.execute(statement)]

    def get(self, key_id: str) -> Key:
        """Return a key; raises NotFound."""
        with self._database.read() as connection:
            return key_of(require(connection, key_id, is_locked=False))

    def revoke(self, key_id: str) -> Key:
        """Revoke a key for good; every replica refuses it within `CACHE_AGE_S`.

        Raises:
            NotFound: there is no such key.
            Conflict: it is the last admin key that works, without which nobody could make another.
            DatabaseDamaged: its row is not what was written.
        """
        table = schema.keys
        with self._database.write() as connection:
            is_live = table.c.revoked_at.is_(None)
            lasting = table.c.expires_at.is_(None) | (table.c.expires_at > utc_now())
            live_admins = select(table.c.id).where(table.c.is_admin, is_live, lasting)
            admins = connection.scalars(live_admins.with_for_update()).all()
            if list(admins) == [key_id]:
                raise Conflict("the last admin key cannot be revoked")
            row = require(connection, key_id)
            row = self._change(connection, row, revoked_at=row["revoked_at"] or utc_now())
        self._forget(key_id)
        return key_of(row)

    def _change(
        self, connection: Connection, row: Mapping[Any, Any], **values: str
    ) -> dict[Any, Any]:
        changed = {**row, **values}
        changed["checksum"] = row_checksum(KEY, changed)
        statement = update(schema.keys).where(schema.keys.c.id == row["id"])
        connection.execute(statement.values(checksum=changed["checksum"], **values))
        return changed

    def _forget(self, key_id: str) -> None:
        with self._lock:
            self._cache.pop(key_id, None)

    def _read(self, key_id: str) -> _Cached:
        read_at_s = time.monotonic()
        cached = _Cached(None, _NO_HASH, read_at_s)
        for values in self._database.rows(KEY_ROW, {"id": key_id}):
            row = dict(zip((*KEY, "checksum"), values, strict=True))
            row["grants"] = object_of(row["grants"])
            key = key_of(row)
            if key.revoked_at is None:  # whether it has expired is asked each time
                cached = _Cached(key, row["secret_hash"], read_at_s)
        with self._lock:
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            self._cache[key_id] = cached
        return cached

    def _cached(self, key_id: str) -> _Cached | None:
        with self._lock:
            cached = self._cache.get(key_id)
        is_fresh = cached is not None and time.monotonic() - cached.read_at_s < CACHE_AGE_S
        return cached if is_fresh else None

    def _checked(self, cached: _Cached, key_id: str, secret: str) -> Key:
        """Hash and compare, also for an id that does not exist, so that it takes as long."""
        is_same = hmac.compare_digest(self._hash(key_id, secret), cached.secret_hash)
        if cached.key is None or not is_same or not is_live(cached.key):
            raise Unauthenticated("the API key is not valid")
        return cached.key

    def _hash(self, key_id: str, secret: str) -> bytes:
        message = f"{key_id}.{secret}".encode("ascii")
        return hashlib.blake2b(message, key=self._pepper, digest_size=32).digest()


def open_keys(settings: Settings) -> KeyStore:
    """Return the keys of a host's database, which is brought to the newest revision first.

    Raises:
        StoreUnavailable: the database did not answer; safe to retry.
    """
    migrate(settings.database)
    return KeyStore(Database(settings.database), settings.state_path)


def _parsed(bearer: str) -> tuple[str, str]:
    match = BEARER.fullmatch(bearer)
    if match is None:
        raise Unauthenticated("the API key is not valid")
    return f"key_{match[1]}", match[2]
