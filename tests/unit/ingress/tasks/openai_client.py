"""OpenAI's own client over the application, without a network."""

import httpx
import openai

from tests.unit.ingress.conftest import KEY
from tests.unit.ingress.tasks.conftest import House


def client_of(house: House, key: str = KEY) -> openai.AsyncOpenAI:
    """Return a client; it does not try again by itself."""
    transport = httpx.ASGITransport(house.surface.gate)
    http = httpx.AsyncClient(transport=transport, base_url="http://test/v1")
    return openai.AsyncOpenAI(
        api_key=key, base_url="http://test/v1", http_client=http, max_retries=0
    )
