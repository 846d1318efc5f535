"""`ragserve keys`: API keys, straight on the database of this host."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table

from cluster.errors import OperatorError
from cluster.help import help_of
from cluster.output import print_json
from cluster.state import StateFolder
from deployments.config import Settings
from deployments.errors import RagError

if TYPE_CHECKING:
    from deployments.stores.database import Database
    from deployments.stores.key_rows import Key
from deployments.stores.keys import KeyStore

KEY_ID_CHARS = 36
DURATION = re.compile(r"([0-9]{1,9})([smhd])")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

keys = typer.Typer(
    help="Create, list, rotate and revoke API keys; needs the server's database and state folder.",
    no_args_is_help=True,
)


@contextmanager
def _store() -> "Iterator[KeyStore]":
    with _databases() as (database, settings):
        from deployments.stores.keys import KeyStore

        yield KeyStore(database, settings.state_path)


@contextmanager
def _databases() -> "Iterator[tuple[Database, Settings]]":
    # SQLAlchemy and Alembic take a second that other commands need not wait.
    from deployments.stores.database import Database
    from deployments.stores.migrations import migrate

    settings = Settings()
    StateFolder(settings.state_path).prepare()
    try:
        migrate(settings.database)
        database = Database(settings.database, pool_size=1)
        try:
            yield database, settings
        finally:
            database.close()
    except RagError as error:
        raise OperatorError(error.message) from error


def create(
    name: Annotated[str, typer.Argument(help="Whom or what it is for.")],
    admin: Annotated[bool, typer.Option("--admin", help="May do everything.")] = False,
    tenant: Annotated[
        str, typer.Option(help="Whose collections it covers; it sees no other's.")
    ] = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do; again for more. By default what a tenant needs."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model or alias that it may ask; by default all.")
    ] = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="A collection that it reaches; by default all.")
    ] = None,
    address: Annotated[
        list[str] | None, typer.Option(help="Where it works from: an address or a network.")
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option()] = None,
    tokens_per_minute: Annotated[int | None, typer.Option()] = None,
    tokens_per_day: Annotated[int | None, typer.Option()] = None,
    max_concurrent: Annotated[
        int | None, typer.Option(help="How many of its requests may run at once.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it ends: `90d`, `12h`, or a time in ISO 8601.")
    ] = None,
) -> None:
    """Create a key and print it; it is never shown again.

    Examples:
      ragserve keys create dify
      ragserve keys create dify-acme --tenant acme --scope data --collection manuals
      ragserve keys create partner --address 203.0.113.0/24 --requests-per-minute 60 --expires 90d
      export RAGSERVE_API_KEY=$(ragserve keys create laptop --admin)
    """
    from deployments.types.access import ALL, DEFAULT_SCOPES, Grants, Limits, Scope

    limits = Limits(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        tokens_per_day=tokens_per_day,
        max_concurrent=max_concurrent,
    )
    scopes = tuple(scope or (ALL.scopes if admin else DEFAULT_SCOPES))
    grants = Grants(
        scopes=cast("tuple[Scope, ...]", scopes),
        models=_named(model),
        collections=_named(collection),
        addresses=_named(address),
        limits=limits,
    )
    with _store() as store:
        key, bearer = store.create(
            name, is_admin=admin, tenant=tenant, grants=grants, expires_at=_time(expires)
        )
    Console(stderr=True).print(f"created {key.id}", highlight=False)
    print(bearer)


def rotate(
    key_id: Annotated[str, typer.Argument(help="The key's id, `key_…`.")],
    overlap: Annotated[
        str, typer.Option(help="For how long the old one works: `1h`, `7d`; at most 30 days.")
    ] = "1h",
) -> None:
    """Create a key that covers what another does, print it, and let the old one end.

    Examples:
      ragserve keys rotate key_0198f3a0c2d17a3e9b1d5f6a7c8e9d0b --overlap 1d
    """
    with _store() as store:
        key, bearer = store.rotate(key_id, overlap_s=_seconds(overlap))
    told = f"created {key.id}; {key_id} works for {overlap}"
    Console(stderr=True).print(told, highlight=False, markup=False)
    print(bearer)


def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="Print the keys as JSON.")] = False,
) -> None:
    """List the keys, without their secrets.

    Examples:
      ragserve keys list
      ragserve keys list --json | jq -r '.[].id'
    """
    with _store() as store:
        found = store.list()
    if as_json:
        print_json([_told(key) for key in found])
        return
    table = Table("id", "name", "tenant", "scopes", "created", "expires", "revoked")
    table.columns[0].min_width = KEY_ID_CHARS
    for key in found:
        scopes = "all" if key.is_admin else " ".join(key.grants.scopes)
        times = (key.created_at, key.expires_at or "", key.revoked_at or "")
        table.add_row(key.id, key.name, key.tenant, scopes, *times)
    Console().print(table, markup=False)


def revoke(key_id: Annotated[str, typer.Argument(help="The key's id, `key_…`.")]) -> None:
    """Revoke a key for good; running servers refuse it within a second.

    Examples:
      ragserve keys revoke key_0198f3a0c2d17a3e9b1d5f6a7c8e9d0b
    """
    with _store() as store:
        key = store.revoke(key_id)
    Console(stderr=True).print(f"revoked {key.id} ({key.name})", highlight=False, markup=False)


def enroll(
    key_id: Annotated[str, typer.Argument(help="The key's id, `key_…`.")],
    reset: Annotated[
        bool, typer.Option("--reset", help="Take away the second factor that it has.")
    ] = False,
) -> None:
    """Give a key a second factor: scan the code with an authenticator, then type what it shows.

    What can hurt (erasing, keys, tuning, the audit log's export) asks for its codes from then on.

    Examples:
      ragserve keys enroll key_0198f3a0c2d17a3e9b1d5f6a7c8e9d0b
      ragserve keys enroll key_0198f3a0c2d17a3e9b1d5f6a7c8e9d0b --reset
    """
    import segno

    with _databases() as (database, settings):
        from deployments.stores.keys import KeyStore
        from deployments.stores.second_factors import SecondFactors

        key = KeyStore(database, settings.state_path).get(key_id)
        factors = SecondFactors(database, settings.state_path)
        if reset and factors.is_enrolled(key.id):
            factors.remove(key.id)
        made = factors.enrol(key.id, key.name)
        console = Console(stderr=True)
        segno.make(made.uri, error="m").terminal(out=sys.stderr, compact=True)
        console.print(f"or type the secret: {made.secret}", highlight=False)
        factors.confirm(key.id, str(typer.prompt("the code that it shows", err=True)).strip())
        console.print(
            "enrolled. For the day it is lost, each of these works once:", highlight=False
        )
    for code in made.recovery_codes:
        print(code)


keys.command(help=help_of(enroll))(enroll)
keys.command(help=help_of(create))(create)
keys.command("list", help=help_of(list_keys))(list_keys)
keys.command(help=help_of(revoke))(revoke)
keys.command(help=help_of(rotate))(rotate)


def _told(key: "Key") -> dict[str, Any]:
    return asdict(key) | {"grants": key.grants.to_json()}


def _named(names: list[str] | None) -> tuple[str, ...] | None:
    return tuple(names) if names else None


def _seconds(duration: str) -> float:
    match = DURATION.fullmatch(duration)
    if match is None:
        raise OperatorError(f"{duration!r} is no duration such as 30m, 12h or 90d")
    return int(match[1]) * UNITS[match[2]]


def _time(said: str | None) -> str | None:
    """Return an expiry as a time, whichever way it was said."""
    if said is None or not DURATION.fullmatch(said):
        return said
    return (datetime.now(UTC) + timedelta(seconds=_seconds(said))).isoformat()
