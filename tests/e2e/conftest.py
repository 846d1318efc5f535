"""The default application with its real models, once for the whole folder."""

from collections.abc import Iterator

import openai
import pytest

from tests.stack import ROOT, Stack, running


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with running(ROOT / "serve_config.yaml") as stack:
        yield stack


@pytest.fixture(scope="session")
def ai(stack: Stack) -> Iterator[openai.OpenAI]:
    """The official client, as any program would use it; it never retries, so nothing is hidden."""
    url = f"{stack.url}/v1"
    with openai.OpenAI(base_url=url, api_key=stack.key, timeout=120, max_retries=0) as client:
        yield client
