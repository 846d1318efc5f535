"""`ragserve up`: start everything and stay in the foreground, or `--detach`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cluster.bootstrap import prepare_database
from cluster.detach import run_detached
from cluster.errors import OperatorError
from cluster.ports import LOOPBACK, check_free
from cluster.run_record import read_record
from cluster.serve_config import load_config
from cluster.serve_mode import ServeMode
from cluster.state import StateFolder, exclusive, supervisor_pid
from cluster.supervisor import Plan, Supervisor
from cluster.view import View
from cluster.welcome import welcome
from deployments.config import Settings


def up(
    config: Annotated[Path, typer.Argument(help="Serve configuration to run.")] = Path(
        "serve_config.yaml"
    ),
    host: Annotated[
        str, typer.Option(envvar="RAGSERVE_HOST", help="Address to listen on; 0.0.0.0 opens it.")
    ] = LOOPBACK,
    serve_mode: Annotated[
        ServeMode, typer.Option(envvar="RAGSERVE_SERVE_MODE", help="How Serve moves requests.")
    ] = ServeMode.DIRECT,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once it is ready; `down` ends it.")
    ] = False,
) -> None:
    """Start the cluster and stay in the foreground; Ctrl-C ends everything it started.

    Examples:
      ragserve up
      ragserve up --detach
      RAGSERVE_HTTP_PORT=9090 ragserve up configs/gpu.yaml --host 0.0.0.0
    """
    settings = Settings()
    state = StateFolder(settings.state_path)
    path = _default_beside_package(config)
    console = Console(stderr=True)
    state.prepare()
    _refuse_if_up(state)
    check_free(host, settings.http_port)
    if detach:
        url = run_detached(state, [str(path), "--host", host, "--serve-mode", serve_mode.value])
        welcome(console, url, state)
        return
    plan = Plan(state, path, load_config(path), host, settings.http_port, serve_mode)
    with exclusive(state) as is_ours:
        if not is_ours:
            _refuse_if_up(state)
        _in_foreground(plan, settings, console)


def _default_beside_package(config: Path) -> Path:
    """Return the file meant: the default one is also found beside the installed packages."""
    if not config.exists() and config == Path("serve_config.yaml"):
        return Path(__file__).resolve().parent.parent / config
    return config.resolve()


def _refuse_if_up(state: StateFolder) -> None:
    if supervisor_pid(state) is None:
        return
    record = read_record(state)
    where = f" on {record.url}" if record else ""
    raise OperatorError(f"already up{where}: `ragserve status` shows it, `ragserve down` ends it")


def _in_foreground(plan: Plan, settings: Settings, console: Console) -> None:
    view = View(console)
    supervisor = Supervisor(plan, view)

    def prepare() -> None:
        view.step("preparing the database")
        if prepare_database(settings).key_status == "unusable":
            view.warn(f"the key in {plan.state.admin_key} does not work with this database")

    supervisor.run(prepare, lambda: welcome(console, plan.url, plan.state))
    sys.stderr.flush()
