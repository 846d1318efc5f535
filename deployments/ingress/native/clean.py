"""`/v1/data/clean`: texts and files in, clean text out, with what was removed. None is stored."""

import asyncio
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.datastructures import FormData

from deployments.engines.cleaning.child import clean_in_child, compare_in_child
from deployments.engines.cleaning.options import Cleaned, CleanOptions, Draft
from deployments.engines.extraction.document import Extracted
from deployments.errors import RagError
from deployments.ingress.access import guarded
from deployments.ingress.errors import error_object
from deployments.ingress.generation import too_late
from deployments.ingress.json_body import validated
from deployments.ingress.native.files import FileReader, files_of, json_fields, read_body
from deployments.ingress.openapi import describe
from deployments.ingress.schemas.cleaned import CleanResult
from deployments.ingress.schemas.cleaning import CleanRequest
from deployments.ingress.schemas.files import File
from deployments.ingress.services import Services, json_response
from deployments.stores.content import invalid

FORM_FIELDS = frozenset({"options"})


@dataclass(slots=True)
class _Item:
    """One text of a call on its way; it ends with `cleaned` or with `error`."""

    index: int
    param: str
    content: str | File
    extracted: Extracted | None = None
    cleaned: Cleaned | None = None
    error: RagError | None = None

    @property
    def filename(self) -> str | None:
        return self.content.filename if isinstance(self.content, File) else None


def clean_router(services: Services) -> APIRouter:
    """Return the route that cleans texts and files."""
    router = guarded(tags=["Data"])
    reader = FileReader(services.extract, services.args)
    described = describe("clean", CleanRequest, CleanResult, errors=(422,))

    @router.post("/v1/data/clean", **described)
    async def clean(request: Request) -> Response:
        """Return clean text, and what was removed; nothing is stored.

        Also as `multipart/form-data` with the field `file` (once or more) and `options` (JSON).
        A text that cannot be read is reported in `errors`; when none can, the status is that of
        the first error. Whole texts that repeat an earlier one stay, with `duplicate_of`.
        """
        body = await read_body(services, request, CleanRequest, _from_form)
        contents = enumerate(body.contents())
        items = [_Item(index, param, content) for index, (param, content) in contents]
        try:
            async with asyncio.timeout(services.args.request_timeout_s):
                is_html = body.format == "html"
                await asyncio.gather(*(_extract(reader, item, is_html) for item in items))
                await _clean(items, body.options.options())
                data = await _described(items, body.options.options())
        except TimeoutError:
            raise too_late() from None
        return _answer(items, data, request.state.request_id)

    return router


async def _extract(reader: FileReader, item: _Item, is_html: bool) -> None:
    try:
        if isinstance(item.content, File):
            item.extracted = await reader.extracted(item.content, item.param)
        elif not item.content.strip():
            raise invalid("the text is blank", item.param)
        elif is_html:
            item.extracted = await reader.of_html(item.content)
        else:
            item.extracted = Extracted(reader.checked(item.content))
    except RagError as error:
        error.param = error.param or item.param
        item.error = error


async def _clean(items: list[_Item], options: CleanOptions) -> None:
    readable = [(item, item.extracted) for item in items if item.extracted is not None]
    drafts = [Draft(extracted.text, extracted.title) for _, extracted in readable]
    results = await clean_in_child(drafts, options)
    for (item, extracted), result in zip(readable, results, strict=True):
        if isinstance(result, Cleaned):
            result.removed.num_boilerplate_characters = extracted.num_boilerplate_characters
            item.cleaned = result
        else:
            result.param = item.param
            item.error = result


async def _described(items: list[_Item], options: CleanOptions) -> list[dict[str, Any]]:
    """Return the answer's entries of what could be cleaned."""
    done = [(item, item.cleaned) for item in items if item.cleaned is not None]
    matches = await compare_in_child([cleaned.text for _, cleaned in done], options)
    return [
        {
            "index": item.index,
            "filename": item.filename,
            "title": cleaned.title,
            "text": cleaned.text,
            "num_characters_before": len(item.extracted.text) if item.extracted else 0,
            "removed": cleaned.removed,
            "duplicate_of": match
            and {
                "kind": match.kind,
                "index": done[match.index][0].index,
                "similarity": match.similarity,
            },
        }
        for (item, cleaned), match in zip(done, matches, strict=True)
    ]


def _answer(items: list[_Item], data: list[dict[str, Any]], request_id: str) -> Response:
    failed = [(item, item.error) for item in items if item.error is not None]
    errors = [
        {
            "index": item.index,
            "filename": item.filename,
            "error": error_object(error, request_id),
        }
        for item, error in failed
    ]
    if data:
        return json_response({"data": data, "errors": errors})
    first = failed[0][1]
    return json_response({"error": error_object(first, request_id), "errors": errors}, first.status)


async def _from_form(form: FormData, max_depth: int) -> CleanRequest:
    files = await files_of(form, FORM_FIELDS)
    return validated({"files": files, **json_fields(form, ("options",), max_depth)}, CleanRequest)
