"""`ragserve export` and `ragserve import`: a collection as a Parquet file, through the HTTP API."""

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn

from cluster.client import CallFailed, Client
from cluster.errors import OperatorError
from cluster.output import print_json
from deployments.errors import RagError

if TYPE_CHECKING:
    from cluster.parquet_parts import Part

MAX_SHOWN = 20
TOO_LARGE = 413
COUNTS = (
    "num_rows",
    "num_created",
    "num_replaced",
    "num_unchanged",
    "num_chunks",
    "num_failed",
    "num_suppressed",
)

Collection = Annotated[str, typer.Argument(help="The collection's name.")]


def export(
    collection: Collection, file: Annotated[Path, typer.Argument(help="Must not exist.")]
) -> None:
    """Write a collection with its vectors to a Parquet file, as of one instant.

    Examples:
      ragserve export docs docs.parquet
    """
    from deployments.stores.seals import check_seal  # Arrow takes a while to import

    if file.exists():
        raise OperatorError(f"{file} exists")
    draft = file.with_name(f".{file.name}.{os.getpid()}.part")
    pieces = Client.from_environment().download(f"/v1/data/collections/{collection}/export")
    columns = (SpinnerColumn(), TextColumn("exporting"), DownloadColumn())
    try:
        with (
            Progress(*columns, console=Console(stderr=True), transient=True) as progress,
            draft.open("xb") as target,
        ):
            task = progress.add_task("exporting", total=None)
            for piece in pieces:
                target.write(piece)
                progress.advance(task, len(piece))
        with draft.open("rb") as written:
            check_seal(written)
        draft.rename(file)
    except OSError as error:
        raise OperatorError(f"{file} could not be written: {error.strerror}") from error
    except RagError as error:
        raise OperatorError(f"the export broke off: {error.message}") from error
    finally:
        draft.unlink(missing_ok=True)
    Console(stderr=True).print(f"exported {collection} to {file}", markup=False, soft_wrap=True)


def import_(
    collection: Collection,
    file: Annotated[Path, typer.Argument(help="An export, or a table with id, text and vector.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Store the documents of a Parquet file; those with a known id are replaced.

    An export creates the collection where it is missing. Sent in parts: after an interruption,
    run it again. Documents that were erased after the export was made stay erased.

    Examples:
      ragserve import docs docs.parquet
      ragserve import docs embedded-elsewhere.parquet --json | jq .num_failed
    """
    from cluster.parquet_parts import PartedFile

    parted, client = PartedFile(file), Client.from_environment()
    counts: Counter[str] = Counter()
    errors: list[dict[str, Any]] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("importing", total=parted.num_rows)
        for part in parted.parts():
            send(client, collection, part, counts, errors)
            progress.advance(task, part.table.num_rows)
    _report(collection, counts, errors, as_json)
    if counts["num_failed"] and counts["num_failed"] == counts["num_rows"]:
        raise typer.Exit(1)


def send(
    client: Client,
    collection: str,
    part: "Part",
    counts: Counter[str],
    errors: list[dict[str, Any]],
) -> None:
    """Send a part, and note what became of its rows; one that is too large goes in halves.

    Raises:
        OperatorError: the server cannot be reached, or refuses more than a row.
    """
    path = f"/v1/data/collections/{collection}/import"
    try:
        answer = client.call("POST", path, parquet=part.content)
    except CallFailed as error:
        halves = part.halves()
        if error.status != TOO_LARGE:
            raise OperatorError(f"row {part.first_row} and following: {error.message}") from error
        if len(halves) == 1:
            counts.update(num_rows=1, num_failed=1)
            message = {"message": error.message}
            errors.append({"row": part.first_row, "id": None, "error": message})
            return
        for half in halves:
            send(client, collection, half, counts, errors)
        return
    counts.update({name: answer[name] for name in COUNTS})
    errors += [{**one, "row": one["row"] + part.first_row} for one in answer["errors"]]


def _report(
    collection: str, counts: Counter[str], errors: list[dict[str, Any]], as_json: bool
) -> None:
    numbers = {name: counts[name] for name in COUNTS}
    if as_json:
        print_json({"collection": collection, **numbers, "errors": errors})
        return
    stored = counts["num_created"] + counts["num_replaced"]
    Console().print(
        f"{collection}: {stored} documents stored, {counts['num_unchanged']} unchanged, "
        f"{counts['num_failed']} refused, {counts['num_suppressed']} left out as erased",
        highlight=False,
        markup=False,
    )
    console = Console(stderr=True)
    for error in errors[:MAX_SHOWN]:
        line = f"refused: row {error['row']} ({error['id']}): {error['error']['message']}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if len(errors) > MAX_SHOWN:
        console.print(f"and {counts['num_failed'] - MAX_SHOWN} more", highlight=False)
