"""A Redis for all that can use one."""

from collections.abc import Iterator

import pytest

from tests.servers.redis_server import RedisServer, running_redis


@pytest.fixture(scope="session")
def redis_process() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def redis_server(redis_process: RedisServer) -> RedisServer:
    with redis_process.client() as client:
        client.flushall()
    return redis_process
