"""What the Ingress replica does about Serve."""

import asyncio
from typing import Any

from ray.serve import context
from ray.serve._private.default_impl import (
    create_dynamic_handle_options,
    create_init_handle_options,
    get_request_metadata,
)

from deployments.ingress.asgi import Receive, Scope, Send
from deployments.ingress.replica import _with_calls_apart

HANDLE = create_init_handle_options()
OPTIONS = create_dynamic_handle_options(
    method_name="search", request_serialization="pickle", response_serialization="pickle"
)


async def nothing(*_: Any) -> Any:
    """Neither receive nor send."""


def test_calls_of_one_request_have_ids_of_their_own_and_its_public_id():
    calls: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.extend(get_request_metadata(HANDLE, OPTIONS) for _ in range(2))

    async def serve() -> None:
        request = context._RequestContext(request_id="public", _internal_request_id="internal")
        context._serve_request_context.set(request)  # as a replica does before it calls the app
        await _with_calls_apart(app)({}, nothing, nothing)

    asyncio.run(serve())
    assert [call.request_id for call in calls] == ["public"] * 2
    assert len({"internal", *(call.internal_request_id for call in calls)}) == 3
