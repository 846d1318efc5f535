import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from cluster.serve_mode import ServeMode, serve_environment


@pytest.mark.parametrize("mode", ServeMode)
def test_serve_mode_sets_only_names_that_serve_reads(mode: ServeMode, tmp_path: Path) -> None:
    spec = find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    source = (Path(spec.origin).parent / "serve/_private/constants.py").read_text()
    read = {
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"RAY_SERVE_[A-Z_]+", node.value)
    }
    assert set(serve_environment(mode, tmp_path)) <= read


def test_serve_mode_moves_every_file_of_haproxy_mode_into_the_folder(tmp_path: Path) -> None:
    env = serve_environment(ServeMode.HAPROXY, tmp_path)
    files = {name: value for name, value in env.items() if "/" in value}
    assert len(files) == 5
    assert all(Path(value).is_relative_to(tmp_path) for value in files.values())


def test_serve_mode_gives_haproxy_mode_ports_of_its_own(tmp_path: Path) -> None:
    env = serve_environment(ServeMode.HAPROXY, tmp_path)
    ports = [value for name, value in env.items() if name.endswith("_PORT")]
    assert len(set(ports)) == 4
    assert not {"8404", "9101", "8500", "9500"} & set(ports)
