"""`ragserve ingest`: put files into a collection through the HTTP API."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cluster.client import CallFailed, Client
from cluster.documents import SourceFile, batches, find_files
from cluster.errors import OperatorError
from cluster.output import print_json


@dataclass(slots=True)
class Outcome:
    """What became of the files: documents stored by status, and failures with their reason."""

    stored: dict[str, int] = field(default_factory=dict)
    num_chunks: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def num_stored(self) -> int:
        """Return how many documents are in the collection now."""
        return sum(self.stored.values())


def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.")],
    collection: Annotated[str, typer.Option(help="Where to; created if missing.")] = "docs",
    glob: Annotated[str, typer.Option(help="Take only matching files of folders.")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Fail if any file fails.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Store text, Markdown, HTML, PDF and DOCX files; files sent before are replaced.

    Examples:
      ragserve ingest handbook/ --collection docs
      ragserve ingest notes.md report.pdf
      ragserve ingest . --glob "*.md" --strict
    """
    files = find_files(paths, glob)
    if not files:
        raise OperatorError("no text, Markdown, HTML, PDF or DOCX file was found")
    client, outcome = Client.from_environment(), Outcome()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("ingesting", total=sum(file.num_bytes for file in files))
        for batch in batches(files):
            send(client, collection, batch, outcome)
            progress.advance(task, sum(file.num_bytes for file in batch))
    _report(outcome, collection, as_json)
    if not outcome.num_stored or (strict and outcome.failures):
        raise typer.Exit(1)


def send(client: Client, collection: str, files: Sequence[SourceFile], outcome: Outcome) -> None:
    """Send one batch and note what became of each file.

    A batch that is refused as a whole is sent again file by file, so that one bad file does not
    take its neighbours with it.

    Raises:
        OperatorError: the server cannot be reached or refuses the key; going on is pointless.
    """
    documents = _readable(files, outcome)
    if not documents:
        return
    try:
        body = {"collection": collection, "documents": documents}
        answer = client.call("POST", "/v1/data/index?background=false", body)
    except CallFailed as error:
        if error.status in (401, 403, 404, 429, 503):
            raise
        if len(files) == 1:
            outcome.failures[files[0].document_id] = error.message
            return
        for file in files:
            send(client, collection, [file], outcome)
        return
    _note(answer, outcome)


def _readable(files: Sequence[SourceFile], outcome: Outcome) -> list[dict[str, Any]]:
    documents = []
    for file in files:
        try:
            documents.append(file.document())
        except OSError as error:
            outcome.failures[file.document_id] = error.strerror or "cannot be read"
    return documents


def _note(answer: dict[str, Any], outcome: Outcome) -> None:
    for document in answer.get("documents", []):
        status = document["status"]
        outcome.stored[status] = outcome.stored.get(status, 0) + 1
        outcome.num_chunks += document["num_chunks"]
    for failed in answer.get("errors", []):
        name = failed.get("id") or failed.get("filename") or "a document"
        outcome.failures[name] = failed["error"]["message"]


def _report(outcome: Outcome, collection: str, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "collection": collection,
                "stored": outcome.stored,
                "num_chunks": outcome.num_chunks,
                "failures": outcome.failures,
            }
        )
        return
    table = Table(title=f"collection {collection}", title_justify="left")
    table.add_column("documents")
    table.add_column("number", justify="right")
    for status in sorted(outcome.stored):
        table.add_row(status, str(outcome.stored[status]))
    table.add_row("failed", str(len(outcome.failures)))
    table.add_row("chunks", str(outcome.num_chunks))
    Console().print(table)
    errors = Console(stderr=True)
    for name, reason in sorted(outcome.failures.items()):
        errors.print(f"failed: {name}: {reason}", markup=False, highlight=False, soft_wrap=True)
