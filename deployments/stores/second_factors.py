"""Second factors: one-time codes (TOTP, RFC 6238) that what can hurt asks for beside a key.

Each key has its own. Secrets are stored encrypted with the installation's pepper. A code opens one
thing once: the number of its 30 seconds is remembered, and no code of it or before counts again.
"""

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyotp
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from deployments.errors import (
    Conflict,
    NotFound,
    SecondFactorInvalid,
    SecondFactorLocked,
    SecondFactorRequired,
)
from deployments.stores import schema
from deployments.stores.damage import damaged
from deployments.stores.database import Database
from deployments.stores.ids import microseconds
from deployments.stores.pepper import pepper

STEP_S = 30
DRIFT = 1
"""Steps that a clock may be off, either way."""

MAX_FAILURES = 5
LOCKED_S = 15 * 60
NUM_RECOVERY = 10
NONCE_BYTES = 12
ISSUER = "ragserve"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an authenticator is given, and codes for the day that it is lost; shown once."""

    uri: str
    secret: str
    recovery_codes: tuple[str, ...]


class SecondFactors:
    """The second factors of keys; safe to use from many threads and processes."""

    def __init__(self, database: Database, state_path: Path) -> None:
        """Read the pepper, or create it."""
        self._database = database
        own = pepper(state_path)
        self._seal = AESGCM(hashlib.blake2b(b"totp", key=own, digest_size=32).digest())
        self._pepper = own

    def is_enrolled(self, key_id: str) -> bool:
        """Return whether a key has a second factor that was confirmed."""
        table = schema.second_factors
        statement = select(table.c.is_confirmed).where(table.c.key_id == key_id)
        with self._database.read() as connection:
            return bool(connection.scalar(statement))

    def enrol(self, key_id: str, name: str) -> Enrolment:
        """Give a key a new second factor, which counts once it is confirmed.

        Args:
            key_id: whose it is.
            name: how an authenticator shows it.

        Raises:
            Conflict: the key has one.
        """
        secret = pyotp.random_base32()
        codes = tuple(_recovery_code() for _ in range(NUM_RECOVERY))
        row = {
            "key_id": key_id,
            "secret": self._sealed(key_id, secret),
            "is_confirmed": False,
            "last_step": 0,
            "num_failures": 0,
            "locked_until": 0,
            "recovery": [self._hash(key_id, code) for code in codes],
        }
        table = schema.second_factors
        with self._database.write() as connection:
            pending = table.c.is_confirmed.is_(False)
            connection.execute(delete(table).where(table.c.key_id == key_id, pending))
            try:
                connection.execute(insert(table).values(row))
            except IntegrityError:
                raise Conflict("the key has a second factor: remove it first") from None
        uri = pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=ISSUER)
        return Enrolment(uri, secret, codes)

    def confirm(self, key_id: str, code: str) -> None:
        """Let a new second factor count, by a first code of it; raises as `use` does."""
        self.use(key_id, code, is_new=True)

    def use(self, key_id: str, code: str, *, is_new: bool = False) -> None:
        """Take a code, of the authenticator or for recovery; it never counts again.

        Raises:
            SecondFactorRequired: the key has no second factor.
            SecondFactorInvalid: the code is wrong, or was used.
            SecondFactorLocked: too many were wrong.
        """
        table = schema.second_factors
        with self._database.write() as connection:
            row = _locked(connection, key_id)
            if row is None or (not row["is_confirmed"] and not is_new):
                raise SecondFactorRequired("this key has no second factor: enrol one first")
            now = time.time()
            _check_lock(row, now)
            changed = self._accepted(row, code, now)
            is_right = changed is not None
            changed = changed or _failed(row, now)
            mine = table.c.key_id == key_id
            connection.execute(update(table).where(mine).values(changed))
        if not is_right:  # after the commit: the failure has to count
            raise SecondFactorInvalid("the code is wrong, or was used already")

    def remove(self, key_id: str) -> None:
        """Take a key's second factor away; raises NotFound."""
        table = schema.second_factors
        with self._database.write() as connection:
            found = connection.execute(delete(table).where(table.c.key_id == key_id))
            if not found.rowcount:
                raise NotFound("the key has no second factor")

    def _accepted(self, row: Mapping[str, Any], code: str, now: float) -> dict[str, Any] | None:
        """Return what a right code changes."""
        right = {"num_failures": 0, "is_confirmed": True}
        step = self._step_of(row, code, now)
        if step is not None:
            return right | {"last_step": step}
        hashed = self._hash(row["key_id"], _normal(code))
        left = [one for one in row["recovery"] if not hmac.compare_digest(one, hashed)]
        if len(left) < len(row["recovery"]) and row["is_confirmed"]:
            return right | {"recovery": left}
        return None

    def _step_of(self, row: Mapping[str, Any], code: str, now: float) -> int | None:
        """Return the step whose code it is, if none of it or after was used."""
        hotp = pyotp.HOTP(self._opened(row["key_id"], row["secret"]))
        current = int(now) // STEP_S
        found = None
        for step in range(current - DRIFT, current + DRIFT + 1):
            is_same = hmac.compare_digest(hotp.at(step).encode(), code.encode())
            if is_same and step > row["last_step"]:
                found = step
        return found

    def _sealed(self, key_id: str, secret: str) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._seal.encrypt(nonce, secret.encode(), key_id.encode())

    def _opened(self, key_id: str, sealed: bytes) -> str:
        nonce, rest = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            return self._seal.decrypt(nonce, rest, key_id.encode()).decode()
        except InvalidTag:
            raise damaged("second factor") from None

    def _hash(self, key_id: str, code: str) -> str:
        message = json.dumps([key_id, code]).encode()
        return hashlib.blake2b(
            message, key=self._pepper, digest_size=16, person=b"recovery"
        ).hexdigest()


def _locked(connection: Connection, key_id: str) -> Mapping[str, Any] | None:
    table = schema.second_factors
    statement = select(table).where(table.c.key_id == key_id).with_for_update()
    found = connection.execute(statement).mappings().one_or_none()
    return None if found is None else {str(name): value for name, value in found.items()}


def _check_lock(row: Mapping[str, Any], now: float) -> None:
    left_s = row["locked_until"] / 1_000_000 - now
    if left_s > 0:
        error = SecondFactorLocked("too many codes were wrong; try again later")
        error.retry_after_s = max(1, int(left_s) + 1)
        raise error


def _failed(row: Mapping[str, Any], now: float) -> dict[str, Any]:
    number = row["num_failures"] + 1
    if number < MAX_FAILURES:
        return {"num_failures": number}
    return {"num_failures": 0, "locked_until": microseconds(now + LOCKED_S)}


def _recovery_code() -> str:
    raw = secrets.token_hex(8)
    return "-".join(raw[at : at + 4] for at in range(0, len(raw), 4))


def _normal(code: str) -> str:
    return code.strip().lower()
