"""The folder sets the mark, and which installation `stack` is."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.stack import Stack

FOLDERS = ("unit", "integration", "chaos", "e2e")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for folder in FOLDERS:
            if folder in Path(item.path).relative_to(Path(__file__).parent).parts:
                item.add_marker(folder)


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client() as client:
        yield client
