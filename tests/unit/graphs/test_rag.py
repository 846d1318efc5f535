"""The composed application in one process, as builders run it: no cluster, fake engines."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ray import serve

from deployments.errors import CollectionNotFound
from deployments.types import (
    Condition,
    Delta,
    Document,
    EmbeddedText,
    Finished,
    GenerationRequest,
    Message,
    PromptAccepted,
    Retrieval,
    SamplingParams,
    SearchRequest,
    Segment,
    Sources,
)
from graphs.prompt import UNKNOWN
from graphs.rag import RagArgs, build

DIM = 64
"""Of the fake embedding engine's vectors."""

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def handle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("RAGSERVE_STATE_DIR", str(tmp_path))
    config = yaml.safe_load((ROOT / "configs/fake.yaml").read_text())
    args = config["applications"][0]["args"] | {"answer": {"min_score": 0.05}}
    return serve.run(build(RagArgs.model_validate(args)), _local_testing_mode=True)


def ask(question: str, **options: Any) -> GenerationRequest:
    sampling = SamplingParams(max_tokens=500)
    messages = (Message("user", question),)
    return GenerationRequest(request_id="r", messages=messages, sampling=sampling, **options)


def answer(handle: Any, request: GenerationRequest, retrieval: Retrieval) -> list[Any]:
    return list(handle.options(stream=True).answer.remote(request, retrieval))


@pytest.fixture
def stored(handle: Any) -> Any:
    documents = [
        Document(id="bread", text="Golden Crumb sells Nightloaf."),
        Document(id="ferry", text="The ferry to Skarro costs twelve dollars."),
    ]
    handle.index.remote("docs", documents).result(timeout_s=30)
    return handle


def test_answer_names_its_sources_before_its_text(stored: Any) -> None:
    events = answer(stored, ask("What does Golden Crumb sell?"), Retrieval("docs"))
    assert isinstance(events[0], PromptAccepted)
    assert isinstance(events[1], Sources)
    assert events[1].chunks[0].document_id == "bread"
    assert events[0].num_passages == len(events[1].chunks)
    assert isinstance(events[-1], Finished)
    text = "".join(event.text for event in events if isinstance(event, Delta))
    assert "Nightloaf" in text


def test_whole_answer_is_the_streamed_one_at_once(stored: Any) -> None:
    streamed = answer(stored, ask("What does Golden Crumb sell?", n=2), Retrieval("docs"))
    request = ask("What does Golden Crumb sell?", n=2, is_streamed=False)
    whole = answer(stored, request, Retrieval("docs"))
    assert whole[:2] == streamed[:2]
    for index in range(2):
        text = "".join(e.text for e in streamed if isinstance(e, Delta) and e.index == index)
        assert [e.text for e in whole if isinstance(e, Delta) and e.index == index] == [text]
    ends = [[e for e in events if isinstance(e, Finished)] for events in (whole, streamed)]
    assert sorted(ends[0], key=repr) == sorted(ends[1], key=repr)


def test_nothing_relevant_asks_no_model(stored: Any) -> None:
    events = answer(stored, ask("Golden Crumb?", n=2), Retrieval("docs", min_score=0.99))
    assert events[0] == PromptAccepted(0)
    assert events[1] == Sources(())
    assert [event.text for event in events if isinstance(event, Delta)] == [UNKNOWN, UNKNOWN]
    assert [event.index for event in events if isinstance(event, Finished)] == [0, 1]


def test_search_in_every_mode(stored: Any) -> None:
    for mode in ("dense", "lexical", "hybrid"):
        request = SearchRequest(collection="docs", query="ferry to Skarro", mode=mode, top_k=1)
        (hit,) = stored.search.remote(request).result(timeout_s=30)
        assert hit.document_id == "ferry"


def test_error_keeps_its_type(handle: Any) -> None:
    request = SearchRequest(collection="no-such", query="x")
    with pytest.raises(CollectionNotFound):
        handle.search.remote(request).result(timeout_s=30)


def test_ready_vectors_are_stored_and_searched_as_they_are(stored: Any) -> None:
    vectors = np.eye(2, DIM, dtype=np.float32)
    ready = [
        Document(
            id=str(i), text="axis", embedded=EmbeddedText((Segment(0, 4, 0),), vectors[i:][:1])
        )
        for i in range(2)
    ]
    documents = [ready[0], Document(id="text", text="The harbour opens at nine."), ready[1]]
    indexed = stored.index.remote("docs", documents).result(timeout_s=30)
    assert [(one.id, one.status) for one in indexed] == [
        ("0", "created"),
        ("text", "created"),
        ("1", "created"),
    ]
    request = SearchRequest(
        collection="docs", vector=tuple(vectors[1].tolist()), mode="dense", min_score=0.9
    )
    (hit,) = stored.search.remote(request).result(timeout_s=30)
    assert (hit.document_id, hit.score) == ("1", 1.0)
    request = SearchRequest(collection="docs", query="harbour opens", top_k=1)
    assert stored.search.remote(request).result(timeout_s=30)[0].document_id == "text"


def test_filter_bounds_an_answers_sources(stored: Any) -> None:
    only = Retrieval("docs", min_score=-1.0, top_k=5, filter=Condition("_id", "eq", "ferry"))
    events = answer(stored, ask("What does Golden Crumb sell?"), only)
    assert [chunk.document_id for chunk in events[1].chunks] == ["ferry"]


def test_reranked_pages_follow_each_other(stored: Any) -> None:
    def find(**options: Any) -> list[str]:
        request = SearchRequest(collection="docs", query="ferry to Skarro", **options)
        hits = stored.search.remote(request, is_reranked=True).result(timeout_s=30)
        return [hit.document_id for hit in hits]

    both = find(top_k=2)
    assert len(set(both)) == 2
    assert find(top_k=1) + find(top_k=1, offset=1) == both
