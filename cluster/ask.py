"""`ragserve ask`: stream an answer from a collection, then its sources."""

import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console

from cluster.client import Client
from cluster.errors import OperatorError
from cluster.output import print_chunks, print_json

Event = dict[str, Any]


def ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    collection: Annotated[str, typer.Option(help="Where the answer comes from.")] = "docs",
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Chunks to rest the answer on.", show_default="3")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    model: Annotated[str, typer.Option(help="Model to ask; the default one if empty.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Answer a question from a collection, and say what the answer rests on.

    Examples:
      ragserve ask "Which port does the edge listen on?"
      ragserve ask "Who wrote this?" --collection handbook --json | jq .sources
    """
    body: dict[str, Any] = {
        "prompt": question,
        "max_tokens": max_tokens,
        "retrieval": {"collection": collection, "top_k": top_k},
    }
    if model:
        body["model"] = model
    client = Client.from_environment()
    if as_json:
        print_json(client.call("POST", "/v1/inference", body))
        return
    show(client.stream("/v1/inference", {**body, "stream": True}))


def show(events: Iterable[Event]) -> None:
    """Print the text as it comes, then the sources.

    Raises:
        OperatorError: the stream ended with an error, or without an end.
    """
    sources: list[Event] = []
    for event in events:
        if event["type"] == "sources":
            sources = event["sources"]
        elif event["type"] == "delta":
            sys.stdout.write(event.get("text", ""))
            sys.stdout.flush()
        elif event["type"] == "error":
            print()
            raise OperatorError(event["error"]["message"])
        elif event["type"] == "done":
            print()
            if sources:
                print_chunks(sources, Console())
            return
    raise OperatorError("the answer broke off before its end")
