"""Indexes many documents in parts, so that it shows how far it is, and loses little when it dies.

Indexing a document again changes nothing, so an attempt begins from the beginning.
"""

import re
from collections.abc import Iterator
from typing import Any

import orjson

from deployments.ingress.tasks.inner import InnerCalls
from deployments.ingress.tasks.jobs import Report, end_of
from deployments.types.tasks import Claim, TaskEnd, TaskProgress

PLACE = re.compile(r"\bdocuments\[(\d+)\]")
MAX_DOCUMENTS = 50
MAX_BYTES = 1024 * 1024
"""Of one part, as far as single documents are smaller."""


class IndexJob:
    """Asks `/v1/data/index` for one part after the other."""

    def __init__(self, calls: InnerCalls) -> None:
        self._calls = calls

    async def __call__(self, claim: Claim, report: Report) -> TaskEnd:
        """Do a task; raises as `Job`."""
        asked = orjson.loads(claim.body)
        documents = asked["documents"]
        merged: dict[str, Any] = {"collection": asked["collection"], "documents": [], "errors": []}
        first_error: dict[str, Any] | None = None
        done = 0
        for part in _parts(documents):
            body = orjson.dumps({**asked, "documents": part})
            answer = await self._calls.call(claim.key_id, claim.path, body)
            said = _placed(orjson.loads(answer.body), done)
            if "errors" not in said:  # the whole part was refused, not its documents
                return end_of(answer)
            _merge(merged, said)
            first_error = first_error or said.get("error")
            done += len(part)
            progress = TaskProgress(done, len(documents), len(merged["errors"]))
            if not await report(progress):
                break  # the attempt does not count; its end is not heard either
        if not merged["documents"] and first_error is not None:
            return TaskEnd(status="FAILED", error={**first_error, "request_id": None})
        return TaskEnd(status="COMPLETED", output=orjson.dumps(merged))


def _placed(said: dict[str, Any], first: int) -> dict[str, Any]:
    """Have errors name the place of a document among all, not in its part."""

    def shifted(match: re.Match[str]) -> str:
        return f"documents[{int(match[1]) + first}]"

    for error in (said.get("error"), *(one["error"] for one in said.get("errors", ()))):
        for name in ("param", "message"):
            if error is not None and error[name] is not None:
                error[name] = PLACE.sub(shifted, error[name])
    return said


def _merge(merged: dict[str, Any], said: dict[str, Any]) -> None:
    for name in ("documents", "errors", "cleaned"):
        if name in said:
            merged.setdefault(name, []).extend(said[name])


def _parts(documents: list[Any]) -> Iterator[list[Any]]:
    part: list[Any] = []
    size = 0
    for document in documents:
        length = len(orjson.dumps(document))
        if part and (len(part) == MAX_DOCUMENTS or size + length > MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(document)
        size += length
    yield part
