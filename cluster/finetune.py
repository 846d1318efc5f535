"""`ragserve models finetune`: a version is trained on a file of examples, while all runs."""

import base64
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cluster.client import Client
from cluster.errors import OperatorError
from cluster.output import print_json

PATH = "/v1/models/finetune"
POLL_S = 1.0
UNDER_WAY = ("queued", "running", "cancelling")

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def finetune(
    file: Annotated[Path, typer.Argument(help="JSON Lines: `messages`, or prompt and completion.")],
    base: Annotated[str, typer.Option(help="A source such as `embedded:<name>`, or a model's id.")],
    name: Annotated[str, typer.Option(help="`name` or `name@version` of the new version.")],
    evaluation: Annotated[
        Path | None, typer.Option(help="Held-back examples; else some of the file's are.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="How often each example is seen.")] = 3,
    learning_rate: Annotated[float, typer.Option(help="The highest, early on.")] = 2e-4,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples of a step.")] = 8,
    rank: Annotated[int, typer.Option(min=1, help="Of the adapter's matrices.")] = 16,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the work.")] = 1,
    zero_stage: Annotated[int, typer.Option(min=2, max=3, help="Of DeepSpeed.")] = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    merge: Annotated[bool, typer.Option("--merge", help="Also write whole weights.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a LoRA adapter on a file of examples, and show how far it is.

    Examples:
      ragserve models finetune facts.jsonl --base embedded:smollm2-135m-instruct --name facts@1
      ragserve models finetune facts.jsonl --base smollm2@1 --name facts@2 --epochs 20 --merge
      ragserve models finetune facts.jsonl --base smollm2@1 --name facts@3 --workers 2 --detach
    """
    body: dict[str, Any] = {
        "model_id": name,
        "base": base,
        "file": _sent(file),
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "rank": rank,
        "workers": workers,
        "zero_stage": zero_stage,
        "device": device,
        "merge": merge,
    }
    if evaluation is not None:
        body["evaluation_file"] = _sent(evaluation)
    client = Client.from_environment()
    state = client.call("POST", PATH, body)
    if not detach:
        state = followed(client, state)
    _show(state, as_json)


def tunings(as_json: AsJson = False) -> None:
    """List fine-tunings, the newest first.

    Examples:
      ragserve models tunings
      ragserve models tunings --json | jq '.data[0].progress.curve'
    """
    answer = Client.from_environment().call("GET", PATH)
    if as_json:
        print_json(answer)
        return
    table = Table("tuning", "model", "state", "step", "loss before", "after", "seconds")
    for one in answer["data"]:
        progress, held = one["progress"], one["evaluation"]
        table.add_row(
            one["id"],
            one["model_id"],
            one["status"],
            f"{progress['step']} of {progress['steps']}",
            _loss(held["loss_before"]),
            _loss(held["loss_after"]),
            f"{progress['seconds']:.0f}",
        )
    Console().print(table, markup=False)


def cancel_tuning(
    tuning: Annotated[str, typer.Argument(help="Its id, as `ragserve models tunings` shows it.")],
    as_json: AsJson = False,
) -> None:
    """Have a fine-tuning end; its examples and checkpoints go.

    Examples:
      ragserve models cancel-tuning tun_0199c2f0a7a97c3fb1f2d7a3c1e5b6d8
    """
    client = Client.from_environment()
    state = client.call("POST", f"{PATH}/{tuning}/cancel")
    while state["status"] == "cancelling":
        time.sleep(POLL_S)
        state = client.call("GET", f"{PATH}/{tuning}")
    _show(state, as_json)


def delete_tuning(
    tuning: Annotated[str, typer.Argument(help="Its id, as `ragserve models tunings` shows it.")],
    as_json: AsJson = False,
) -> None:
    """Remove a fine-tuning that has ended, and the version that it made, from the disk.

    It is refused while the version is loaded: unload it first.

    Examples:
      ragserve models delete-tuning tun_0199c2f0a7a97c3fb1f2d7a3c1e5b6d8
    """
    answer = Client.from_environment().call("DELETE", f"{PATH}/{tuning}")
    if as_json:
        print_json(answer)
    else:
        Console().print(f"{tuning}: deleted", markup=False, highlight=False, soft_wrap=True)


def followed(client: Client, state: dict[str, Any]) -> dict[str, Any]:
    """Show how far a tuning is until it ends; return its last state.

    Raises:
        OperatorError: it failed, or was cancelled.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(state["status"], total=None)
        while state["status"] in UNDER_WAY:
            time.sleep(POLL_S)
            state = client.call("GET", f"{PATH}/{state['id']}")
            progress = state["progress"]
            loss = f", loss {progress['curve'][-1]['loss']:.3f}" if progress["curve"] else ""
            said = f"{state['status']}{loss}"
            bar.update(task, description=said, total=progress["steps"], completed=progress["step"])
    if state["status"] != "completed":
        raise OperatorError(f"{state['id']} {state['status']}: {state['error'] or 'as asked'}")
    return state


def _sent(path: Path) -> dict[str, str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}") from error
    return {"filename": path.name, "content_base64": base64.b64encode(data).decode("ascii")}


def _show(state: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(state)
        return
    text = f"{state['id']}: {state['status']}"
    if state["adapter"]:
        held = state["evaluation"]
        text += f"; held-back loss {_loss(held['loss_before'])} before, "
        text += f"{_loss(held['loss_after'])} after; {state['source'] or state['adapter']}"
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def _loss(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.3f}"
