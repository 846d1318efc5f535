"""`ragserve status`: what runs, and how it fares."""

from dataclasses import asdict
from typing import Annotated, Any

import psutil  # type: ignore[import-untyped]
import typer
from rich.console import Console
from rich.table import Table

from cluster.output import print_json
from cluster.run_record import RunRecord, running_record
from cluster.serve_api import DeploymentState, ServeApi
from cluster.state import StateFolder
from cluster.supervisor import answers
from deployments.config import Settings

MEBIBYTE = 1024 * 1024


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print the status as JSON.")] = False,
) -> None:
    """Show the deployments: replicas wanted and running, health, memory of each replica.

    The exit code is 1 when nothing is up.

    Examples:
      ragserve status
      ragserve status --json | jq '.deployments[] | select(.status != "HEALTHY")'
    """
    state = StateFolder(Settings().state_path)
    report = collect(state, running_record(state))
    if as_json:
        print_json(report)
    else:
        _show(report, Console())


def collect(state: StateFolder, record: RunRecord) -> dict[str, Any]:
    """Return everything `status` shows.

    Raises:
        OperatorError: the cluster's dashboard does not answer.
    """
    token = state.ray_token.read_text(encoding="utf-8").strip()
    applications = ServeApi(record.dashboard_url, token).applications()
    return {
        **asdict(record),
        "state_dir": str(state.path),
        "is_answering": answers(record.url),
        "applications": [
            {"name": a.name, "status": a.status, "route_prefix": a.route_prefix}
            for a in applications
        ],
        "deployments": [_deployment(d) for a in applications for d in a.deployments],
    }


def _deployment(state: DeploymentState) -> dict[str, Any]:
    replicas = [{"pid": pid, "memory_mib": _memory_mib(pid)} for pid in state.pids]
    return {
        "application": state.application,
        "name": state.name,
        "status": state.status,
        "replicas_wanted": state.wanted,
        "replicas_running": state.running,
        "message": state.message,
        "replicas": replicas,
    }


def _memory_mib(pid: int) -> int | None:
    """Return the resident memory of a process of this host, or None when it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss) // MEBIBYTE
    except psutil.Error:
        return None


def _show(report: dict[str, Any], console: Console) -> None:
    reachable = "answers" if report["is_answering"] else "does not answer"
    console.print(
        f"{report['url']} {reachable}; {report['phase']}, up since {report['started_at']}"
    )
    console.print(f"state {report['state_dir']}, Serve mode {report['serve_mode']}", soft_wrap=True)
    table = Table("application", "deployment", "status", "replicas", "memory (MiB)")
    for deployment in report["deployments"]:
        memory = ", ".join(str(replica["memory_mib"]) for replica in deployment["replicas"])
        table.add_row(
            deployment["application"],
            deployment["name"],
            deployment["status"],
            f"{deployment['replicas_running']} of {deployment['replicas_wanted']}",
            memory,
        )
    console.print(table, markup=False)
    console.print(f"API pages {report['url']}/docs; dashboard {report['dashboard_url']} (token)")
