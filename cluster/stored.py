"""`ragserve collections` and `ragserve documents`: what is stored."""

from typing import Annotated
from urllib.parse import urlencode

import typer
from rich.console import Console
from rich.table import Table

from cluster.client import Client
from cluster.output import print_json


def collections(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """List the collections that the key covers, with their sizes and settings.

    Examples:
      ragserve collections
      ragserve collections --json | jq -r '.data[].name'
    """
    answer = Client.from_environment().call("GET", "/v1/data/collections?limit=1000")
    if as_json:
        print_json(answer)
        return
    table = Table("collection", "documents", "chunks", "model", "dim", "metric", "index")
    for one in answer["data"]:
        index = f"{one['index']['kind']} {one['index']['storage']}"
        sizes = (str(one["num_documents"]), str(one["num_chunks"]))
        model = one["embedding_model"] or ""
        table.add_row(one["name"], *sizes, model, str(one["dim"]), one["metric"], index)
    Console().print(table, markup=False)


def documents(
    collection: Annotated[str, typer.Option(help="Whose documents.")] = "docs",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 100,
    after: Annotated[str, typer.Option(help="Id of the last one seen.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """List the documents of a collection by id.

    Examples:
      ragserve documents --collection docs
      ragserve documents --limit 1000 --after guide.md --json
    """
    query = urlencode({"collection": collection, "limit": limit, "after": after})
    answer = Client.from_environment().call("GET", f"/v1/data/documents?{query}")
    if as_json:
        print_json(answer)
        return
    table = Table("document", "title", "chunks", "subject", "updated")
    for one in answer["data"]:
        subject = one["subject"] or ""
        table.add_row(one["id"], one["title"], str(one["num_chunks"]), subject, one["updated_at"])
    Console().print(table, markup=False)
    if answer["has_more"]:
        last = answer["data"][-1]["id"]
        Console(stderr=True).print(f"more: --after {last}", markup=False, highlight=False)
