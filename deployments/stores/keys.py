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
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from deployments.config import Settings
from deployments.errors import Conflict, NotFound, Unauthenticated
from deployments.stores import schema
from deployments.stores.checksums import KEY, row_checksum
from deployments.stores.content import check_text, invalid
from deployments.stores.damage import check_key
from deployments.stores.database import Database
from deployments.stores.ids import new_id, utc_now
from deployments.stores.migrations import migrate
from deployments.stores.paths import DEFAULT_TENANT, check_tenant
from deployments.stores.pepper import pepper

BEARER = re.compile(r"rs_([0-9a-f]{32})_([A-Za-z0-9_-]{43})")
CACHE_AGE_S = 0.5
"""How long a row is believed: a revocation takes effect within this time on every replica."""

MAX_CACHED = 4096
MAX_NAME_LENGTH = 200
_NO_HASH = bytes(32)

KEY_ROW = select(*schema.keys.c[KEY], schema.keys.c.checksum).where(
    schema.keys.c.id == bindparam("id")
)


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret; it covers the collections of its tenant and of no other."""

    id: str
    name: str
    is_admin: bool
    created_at: str
    revoked_at: str | None = None
    tenant: str = DEFAULT_TENANT


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
        self, name: str, *, is_admin: bool = False, tenant: str = DEFAULT_TENANT
    ) -> tuple[Key, str]:
        """Return a new key and its bearer, which nobody can ever read again.

        Raises:
            InvalidRequest: the name is empty, too long, or cannot be stored; or no tenant may be
                called so.
        """
        with self._database.write() as connection:
            return self.insert(connection, name, is_admin=is_admin, tenant=tenant)

    def insert(
        self,
        connection: Connection,
        name: str,
        *,
        is_admin: bool,
        tenant: str = DEFAULT_TENANT,
    ) -> tuple[Key, str]:
        """Create a key as `create` does, in a transaction of the caller's."""
        check_text(name, "name")
        check_tenant(tenant)
        if not 0 < len(name) <= MAX_NAME_LENGTH:
            raise invalid(f"a key's name must be 1 to {MAX_NAME_LENGTH} characters", "name")
        key = Key(new_id("key"), name, is_admin, utc_now(), tenant=tenant)
        secret = secrets.token_urlsafe(32)
        row = asdict(key) | {"secret_hash": self._hash(key.id, secret)}
        row["checksum"] = row_checksum(KEY, row)
        connection.execute(insert(schema.keys).values(row))
        return key, f"rs_{key.id.removeprefix('key_')}_{secret}"

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
        with self._database.read() as connection:
            rows = connection.execute(select(schema.keys).order_by(schema.keys.c.id))
            return [_key(row._mapping) for row in rows]

    def revoke(self, key_id: str) -> Key:
        """Revoke a key for good; every replica refuses it within `CACHE_AGE_S`.

        Raises:
            NotFound: there is no such key.
            Conflict: it is the last admin key that works, without which nobody could make another.
            DatabaseDamaged: its row is not what was written.
        """
        table = schema.keys
        with self._database.write() as connection:
            live_admins = select(table.c.id).where(table.c.is_admin, table.c.revoked_at.is_(None))
            admins = connection.scalars(live_admins.with_for_update()).all()
            if list(admins) == [key_id]:
                raise Conflict("the last admin key cannot be revoked")
            statement = select(table).where(table.c.id == key_id).with_for_update()
            found = connection.execute(statement).mappings().one_or_none()
            if found is None:
                raise NotFound("there is no key with this id")
            check_key(found)
            row = {**found, "revoked_at": found["revoked_at"] or utc_now()}
            values = {"revoked_at": row["revoked_at"], "checksum": row_checksum(KEY, row)}
            connection.execute(update(table).where(table.c.id == key_id).values(values))
            row |= values
        with self._lock:
            self._cache.pop(key_id, None)
        return _key(row)

    def _read(self, key_id: str) -> _Cached:
        read_at_s = time.monotonic()
        cached = _Cached(None, _NO_HASH, read_at_s)
        for values in self._database.rows(KEY_ROW, {"id": key_id}):
            row = dict(zip((*KEY, "checksum"), values, strict=True))
            key = _key(row)
            if key.revoked_at is None:
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
        if cached.key is None or not is_same:
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


def _key(row: Mapping[Any, Any]) -> Key:
    """Return a key of its row; raises DatabaseDamaged when that is not what was written."""
    check_key(row)
    return Key(
        **{name: row[name] for name in KEY if name not in {"secret_hash", "is_admin"}},
        is_admin=bool(row["is_admin"]),
    )
