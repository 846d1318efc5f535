"""The folder sets the mark."""

from pathlib import Path

import pytest

FOLDERS = ("unit", "integration", "chaos", "e2e")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for folder in FOLDERS:
            if folder in Path(item.path).relative_to(Path(__file__).parent).parts:
                item.add_marker(folder)
