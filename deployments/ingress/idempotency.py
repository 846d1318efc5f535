"""`Idempotency-Key`: a request that creates something may be sent again, and happens once."""

import asyncio
from collections.abc import Awaitable, Callable

from python_multipart.multipart import parse_options_header
from starlette.requests import Request
from starlette.responses import Response

from deployments.errors import RagError
from deployments.ingress.auth import Key
from deployments.stores.content import invalid
from deployments.stores.replays import Answer, Replays, Ticket

HEADER = "idempotency-key"
REPLAYED = "idempotent-replayed"
MAX_CHARS = 255

BRIEF_PATIENCE_S = 30.0
"""After which a brief request is dead; three times as long as the database may keep it."""

Answering = Callable[[Request], Awaitable[Response]]


class Idempotency:
    """Answers again what was answered before."""

    def __init__(self, store: Replays, patience_s: float) -> None:
        """Take where answers are kept, and after how long a request without one is dead."""
        self._store = store
        self._patience_s = patience_s

    async def answer(
        self, request: Request, operation: str, answering: Answering, *, is_brief: bool
    ) -> Response:
        """Return the answer of the first request with this key, which may be this one.

        Whoever asks again after an ingress has died is told to wait until the first request must
        be dead, too: not for long where it `is_brief`.

        Only successes are kept: after an error the request may be made again. A stream is none
        that can be given again.

        Raises:
            InvalidRequest: the key is empty, too long, or not ASCII.
            IdempotencyMismatch: the key came with another request.
            Conflict: the first request still runs.
        """
        said = request.headers.get(HEADER, "")
        if not said:
            return await answering(request)
        if len(said) > MAX_CHARS or not (said.isascii() and said.isprintable()):
            raise invalid(f"an `Idempotency-Key` has 1 to {MAX_CHARS} ASCII characters", HEADER)
        key: Key = request.state.key
        begun = await asyncio.to_thread(
            self._store.begin,
            key.id,
            f"{operation} {request.url.path}?{request.url.query}",
            said,
            await _body(request),
            min(self._patience_s, BRIEF_PATIENCE_S) if is_brief else self._patience_s,
        )
        if isinstance(begun, Answer):
            replayed = {REPLAYED: "true"}
            return Response(begun.body, begun.status, replayed, begun.media_type)
        return await self._first(request, begun, answering)

    async def _first(self, request: Request, ticket: Ticket, answering: Answering) -> Response:
        try:
            response = await answering(request)
        except RagError:
            await asyncio.to_thread(self._store.give_up, ticket)
            raise
        if type(response) is Response and response.status_code < 300:
            media_type = response.media_type or ""
            answer = Answer(response.status_code, media_type, bytes(response.body))
            await asyncio.to_thread(self._store.finish, ticket, answer)
        else:
            await asyncio.to_thread(self._store.give_up, ticket)
        return response


async def _body(request: Request) -> bytes:
    """Return what two requests have in common that ask for the same.

    A form's boundary is made up anew whenever it is sent.
    """
    body = await request.body()
    content_type = request.headers.get("content-type", "")
    if not content_type.startswith("multipart/form-data"):
        return body
    _, boundary = parse_options_header(content_type)
    return body.replace(boundary.get(b"boundary") or b"\r\n", b"")
