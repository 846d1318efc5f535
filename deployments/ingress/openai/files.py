"""`/v1/files`: what is sent is kept in parts, and read back in pieces."""

import asyncio
import re
from collections.abc import Iterator
from typing import Annotated, Literal, get_args

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.types import Receive, Scope, Send

from deployments.config import BatchesArgs
from deployments.errors import InvalidRequest, PayloadTooLarge
from deployments.ingress.access import guarded
from deployments.ingress.auth import Key
from deployments.ingress.entry import touch, touching
from deployments.ingress.openai.batches import add_batches
from deployments.ingress.openai.pages import page_of
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.batch_states import FileDeleted, FileObject, FilePage, file_object
from deployments.ingress.schemas.batches import MAX_KEPT_S, MIN_KEPT_S
from deployments.ingress.services import Services, json_response
from deployments.stores.batches.files import PART_BYTES, FileStore
from deployments.stores.content import UNSTORABLE, invalid
from deployments.types.batches import FileOrder, FilePurpose, StoredFile

PATH = "/v1/files"
FILE_ID = "file_[0-9a-f]{32}"
ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"
FIELDS = ("file", "purpose", ANCHOR, SECONDS)
PURPOSES: tuple[FilePurpose, ...] = get_args(FilePurpose)
UNPLAIN = re.compile(r"[^A-Za-z0-9._-]")
MAX_NAME_CHARS = 255
MAX_FIELD_BYTES = 1024
FORM = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "the file, with its name"},
        "purpose": {
            "type": "string",
            "enum": list(PURPOSES),
            "description": "`batch`: JSON Lines, a request each; the others are only kept",
        },
        ANCHOR: {"type": "string", "enum": ["created_at"]},
        SECONDS: {"type": "integer", "minimum": MIN_KEPT_S, "maximum": MAX_KEPT_S},
    },
    "additionalProperties": False,
}
BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

FileId = Annotated[str, Path(pattern=f"^{FILE_ID}$")]
After = Annotated[str, Query(pattern=f"^({FILE_ID})?$", description="id of the last one seen")]
Limit = Annotated[int, Query(ge=1, le=10_000)]
Purpose = Annotated[str, Query(max_length=32, description="only files of this one")]


def files_router(services: Services) -> APIRouter:
    """Return the routes that keep files, and those that make batches of them."""
    router = guarded(tags=["Batches"])
    _add_upload(router, services)

    @router.get(PATH, **describe("listFiles", None, FilePage))
    async def list_files(
        request: Request,
        limit: Limit = 10_000,
        after: After = "",
        order: Literal["asc", "desc"] = "desc",
        purpose: Purpose = "",
    ) -> Response:
        """List files by age, the newest first unless asked otherwise."""
        found = await asyncio.to_thread(
            services.batches.files.find,
            request.state.key.tenant,
            limit=limit + 1,
            after=after,
            is_ascending=order == "asc",
            purpose=purpose,
        )
        return page_of([file_object(one).model_dump() for one in found], limit)

    @router.get(f"{PATH}/{{file_id}}", **describe("getFile", None, FileObject, errors=(404,)))
    async def get_file(request: Request, file_id: FileId) -> Response:
        """Return what a file is."""
        file = await _found(services.batches.files, request, file_id)
        return json_response(file_object(file).model_dump())

    described = describe("getFileContent", errors=(404,))
    described["responses"][200]["content"] = BINARY

    @router.get(f"{PATH}/{{file_id}}/content", **described)
    async def get_content(request: Request, file_id: FileId) -> Response:
        """Return a file's bytes; output of a batch is JSON Lines, in the order of its input."""
        files = services.batches.files
        file = await _found(files, request, file_id)
        return Download(files.pieces(file), file)

    @router.delete(
        f"{PATH}/{{file_id}}", **describe("deleteFile", None, FileDeleted, errors=(404, 409))
    )
    async def delete_file(request: Request, file_id: FileId) -> Response:
        """Remove a file; 409 while a batch reads it."""
        with touching("file", file_id):
            tenant = request.state.key.tenant
            await asyncio.to_thread(services.batches.files.delete, tenant, file_id)
        return json_response({"id": file_id, "object": "file", "deleted": True})

    add_batches(router, services)
    return router


