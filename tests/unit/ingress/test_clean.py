"""`/v1/data/clean`, and cleaning on the way into a collection or into vectors: real children."""

import base64

import httpx
import pytest

from deployments.engines.extraction.child import extract_in_child
from deployments.ingress.app import build_app
from tests.unit.engines.extraction.documents import pdf, slides, with_member, word, workbook
from tests.unit.ingress.conftest import ARGS, UNTOUCHED, Build, FakeFactors, FakeKeys, in_process
from tests.unit.ingress.fake_graph import FakeGraph

FOX = "The quick brown fox jumps over the lazy dog near the old river bank at dawn."
ENTITIES = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>'


def file(content: bytes, filename: str) -> dict[str, str]:
    return {"filename": filename, "content_base64": base64.b64encode(content).decode()}


@pytest.fixture
async def client(graph: FakeGraph) -> httpx.AsyncClient:
    graph.stored["docs"] = {}
    app = build_app(
        graph, FakeKeys(), ARGS, extract=extract_in_child, factors=FakeFactors(), replays=UNTOUCHED
    )
    return in_process(app)


async def post(client: httpx.AsyncClient, route: str = "clean", **body: object) -> httpx.Response:
    return await client.post(f"/v1/data/{route}", json=body)


async def test_clean_returns_the_text_and_what_was_removed(client: httpx.AsyncClient) -> None:
    text = f"CafÃ©\x00 me@x.org.\n\n{FOX}\n\n\n{FOX}"
    response = await post(client, text=text, options={"redact": ["email"]})
    assert response.status_code == 200
    [one] = response.json()["data"]
    assert one["text"] == f"Café [EMAIL].\n\n{FOX}"
    assert one["num_characters_before"] == len(text)
    removed = one["removed"]
    assert removed["num_repaired_lines"] == removed["num_control_characters"] == 1
    assert removed["personal"] == {"email": 1}
    assert removed["redactions"] == [{"kind": "email", "start": 5, "end": 12}]
    [duplicate] = removed["duplicates"]
    assert one["text"][duplicate["start"] : duplicate["end"]] == FOX
    assert "me@x.org" not in response.text


async def test_clean_reads_every_kind_of_file(client: httpx.AsyncClient) -> None:
    page = f"<html><body><nav>Home Shop</nav><article><p>{FOX * 9}</p></article></body></html>"
    files = [
        file(pdf("a page"), "a.pdf"),
        file(word("a word"), "b.docx"),
        file(workbook(Sheet=[["a cell"]]), "c.xlsx"),
        file(slides(("A slide", "a line")), "d.pptx"),
        file(page.encode(), "e.html"),
        file(b"# a\n\nmark", "f.md"),
    ]
    body = (await post(client, files=files)).json()
    assert body["errors"] == []
    assert [one["text"] for one in body["data"]] == [
        *("a page", "a word", "# Sheet\na cell", "# A slide\n\na line", FOX * 9, "# a\n\nmark")
    ]
    assert [one["filename"] for one in body["data"]][2] == "c.xlsx"
    assert body["data"][4]["removed"]["num_boilerplate_characters"] == len("HomeShop")


async def test_clean_takes_html_as_text(client: httpx.AsyncClient) -> None:
    body = await post(client, text="<html><body><p>one</p><p>two</p></body></html>", format="html")
    assert body.json()["data"][0]["text"] == "one\ntwo"


async def test_clean_names_texts_that_repeat_an_earlier_one(client: httpx.AsyncClient) -> None:
    texts = [FOX, "other", " ", FOX + "  ", FOX.replace("dawn", "noon")]
    body = (await post(client, texts=texts)).json()
    assert [one["duplicate_of"] for one in body["data"]] == [
        *(None, None, {"kind": "exact", "index": 0, "similarity": 1.0}, None)
    ]
    assert [one["index"] for one in body["data"]] == [0, 1, 3, 4]
    assert body["errors"][0]["error"]["param"] == "texts[2]"
    near = (await post(client, texts=texts, options={"duplicates": "near"})).json()
    assert near["data"][3]["duplicate_of"]["kind"] == "near"


