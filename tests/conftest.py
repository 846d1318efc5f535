"""The folder sets the mark, and which installation `stack` is."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.stack import Stack

FOLDERS = ("unit", "integration", "chaos", "e2e")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seen = Counter(item.nodeid for item in items)
    if twice := [node for node, count in seen.items() if count > 1]:
        raise pytest.UsageError(f"xdist runs tests that share an id once, or never: {twice}")
    for item in items:
        for folder in FOLDERS:
            if folder in Path(item.path).relative_to(Path(__file__).parent).parts:
                item.add_marker(folder)


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client() as client:
        yield client
