"""`ragserve models`: what can be asked, and models that come and go while the server runs."""

import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cluster.client import Client
from cluster.errors import OperatorError
from cluster.finetune import cancel_tuning, delete_tuning, finetune, tunings
from cluster.help import help_of
from cluster.output import print_json

MIB = 1 << 20

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ModelName = Annotated[str, typer.Argument(help="`name` or `name@version`.")]

models = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)


def list_models(context: typer.Context, as_json: AsJson = False) -> None:
    """List the models of the server; every collection is one, as `rag/<collection>`.

    Examples:
      ragserve models
      ragserve models --json | jq -r '.data[].id'
    """
    if context.invoked_subcommand is not None:
        return
    answer = Client.from_environment().call("GET", "/v1/models")
    if as_json:
        print_json(answer)
        return
    table = Table("model", "owner")
    for model in answer["data"]:
        table.add_row(str(model["id"]), str(model.get("owned_by", "")))
    Console().print(table, markup=False)


def load(
    model: ModelName,
    source: Annotated[
        str, typer.Option(help="`embedded:<name>`, `hub:<org>/<name>`, a folder or a GGUF file.")
    ] = "",
    engine: Annotated[str, typer.Option(help="Engine; the usual one if empty.")] = "",
    kind: Annotated[str, typer.Option(help="generation, embedding or reranking.")] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16, int8 or auto.")] = "auto",
    replicas: Annotated[str, typer.Option(help="A number, or `min:max`.")] = "1",
    adapter: Annotated[
        str, typer.Option(help="Folder of a LoRA adapter; the model is `base:adapter`.")
    ] = "",
    option: Annotated[
        list[str] | None, typer.Option(help="Engine argument `name=value`; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Load a model, or an adapter over a loaded one, and wait until it answers.

    Examples:
      ragserve models load smollm2@2 --source embedded:smollm2-135m-instruct --precision bf16
      ragserve models load judge --source /models/reranker --replicas 1:3
      ragserve models load big --source /models/big.gguf --option context_length=8192
      ragserve models load big:legal --adapter /models/legal
    """
    body: dict[str, Any] = {
        "model_id": model,
        "device": device,
        "precision": precision,
        "replicas": replicas_of(replicas),
        "options": options_of(option or []),
        "stream": True,
    }
    given = {"source": source, "engine": engine, "kind": kind, "adapter": adapter}
    body |= {name: value for name, value in given.items() if value}
    state = followed(Client.from_environment().stream("/v1/models/load", body))
    _show_state(state, as_json)


def unload(
    model: ModelName,
    force: Annotated[bool, typer.Option("--force", help="Even if aliases name it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Unload a model once its requests have ended.

    Examples:
      ragserve models unload smollm2@1
    """
    body = {"model_id": model, "force": force, "wait": True}
    _show_state(Client.from_environment().call("POST", "/v1/models/unload", body), as_json)


def switch(
    alias: Annotated[str, typer.Argument(help="What requests say.")],
    to: Annotated[str, typer.Argument(help="The `name@version` that answers them.")],
    percent: Annotated[
        int, typer.Option(min=1, max=100, help="Share of the requests; the rest stays.")
    ] = 100,
    wait: Annotated[bool, typer.Option("--wait", help="Load it first, if it is not.")] = False,
    as_json: AsJson = False,
) -> None:
    """Point an alias at a version, for all requests or a share of them.

    Examples:
      ragserve models switch chat smollm2@2 --percent 10
      ragserve models switch chat smollm2@2
      ragserve models switch chat smollm2@1 --wait
    """
    body = {"alias": alias, "to": to, "canary_percent": percent, "wait": wait}
    answer = Client.from_environment().call("POST", "/v1/models/switch", body)
    if as_json:
        print_json(answer)
        return
    shares = ", ".join(f"{one['percent']} % {one['model']}" for one in answer["targets"])
    Console().print(f"{answer['alias']}: {shares}", markup=False, highlight=False)


def status(as_json: AsJson = False) -> None:
    """Show every model with its replicas, every alias, and every machine.

    Examples:
      ragserve models status
      ragserve models status --json | jq '.nodes[].gpus'
    """
    answer = Client.from_environment().call("GET", "/v1/models/status")
    if as_json:
        print_json(answer)
        return
    console = Console()
    table = Table("model", "state", "replicas", "running", "queued", "tokens/s", "cache", "MiB")
    for one in answer["models"]:
        wanted = "?" if one["replicas_wanted"] is None else one["replicas_wanted"]
        table.add_row(
            one["id"],
            one["state"],
            f"{one['replicas_running']} of {wanted}",
            str(one["requests_running"]),
            str(one["queued"]),
            f"{one['tokens_per_s']:.1f}",
            f"{one['kv_cache_usage']:.0%}",
            str(one["memory_bytes"] // MIB),
        )
    console.print(table, markup=False)
    for alias in answer["aliases"]:
        shares = ", ".join(f"{one['percent']} % {one['model']}" for one in alias["targets"])
        console.print(f"{alias['alias']}: {shares}", markup=False, highlight=False)
    for node in answer["nodes"]:
        console.print(_node(node), markup=False, highlight=False)


def replicas_of(text: str) -> dict[str, int]:
    """Return the range that `3` or `1:3` says."""
    least, _, most = text.partition(":")
    try:
        return {"min": int(least), "max": max(int(most or least), 1)}
    except ValueError:
        raise OperatorError("--replicas is a number, or two with a colon") from None


def options_of(pairs: Iterable[str]) -> dict[str, Any]:
    """Return `name=value` pairs; values are JSON where they can be, else text."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, is_pair, value = pair.partition("=")
        if not is_pair:
            raise OperatorError(f"--option {name!r} has no value: give `name=value`")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def followed(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Show how far a load is until it ends; return the model's state.

    Raises:
        OperatorError: the load failed, or the stream ended without saying how.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("loading", total=None)
        for event in events:
            if event["type"] == "error":
                raise OperatorError(event["error"]["message"])
            if event["type"] == "done":
                return dict(event["model"])
            progress = event["model"]["progress"] or {}
            total = progress.get("bytes_total") or None
            bar.update(task, total=total, completed=progress.get("bytes_read") or 0)
    raise OperatorError("the server ended without saying what became of the load")


def _show_state(state: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(state)
        return
    Console().print(f"{state['id']}: {state['state']}", markup=False, highlight=False)


def _node(node: dict[str, Any]) -> str:
    used, total = node["memory_used_bytes"] // MIB, node["memory_total_bytes"] // MIB
    gpus = "".join(
        f"; {gpu['name']}: {gpu['utilisation']:.0%}, {gpu['memory_used_bytes'] // MIB} of "
        f"{gpu['memory_total_bytes'] // MIB} MiB"
        for gpu in node["gpus"]
    )
    cpus = f"{node['num_cpus']} CPUs {node['cpu']:.0%}"
    return f"{node['host']}: {cpus}, {used} of {total} MiB{gpus}"


models.callback(invoke_without_command=True, help=help_of(list_models))(list_models)
for command in (load, unload, switch, status, finetune, tunings, cancel_tuning, delete_tuning):
    models.command(help=help_of(command))(command)
