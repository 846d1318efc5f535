"""`ragserve models`: what can be asked."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cluster.client import Client
from cluster.output import print_json


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """List the models of the server; every collection is one, as `rag/<collection>`.

    Examples:
      ragserve models
      ragserve models --json | jq -r '.data[].id'
    """
    answer = Client.from_environment().call("GET", "/v1/models")
    if as_json:
        print_json(answer)
        return
    table = Table("model", "owner")
    for model in answer["data"]:
        table.add_row(str(model["id"]), str(model.get("owned_by", "")))
    Console().print(table, markup=False)
