"""Answers that are given again: what a request with an `Idempotency-Key` was told the first time.

Answers are stored encrypted with the installation's pepper: some hold what is shown once. A key is
stored as a keyed hash, with its caller's id and what was asked, so that no caller meets another's.
"""

import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from deployments.errors import Conflict, IdempotencyMismatch
from deployments.stores import schema
from deployments.stores.damage import damaged
from deployments.stores.database import Database
from deployments.stores.ids import microseconds
from deployments.stores.pepper import pepper

KEPT_S = 24 * 3600.0
NONCE_BYTES = 12
MAX_ANSWER_BYTES = 1024 * 1024
SWEPT = 100
"""Rows that a new one takes along, of those that have expired."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: its status, the type of its body, and its body."""

    status: int
    media_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to answer; for whoever came first."""

    id: str


class Replays:
    """Answers by key; safe to use from many threads and processes."""

    def __init__(self, database: Database, state_path: Path) -> None:
        """Read the pepper, or create it."""
        self._database = database
        self._pepper = pepper(state_path)
        key = hashlib.blake2b(b"replays", key=self._pepper, digest_size=32).digest()
        self._seal = AESGCM(key)

    def begin(
        self, caller: str, operation: str, key: str, body: bytes, patience_s: float
    ) -> Ticket | Answer:
        """Return the right to answer, or the answer that was given.

        Args:
            caller: the id of the caller's key.
            operation: what is asked, with its path.
            key: what the caller calls the request.
            body: of the request.
            patience_s: after which whoever has the right is taken for dead.

        Raises:
            IdempotencyMismatch: the key was used for another request.
            Conflict: the first request with the key still runs; try again.
        """
        id_ = self._hash(json.dumps([caller, operation, key]).encode())
        request = self._hash(body)
        now = microseconds(time.time())
        table = schema.replays
        values = {"request": request, "began_at": now, "answer": None}
        with self._database.write() as connection:
            expired = now - microseconds(KEPT_S)
            old = select(table.c.id).where(table.c.began_at < expired).limit(SWEPT)
            connection.execute(delete(table).where(table.c.id.in_(old.scalar_subquery())))
            try:
                with connection.begin_nested():
                    connection.execute(insert(table).values(id=id_, **values))
            except IntegrityError:
                pass
            else:
                return Ticket(id_)
            statement = select(table).where(table.c.id == id_).with_for_update()
            row = connection.execute(statement).one()
            if not hmac.compare_digest(row.request, request):
                raise IdempotencyMismatch("this `Idempotency-Key` came with another request")
            if row.answer is not None:
                return self._opened(id_, bytes(row.answer))
            if now - row.began_at < microseconds(patience_s):
                error = Conflict("the first request with this `Idempotency-Key` still runs")
                error.retry_after_s = 1
                raise error
            connection.execute(update(table).where(table.c.id == id_).values(values))
        return Ticket(id_)

    def finish(self, ticket: Ticket, answer: Answer) -> None:
        """Keep an answer; one that is too large is not kept, and the request may run again."""
        if len(answer.body) > MAX_ANSWER_BYTES:
            self.give_up(ticket)
            return
        table = schema.replays
        sealed = self._sealed(ticket.id, answer)
        with self._database.write() as connection:
            mine = table.c.id == ticket.id
            connection.execute(update(table).where(mine).values(answer=sealed))

    def give_up(self, ticket: Ticket) -> None:
        """Let the request be made again: it has changed nothing."""
        table = schema.replays
        with self._database.write() as connection:
            unanswered = table.c.answer.is_(None)
            connection.execute(delete(table).where(table.c.id == ticket.id, unanswered))

    def _hash(self, content: bytes) -> str:
        return hashlib.blake2b(content, key=self._pepper, digest_size=20).hexdigest()

    def _sealed(self, id_: str, answer: Answer) -> bytes:
        head = json.dumps([answer.status, answer.media_type]).encode()
        nonce = secrets.token_bytes(NONCE_BYTES)
        plain = len(head).to_bytes(2, "big") + head + answer.body
        return nonce + self._seal.encrypt(nonce, plain, id_.encode())

    def _opened(self, id_: str, sealed: bytes) -> Answer:
        nonce, rest = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            plain = self._seal.decrypt(nonce, rest, id_.encode())
        except InvalidTag:
            raise damaged("kept answer") from None
        end = 2 + int.from_bytes(plain[:2], "big")
        head: list[Any] = json.loads(plain[2:end])
        return Answer(int(head[0]), str(head[1]), plain[end:])