def _add_upload(router: APIRouter, services: Services) -> None:
    described = describe("uploadFile", None, FileObject)
    described["openapi_extra"]["requestBody"] = {
        "required": True,
        "content": {"multipart/form-data": {"schema": FORM}},
    }

    @router.post(PATH, **described)
    async def upload_file(request: Request) -> Response:
        """Keep a file, sent as `multipart/form-data`.

        The whole request may be as large as any other; 413 says how large that is. Files for
        batches go after 30 days, others stay, unless `expires_after` says otherwise.
        """
        args, files, key = services.args.batches, services.batches.files, request.state.key
        try:
            async with request.form(
                max_files=1, max_fields=len(FIELDS), max_part_size=MAX_FIELD_BYTES
            ) as form:
                upload, order = _order(form, key, args)
                file = await _kept(files, upload, order, args)
        except MultiPartException:
            raise InvalidRequest("the form could not be read") from None
        touch("file", file.id)
        return json_response(file_object(file).model_dump())


async def _found(files: FileStore, request: Request, file_id: str) -> StoredFile:
    with touching("file", file_id):
        return await asyncio.to_thread(files.get, request.state.key.tenant, file_id)


def _order(form: FormData, key: Key, args: BatchesArgs) -> tuple[UploadFile, FileOrder]:
    """Return what a form sends; raises InvalidRequest, which names the field."""
    unknown = next((name for name in form if name not in FIELDS), None)
    if unknown is not None:
        raise invalid(f"a form has the fields {', '.join(FIELDS)}", unknown[:64])
    upload, purpose = form.get("file"), form.get("purpose")
    if not isinstance(upload, UploadFile):
        raise invalid("a form has one file, in the field `file`", "file")
    name = upload.filename or ""
    if not 0 < len(name) <= MAX_NAME_CHARS or UNSTORABLE.search(name):
        raise invalid(f"a file's name has 1 to {MAX_NAME_CHARS} characters", "file")
    known = next((one for one in PURPOSES if one == purpose), None)
    if known is None:
        raise invalid(f"must be one of {', '.join(PURPOSES)}", "purpose")
    default_s = args.kept_days * 86_400.0 if known == "batch" else 0.0
    order = FileOrder(
        tenant=key.tenant,
        purpose=known,
        filename=name,
        num_bytes=upload.size or 0,
        kept_s=_kept_s(form, default_s),
    )
    return upload, order


def _kept_s(form: FormData, default_s: float) -> float:
    anchor, seconds = form.get(ANCHOR), form.get(SECONDS)
    if anchor is None and seconds is None:
        return default_s
    if anchor != "created_at":
        raise invalid("must be created_at", ANCHOR)
    is_number = isinstance(seconds, str) and seconds.isascii() and seconds.isdigit()
    if not is_number or not MIN_KEPT_S <= int(str(seconds)[:10]) <= MAX_KEPT_S:
        raise invalid(f"must be {MIN_KEPT_S} to {MAX_KEPT_S}", SECONDS)
    return float(str(seconds))


async def _kept(
    files: FileStore, upload: UploadFile, order: FileOrder, args: BatchesArgs
) -> StoredFile:
    """Write a file in parts; what does not come whole is removed."""
    if not order.num_bytes:
        raise invalid("the file is empty", "file")
    if order.num_bytes > args.max_file_bytes:
        raise PayloadTooLarge(f"the file is larger than {args.max_file_bytes} bytes")
    bounds = {"max_files": args.max_files, "max_bytes": args.max_total_bytes}
    file_id = await asyncio.to_thread(files.begin, order, **bounds)
    number = 0
    try:
        while part := await upload.read(PART_BYTES):
            await asyncio.to_thread(files.add, file_id, number, part)
            number += 1
        return await asyncio.to_thread(files.finish, file_id)
    except BaseException:
        await asyncio.to_thread(files.discard, file_id)
        raise


class Download(Response):
    """A file in pieces. One that breaks off has no end, and no client takes it for whole."""

    def __init__(self, pieces: Iterator[bytes], file: StoredFile) -> None:
        super().__init__(media_type="application/octet-stream")
        del self.headers["content-length"]
        name = UNPLAIN.sub("_", file.filename)
        self.headers["content-disposition"] = f'attachment; filename="{name}"'
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces as they are read; the first one before anything is said."""
        piece = await asyncio.to_thread(next, self._pieces, b"")
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        while piece:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            piece = await asyncio.to_thread(next, self._pieces, b"")
        await send({"type": "http.response.body", "body": b"", "more_body": False})
