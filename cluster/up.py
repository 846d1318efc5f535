"""`ragserve up`: start everything and stay in the foreground."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cluster.errors import OperatorError
from cluster.ports import LOOPBACK, check_free
from cluster.run_record import read_record
from cluster.serve_config import load_config
from cluster.serve_mode import ServeMode
from cluster.state import StateFolder, exclusive
from cluster.supervisor import Plan, Supervisor
from cluster.view import View
from deployments.config import Settings


def up(
    config: Annotated[Path, typer.Argument(help="Serve configuration.")] = Path(
        "serve_config.yaml"
    ),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = LOOPBACK,
    serve_mode: Annotated[
        ServeMode, typer.Option(envvar="RAGSERVE_SERVE_MODE", help="How Serve moves requests.")
    ] = ServeMode.GRPC,
) -> None:
    """Start the cluster and stay in the foreground; Ctrl-C ends everything it started.

    Examples::

        ragserve up

        RAGSERVE_HTTP_PORT=9090 ragserve up configs/gpu.yaml --host 0.0.0.0
    """
    settings = Settings()
    state = StateFolder(settings.state_path)
    plan = Plan(state, config.resolve(), load_config(config), host, settings.http_port, serve_mode)
    state.prepare()
    with exclusive(state) as free:
        if not free:
            record = read_record(state)
            raise OperatorError(f"already up{f' on {record.url}' if record else ''} ({state.path})")
        check_free(plan.host, plan.port)
        _in_foreground(plan)


def _in_foreground(plan: Plan) -> None:
    view = View(Console(stderr=True))
    supervisor = Supervisor(plan, view)
    supervisor.run(lambda: view.step(f"ready on {plan.url} (supervisor {os.getpid()})"))
