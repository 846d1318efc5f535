"""Documents on their way in: from a JSON body or a form, from text or files, to the graph.

A broken document is reported for itself and does not keep the others out.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from starlette.datastructures import FormData

from deployments.config import IngressArgs
from deployments.engines.cleaning.child import clean_in_child
from deployments.engines.cleaning.options import Cleaned, CleanOptions, Draft, Removed
from deployments.engines.extraction.document import Extracted
from deployments.errors import InvalidRequest, RagError
from deployments.ingress.json_body import validated
from deployments.ingress.native.files import FileReader, files_of, json_fields
from deployments.ingress.native.ready import document_text, ready_chunks
from deployments.ingress.schemas.data import IndexDocument, IndexRequest
from deployments.ingress.services import Extract
from deployments.stores.content import invalid
from deployments.stores.ids import new_id
from deployments.types import Document, VectorSpace

AskSpace = Callable[[], Awaitable[VectorSpace]]
"""Tells what the collection's vectors are; takes a call to the Retriever."""

FORM_FIELDS = frozenset({"collection", "id", "title", "metadata", "subject", "clean"})
TEXT_FIELDS = ("id", "title", "subject")


@dataclass(frozen=True, slots=True)
class Failure:
    """A document that could not be read, and why."""

    id: str | None
    filename: str | None
    error: RagError


@dataclass(slots=True)
class Intake:
    """The documents of one call: those that could be read, and the others.

    `removed` says what cleaning took out of each document, by id; None where nobody asked for it.
    """

    documents: list[Document] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    removed: dict[str, Removed] | None = None


@dataclass(frozen=True, slots=True)
class _Read:
    document: Document
    filename: str | None
    position: int
    num_boilerplate_characters: int


class DocumentReader:
    """Turns what was sent into documents."""

    def __init__(self, extract: Extract, args: IngressArgs) -> None:
        self._files = FileReader(extract, args)
        self._max_documents = args.max_documents_per_call

    async def read(self, body: IndexRequest, ask_space: AskSpace) -> Intake:
        """Return the documents of a call, in order.

        Args:
            body: the call.
            ask_space: tells what vectors must be; called where documents bring theirs.

        Raises:
            InvalidRequest: there are more than one call may bring.
            Overloaded: too many callers wait to have texts cleaned.
        """
        if len(body.documents) > self._max_documents:
            message = f"more than {self._max_documents} documents in one call"
            raise invalid(message, "documents")
        raw, is_cleaned = enumerate(body.raw_documents), body.clean is not None
        space = await ask_space() if _brings_vectors(body) else None
        results = await asyncio.gather(
            *(self._read(one, position, space, is_cleaned) for position, one in raw)
        )
        removed: dict[str, Removed] | None = None
        if body.clean is not None:
            removed = {}
            results = await _clean(results, body.clean.options(), removed)
        return Intake(
            [result.document for result in results if isinstance(result, _Read)],
            [result for result in results if isinstance(result, Failure)],
            removed,
        )

    async def _read(
        self, raw: Any, position: int, space: VectorSpace | None, is_cleaned: bool
    ) -> _Read | Failure:
        one: IndexDocument | None = None
        filename = None
        try:
            one = _validated(raw, position)
            filename = one.file.filename if one.file else None
            extracted = await self._content(one, position)
            embedded = None
            if one.is_ready and is_cleaned:
                raise InvalidRequest("texts with ready vectors cannot be cleaned")
            if space is not None and one.is_ready:
                embedded = ready_chunks(one, space, f"documents[{position}]")
            elif space is not None and not space.embedding_model:
                raise InvalidRequest("the collection has no embedding model: bring vectors")
        except RagError as error:
            error.param = error.param or f"documents[{position}]"
            return Failure(one.id if one else None, filename, error)
        document = Document(
            id=one.id or new_id("doc"),
            text=extracted.text,
            title=one.title or extracted.title,
            metadata=dict(one.metadata or {}),
            subject=one.subject,
            embedded=embedded,
        )
        return _Read(document, filename, position, extracted.num_boilerplate_characters)

    async def _content(self, one: IndexDocument, position: int) -> Extracted:
        if one.file is None:
            return Extracted(self._files.checked(document_text(one)))
        extracted = await self._files.extracted(one.file, f"documents[{position}].file")
        title = extracted.title or PurePath(one.file.filename).name
        return replace(extracted, title=title)


def _brings_vectors(body: IndexRequest) -> bool:
    documents = (one for one in body.raw_documents if isinstance(one, dict))
    return any("vector" in one or "chunks" in one for one in documents)


def _validated(raw: Any, position: int) -> IndexDocument:
    try:
        return validated(raw, IndexDocument)
    except InvalidRequest as error:
        field_name = f".{error.param}" if error.param else ""
        error.param = f"documents[{position}]{field_name}"
        raise


async def _clean(
    results: list[_Read | Failure], options: CleanOptions, removed: dict[str, Removed]
) -> list[_Read | Failure]:
    """Return the results with each document cleaned, and put into `removed` what is gone."""
    documents = [result.document for result in results if isinstance(result, _Read)]
    drafts = [Draft(document.text, document.title) for document in documents]
    cleaned = iter(await clean_in_child(drafts, options))
    after: list[_Read | Failure] = []
    for result in results:
        if isinstance(result, Failure):
            after.append(result)
            continue
        clean, document = next(cleaned), result.document
        if isinstance(clean, Cleaned):
            clean.removed.num_boilerplate_characters = result.num_boilerplate_characters
            removed[document.id] = clean.removed
            document = replace(document, text=clean.text, title=clean.title)
            after.append(replace(result, document=document))
        else:
            clean.param = f"documents[{result.position}]"
            after.append(Failure(document.id, result.filename, clean))
    return after


async def from_form(form: FormData, max_depth: int) -> IndexRequest:
    """Return the same request from a form.

    Its fields are `collection`, `file` (once or more), `clean` (a JSON object), and for a single
    file `id`, `title`, `subject` and `metadata` (a JSON object).

    Raises:
        InvalidRequest: a field is missing, unknown, or not what it should be.
    """
    documents: list[dict[str, Any]] = [{"file": file} for file in await files_of(form, FORM_FIELDS)]
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    described: dict[str, Any] = {name: fields[name] for name in TEXT_FIELDS if name in fields}
    described |= json_fields(form, ("metadata",), max_depth)
    if described and len(documents) > 1:
        raise InvalidRequest("id, title, subject and metadata are for a form with a single file")
    documents[0] |= described
    body = {"collection": fields.get("collection"), "documents": documents}
    return validated(body | json_fields(form, ("clean",), max_depth), IndexRequest)
