"""The `ragserve` command: one module per noun, one line per failure."""

import sys

import typer

from cluster.errors import OperatorError
from cluster.up import up

app = typer.Typer(
    help="Self-hosted model serving for retrieval-augmented AI.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(up)


@app.callback()
def root() -> None:
    """Self-hosted model serving for retrieval-augmented AI."""


def main() -> None:
    """Run the command; an expected failure is one line on stderr."""
    try:
        app()
    except OperatorError as error:
        print(f"ragserve: {error.message}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
