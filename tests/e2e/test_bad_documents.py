"""Whatever document a client sends: named and refused, with nothing of it stored, and the good one
beside it is.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.unit.engines.extraction.documents import (
    archive,
    pdf,
    slides,
    with_member,
    word,
    workbook,
)

COLLECTION = "bad-documents"
DIM = 384
MEGABYTE = 1024 * 1024
PLANTED = "zyzzogeton"
"""A word of every bad document, and of nothing else."""

GOOD = {"id": "good", "text": "A ferry to Skarro costs twelve dollars."}
ZEROS = bytes(50_000_000)
LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
XML_BOMB = f'<!DOCTYPE a [<!ENTITY l0 "{PLANTED}">{LAUGHS}]><a>&l9;</a>'.encode()
BOOK = workbook(Sheet=[[PLANTED]])
SHOW = slides((PLANTED, PLANTED))


def file(data: bytes, name: str) -> dict[str, Any]:
    encoded = base64.b64encode(data).decode("ascii")
    return {"file": {"filename": name, "content_base64": encoded}}


def vector(*numbers: float) -> dict[str, Any]:
    return {"text": PLANTED, "vector": list(numbers)}


FILES = {
    "zip bomb in DOCX": file(with_member(word(PLANTED), "word/b.xml", ZEROS), "a.docx"),
    "zip bomb in XLSX": file(with_member(BOOK, "xl/b.xml", ZEROS), "a.xlsx"),
    "zip bomb in PPTX": file(with_member(SHOW, "ppt/media/b.png", ZEROS), "a.pptx"),
    "XML bomb in DOCX": file(with_member(word(PLANTED), "word/document.xml", XML_BOMB), "a.docx"),
    "XML bomb in XLSX": file(with_member(BOOK, "xl/worksheets/sheet1.xml", XML_BOMB), "a.xlsx"),
    "XML bomb in PPTX": file(with_member(SHOW, "ppt/slides/slide1.xml", XML_BOMB), "a.pptx"),
    "zip without a document": file(archive(content_xml=PLANTED.encode()), "a.docx"),
    "truncated DOCX": file(word(PLANTED)[:-200], "a.docx"),
    "encrypted PDF": file(pdf(PLANTED, encrypt="password"), "a.pdf"),
    "truncated PDF": file(pdf(PLANTED)[:400], "a.pdf"),
    "empty file": file(b"", "a.txt"),
    "program": file(b"\x7fELF" + PLANTED.encode(), "a.txt"),
}
OTHERS = {
    "text too long": ({"text": PLANTED + " x" * (8 * MEGABYTE)}, "payload_too_large"),
    "empty text": ({"text": ""}, "invalid_request"),
    "blank text": ({"text": " \n\t"}, "invalid_request"),
    "short vector": (vector(1.0, 2.0), "invalid_request"),
    "long vector": (vector(*[1.0] * (DIM + 1)), "invalid_request"),
    "zero vector": (vector(*[0.0] * DIM), "invalid_request"),
    "vector as text": ({"text": PLANTED, "vector": "1"}, "invalid_request"),
}
IDS = (
    "../x",
    "a/../b",
    "/etc/passwd",
    "a//b",
    "a\x00b",
    "a\nb",
    "a\x1b[2Jb",
    "\u202ea",
    "a\\b",
    "a\n",
)
IDS += ("x" * 201, "", " ", "\ud7ff\ue000")


@pytest.fixture(scope="module")
def collection(stack: Any) -> Iterator[str]:
    with stack.client() as client:
        body = {"name": COLLECTION}
        client.post("/v1/data/collections", json=body).raise_for_status()
        yield COLLECTION
        client.delete(f"/v1/data/collections/{COLLECTION}").raise_for_status()


def index(client: httpx.Client, bad: dict[str, Any]) -> dict[str, Any]:
    """Store a bad document beside a good one, and return the bad one's only error."""
    body = {"collection": COLLECTION, "documents": [{"id": "bad", **bad}, GOOD]}
    at_once = {"background": "false"}
    response = client.post("/v1/data/index", json=body, params=at_once)
    answer = response.raise_for_status().json()
    assert [stored["id"] for stored in answer["documents"]] == ["good"]
    [failure] = answer["errors"]
    error: dict[str, Any] = failure["error"]
    assert error["message"]
    assert error["param"].startswith("documents[0]")
    return error


def assert_only_the_good_one(client: httpx.Client) -> None:
    """Check by listing, by id and by search that nothing else is stored."""
    stored = client.get(f"/v1/data/collections/{COLLECTION}").raise_for_status().json()
    assert stored["num_documents"] == 1
    body = {"collection": COLLECTION, "query": PLANTED, "mode": "lexical"}
    assert search(client, body) == []
    assert search(client, body | {"query": "ferry Skarro"}) == ["good"]


def search(client: httpx.Client, body: dict[str, Any]) -> list[str]:
    found = client.post("/v1/data/search", json=body).raise_for_status().json()
    return [result["document_id"] for result in found["results"]]


def refused(client: httpx.Client, path: str, **request: Any) -> dict[str, Any]:
    response = client.post(path, **request)
    assert 400 <= response.status_code < 500, response.text[:300]
    error: dict[str, Any] = response.json()["error"]
    assert error["message"]
    return error


