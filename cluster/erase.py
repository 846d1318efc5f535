"""`ragserve erase`: documents gone from every place, and the receipt of it."""

import json
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cluster.client import Client
from cluster.errors import OperatorError
from cluster.output import print_json

POLL_S = 1.0
WAIT_S = 20.0


def erase(
    collection: Annotated[str, typer.Argument(help="Where; may be left out with --subject.")] = "",
    document: Annotated[
        list[str] | None, typer.Option("--id", help="Id of a document; may be repeated.")
    ] = None,
    where: Annotated[str, typer.Option("--filter", help="JSON filter, as in a search.")] = "",
    subject: Annotated[str, typer.Option(help="The person whose documents they are.")] = "",
    whole: Annotated[bool, typer.Option("--all", help="The collection with all it holds.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the receipt as JSON.")] = False,
) -> None:
    """Erase documents from the database, every index and every snapshot, and wait until they are.

    Backups and exports are yours to keep or destroy; restoring one does not bring them back.

    Examples:
      ragserve erase docs --id guides/old.md --id guides/older.md
      ragserve erase docs --filter '{"field": "year", "op": "<", "value": 2020}' --yes
      ragserve erase --subject customer-4711 --json
      ragserve erase docs --all
    """
    body = _body(collection, document, where, subject, whole)
    if not yes:
        typer.confirm("This cannot be undone. Erase?", abort=True, err=True)
    client = Client.from_environment()
    receipt = client.call("POST", "/v1/data/delete", body)
    console = Console(stderr=True)
    with console.status("searches find nothing any more; cleaning files and indexes"):
        while receipt["status"] == "running":
            time.sleep(POLL_S)
            receipt = client.call("GET", f"/v1/data/erasures/{receipt['id']}")
    if as_json:
        print_json(receipt)
    else:
        _print(receipt, Console())


def _body(
    collection: str, documents: list[str] | None, where: str, subject: str, whole: bool
) -> dict[str, Any]:
    chosen: dict[str, Any] = {"ids": documents, "filter": where, "subject": subject, "all": whole}
    chosen = {name: value for name, value in chosen.items() if value}
    if len(chosen) != 1:
        raise OperatorError("give exactly one of --id, --filter, --subject and --all")
    if where:
        try:
            chosen["filter"] = json.loads(where)
        except ValueError as error:
            raise OperatorError("--filter is not JSON") from error
    if collection:
        chosen["collection"] = collection
    return chosen | {"wait_s": WAIT_S}


def _print(receipt: dict[str, Any], console: Console) -> None:
    table = Table("place", "clean since", title=f"{receipt['id']}: {receipt['kind']}")
    for place in receipt["places"]:
        table.add_row(place["place"], place["clean_at"])
    console.print(table, markup=False)
    console.print(
        f"{receipt['num_documents']} documents, {receipt['num_chunks']} chunks", highlight=False
    )
