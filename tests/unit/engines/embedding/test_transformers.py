"""The real model: its vectors are those of sentence-transformers, in every precision."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from deployments.config import EmbedderArgs
from deployments.engines.embedding.bert import BertEncoder
from deployments.engines.embedding.encoder import PaddedEncoder, load_encoder
from deployments.engines.embedding.int8 import can_multiply
from deployments.engines.embedding.model_folder import ModelFolder, read_model_folder
from deployments.engines.embedding.transformers import TransformersEmbedder
from deployments.engines.texts.tokenizer import FastTokenizer
from deployments.engines.weights import locate
from deployments.errors import EngineFailed
from deployments.types import Vectors

pytestmark = pytest.mark.model

FOLDER = locate("embedded:all-minilm-l6-v2").folder
TEXTS = [
    "one",
    "A cat sat on the mat.",
    "Die Königin von England reist nach Köln. " * 8,
    "你好，世界。" * 20,
    "word " * 200,
    "two",
]


@pytest.fixture(scope="module")
def reference() -> Vectors:
    model = SentenceTransformer(str(FOLDER), device="cpu")
    return np.asarray(model.encode(TEXTS, show_progress_bar=False), np.float32)


def encode(encoder: BertEncoder | PaddedEncoder) -> Vectors:
    order = sorted(range(len(TEXTS)), key=lambda index: len(TEXTS[index].split()))
    ids = FastTokenizer(FOLDER).encode([TEXTS[index] for index in order])
    return encoder(ids)[np.argsort(order)]


@pytest.mark.parametrize(("precision", "far"), [("fp32", 1e-5), ("bf16", 1e-3), ("fp16", 1e-4)])
def test_bert_gives_the_vectors_of_sentence_transformers(
    reference: Vectors, precision: str, far: float
) -> None:
    encoder = load_encoder(read_model_folder(FOLDER), "cpu", precision)
    assert isinstance(encoder, BertEncoder)
    assert (1 - (encode(encoder) * reference).sum(axis=1)).max() < far


@pytest.mark.skipif(not can_multiply(), reason="needs AVX-512 VNNI")
def test_int8_gives_vectors_near_those_of_sentence_transformers(reference: Vectors) -> None:
    encoder = load_encoder(read_model_folder(FOLDER), "cpu", "int8")
    assert (1 - (encode(encoder) * reference).sum(axis=1)).max() < 5e-3


def test_int8_of_a_processor_that_lacks_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.engines.embedding.encoder.can_multiply", lambda: False)
    with pytest.raises(EngineFailed, match="int8"):
        load_encoder(read_model_folder(FOLDER), "cpu", "int8")


def test_padded_encoder_gives_the_vectors_of_sentence_transformers(reference: Vectors) -> None:
    encoder = PaddedEncoder(read_model_folder(FOLDER), torch.device("cpu"), torch.float32)
    assert encoder.dim == 384
    assert (1 - (encode(encoder) * reference).sum(axis=1)).max() < 1e-5


def test_cls_pooling_is_the_same_in_both_encoders(reference: Vectors) -> None:
    folder = ModelFolder(FOLDER, "cls", 256)
    packed = encode(load_encoder(folder, "cpu", "fp32"))
    padded = encode(PaddedEncoder(folder, torch.device("cpu"), torch.float32))
    np.testing.assert_allclose(packed, padded, atol=1e-5)
    assert (packed * reference).sum(axis=1).max() < 0.99


def test_encoder_of_a_device_that_is_not_there_is_refused() -> None:
    for device in ("cuda:99", "nonsense"):
        with pytest.raises(EngineFailed, match="device"):
            load_encoder(read_model_folder(FOLDER), device, "fp32")


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer.json", "config.json"])
async def test_folder_with_a_missing_file_fails_to_start(tmp_path: Path, missing: str) -> None:
    copy = Path(shutil.copytree(FOLDER, tmp_path / "model"))
    (copy / missing).unlink()
    engine = TransformersEmbedder(EmbedderArgs(source=str(copy)))
    with pytest.raises(EngineFailed) as caught:
        await engine.start()
    assert str(tmp_path) not in caught.value.message


async def test_folder_with_damaged_weights_fails_to_start(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(FOLDER, tmp_path / "model"))
    (copy / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(EngineFailed, match="does not load"):
        await TransformersEmbedder(EmbedderArgs(source=str(copy))).start()


async def test_local_folder_with_another_activation_is_loaded_by_transformers(
    tmp_path: Path,
) -> None:
    copy = Path(shutil.copytree(FOLDER, tmp_path / "model"))
    config: dict[str, Any] = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    engine = TransformersEmbedder(EmbedderArgs(source=str(copy), num_threads=1))
    await engine.start()
    vectors, _ = await engine.embed(["a", "b c"])
    assert vectors.shape == (2, 384)
    await engine.stop()
