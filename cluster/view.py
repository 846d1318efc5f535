"""What an operator sees while something takes time: a spinner on a terminal, lines elsewhere."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from cluster.serve_api import ApplicationState


class View:
    """Progress of `up`, on stderr: stdout is for results."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._shown: tuple[str, ...] = ()

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Show a spinner with the last step for the duration, on a terminal only."""
        if not self._console.is_terminal:
            yield
            return
        with self._console.status("starting") as status:
            self._status = status
            try:
                yield
            finally:
                self._status = None

    def step(self, text: str) -> None:
        """Say what happens now."""
        self._console.print(f"[cyan]•[/] {escape(text)}", highlight=False, soft_wrap=True)
        if self._status is not None:
            self._status.update(escape(text))

    def warn(self, text: str) -> None:
        """Say that something went wrong and was dealt with."""
        self._console.print(f"[yellow]![/] {escape(text)}", highlight=False, soft_wrap=True)

    def replicas(self, applications: Sequence[ApplicationState]) -> None:
        """Show each deployment's replicas, when that has changed."""
        lines = tuple(
            f"{d.name} {d.running}/{d.wanted}" for state in applications for d in state.deployments
        )
        if lines and lines != self._shown:
            self._shown = lines
            text = "replicas: " + ", ".join(lines)
            if self._status is not None:
                self._status.update(escape(text))
            else:
                self.step(text)
