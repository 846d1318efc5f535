"""What is installed: named in full, from where packages come from, and in the versions that ran."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINNED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==[0-9][A-Za-z0-9.+!_-]*( ;.*)?")


def constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def asked() -> list[Requirement]:
    extras = PROJECT["project"].get("optional-dependencies", {})
    groups = PROJECT.get("dependency-groups", {})
    lists = [PROJECT["project"]["dependencies"], *extras.values(), *groups.values()]
    return [Requirement(one) for some in lists for one in some if isinstance(one, str)]


def test_a21_constraints_are_exact_and_hold_no_address() -> None:
    for line in constraints():
        assert PINNED.fullmatch(line), line


def test_a21_every_dependency_has_a_range_and_an_exact_version() -> None:
    exact = {canonicalize_name(PINNED.fullmatch(line)["name"]) for line in constraints()}  # type: ignore[index]
    own = canonicalize_name(PROJECT["project"]["name"])
    for one in asked():
        if canonicalize_name(one.name) == own:
            continue
        assert one.url is None, one
        assert one.specifier or one.name == "torch", one
        if "vllm" not in one.name:  # an extra for other machines, which no test here installs
            assert canonicalize_name(one.name) in exact, one
