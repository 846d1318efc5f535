"""Reranking in the composed application in one process: with a cross-encoder, and without."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray import serve

from deployments.types import (
    Document,
    GenerationRequest,
    Message,
    Retrieval,
    SamplingParams,
    ScoredChunk,
    SearchRequest,
    Sources,
)
from graphs.rag import RagArgs, build
from graphs.reranking import num_candidates

ROOT = Path(__file__).resolve().parents[3]
FACTS = [
    Document(id="bread", text="Golden Crumb sells Nightloaf bread at the harbour."),
    Document(id="ferry", text="The ferry to Skarro costs twelve dollars."),
    Document(id="bikes", text="On the ferry bicycles travel free of charge."),
    Document(id="stars", text="Corvid photographs glaciers."),
]


@pytest.fixture(params=["cross-encoder", "late fusion"])
def handle(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("RAGSERVE_STATE_DIR", str(tmp_path))
    config = yaml.safe_load((ROOT / "configs/fake.yaml").read_text())
    args = config["applications"][0]["args"]
    assert args["reranker"]["engine"] == "fake"
    if request.param == "late fusion":
        args["reranker"] = None
    handle = serve.run(build(RagArgs.model_validate(args)), _local_testing_mode=True)
    handle.index.remote("docs", FACTS).result(timeout_s=30)
    return handle


def search(handle: Any, **fields: Any) -> list[ScoredChunk]:
    request = SearchRequest(collection="docs", **fields)
    found: list[ScoredChunk] = handle.search.remote(request, is_reranked=True).result(timeout_s=30)
    return found


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_search_reranks_candidates_and_cuts_them(handle: Any, mode: Any) -> None:
    found = search(handle, query="what costs the ferry to Skarro", mode=mode, top_k=2)
    assert found[0].document_id == "ferry"
    assert len(found) == 2
    for chunk in found:
        assert chunk.rerank_score == chunk.score
        assert 0 <= chunk.score <= 1
        assert chunk.cosine is not None
    assert found[0].score > found[1].score


def test_search_reranks_nothing(handle: Any) -> None:
    assert search(handle, query="ferry", min_score=0.999) == []


def test_answer_takes_the_reranked_passages(handle: Any) -> None:
    asked = GenerationRequest(
        request_id="r",
        messages=(Message("user", "what costs the ferry to Skarro"),),
        sampling=SamplingParams(max_tokens=8),
    )
    retrieval = Retrieval("docs", top_k=1, is_reranked=True)
    events = list(handle.options(stream=True).answer.remote(asked, retrieval))
    [sources] = [event for event in events if isinstance(event, Sources)]
    [chunk] = sources.chunks
    assert (chunk.document_id, chunk.rerank_score) == ("ferry", chunk.score)


@pytest.mark.parametrize(
    ("top_k", "expected"), [(1, 4), (10, 40), (25, 100), (30, 100), (200, 200)]
)
def test_candidates_are_bounded(top_k: int, expected: int) -> None:
    assert num_candidates(top_k) == expected
