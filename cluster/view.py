"""What an operator sees while something takes time: a live table on a terminal, lines elsewhere."""

from collections.abc import Sequence

from rich.console import Console

from cluster.serve_api import ApplicationState


class View:
    """Progress of `up`, on stderr: stdout is for results."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: tuple[str, ...] = ()

    def step(self, text: str) -> None:
        """Say what happens now."""
        self._console.print(f"[bold cyan]•[/] {text}", highlight=False)

    def warn(self, text: str) -> None:
        """Say that something went wrong and was dealt with."""
        self._console.print(f"[bold yellow]![/] {text}", highlight=False)

    def replicas(self, applications: Sequence[ApplicationState]) -> None:
        """Show each deployment's replicas, when that has changed."""
        lines = tuple(
            f"  {d.application}/{d.name}: {d.running} of {d.wanted} replicas"
            for state in applications
            for d in state.deployments
        )
        for line in lines:
            if line not in self._shown:
                self._console.print(line, highlight=False, markup=False)
        self._shown = lines
