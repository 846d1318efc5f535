"""The `ragserve` command: one module per noun, one line per failure."""

import sys

import typer
from pydantic import ValidationError

from cluster.ask import ask
from cluster.audit import audit
from cluster.backup import backup, restore
from cluster.down import down
from cluster.erase import erase
from cluster.errors import OperatorError
from cluster.help import help_of
from cluster.ingest import ingest
from cluster.keys import keys
from cluster.logs import logs
from cluster.models import models
from cluster.search import search
from cluster.status import status
from cluster.stored import collections, documents
from cluster.tasks import tasks
from cluster.transfer import export, import_
from cluster.up import up

INTERRUPTED = 130
"""What a shell expects after Ctrl-C: 128 + SIGINT."""

app = typer.Typer(
    help="Self-hosted model serving for retrieval-augmented AI.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS = (up, down, status, logs, ingest, ask, search, erase, collections, documents)
for command in COMMANDS:
    app.command(help=help_of(command))(command)
app.command(help=help_of(export))(export)
app.command(help=help_of(backup))(backup)
app.command(help=help_of(restore))(restore)
app.command("import", help=help_of(import_))(import_)
app.add_typer(models, name="models")
app.add_typer(tasks, name="tasks")
app.add_typer(keys, name="keys")
app.add_typer(audit, name="audit")


def main() -> None:
    """Run the command; an expected failure is one line on stderr and an exit code."""
    try:
        app()
    except OperatorError as error:
        _fail(error.message, error.exit_code)
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        _fail(f"RAGSERVE_{name} in the environment: {first['msg']}", 2)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _fail(message: str, exit_code: int) -> None:
    print(f"ragserve: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