async def test_clean_reports_broken_files_one_by_one(client: httpx.AsyncClient) -> None:
    book = workbook(Sheet=[["a cell"]])
    broken = [
        (file(b"", "a.txt"), "no text"),
        (file(b" \n", "a.md"), "no text"),
        (file(pdf("x", encrypt="secret"), "a.pdf"), "encrypted"),
        (file(pdf("x")[:300], "a.pdf"), "damaged"),
        (file(with_member(book, "xl/worksheets/sheet1.xml", ENTITIES), "a.xlsx"), "entities"),
        (file(with_member(book, "xl/bomb.xml", bytes(50_000_000)), "a.xlsx"), "far more"),
        (file(with_member(word("x"), "word/vbaProject.bin", b"x"), "a.docm"), "macros"),
        (file(b"words", "a.pptx"), "damaged"),
        ({"filename": "a.txt", "content_base64": "!"}, "base64"),
    ]
    files = [one for one, _ in broken]
    response = await post(client, files=[*files, file(book, "good.xlsx")])
    body = response.json()
    assert (response.status_code, [one["index"] for one in body["data"]]) == (200, [len(broken)])
    for number, (error, (_, what)) in enumerate(zip(body["errors"], broken, strict=True)):
        assert error["index"] == number
        assert what in error["error"]["message"]
    alone = await post(client, files=files[2:3])
    assert (alone.status_code, alone.json()["error"]["code"]) == (422, "unreadable_document")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "text"),
        ({"text": "a", "texts": ["b"]}, 400, "text"),
        ({"text": ""}, 400, "text"),
        ({"text": " \n"}, 400, "text"),
        ({"text": "\u0007\ufeff"}, 422, "text"),
        ({"texts": []}, 400, "texts"),
        ({"text": "a", "format": "pdf"}, 400, "format"),
        ({"file": file(b"x", "a.txt"), "format": "html"}, 400, "format"),
        ({"text": "a", "options": {"unicode": "NFD"}}, 400, "options.unicode"),
        ({"text": "a", "options": {"redact": ["name"]}}, 400, "options.redact[0]"),
        ({"text": "a", "options": {"similarity": 0.1}}, 400, "options.similarity"),
        ({"text": "a", "options": {"phone_regions": ["ZZ"]}}, 400, "options.phone_regions[0]"),
        ({"text": "a", "options": {"magic": True}}, 400, "options.magic"),
        ({"text": "a", "options": {"encoding": 1}}, 400, "options.encoding"),
        ({"file": {"filename": "a\u0000b", "content_base64": ""}}, 400, "file.filename"),
    ],
)
async def test_clean_refuses_by_name(
    client: httpx.AsyncClient, body: dict[str, object], status: int, param: str
) -> None:
    response = await post(client, **body)
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)


async def test_clean_bounds_each_text_and_the_call(build: Build) -> None:
    async with in_process(build(max_document_bytes=1024, max_body_bytes=4096)) as client:
        body = (await post(client, texts=["a" * 1025, "fine"])).json()
        assert body["errors"][0]["error"]["code"] == "payload_too_large"
        assert body["data"][0]["text"] == "fine"
        assert (await post(client, text="a" * 5000)).status_code == 413


async def test_clean_takes_a_form(client: httpx.AsyncClient) -> None:
    files = [("file", ("a.docx", word("mail a@b.org"))), ("file", ("b.txt", b"plain"))]
    options = {"options": '{"redact": ["email"]}'}
    response = await client.post("/v1/data/clean", data=options, files=files)
    assert [one["text"] for one in response.json()["data"]] == ["mail [EMAIL]", "plain"]
    unknown = await client.post("/v1/data/clean", data={"collection": "docs"}, files=files)
    assert unknown.status_code == 400


async def test_index_stores_what_is_clean(client: httpx.AsyncClient, graph: FakeGraph) -> None:
    documents = [
        {"id": "d1", "text": f"{FOX}\n\nCafÃ©\n\n{FOX}", "title": "of a@b.org"},
        {"id": "d2", "file": file(workbook(S=[["a@b.org"]]), "mail.xlsx")},
        {"id": "d3", "text": "\ufeff\u0007"},
    ]
    response = await post(
        client, "index", collection="docs", documents=documents, clean={"redact": ["email"]}
    )
    body = response.json()
    assert [one["id"] for one in body["documents"]] == ["d1", "d2"]
    assert graph.stored["docs"]["d1"].text == f"{FOX}\n\nCafé"
    assert graph.stored["docs"]["d1"].title == "of [EMAIL]"
    assert graph.stored["docs"]["d2"].text == "# S\n[EMAIL]"
    assert [one["removed"]["num_duplicates"] for one in body["cleaned"]] == [1, 0]
    [error] = body["errors"]
    assert (error["id"], error["error"]["param"]) == ("d3", "documents[2]")


async def test_index_without_clean_stores_as_it_is(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    response = await post(
        client, "index", collection="docs", documents=[{"id": "d", "text": "CafÃ©  x "}]
    )
    assert "cleaned" not in response.json()
    assert graph.stored["docs"]["d"].text == "CafÃ©  x "


async def test_index_reports_each_malformed_document(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    documents = [
        {"text": "a", "id": "../x"},
        {"text": "a", "id": "a\u0001b"},
        {"text": " "},
        "none",
        {"id": "good", "text": "fine"},
        {"file": file(b"", "a.txt")},
    ]
    body = (await post(client, "index", collection="docs", documents=documents)).json()
    assert [one["id"] for one in body["documents"]] == ["good"]
    assert [one["error"]["param"] for one in body["errors"]] == [
        *("documents[0].id", "documents[1].id", "documents[2].text"),
        *("documents[3]", "documents[5]"),
    ]
    assert [*graph.stored["docs"]] == ["good"]


async def test_vectorize_cleans_and_overlaps_as_asked(
    client: httpx.AsyncClient, graph: FakeGraph
) -> None:
    body = (await post(client, "vectorize", texts=["CafÃ©  x "], overlap=7, clean={})).json()
    assert body["data"][0]["text"] == "Café x"
    assert body["data"][0]["segments"][0]["end"] == len("Café x")
    plain = (await post(client, "vectorize", texts=["a"])).json()
    assert "text" not in plain["data"][0]
    assert graph.overlaps == [7, None]
    for bad in (-1, 257, "7"):
        assert (await post(client, "vectorize", texts=["a"], overlap=bad)).status_code == 400
    empty = await post(client, "vectorize", texts=["a", "\ufeff\u0007"], clean={})
    assert (empty.status_code, empty.json()["error"]["param"]) == (422, "texts[1]")
