"""The errors of SQLAlchemy, its drivers and the disk, made ours; messages repeat no values."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from deployments.errors import Conflict, DatabaseDamaged, InvalidRequest, RagError, StoreUnavailable

NO_ANSWER = "the database did not answer"

DAMAGED = "the database file is damaged"
"""The reason that does not go away."""

UNREADABLE = "Could not decode to UTF-8"
"""How Python's `sqlite3` begins to say that a text in the file is none; it has no code."""

ERRORS: dict[type[exc.SQLAlchemyError], tuple[type[RagError], str]] = {
    exc.OperationalError: (StoreUnavailable, NO_ANSWER),
    exc.InterfaceError: (StoreUnavailable, NO_ANSWER),
    exc.InternalError: (StoreUnavailable, NO_ANSWER),
    exc.TimeoutError: (StoreUnavailable, "every database connection is in use"),
    exc.IntegrityError: (Conflict, "the write collides with what is stored"),
    exc.DataError: (InvalidRequest, "the database cannot hold a value of the request"),
    exc.NotSupportedError: (RagError, "internal error"),
    exc.ProgrammingError: (RagError, "internal error"),
    exc.DatabaseError: (StoreUnavailable, NO_ANSWER),
}
"""SQLAlchemy's errors to ours; the first class that matches counts."""

REASONS: dict[int | str, str] = {
    sqlite3.SQLITE_FULL: "the database's disk is full",
    sqlite3.SQLITE_READONLY: "the database can only be read",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
    sqlite3.SQLITE_IOERR: "the database's disk failed",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened",
    "53100": "the database's disk is full",
    "25006": "the database can only be read",
    "53300": "the database has no connection left",
    "XX001": DAMAGED,
    "XX002": DAMAGED,
}
"""What an operator should know, by SQLite's primary result code or PostgreSQL's SQLSTATE."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise our error in place of a library's."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        raise _ours(error) from error
    except sqlite3.Error as error:  # of the connections that bypass SQLAlchemy
        raise _said(_reason(error) or NO_ANSWER) from error
    except UnicodeDecodeError as error:  # SQLite's message about a damaged schema repeats its bytes
        raise DatabaseDamaged(DAMAGED) from error


@contextmanager
def files_translated() -> Iterator[None]:
    """Raise our error where a file that the store needs cannot be read or written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or "an input or output error"
        raise StoreUnavailable(f"a file of the state folder cannot be used: {reason}") from error


def _ours(error: exc.SQLAlchemyError) -> RagError:
    reason = _reason(error.orig) if isinstance(error, exc.DBAPIError) else None
    if reason is not None:
        return _said(reason)
    for theirs, (ours, message) in ERRORS.items():
        if isinstance(error, theirs):
            return ours(message)
    return RagError()


def _said(reason: str) -> RagError:
    return DatabaseDamaged(reason) if reason == DAMAGED else StoreUnavailable(reason)


def _reason(error: BaseException | None) -> str | None:
    if isinstance(error, sqlite3.OperationalError) and str(error).startswith(UNREADABLE):
        return DAMAGED
    code = getattr(error, "sqlite_errorcode", None)
    key = code & 0xFF if isinstance(code, int) else getattr(error, "sqlstate", None)
    return None if key is None else REASONS.get(key)
