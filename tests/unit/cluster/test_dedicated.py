"""Graphs beside the main one: what is theirs alone, and what they share with it."""

from pathlib import Path
from typing import Any

import pytest

from cluster.dedicated import DATABASE, EDGE, GRAPH, STATE, behind_our_edge, dedicated
from cluster.errors import OperatorError
from deployments.config import Settings


def application(name: str, **variables: str) -> dict[str, Any]:
    return {"name": name, "import_path": GRAPH, "runtime_env": {"env_vars": variables}}


def config(*others: dict[str, Any]) -> dict[str, Any]:
    return {"applications": [{"name": "ragserve", "import_path": GRAPH}, *others]}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "main", database_url="postgresql://db/main")


def test_graph_alone_is_nobodys(settings: Settings) -> None:
    assert dedicated(config(), settings) == []
    assert behind_our_edge(config(), settings) == config()


def test_dedicated_graphs_have_places_of_their_own(settings: Settings, tmp_path: Path) -> None:
    acme = application("acme", **{STATE: str(tmp_path / "acme")})
    beta = application("beta", **{STATE: str(tmp_path / "beta"), DATABASE: "postgresql://db/beta"})
    found = dedicated(config(acme, beta), settings)
    assert [one.state_path for one in found] == [tmp_path / "acme", tmp_path / "beta"]
    databases = [f"sqlite:///{tmp_path / 'acme' / 'ragserve.db'}", "postgresql://db/beta"]
    assert [one.database for one in found] == databases


def test_dedicated_graph_knows_the_edge_and_not_the_database(
    settings: Settings, tmp_path: Path
) -> None:
    own = {STATE: str(tmp_path / "acme"), "OTHER": "1"}
    given = config(application("acme", **own))
    _, acme = behind_our_edge(given, settings)["applications"]
    expected = {**own, DATABASE: "", EDGE: str(tmp_path / "main")}
    assert acme["runtime_env"]["env_vars"] == expected
    assert EDGE not in given["applications"][1]["runtime_env"]["env_vars"]


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({}, "2 applications are graphs"),
        ({STATE: "main"}, "the application acme has the state folder of another"),
        ({STATE: "acme", DATABASE: "postgresql://db/main"}, "has the database of another"),
    ],
    ids=["no-state-folder", "same-state-folder", "same-database"],
)
def test_graphs_that_share_what_they_must_not_are_refused(
    settings: Settings, tmp_path: Path, variables: dict[str, str], problem: str
) -> None:
    if STATE in variables:
        variables = {**variables, STATE: str(tmp_path / variables[STATE])}
    with pytest.raises(OperatorError, match=problem):
        dedicated(config(application("acme", **variables)), settings)
