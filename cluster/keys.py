"""`ragserve keys`: API keys, straight on the database of this host."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

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
    from deployments.stores.keys import KeyStore

KEY_ID_CHARS = 36

keys = typer.Typer(
    help="Create, list and revoke API keys; needs the server's database and state folder.",
    no_args_is_help=True,
)


@contextmanager
def _store() -> "Iterator[KeyStore]":
    # SQLAlchemy and Alembic take a second that other commands need not wait.
    from deployments.stores.database import Database
    from deployments.stores.keys import KeyStore
    from deployments.stores.migrations import migrate

    settings = Settings()
    StateFolder(settings.state_path).prepare()
    try:
        migrate(settings.database)
        database = Database(settings.database, pool_size=1)
        try:
            yield KeyStore(database, settings.state_path)
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
) -> None:
    """Create a key and print it; it is never shown again.

    Examples:
      ragserve keys create dify
      ragserve keys create dify-acme --tenant acme
      export RAGSERVE_API_KEY=$(ragserve keys create laptop --admin)
    """
    with _store() as store:
        key, bearer = store.create(name, is_admin=admin, tenant=tenant)
    Console(stderr=True).print(f"created {key.id}", highlight=False)
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
        print_json([asdict(key) for key in found])
        return
    table = Table("id", "name", "tenant", "admin", "created", "revoked")
    table.columns[0].min_width = KEY_ID_CHARS
    for key in found:
        is_admin = "yes" if key.is_admin else ""
        revoked = key.revoked_at or ""
        table.add_row(key.id, key.name, key.tenant, is_admin, key.created_at, revoked)
    Console().print(table, markup=False)


def revoke(key_id: Annotated[str, typer.Argument(help="The key's id, `key_…`.")]) -> None:
    """Revoke a key for good; running servers refuse it within a second.

    Examples:
      ragserve keys revoke key_0198f3a0c2d17a3e9b1d5f6a7c8e9d0b
    """
    with _store() as store:
        key = store.revoke(key_id)
    Console(stderr=True).print(f"revoked {key.id} ({key.name})", highlight=False, markup=False)


keys.command(help=help_of(create))(create)
keys.command("list", help=help_of(list_keys))(list_keys)
keys.command(help=help_of(revoke))(revoke)
