"""Graphs beside the main one, each dedicated to one tenant: own models, database and state folder.

An application says so in its `runtime_env`, which a plain `serve deploy` of the file obeys, too.
"""

from pathlib import Path
from typing import Any

from cluster.errors import OperatorError
from deployments.config import Settings

GRAPH = "graphs.rag:build"
STATE = "RAGSERVE_STATE_DIR"
DATABASE = "RAGSERVE_DATABASE_URL"
EDGE = "RAGSERVE_EDGE_STATE_DIR"


def dedicated(config: dict[str, Any], settings: Settings) -> list[Settings]:
    """Return the settings of every application that has a state folder of its own.

    Args:
        config: a checked configuration.
        settings: of the host, which the other applications use.

    Raises:
        OperatorError: two graphs would share a state folder or a database.
    """
    found = [settings]
    for application in config["applications"]:
        variables = _variables(application)
        if STATE in variables:
            places = {
                "state_dir": Path(variables[STATE]),
                "database_url": variables.get(DATABASE, ""),
            }
            own = settings.model_copy(update=places)
            _check_apart(application.get("name", "default"), own, found)
            found.append(own)
    num_graphs = sum(application["import_path"] == GRAPH for application in config["applications"])
    if num_graphs > len(found):
        raise OperatorError(
            f"{num_graphs} applications are graphs: all but one need a {STATE} of their own in "
            "`runtime_env.env_vars`"
        )
    return found[1:]


def behind_our_edge(config: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return the configuration with what dedicated applications must know of the main one."""
    applications = []
    for application in config["applications"]:
        variables = _variables(application)
        if STATE in variables:
            known = {DATABASE: "", EDGE: str(settings.state_path), **variables}
            environment = {**application["runtime_env"], "env_vars": known}
            application = {**application, "runtime_env": environment}
        applications.append(application)
    return {**config, "applications": applications}


def _variables(application: dict[str, Any]) -> dict[str, str]:
    variables: dict[str, str] = (application.get("runtime_env") or {}).get("env_vars") or {}
    return variables


def _check_apart(name: str, own: Settings, others: list[Settings]) -> None:
    for other in others:
        if own.state_path == other.state_path:
            raise OperatorError(f"the application {name} has the state folder of another")
        if own.database == other.database:
            raise OperatorError(f"the application {name} has the database of another")
