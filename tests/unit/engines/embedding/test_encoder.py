"""Precisions of an encoder on the processor: computed in, or refused with what there is."""

import pytest

from deployments.engines.embedding import encoder as module
from deployments.engines.embedding.encoder import load_encoder
from deployments.engines.embedding.model_folder import ModelFolder
from deployments.errors import EngineFailed
from tests.unit.engines.reranking.tiny import save_bert


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return ModelFolder(save_bert(tmp_path_factory.mktemp("encoder") / "bert"), "mean", 64)


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "fp16"])
def test_floats_are_computed_in_everywhere(
    folder: ModelFolder, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "can_multiply", lambda: False)
    vectors = load_encoder(folder, "cpu", precision)([[2, 5, 6, 3], [2, 7, 3]])
    assert vectors.shape == (2, 32)


def test_int8_is_refused_where_the_processor_lacks_it(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "can_multiply", lambda: False)
    with pytest.raises(EngineFailed, match="int8 needs.*can be computed here in: fp32, bf16, fp16"):
        load_encoder(folder, "cpu", "int8")


def test_device_that_is_not_there_is_refused(folder: ModelFolder) -> None:
    with pytest.raises(EngineFailed, match="'cuda:9' is not available"):
        load_encoder(folder, "cuda:9", "fp32")
