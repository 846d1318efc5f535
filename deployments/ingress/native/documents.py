"""Documents on their way in: from a JSON body or a form, from text or files, to the graph.

A broken document is reported for itself and does not keep the others out.
"""

import asyncio
import base64
import binascii
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from starlette.datastructures import FormData, UploadFile

from deployments.config import IngressArgs
from deployments.errors import InvalidRequest, PayloadTooLarge, RagError, UnreadableDocument
from deployments.ingress.json_body import parse, validated
from deployments.ingress.native.ready import document_text, ready_chunks
from deployments.ingress.schemas.data import IndexDocument, IndexRequest
from deployments.ingress.services import Extract
from deployments.stores.content import invalid
from deployments.stores.ids import new_id
from deployments.types import Document

EXTRACTIONS_AT_ONCE = 2
FORM_FIELDS = frozenset({"collection", "id", "title", "metadata", "file"})


@dataclass(frozen=True, slots=True)
class Failure:
    """A document that could not be read, and why."""

    id: str | None
    filename: str | None
    error: RagError


@dataclass(slots=True)
class Intake:
    """The documents of one call: those that could be read, and the others."""

    documents: list[Document] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


class DocumentReader:
    """Turns what was sent into documents; extracts a few files at a time."""

    def __init__(self, extract: Extract, args: IngressArgs) -> None:
        self._extract = extract
        self._args = args
        self._slots = asyncio.Semaphore(EXTRACTIONS_AT_ONCE)

    async def read(self, body: IndexRequest, dim: int | None = None) -> Intake:
        """Return the documents of a call, in order.

        Args:
            body: the call.
            dim: the length of a vector; needed where documents bring theirs.

        Raises:
            InvalidRequest: there are more than one call may bring.
        """
        if len(body.documents) > self._args.max_documents_per_call:
            message = f"more than {self._args.max_documents_per_call} documents in one call"
            raise invalid(message, "documents")
        intake = Intake()
        reads = (self._read(one, position, dim) for position, one in enumerate(body.documents))
        for result in await asyncio.gather(*reads):
            if isinstance(result, Document):
                intake.documents.append(result)
            else:
                intake.failures.append(result)
        return intake

    async def _read(self, one: IndexDocument, position: int, dim: int | None) -> Document | Failure:
        embedded = None
        try:
            text, title = await self._content(one, position)
            if one.is_ready:
                embedded = ready_chunks(one, dim, f"documents[{position}]")
        except RagError as error:
            error.param = error.param or f"documents[{position}]"
            return Failure(one.id, one.file.filename if one.file else None, error)
        return Document(
            id=one.id or new_id("doc"),
            text=text,
            title=one.title or title,
            metadata=dict(one.metadata or {}),
            embedded=embedded,
        )

    async def _content(self, one: IndexDocument, position: int) -> tuple[str, str]:
        if one.file is None:
            text = document_text(one)
            self._check_size(len(text.encode()))
            return text, ""
        try:
            data = base64.b64decode(one.file.content_base64, validate=True)
        except (binascii.Error, ValueError):
            param = f"documents[{position}].file.content_base64"
            raise invalid("the file's content is not valid base64", param) from None
        self._check_size(len(data))
        async with self._slots:
            extracted = await self._extract(data, one.file.filename)
        if not extracted.text.strip():
            raise UnreadableDocument("the file holds no text")
        return extracted.text, extracted.title or PurePath(one.file.filename).name

    def _check_size(self, num_bytes: int) -> None:
        if num_bytes > self._args.max_document_bytes:
            limit = self._args.max_document_bytes
            raise PayloadTooLarge(f"the document is larger than {limit} bytes")


async def from_form(form: FormData, max_depth: int) -> IndexRequest:
    """Return the same request from a form.

    Its fields are `collection`, `file` (once or more), and for a single file `id`, `title` and
    `metadata` (a JSON object).

    Raises:
        InvalidRequest: a field is missing, unknown, or not what it should be.
    """
    files = [item for item in form.getlist("file") if isinstance(item, UploadFile)]
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    unknown = {*form.keys()} - FORM_FIELDS
    if unknown or not files:
        raise InvalidRequest("a form has the fields collection, file, id, title and metadata")
    documents: list[dict[str, Any]] = []
    for file in files:
        content = base64.b64encode(await file.read()).decode("ascii")
        documents.append({"file": {"filename": file.filename or "", "content_base64": content}})
    described: dict[str, Any] = {name: fields[name] for name in ("id", "title") if name in fields}
    if "metadata" in fields:
        described["metadata"] = parse(fields["metadata"].encode(), max_depth)
    if described and len(documents) > 1:
        raise InvalidRequest("id, title and metadata are for a form with a single file")
    documents[0] |= described
    collection = fields.get("collection")
    return validated({"collection": collection, "documents": documents}, IndexRequest)
