"""Search finds what was asked for, and hybrid search no less than the better of the other two.

A fixed part of the labelled sets of `tests/bench/quality.py`, through the whole installation.
"""

import math
from collections.abc import Iterator

import httpx
import pytest

from tests.bench.labelled.facts import facts
from tests.bench.labelled.questions import LabelledSet, Question, documentation, right_chunks
from tests.stack import Stack

EVERY = 5
"""One question in so many is asked."""

LEAST_NDCG = 0.80
LEAST_RECALL = 0.92

Judged = list[tuple[Question, set[int]]]


def sets() -> list[LabelledSet]:
    return [documentation(), facts()]


@pytest.fixture(scope="module")
def collections(stack: Stack) -> Iterator[None]:
    with stack.client() as client:
        for one in sets():
            documents = [{"id": d.id, "text": d.text, "title": d.title} for d in one.documents]
            body = {"collection": f"quality-{one.name}", "documents": documents}
            client.post("/v1/data/index", json=body).raise_for_status()
        yield
        for one in sets():
            path = f"/v1/data/collections/quality-{one.name}"
            client.delete(path).raise_for_status()


def test_hybrid_search_is_no_worse_than_the_better_of_its_parts(
    collections: None, client: httpx.Client
) -> None:
    ndcg = {mode: measured(client, mode)[0] for mode in ("dense", "lexical", "hybrid")}
    assert ndcg["hybrid"] >= max(ndcg["dense"], ndcg["lexical"]), ndcg


def test_hybrid_search_finds_what_was_asked_for(collections: None, client: httpx.Client) -> None:
    ndcg, recall = measured(client, "hybrid")
    assert ndcg >= LEAST_NDCG
    assert recall >= LEAST_RECALL


def test_every_labelled_answer_stands_in_its_document() -> None:
    for one in sets():
        one.check()


def measured(client: httpx.Client, mode: str) -> tuple[float, float]:
    """Return nDCG@10 and recall@10 over the questions asked."""
    figures = []
    for one in sets():
        texts = {document.id: document.text for document in one.documents}
        for question in one.questions[::EVERY]:
            found = search(client, f"quality-{one.name}", question.text, mode)
            figures.append(judged(question, texts[question.document_id], found))
    ndcg, recall = zip(*figures, strict=True)
    return sum(ndcg) / len(ndcg), sum(recall) / len(recall)


def search(
    client: httpx.Client, collection: str, query: str, mode: str
) -> list[tuple[str, int, int]]:
    body = {"collection": collection, "query": query, "mode": mode}
    found = client.post("/v1/data/search", json=body).raise_for_status().json()["results"]
    return [(result["document_id"], result["start"], result["end"]) for result in found]


def judged(question: Question, text: str, found: list[tuple[str, int, int]]) -> tuple[float, float]:
    """Return one question's nDCG and recall; right is what the bench calls right."""
    spans = [(start, end) for document, start, end in found if document == question.document_id]
    right = right_chunks(question, text, spans)
    gains = [
        1 / math.log2(rank + 1)
        for rank, (document, start, _) in enumerate(found, start=1)
        if document == question.document_id and start in right
    ]
    num_right = max(len(gains), 1)
    best = sum(1 / math.log2(rank + 1) for rank in range(1, num_right + 1))
    return sum(gains) / best, min(len(gains), 1)
