"""B10: documents that give orders are data on their whole way through the graph, and back."""

import httpx

from tests.injections import documents
from tests.stack import Stack

COLLECTION = "injections"


def test_b10_documents_come_back_as_they_are_and_order_nothing(stack: Stack) -> None:
    given = {f"d{number}": text for number, text in enumerate(documents())}
    with stack.client() as client:
        rows = [{"id": id_, "text": text} for id_, text in given.items()]
        body = {"collection": COLLECTION, "documents": rows}
        indexed = client.post("/v1/data/index", json=body).raise_for_status().json()
        assert len(indexed["documents"]) == len(given)
        for text in given.values():
            _check(_asked(client, text), given)


def _asked(client: httpx.Client, question: str) -> httpx.Response:
    messages = [{"role": "user", "content": question}]
    body = {"model": f"rag/{COLLECTION}", "messages": messages, "max_tokens": 8}
    return client.post("/v1/chat/completions", json=body).raise_for_status()


def _check(answer: httpx.Response, given: dict[str, str]) -> None:
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    body = answer.json()
    (choice,) = body["choices"]
    assert choice["finish_reason"] in {"stop", "length"}
    assert set(choice["message"]) <= {"role", "content", "refusal"}, "no call of any tool"
    assert choice["message"]["role"] == "assistant"
    assert body["sources"]
    for source in body["sources"]:
        assert source["text"] in given[source["document_id"]]
