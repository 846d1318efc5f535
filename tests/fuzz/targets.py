"""Our own parsers of what strangers send, each as a function that a fuzzer calls with bytes.

Each lets pass what the parser may raise, and asserts what must hold of what it accepts.
"""

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deployments.errors import InvalidRequest, Unauthenticated
from deployments.ingress.auth import MAX_KEY_CHARS, bearer_of
from deployments.ingress.dify.filters import filter_of
from deployments.ingress.peer import FORWARDED, PEER, Peers, is_in, parsed
from deployments.ingress.schemas.audit import ID_PATTERN, id_of, position_of
from deployments.ingress.schemas.dify import DifyMetadataCondition
from deployments.stores.content import is_collection_name, is_document_id
from deployments.stores.filters import check_filter
from deployments.stores.grants import networks
from deployments.stores.keys import BEARER
from deployments.stores.manifest import FILE, Damaged, Identity, check_identity, read_manifest
from deployments.stores.paths import check_path, path_of
from deployments.types import AllOf, AnyOf, Condition, MetadataFilter, Not

TRUSTED = networks(["10.0.0.0/8", "fd00::/8"])
PEERS = Peers("secret", TRUSTED)
MAX_NESTING = 100
FOLDER = Path(tempfile.mkdtemp(prefix="ragserve-fuzz-"))
IDENTITY = Identity("c", (0, 1), 0, 3, "m", "cosine", "flat", "fp32")


def forwarded(data: bytes) -> None:
    """`X-Forwarded-For` from a trusted proxy: no more than a hop that it says, or itself."""
    scope = {"headers": [(PEER, b"secret 10.0.0.1"), (FORWARDED, data)], "client": ("::1", 1)}
    address = PEERS.address_of(scope)
    said = {parsed(hop.strip()) for hop in data.decode("latin-1").split(",")}
    assert address in said or is_in(address, TRUSTED)


def peer(data: bytes) -> None:
    """The header that only the edge writes: without the secret the connection's end counts."""
    scope = {"headers": [(PEER, data), (FORWARDED, b"192.0.2.1")], "client": ("192.0.2.9", 1)}
    address = PEERS.address_of(scope)
    assert data.startswith(b"secret ") or data == b"secret" or str(address) == "192.0.2.9"


def authorization(data: bytes) -> None:
    """The bearer key of a request."""
    try:
        bearer = bearer_of({"headers": [(b"authorization", data)]})
    except Unauthenticated:
        return
    assert 0 < len(bearer) <= MAX_KEY_CHARS
    assert BEARER.fullmatch(bearer) is None or bearer.isascii()


def cursor(data: bytes) -> None:
    """Where the next page of the audit log begins."""
    text = data.decode("utf-8", "replace")
    if re.fullmatch(ID_PATTERN, text) is None:
        return
    position = position_of(text)
    assert position is None or position_of(id_of(position)) == position


def filters(data: bytes) -> None:
    """Metadata filters, as they come out of JSON: refused or small enough to be evaluated."""
    try:
        check_filter(_filter(json.loads(data), MAX_NESTING))
    except (ValueError, RecursionError, InvalidRequest):
        return


def dify(data: bytes) -> None:
    """Dify's metadata conditions."""
    try:
        found = filter_of(DifyMetadataCondition.model_validate_json(data))
        if found is not None:
            check_filter(found)
    except (ValidationError, InvalidRequest):
        return


def manifest(data: bytes) -> None:
    """The list of a snapshot's files: whole and of this collection, or damaged."""
    (FOLDER / FILE).write_bytes(data)
    try:
        check_identity(read_manifest(FOLDER), IDENTITY)
    except Damaged:
        return
    raise AssertionError("a manifest with its hash was guessed")


def ids(data: bytes) -> None:
    """Names of collections, and ids of documents."""
    text = data.decode("utf-8", "surrogatepass") if _is_utf8(data) else data.decode("latin-1")
    if is_document_id(text):
        text.encode("utf-8")
    try:
        tenant, name = check_path(text)
    except InvalidRequest:
        return
    assert path_of(tenant, name) == text
    assert is_collection_name(tenant)
    assert ".." not in (tenant, name)
    assert "/" not in name


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (forwarded, peer, authorization, cursor, filters, dify, manifest, ids)
}
SEEDS: dict[str, tuple[bytes, ...]] = {
    "forwarded": (b"192.0.2.1, 10.0.0.2", b"::ffff:192.0.2.1,fe80::1%eth0"),
    "peer": (b"secret 10.0.0.1", b"secret ::1"),
    "authorization": (b"Bearer rs_" + b"0" * 32 + b"_" + b"A" * 43, b"bearer  x"),
    "cursor": (b"1790000000000000-1-2",),
    "filters": (
        b'{"and": [{"field": "a", "op": "eq", "value": 1}, {"not": {"field": "b", "op": "in", '
        b'"value": ["x", 2]}}]}',
        b'{"field": "a", "op": "before", "value": "2026-01-02T03:04:05.678Z"}',
    ),
    "dify": (
        b'{"logical_operator": "or", "conditions": [{"name": ["a", "b"], "comparison_operator": '
        b'"before", "value": "1790000000"}, {"name": ["c"], "comparison_operator": "in", '
        b'"value": "x, y"}]}',
    ),
    "manifest": (b'{"snapshot": {"format": 1, "files": {}}, "sha256": "00"}',),
    "ids": (b"acme/notes", b"notes", b"a/b/c", b"default/x"),
}


def _filter(given: Any, nesting: int) -> MetadataFilter:
    """Return a filter of the shape that JSON has; raises ValueError where it has none."""
    if not isinstance(given, dict) or nesting == 0:
        raise ValueError("no filter")
    for name, kind in (("and", AllOf), ("or", AnyOf)):
        if isinstance(given.get(name), list):
            return kind(tuple(_filter(one, nesting - 1) for one in given[name]))
    if "not" in given:
        return Not(_filter(given["not"], nesting - 1))
    operator: Any = given.get("op")
    return Condition(str(given.get("field")), operator, given.get("value"))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True
