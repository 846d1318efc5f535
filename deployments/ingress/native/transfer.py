"""`/v1/data/collections/{name}/export` and `/import`: whole collections as Parquet."""

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from starlette.types import Receive, Scope, Send

from deployments.errors import InvalidRequest, RagError
from deployments.ingress.access import guarded
from deployments.ingress.errors import error_object
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.base import COLLECTION_PATTERN
from deployments.ingress.schemas.transfer import (
    PARQUET,
    ExportRequest,
    ExportResult,
    ImportRequest,
    ImportResult,
)
from deployments.ingress.services import Services, json_response
from deployments.types import RowError

Name = Annotated[str, Path(pattern=COLLECTION_PATTERN)]
BINARY = {"schema": {"type": "string", "format": "binary"}}


def transfer_router(services: Services) -> APIRouter:
    """Return the routes that move whole collections."""
    router = guarded(tags=["Collections"])
    args = services.args
    timeout_s = args.request_timeout_s
    described = describe("export", ExportRequest, ExportResult, errors=(404, 409, 502))
    described["responses"][200]["content"][PARQUET] = BINARY
    described["openapi_extra"]["requestBody"]["required"] = False

    @router.post("/v1/data/collections/{name}/export", **described)
    async def export(name: Name, request: Request) -> Response:
        """Return one state of a collection as a Parquet file, or write it to `uri`.

        A row is a document with its chunks and their vectors; the import takes it back to the bit.
        """
        graph, body = services.graph_of(request), ExportRequest()
        if (await request.body()).strip():
            body = await services.read(request, ExportRequest)
        if body.uri is not None:
            return json_response(await graph.export_to(name, body.uri, timeout_s=timeout_s))
        pieces = graph.export_collection(name, timeout_s=timeout_s)
        return FileStream(pieces, await anext(pieces), f"{name}.parquet")

    described = describe("import", ImportRequest, ImportResult, errors=(404, 409, 422, 502))
    described["openapi_extra"]["requestBody"]["content"][PARQUET] = BINARY

    @router.post("/v1/data/collections/{name}/import", **described)
    async def import_(name: Name, request: Request) -> Response:
        """Store the documents of a Parquet file: the body itself, or what lies at `uri`.

        An export makes the collection if there is none. Any table with the columns `id`, `text`
        and `vector` (and perhaps `title`, `metadata`, `subject`) can be read into a collection. A
        row that cannot be stored is reported and keeps no other out.
        """
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        source: bytes | str = await request.body()
        if content_type != PARQUET:
            source = (await services.read(request, ImportRequest)).uri
        elif not source:
            raise InvalidRequest("the body is empty; send a Parquet file")
        imported = await services.graph_of(request).import_collection(
            name, source, max_document_bytes=args.max_document_bytes, timeout_s=timeout_s
        )
        answer = {each.name: getattr(imported, each.name) for each in dataclasses.fields(imported)}
        request_id = request.state.request_id
        answer["errors"] = [
            {"row": one.row, "id": one.id, "error": error_object(_error(one), request_id)}
            for one in imported.errors
        ]
        return json_response(answer)

    return router


def _error(row: RowError) -> RagError:
    error = InvalidRequest(row.message)
    error.param = row.param
    return error


class FileStream(Response):
    """A file in pieces. One that breaks off has no end, and no reader of Parquet takes it."""

    def __init__(self, pieces: AsyncGenerator[bytes], first: bytes, filename: str) -> None:
        disposition = f'attachment; filename="{filename}"'
        super().__init__(media_type=PARQUET, headers={"content-disposition": disposition})
        del self.headers["content-length"]
        self._pieces = pieces
        self._first = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces as they come."""
        async with aclosing(self._pieces):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for piece in self._pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
