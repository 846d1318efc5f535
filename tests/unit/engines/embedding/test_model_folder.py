"""What is read from a model's folder, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from deployments.engines.embedding.model_folder import read_model_folder
from deployments.engines.weights import locate
from deployments.errors import EngineFailed


def folder(path: Path, **files: Any) -> Path:
    """Write `config`, `modules`, `pooling` and `sentence` as the files they stand for."""
    names = {
        "config": "config.json",
        "modules": "modules.json",
        "pooling": "1_Pooling/config.json",
        "sentence": "sentence_bert_config.json",
    }
    (path / "1_Pooling").mkdir()
    for key, content in {"config": {"max_position_embeddings": 512}, **files}.items():
        (path / names[key]).write_text(json.dumps(content))
    return path


MODULES = [
    {"type": "sentence_transformers.models.Transformer", "path": ""},
    {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
]


def test_folder_of_the_embedded_model_is_understood() -> None:
    found = read_model_folder(locate("embedded:all-minilm-l6-v2").folder)
    assert (found.pooling, found.max_tokens) == ("mean", 256)


@pytest.mark.parametrize(
    ("pooling", "mode"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_folder_names_its_pooling(tmp_path: Path, pooling: Any, mode: str) -> None:
    assert read_model_folder(folder(tmp_path, modules=MODULES, pooling=pooling)).pooling == mode


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        {"pooling_mode": "lasttoken"},
    ],
)
def test_folder_with_unknown_pooling_is_refused(tmp_path: Path, pooling: Any) -> None:
    with pytest.raises(EngineFailed, match="pools by"):
        read_model_folder(folder(tmp_path, modules=MODULES, pooling=pooling))


def test_folder_with_unknown_modules_is_refused(tmp_path: Path) -> None:
    dense = {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}
    with pytest.raises(EngineFailed, match="Dense"):
        read_model_folder(folder(tmp_path, modules=[*MODULES, dense]))


@pytest.mark.parametrize(
    ("positions", "sentence", "limit"),
    [(512, 256, 256), (8192, None, 512), (128, 512, 128), (8192, 8192, 512)],
)
def test_folder_limit_is_the_least_of_all(
    tmp_path: Path, positions: int, sentence: int | None, limit: int
) -> None:
    config = {"max_position_embeddings": positions}
    path = folder(tmp_path, config=config, sentence={"max_seq_length": sentence})
    assert read_model_folder(path).max_tokens == limit


def test_folder_that_lower_cases_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="lower-cases"):
        read_model_folder(folder(tmp_path, sentence={"do_lower_case": True}))


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="config.json"):
        read_model_folder(tmp_path)


def test_folder_with_broken_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[")
    with pytest.raises(EngineFailed, match="not JSON"):
        read_model_folder(tmp_path)