@pytest.mark.parametrize("name", FILES)
def test_unreadable_file_is_reported_and_the_rest_stored(
    name: str, collection: str, client: httpx.Client
) -> None:
    assert index(client, FILES[name])["code"] == "unreadable_document"
    assert_only_the_good_one(client)


@pytest.mark.parametrize("name", OTHERS)
def test_unusable_document_is_reported_and_the_rest_stored(
    name: str, collection: str, client: httpx.Client
) -> None:
    document, code = OTHERS[name]
    assert index(client, document)["code"] == code
    assert_only_the_good_one(client)


@pytest.mark.parametrize("document_id", IDS, ids=ascii)
def test_unusable_id_is_reported_and_the_rest_stored(
    document_id: str, collection: str, client: httpx.Client
) -> None:
    error = index(client, {"id": document_id, "text": PLANTED})
    assert (error["code"], error["param"]) == ("invalid_request", "documents[0].id")
    assert_only_the_good_one(client)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "null", '"1"'])
def test_vector_of_no_number_is_refused(number: str, collection: str, client: httpx.Client) -> None:
    """Some are no JSON, so that the whole call is none; the others are the document's error."""
    vector = f"[{', '.join([number, *['0.1'] * (DIM - 1)])}]"
    bad = f'{{"id": "bad", "text": "{PLANTED}", "vector": {vector}}}'
    body = f'{{"collection": "{COLLECTION}", "documents": [{json.dumps(GOOD)}, {bad}]}}'
    response = client.post("/v1/data/index", content=body)
    if response.status_code == 200:
        [failure] = response.json()["errors"]
        assert failure["error"]["param"].startswith("documents[1].vector")
    else:
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_request")
    asked = f'{{"collection": "{COLLECTION}", "mode": "dense", "vector": {vector}}}'
    assert refused(client, "/v1/data/search", content=asked)["code"] == "invalid_request"
    index(client, {"text": ""})
    assert_only_the_good_one(client)


def test_vector_too_large_for_its_length_is_usable_or_refused(
    collection: str, client: httpx.Client
) -> None:
    """Its sum of squares is infinite; what is stored is of unit length all the same."""
    for number in (1e38, 1e300):
        body = {"collection": COLLECTION, "documents": [vector(*[number] * DIM) | {"id": "large"}]}
        response = client.post("/v1/data/index", json=body)
        if response.status_code == 200:
            asked = {"collection": COLLECTION, "mode": "dense", "vector": [1.0] * DIM, "top_k": 1}
            [found] = client.post("/v1/data/search", json=asked).json()["results"]
            assert (found["document_id"], round(found["cosine"], 3)) == ("large", 1.0)
            path = f"/v1/data/documents/large?collection={COLLECTION}"
            client.delete(path).raise_for_status()
        else:
            assert response.status_code == 400
    index(client, {"text": ""})
    assert_only_the_good_one(client)


def test_document_of_fifty_megabytes_is_refused(collection: str, client: httpx.Client) -> None:
    index(client, {"text": ""})
    body = {"collection": COLLECTION, "documents": [{"text": f"{PLANTED} " * (5 * MEGABYTE)}]}
    assert refused(client, "/v1/data/index", json=body)["code"] == "payload_too_large"
    form = {"collection": COLLECTION}
    large = {"file": ("a.txt", f"{PLANTED} ".encode() * (5 * MEGABYTE))}
    error = refused(client, "/v1/data/index", data=form, files=large)
    assert error["code"] == "payload_too_large"
    assert_only_the_good_one(client)


@pytest.mark.parametrize("depth", [20, 31, 1000])
@pytest.mark.parametrize("operator", ["not", "and"])
def test_deep_filter_is_refused(
    depth: int, operator: str, collection: str, client: httpx.Client
) -> None:
    opened, closed = ('{"not": ', "}") if operator == "not" else ('{"and": [', "]}")
    leaf = '{"field": "a", "op": "exists"}'
    nested = opened * depth + leaf + closed * depth
    body = f'{{"collection": "{COLLECTION}", "query": "ferry", "filter": {nested}}}'
    assert refused(client, "/v1/data/search", content=body)["code"] == "invalid_request"
    retrieval = f'{{"collection": "{COLLECTION}", "filter": {nested}}}'
    body = f'{{"prompt": "ferry", "retrieval": {retrieval}}}'
    assert refused(client, "/v1/inference", content=body)["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("name", "unit"),
    [("a.html", "<!---->"), ("a.txt", "<!---->"), ("a.md", " #"), ("a.txt", "!"), ("a.txt", "\fa")],
)
def test_text_that_traps_patterns_is_read_at_once(
    name: str, unit: str, collection: str, client: httpx.Client
) -> None:
    """Before the patterns were repaired, the first two never ended; whatever comes is an answer."""
    content = f"# {PLANTED} {unit * (200_000 // len(unit))}x".encode()
    body = {"files": [file(content, name)["file"]]}
    response = client.post("/v1/data/clean", json=body)
    assert response.status_code < 500
