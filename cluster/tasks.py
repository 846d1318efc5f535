"""`ragserve tasks`: what outlives its request: what there is, how it is, ending, repeating."""

from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from rich.console import Console
from rich.table import Table

from cluster.client import CallFailed, Client
from cluster.errors import OperatorError
from cluster.help import help_of
from cluster.output import print_json

PAGE = 100

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
TaskId = Annotated[str, typer.Argument(help="`task_…`, as `ragserve tasks` lists it.")]

tasks = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)


def list_tasks(
    context: typer.Context,
    status: Annotated[
        str, typer.Option(help="PENDING, RUNNING, COMPLETED, FAILED or CANCELLED.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List tasks, the newest first.

    Examples:
      ragserve tasks
      ragserve tasks --status FAILED --limit 1000 --json | jq -r '.[].error.code'
    """
    if context.invoked_subcommand is not None:
        return
    found = list(_found(Client.from_environment(), status, limit))
    if as_json:
        print_json(found)
        return
    table = Table("task", "status", "path", "attempts", "done", "created", "error")
    for one in found:
        error = one["error"]["code"] if one["error"] else ""
        attempts = str(one["attempts"])
        created = one["created_at"]
        table.add_row(
            one["task_id"], one["status"], one["path"], attempts, _done(one), created, error
        )
    Console().print(table, markup=False)


def show(
    task: TaskId,
    wait_s: Annotated[float, typer.Option(min=0, max=60, help="Wait for its end.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Show a task, with what came of it.

    Examples:
      ragserve tasks show task_0198c2f0a1b24c3d8e5f60718293a4b5 --wait-s 60
      ragserve tasks show task_0198c2f0a1b24c3d8e5f60718293a4b5 --json | jq .output
    """
    state = Client.from_environment().call("GET", f"/v1/tasks/{task}?wait_s={wait_s}")
    if as_json:
        print_json(state)
        return
    console = Console()
    for name, value in state.items():
        if value not in (None, "", False) and name != "object":
            console.print(f"{name}: {value}", markup=False, highlight=False)


def cancel(task: TaskId, as_json: AsJson = False) -> None:
    """Have a task end; one that runs does so within a second.

    Examples:
      ragserve tasks cancel task_0198c2f0a1b24c3d8e5f60718293a4b5
    """
    state = Client.from_environment().call("DELETE", f"/v1/tasks/{task}")
    _show_states([state], as_json)


def retry(
    task: Annotated[str, typer.Argument(help="`task_…`; none with --failed.")] = "",
    failed: Annotated[bool, typer.Option("--failed", help="Every task that failed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have a task that failed, or was cancelled, done again; or all that failed.

    Examples:
      ragserve tasks retry task_0198c2f0a1b24c3d8e5f60718293a4b5
      ragserve tasks retry --failed
    """
    if bool(task) == failed:
        raise OperatorError("name a task, or say --failed")
    client = Client.from_environment()
    chosen = [one["task_id"] for one in _found(client, "FAILED", None)] if failed else [task]
    states, refusals = [], []
    for one in chosen:
        try:
            states.append(client.call("POST", f"/v1/tasks/{one}/retry"))
        except CallFailed as refused:
            refusals.append(f"{one}: {refused}")
    _show_states(states, as_json)
    if refusals:
        raise OperatorError("; ".join(refusals))


def _found(client: Client, status: str, limit: int | None) -> Iterator[dict[str, Any]]:
    """Yield tasks, page after page; None: all there are."""
    after, left = "", limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        asked = {"limit": size, "after": after, "status": status}
        query = urlencode({name: value for name, value in asked.items() if value})
        page = client.call("GET", f"/v1/tasks?{query}")
        yield from page["data"]
        if not page["has_more"]:
            return
        after = page["data"][-1]["task_id"]
        left = None if left is None else left - len(page["data"])


def _show_states(states: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(states)
        return
    for state in states:
        Console().print(f"{state['task_id']}: {state['status']}", markup=False, highlight=False)


def _done(task: dict[str, Any]) -> str:
    progress = task["progress"]
    return f"{progress['done']} of {progress['total']}" if progress["total"] else ""


tasks.callback(invoke_without_command=True, help=help_of(list_tasks))(list_tasks)
for command in (show, cancel, retry):
    tasks.command(help=help_of(command))(command)
