"""Cross-encoders from folders: their scores are those of the plain model, and bad folders fail."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from deployments.config import RerankerArgs
from deployments.engines.reranking.engine import _Beside
from deployments.engines.reranking.transformers import FastPairTokenizer, TransformersReranker
from deployments.engines.texts.segmentation import Segmenter
from deployments.errors import EngineFailed
from tests.unit.engines.reranking.tiny import save_bert, save_roberta

QUERY = "which cat is grey?"
TEXTS = ["the cat is grey.", "dogs bark", "a cat", "grey grey grey", "0 1 2 3 4 5 6 7"]


def args(folder: Path, **options: object) -> RerankerArgs:
    return RerankerArgs.model_validate({"model": "t", "source": str(folder), **options})


def plain(folder: Path) -> list[float]:
    """Score with the library's own tokenizer and model, one pair at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    takes_kinds = model.config.type_vocab_size > 1
    scores = []
    for text in TEXTS:
        pair = tokenizer(QUERY, text, return_tensors="pt", return_token_type_ids=takes_kinds)
        with torch.inference_mode():
            scores.append(float(torch.sigmoid(model(**pair).logits[0, 0])))
    return scores


@pytest.mark.parametrize("save", [save_bert, save_roberta])
async def test_scores_are_those_of_the_plain_model(save: object, tmp_path: Path) -> None:
    folder = save(tmp_path)  # type: ignore[operator]
    engine = TransformersReranker(args(folder))
    await engine.start()
    assert engine.max_tokens == 64
    found = await engine.rerank(QUERY, TEXTS)
    assert found.scores == pytest.approx(plain(folder), abs=1e-5)
    assert len(set(found.scores)) == len(TEXTS)
    await engine.stop()


async def test_long_text_has_the_score_of_its_best_segment(tmp_path: Path) -> None:
    engine = TransformersReranker(args(save_bert(tmp_path), overlap_tokens=0))
    await engine.start()
    text = "".join(f"line {n} of many.\n\n" for n in range(40))
    beside = _Beside(FastPairTokenizer(tmp_path), num_special=3 + len(QUERY.replace(" ", "")))
    parts = Segmenter(beside, engine.max_tokens, 0).segment(text)
    apart = await engine.rerank(QUERY, [text[part.start : part.end] for part in parts])
    whole = await engine.rerank(QUERY, [text])
    assert len(parts) > 5
    assert whole.scores[0] == pytest.approx(max(apart.scores), abs=1e-6)
    assert whole.num_tokens == apart.num_tokens
    await engine.stop()


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer.json", "config.json"])
async def test_folder_with_a_missing_file_fails_to_start(tmp_path: Path, missing: str) -> None:
    folder = save_bert(tmp_path / "model")
    (folder / missing).unlink()
    with pytest.raises(EngineFailed) as caught:
        await TransformersReranker(args(folder)).start()
    assert str(tmp_path) not in caught.value.message


async def test_folder_of_a_plain_encoder_fails_to_start(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "model")
    encoder = AutoModelForSequenceClassification.from_pretrained(folder).bert
    shutil.rmtree(folder)
    save_bert(folder)
    encoder.save_pretrained(folder)
    with pytest.raises(EngineFailed, match="classifier"):
        await TransformersReranker(args(folder)).start()


async def test_model_with_several_outputs_fails_to_start(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="one output"):
        await TransformersReranker(args(save_bert(tmp_path, num_labels=3))).start()


async def test_model_of_a_device_that_is_not_there_fails_to_start(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="device"):
        await TransformersReranker(args(save_bert(tmp_path), device="cuda:99")).start()


async def test_damaged_weights_fail_to_start(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(EngineFailed, match="does not load"):
        await TransformersReranker(args(folder)).start()
