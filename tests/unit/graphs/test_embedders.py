from pathlib import Path
from typing import Any

import pytest
from ray import serve

from deployments.config import EmbedderArgs, RetrieverArgs
from deployments.errors import Conflict, InvalidRequest
from deployments.types import Document, Retrieval, SearchRequest
from graphs.args import RagArgs
from graphs.embedders import Embedders, embedder_name
from graphs.rag import build
from tests.unit.graphs.test_rag import answer, ask


class Handle:
    """A handle that is never called."""

    def options(self, **options: object) -> "Handle":
        return self


def test_model_that_does_not_run_here_is_refused() -> None:
    embedders = Embedders({"a": Handle(), "b": Handle()})
    assert (embedders.models, embedders.default) == (("a", "b"), "a")
    for call in (embedders.query, embedders.texts, embedders.documents):
        with pytest.raises(Conflict, match="c, does not run here"):
            call("c", ["text"])
        with pytest.raises(InvalidRequest, match="no embedding model") as caught:
            call("", ["text"])
        assert caught.value.param == "collection"


def test_deployments_name_holds_no_strange_character() -> None:
    assert embedder_name("BAAI/bge-m3:v1.5") == "Embedder-BAAI-bge-m3-v1.5"


def run(folder: Path, *further: str, default: str = "one") -> Any:
    def of(model: str) -> EmbedderArgs:
        return EmbedderArgs(model=model, engine="fake", fake_dim=16 if model == "two" else 64)

    args = RagArgs(
        generator={"model": "fake", "engine": "fake"},
        embedder=of(default),
        embedders=tuple(map(of, further)),
        retriever=RetrieverArgs(),
        answer={"min_score": 0.05},
    )
    return serve.run(build(args), _local_testing_mode=True)


def search(handle: Any, **options: Any) -> list[str]:
    request = SearchRequest(collection="t/docs", query="ferry to Skarro", **options)
    return [hit.document_id for hit in handle.search.remote(request).result(timeout_s=30)]


def test_collection_outlives_the_default_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGSERVE_STATE_DIR", str(tmp_path))
    documents = [
        Document(id="bread", text="Golden Crumb sells Nightloaf."),
        Document(id="ferry", text="The ferry to Skarro costs twelve dollars."),
    ]
    first = run(tmp_path)
    first.index.remote("t/docs", documents).result(timeout_s=30)
    second = run(tmp_path, "one", default="two")
    assert search(second, top_k=1) == search(second, top_k=1, mode="dense") == ["ferry"]
    second.index.remote("t/docs", [Document(id="new", text="Skarro")]).result(timeout_s=30)
    events = answer(second, ask("What does Golden Crumb sell?"), Retrieval("t/docs"))
    assert events[1].chunks[0].document_id == "bread"
    without = run(tmp_path, default="two")
    with pytest.raises(Conflict):
        search(without)
    assert "ferry" in search(without, mode="lexical")
