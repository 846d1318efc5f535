"""The lines of a batch's input: cut out of the file, checked, and what is wrong with them named.

Bodies are not held against the schema of their route: that does the route, for each line alone.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from deployments.errors import InvalidRequest
from deployments.ingress.generation import RAG_PREFIX
from deployments.ingress.json_body import parse
from deployments.stores.content import is_collection_name
from deployments.stores.paths import path_of
from deployments.types.batches import BatchLine, BatchState, LineFault

MAX_FAULTS = 100
"""Of a batch; whoever has more of them has one cause."""

MAX_ID_CHARS = 512
MEMBERS = ("custom_id", "method", "url", "body")
BOM = b"\xef\xbb\xbf"

Numbered = tuple[int, bytes | None]


@dataclass(frozen=True, slots=True)
class LineBounds:
    """How large an input may be."""

    max_lines: int
    max_line_bytes: int
    max_depth: int


def numbered(pieces: Iterable[bytes], max_line_bytes: int) -> Iterator[Numbered]:
    """Yield the lines of a file that are not blank, counted from 1; None: one is too long.

    Of a line that is too long no more is held than the limit and a piece.
    """
    rest, number, is_too_long, is_first = b"", 0, False, True
    for piece in pieces:
        start = piece.removeprefix(BOM) if is_first else piece
        is_first = False
        *whole, rest = (rest + start).split(b"\n")
        for line in whole:
            number += 1
            if is_too_long or len(line) > max_line_bytes:
                yield number, None
            elif line.strip():
                yield number, line.strip()
            is_too_long = False
        if len(rest) > max_line_bytes:
            rest, is_too_long = b"", True
    if is_too_long or len(rest) > max_line_bytes:
        yield number + 1, None
    elif rest.strip():
        yield number + 1, rest.strip()


def checked(
    batch: BatchState, lines: Iterable[Numbered], bounds: LineBounds
) -> tuple[list[BatchLine], list[LineFault]]:
    """Return the lines of an input, and what is wrong with it: one fault is enough to refuse it."""
    sound: list[BatchLine] = []
    faults: list[LineFault] = []
    known: set[str] = set()
    count = 0
    for number, raw in lines:
        count += 1
        if count > bounds.max_lines:
            message = f"the file has more than {bounds.max_lines} requests"
            return [], [LineFault("too_many_requests", message)]
        found = _checked(batch, number, raw, bounds)
        if isinstance(found, BatchLine) and found.custom_id in known:
            message = "another line has this `custom_id`"
            found = LineFault("duplicate_custom_id", message, "custom_id", number)
        if isinstance(found, LineFault):
            faults.append(found)
            if len(faults) >= MAX_FAULTS:
                return [], faults
            continue
        known.add(found.custom_id)
        sound.append(found)
    if not count:
        faults = [LineFault("empty_file", "the file holds no request")]
    return sound, faults


def _checked(
    batch: BatchState, number: int, raw: bytes | None, bounds: LineBounds
) -> BatchLine | LineFault:
    if raw is None:
        message = f"the line is longer than {bounds.max_line_bytes} bytes"
        return LineFault("line_too_long", message, None, number)
    try:
        value = parse(raw, bounds.max_depth)
    except InvalidRequest as error:
        message = error.message.replace("the body", "the line")
        return LineFault("invalid_json_line", message, None, number)
    fault = _fault_of(value, batch)
    if fault is not None:
        return LineFault(*fault, number)
    name = collection_of(value["body"])
    path = path_of(batch.tenant, name) if name else ""
    return BatchLine(number, value["custom_id"], path)


def _fault_of(value: Any, batch: BatchState) -> tuple[str, str, str | None] | None:
    """Return code, message and field of what is wrong with a line."""
    if not isinstance(value, dict):
        return "invalid_json_line", "the line is no object", None
    for name in MEMBERS:
        if name not in value:
            return "missing_required_parameter", f"`{name}` is missing", name
    unknown = next((name for name in value if name not in MEMBERS), None)
    if unknown is not None:
        return "unknown_parameter", "a line has no such member", unknown[:64]
    custom_id = value["custom_id"]
    is_id = isinstance(custom_id, str) and 0 < len(custom_id) <= MAX_ID_CHARS
    if not is_id or "\x00" in custom_id:
        message = f"must be text of 1 to {MAX_ID_CHARS} characters"
        return "invalid_custom_id", message, "custom_id"
    if value["method"] != "POST":
        return "invalid_method", "must be POST", "method"
    if value["url"] != batch.endpoint:
        return "invalid_url", f"must be the batch's endpoint, {batch.endpoint}", "url"
    if not isinstance(value["body"], dict):
        return "invalid_body", "must be an object", "body"
    if value["body"].get("stream"):
        return "stream_not_supported", "a batch has no streams", "body.stream"
    return None


def collection_of(body: dict[str, Any]) -> str:
    """Return the name of the collection that a request asks; empty: none."""
    retrieval, model = body.get("retrieval"), body.get("model")
    name = None
    if isinstance(retrieval, dict):
        name = retrieval.get("collection")
    elif isinstance(model, str) and model.startswith(RAG_PREFIX):
        name = model.removeprefix(RAG_PREFIX)
    return name if isinstance(name, str) and is_collection_name(name) else ""
