"""One installation with fake engines for the whole folder."""

from collections.abc import Iterator

import pytest

from tests.stack import ROOT, Stack, running


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with running(ROOT / "tests/chaos/slow_fake.yaml") as stack:
        yield stack
