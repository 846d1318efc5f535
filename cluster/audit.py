"""`ragserve audit`: who did what, and the proof of it, straight on the database of this host."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cluster.errors import OperatorError
from cluster.help import help_of
from cluster.output import print_json
from cluster.state import StateFolder
from deployments.config import AuditArgs, Settings
from deployments.errors import RagError

if TYPE_CHECKING:
    from deployments.stores.audit.log import AuditLog

PAGE = 1000
Since = Annotated[str, typer.Option(help="A time in ISO 8601 with its offset; included.")]
Until = Annotated[str, typer.Option(help="The same; not included.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

audit = typer.Typer(
    help="Show, prove and export the audit log; needs the server's database and state folder.",
    no_args_is_help=True,
)


@contextmanager
def _log() -> "Iterator[AuditLog]":
    # SQLAlchemy takes a second that other commands need not wait.
    from deployments.stores.audit.log import open_audit

    settings = Settings()
    StateFolder(settings.state_path).prepare()
    try:
        log = open_audit(settings, AuditArgs())
        try:
            yield log
        finally:
            log.close()
    except RagError as error:
        raise OperatorError(error.message) from error


def logs(
    since: Since = "",
    until: Until = "",
    tenant: Annotated[str, typer.Option(help="Whose calls.")] = "",
    key: Annotated[str, typer.Option(help="The key's id, `key_…`.")] = "",
    operation: Annotated[str, typer.Option(help="Such as `search` or `createKey`.")] = "",
    status: Annotated[str, typer.Option(help="Such as `404` or `4xx`; `intent`: what began.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 50,
    as_json: Json = False,
) -> None:
    """Show calls, the newest first: allowed, refused and failed ones.

    Examples:
      ragserve audit logs --status 4xx --limit 20
      ragserve audit logs --key key_0198f3a0c2d17a3e9b1d5f6a7c8e9d0b --since 2026-11-01T00:00:00Z
      ragserve audit logs --operation createKey --json
    """
    from deployments.ingress.schemas.audit import entry_of, filter_of

    _check_status(status)
    with _log() as log:
        wanted = filter_of(
            since=since, until=until, tenant=tenant, key=key, operation=operation, status=status
        )
        found: list[dict[str, Any]] = []
        after = None
        while len(found) < limit:
            page = log.page(wanted, limit=min(PAGE, limit - len(found)), after=after)
            if not page:
                break
            found += [entry_of(one).model_dump() for one in page]
            after = page[-1].position
    if as_json:
        print_json(found)
        return
    table = Table("time", "tenant", "key", "operation", "from", "status", "error", "ms", "touched")
    for one in found:
        touched = " ".join(f"{thing['kind']}:{thing['id']}" for thing in one["touched"])
        told = (one["tenant"], one["key_id"], one["operation"], one["address"])
        status_ = str(one["status"] or "intent")
        row = (one["time"], *(text or "" for text in told), status_, one["error"] or "")
        table.add_row(*row, f"{one['latency_ms']:.0f}", touched)
    Console().print(table, markup=False)


def verify(
    files: Annotated[
        bool, typer.Option("--files", help="Read the archived files as well.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read the whole log and say whether it is what was written; exit code 1 where it is not.

    Some 50,000 records a second. Keep copies of `audit.checkpoints` on another machine: with one in
    its place, even a log that was taken back to an older state as a whole is found out.

    Examples:
      ragserve audit verify
      ragserve audit verify --files --json
    """
    from deployments.ingress.schemas.audit import proof_of

    with _log() as log:
        proof = proof_of(log.verify(with_files=files)).model_dump()
    if as_json:
        print_json(proof)
    else:
        counts = ("num_records", "num_checkpoints", "num_archived_days")
        records, checkpoints, days = (proof[name] for name in counts)
        Console(stderr=True).print(
            f"{records} records, {checkpoints} checkpoints, {days} archived days", highlight=False
        )
    if not proof["is_unbroken"]:
        wrong = proof["first_wrong"]
        place = f" at {wrong['id']}" if wrong["id"] else ""
        raise OperatorError(f"the audit log is broken{place}: {wrong['message']}")
    Console(stderr=True).print("unbroken")


def export(
    path: Annotated[Path, typer.Argument(help="The Parquet file to write.")],
    since: Since = "",
    until: Until = "",
) -> None:
    """Write records to a Parquet file, the oldest first, intents as well.

    Examples:
      ragserve audit export november.parquet --since 2026-11-01T00:00:00Z
    """
    from deployments.ingress.schemas.audit import filter_of

    with _log() as log:
        wanted = filter_of(since=since, until=until, tenant="", key="", operation="", status="")
        try:
            num_records = log.export(path, wanted)
        except OSError as error:
            raise OperatorError(f"{path.name}: {error.strerror}") from error
    Console(stderr=True).print(f"{num_records} records", highlight=False)


audit.command(help=help_of(logs))(logs)
audit.command(help=help_of(verify))(verify)
audit.command(help=help_of(export))(export)


def _check_status(status: str) -> None:
    from deployments.ingress.schemas.audit import STATUS_PATTERN

    if re.fullmatch(STATUS_PATTERN, status) is None:
        raise OperatorError(f"{status!r} is no status such as 404, 4xx or intent", exit_code=2)
