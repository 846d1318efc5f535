"""Files and texts as they are sent: base64 in JSON, or a form; bounded, then extracted.

It does not know what becomes of them.
"""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from deployments.config import IngressArgs
from deployments.engines.extraction.document import Extracted
from deployments.errors import InvalidRequest, PayloadTooLarge, UnreadableDocument
from deployments.ingress.json_body import parse
from deployments.ingress.schemas.base import Schema
from deployments.ingress.schemas.files import File
from deployments.ingress.services import Extract, Services
from deployments.stores.content import invalid

EXTRACTIONS_AT_ONCE = 2
MAX_FIELDS = 16
MAX_FIELD_BYTES = 1024 * 1024

Body = TypeVar("Body", bound=Schema)


class FileReader:
    """Turns what was sent into text; extracts a few files at a time."""

    def __init__(self, extract: Extract, args: IngressArgs) -> None:
        self._extract = extract
        self._max_bytes = args.max_document_bytes
        self._slots = asyncio.Semaphore(EXTRACTIONS_AT_ONCE)

    async def extracted(self, file: File, param: str) -> Extracted:
        """Return what a file says; `param` names it in errors.

        Raises:
            InvalidRequest: its content is not base64.
            PayloadTooLarge: it is larger than a document may be.
            UnreadableDocument: it could not be turned into text, or holds none.
        """
        try:
            data = base64.b64decode(file.content_base64, validate=True)
        except (binascii.Error, ValueError):
            message = "the file's content is not valid base64"
            raise invalid(message, f"{param}.content_base64") from None
        return await self._read(data, file.filename)

    async def of_html(self, page: str) -> Extracted:
        """Return what a web page says; raises as `extracted`."""
        return await self._read(page.encode(), "page.html")

    def checked(self, text: str) -> str:
        """Return a text, unless it is larger than a document may be."""
        self._check_size(len(text.encode()))
        return text

    async def _read(self, data: bytes, filename: str) -> Extracted:
        self._check_size(len(data))
        async with self._slots:
            extracted = await self._extract(data, filename)
        if not extracted.text.strip():
            raise UnreadableDocument("the file holds no text")
        return extracted

    def _check_size(self, num_bytes: int) -> None:
        if num_bytes > self._max_bytes:
            raise PayloadTooLarge(f"the document is larger than {self._max_bytes} bytes")


async def read_body(
    services: Services,
    request: Request,
    model: type[Body],
    from_form: Callable[[FormData, int], Awaitable[Body]],
) -> Body:
    """Return the validated body of a request that may be JSON or `multipart/form-data`.

    Raises:
        InvalidRequest: it is neither, or not what the route takes.
    """
    content_type = request.headers.get("content-type", "")
    if not content_type.startswith("multipart/form-data"):
        return await services.read(request, model)
    if "charset" in content_type.lower():
        raise InvalidRequest("a form's text is UTF-8; send no charset")
    try:
        async with request.form(
            max_files=services.args.max_documents_per_call,
            max_fields=MAX_FIELDS,
            max_part_size=MAX_FIELD_BYTES,
        ) as form:
            return await from_form(form, services.args.max_json_depth)
    except MultiPartException:
        raise InvalidRequest("the form could not be read") from None


async def files_of(form: FormData, fields: frozenset[str]) -> list[dict[str, str]]:
    """Return a form's files as they stand in JSON.

    Raises:
        InvalidRequest: there is none, or the form has other fields than `file` and `fields`.
    """
    files = [item for item in form.getlist("file") if isinstance(item, UploadFile)]
    if not files or {*form.keys()} - fields - {"file"}:
        names = ", ".join(sorted(fields))
        raise InvalidRequest(f"a form has the field file, and may have {names}")
    return [
        {
            "filename": file.filename or "",
            "content_base64": base64.b64encode(await file.read()).decode("ascii"),
        }
        for file in files
    ]


def json_fields(form: FormData, names: tuple[str, ...], max_depth: int) -> dict[str, Any]:
    """Return the fields of a form that hold JSON, where they are given."""
    fields = {name: form.get(name) for name in names}
    return {
        name: parse(value.encode(), max_depth)
        for name, value in fields.items()
        if isinstance(value, str)
    }
