"""`ragserve search`: the chunks of a collection that match a query."""

from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from cluster.client import Client
from cluster.output import print_chunks, print_json


class SearchMode(StrEnum):
    """By meaning, by words, or both."""

    DENSE = "dense"
    LEXICAL = "lexical"
    HYBRID = "hybrid"


def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    collection: Annotated[str, typer.Option(help="Where to look.")] = "docs",
    mode: Annotated[SearchMode, typer.Option(help="How to match.")] = SearchMode.HYBRID,
    top_k: Annotated[int, typer.Option(min=1, help="How many chunks.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Print the best matching chunks of a collection.

    Examples:
      ragserve search "admin key" --collection docs
      ragserve search "error 1042" --mode lexical --json
    """
    body = {"collection": collection, "query": query, "mode": mode.value, "top_k": top_k}
    answer = Client.from_environment().call("POST", "/v1/data/search", body)
    if as_json:
        print_json(answer)
    else:
        print_chunks(answer["results"], Console())
